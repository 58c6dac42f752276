//! What goes by the transactional id while the topics are ours: one thing after the other.

use std::sync::Arc;

use tokio::sync::{Mutex, oneshot};

use super::{Done, Driver};
use crate::{
    lsn::Lsn,
    sink::kafka::{
        error::Error,
        producer::{
            claim::{Claim, Identities},
            group::Group,
            note::Found,
            taking::Taker,
        },
    },
};

/// One transaction at a time: whoever has one holds it.
pub(super) type Shared = Arc<Mutex<Group>>;

pub(super) fn shared(
    taker: Taker,
    identities: Identities,
    usable: bool,
    topics: Vec<(Arc<str>, Option<u128>)>,
) -> Shared {
    Arc::new(Mutex::new(Group::new(taker, identities, usable, topics)))
}

impl Driver {
    pub(super) fn taker_of(&mut self, claim: Arc<Claim>) -> Taker {
        let links = self.links.iter().map(|(&id, link)| (id, link.broker.clone())).collect();
        let (options, said) = (Arc::clone(&self.options), Arc::clone(&self.said));
        Taker::new(options, claim, self.candidates(), links, said)
    }

    pub(super) fn look(
        &mut self,
        claim: Claim,
        topics: Vec<Arc<str>>,
        reply: oneshot::Sender<Result<Found, Error>>,
    ) {
        let mut taker = self.taker_of(Arc::new(claim));
        self.push(async move {
            let _ = reply.send(taker.look(topics).await); // else nobody waits for it
            Done::Noted
        });
    }

    pub(super) fn note(
        &mut self,
        timeline: u32,
        position: Lsn,
        reply: oneshot::Sender<Result<bool, Error>>,
    ) {
        // Else the topics are not ours any more: the one who asks is told so by the next delivery.
        let Some(group) = self.group.clone() else { return };
        let candidates = self.candidates();
        self.push(async move {
            let mut group = group.lock().await;
            group.ask(candidates);
            let _ = reply.send(group.note(timeline, position).await); // else nobody waits for it
            Done::Noted
        });
    }
}
