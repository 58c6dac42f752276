//! The topics become ours: what was under way is given up, and nothing is sent until they are.

use std::sync::Arc;

use tokio::{sync::oneshot, time::Instant};

use super::{
    super::{
        claim::{Claim, Ours, Taken},
        taking::Taker,
    },
    Done, Driver, notes,
};
use crate::{
    sim::{Bug, planted},
    sink::kafka::error::Error,
};

impl Driver {
    /// Gives up what is under way, and makes every topic that was looked up ours.
    pub(super) fn take(
        &mut self,
        claim: Claim,
        generation: u64,
        reply: oneshot::Sender<Result<Taken, Error>>,
    ) {
        self.machine.give_up(Instant::now());
        self.publish();
        let kept = self.identities.take().filter(|_| planted(Bug::IdentityKept));
        (self.generation, self.group) = (generation, None);
        self.claim = Some(Arc::new(claim));
        let topics = self.machine.topic_names();
        let Some(mut taker) = self.taker().map(Box::new) else { return };
        self.push(async move {
            let result = match kept {
                Some(identities) => taker.join(&identities, topics).await,
                None => taker.take(topics).await,
            };
            Done::Taken { generation, taker, result, reply }
        });
    }

    pub(super) fn taker(&mut self) -> Option<Taker> {
        let claim = Arc::clone(self.claim.as_ref()?);
        Some(self.taker_of(claim))
    }

    pub(super) fn taken(
        &mut self,
        generation: u64,
        taker: Taker,
        result: Result<Ours, Error>,
        reply: oneshot::Sender<Result<Taken, Error>>,
    ) {
        if generation != self.generation {
            return; // another one has begun; nobody waits for this
        }
        let result = result.map(|ours| {
            let usable = ours.taken.found.notes.is_some();
            self.group = Some(notes::shared(taker, ours.identities.clone(), usable, ours.ids));
            self.machine.taken(self.data_id());
            self.machine.own(ours.identities.data, &ours.partitions);
            self.identities = Some(ours.identities);
            ours.taken
        });
        let _ = reply.send(result); // else nobody waits for it any more
    }
}
