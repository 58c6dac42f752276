//! What goes by the transactional id while the topics are ours: one thing after the other.

use std::sync::Arc;

use tokio::sync::{Mutex, oneshot};

use super::{Done, Driver};
use crate::{
    lsn::Lsn,
    sink::kafka::{
        Options,
        error::Error,
        producer::{
            ask::{self, Candidate},
            claim::{Claim, Ours},
            group::Group,
            note::Found,
            queue::Identity,
            taking::Taker,
        },
        topics::Topic,
    },
};

/// One transaction at a time: whoever has one holds it.
pub(super) type Shared = Arc<Mutex<Group>>;

pub(super) fn shared(
    taker: Taker,
    identity: Identity,
    usable: bool,
    topics: Vec<(Arc<str>, Option<u128>)>,
) -> Shared {
    Arc::new(Mutex::new(Group::new(taker, identity, usable, topics)))
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

/// Looks a topic up, and takes it if the others are ours.
pub(super) async fn meet(
    candidates: Vec<Candidate>,
    options: &Options,
    name: &str,
    group: Option<Shared>,
) -> Result<(Topic, Option<Ours>), Error> {
    let topic = ask::topic(candidates.clone(), options, name).await?;
    let Some(group) = group else { return Ok((topic, None)) };
    let mut group = group.lock().await;
    group.ask(candidates);
    let ours = group.join(&Arc::from(name)).await?;
    Ok((topic, Some(ours)))
}
