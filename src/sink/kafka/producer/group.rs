//! The consumer group that keeps our position, and nobody ever joins.
//!
//! It bears the name of the transactional id, and is written in transactions of offsets alone: so
//! whoever was shut out cannot write there either, and the id does not expire. What was written
//! counts once it is read again: after a commit, brokers before 4 were seen to have lost it when a
//! fenced process had tried to write in between.
//!
//! **Must stay true.** One transaction of the id at a time: whoever fences, or writes here, holds the
//! [`Group`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::sleep;
use tracing::{debug, warn};

use super::{
    ask::{self, Candidate},
    claim::{Identities, Ours},
    note::Note,
    queue::Identity,
    taking::{Taker, fenced},
};
use crate::{
    failpoint,
    lsn::Lsn,
    sink::kafka::{
        broker::Broker,
        codes,
        error::{Error, Refusal},
        wire::{
            AddOffsetsToTxn, Call as _, CommittedOffset, CoordinatorOf, EndTxn, FetchedOffset,
            OffsetFetch, TxnOffsetCommit,
        },
    },
};

/// Until a transaction that was ended is over.
const PAUSE: Duration = Duration::from_millis(3);

/// How often that is waited for.
const PATIENCE: usize = 1000;

/// Everything that goes by the transactional id once the topics are ours.
pub(super) struct Group {
    taker: Taker,
    identities: Identities,
    /// Of the transactional id whose transactions have no data.
    identity: Identity,
    /// Those that get a note, by their ids.
    topics: BTreeMap<Arc<str>, Option<u128>>,
    /// Timeline and position of the last one.
    last: Option<(u32, Lsn)>,
    usable: bool,
}

impl Group {
    /// After the topics were taken: `topics` are those that may be written to.
    pub(super) fn new(
        mut taker: Taker,
        identities: Identities,
        usable: bool,
        topics: Vec<(Arc<str>, Option<u128>)>,
    ) -> Self {
        let topics = topics.into_iter().collect();
        taker.part();
        let identity = identities.fences.first().map_or(identities.data, |(_, first)| *first);
        Self { taker, identities, identity, topics, last: None, usable }
    }

    /// Whom to ask from now on.
    pub(super) fn ask(&mut self, candidates: Vec<Candidate>) {
        self.taker.candidates = candidates;
    }

    /// A topic that is met later: it is ours, and has a note before anything is written there.
    pub(super) async fn join(&mut self, topic: &Arc<str>) -> Result<Ours, Error> {
        let ours = self.taker.join(&self.identities, vec![Arc::clone(topic)]).await?;
        self.topics.extend(ours.ids.iter().cloned());
        if let Some((timeline, position)) = self.last {
            self.note(timeline, position).await?;
        }
        Ok(ours)
    }

    /// Notes a position, for as long as it takes. `false`: it cannot be noted at all.
    pub(super) async fn note(&mut self, timeline: u32, position: Lsn) -> Result<bool, Error> {
        self.last = Some((timeline, position));
        let Some(id) = self.taker.claim.transactional_id.clone() else { return Ok(false) };
        if !self.usable {
            return Ok(false);
        }
        let note = Note {
            timeline,
            position,
            producer: self.identity.id,
            epoch: self.identity.epoch,
            topics: self.topics.len(),
            source: self.taker.claim.source,
            topic: None,
        };
        let mut pauses = self.taker.pauses();
        // Without a topic there is nothing of ours that it could be held against.
        while !self.topics.is_empty() {
            match self.taker.keep(&id, self.identity, &self.topics, note).await {
                Ok(()) => break,
                Err(error) if cannot(&error) => {
                    self.taker.say(&error);
                    self.usable = false;
                    return Ok(false);
                }
                Err(error) => {
                    let what = "the position cannot be noted yet";
                    self.taker.again(&mut pauses, error, what).await?;
                }
            }
        }
        debug!(%position, timeline, topics = self.topics.len(), "noted");
        Ok(true)
    }
}

/// What only a person can mend.
fn cannot(error: &Error) -> bool {
    match error {
        Error::Version { .. } => true,
        Error::Refused(refusal) => {
            codes::is_right(refusal.code) || refusal.code == codes::OFFSET_METADATA_TOO_LARGE
        }
        _ => false,
    }
}

impl Taker {
    /// What the group keeps. `None`: it cannot be used. `stable`: once no transaction of it is open,
    /// which only a fence brings about soon if its process is dead.
    pub(super) async fn kept(
        &mut self,
        group: &Arc<str>,
        stable: bool,
    ) -> Result<Option<Vec<FetchedOffset>>, Error> {
        let mut pauses = self.pauses();
        loop {
            match self.offsets(group, stable).await {
                Ok(offsets) => return Ok(Some(offsets)),
                Err(error) if cannot(&error) => {
                    self.say(&error);
                    return Ok(None);
                }
                Err(error) => {
                    let what = "what is kept of earlier positions cannot be read yet";
                    self.again(&mut pauses, error, what).await?;
                }
            }
        }
    }

    /// Said once: everything goes on without.
    fn say(&self, error: &Error) {
        if self.said.swap(true, std::sync::atomic::Ordering::Relaxed) {
            debug!("the group still cannot be used: {error}");
        } else {
            warn!(
                "gaps may go unnoticed, as positions cannot be noted in the consumer group: {error}"
            );
        }
    }

    async fn offsets(
        &mut self,
        group: &Arc<str>,
        stable: bool,
    ) -> Result<Vec<FetchedOffset>, Error> {
        let broker = self.groups(group).await?;
        let request = OffsetFetch { group: group.to_string(), require_stable: stable };
        for _ in 0..PATIENCE {
            let offsets = broker.offset_fetch(request.clone()).await?;
            if offsets.iter().all(|one| one.code != codes::UNSTABLE_OFFSET_COMMIT) {
                return Ok(offsets);
            }
            sleep(PAUSE).await;
        }
        Err(broker.refusal(OffsetFetch::NAME, codes::UNSTABLE_OFFSET_COMMIT).into())
    }

    /// One transaction, and whether it is there.
    async fn keep(
        &mut self,
        id: &Arc<str>,
        identity: Identity,
        topics: &BTreeMap<Arc<str>, Option<u128>>,
        note: Note,
    ) -> Result<(), Error> {
        let (transactions, groups) = (self.coordinator(id).await?, self.groups(id).await?);
        let (transactional_id, group) = (id.to_string(), id.to_string());
        let Identity { id: producer_id, epoch } = identity;
        let add = AddOffsetsToTxn { transactional_id, producer_id, epoch, group };
        fenced(&transactions, AddOffsetsToTxn::NAME, transactions.add_offsets_to_txn(add).await)?;
        failpoint::hit("offsets added");
        let text = |topic: &Arc<str>| {
            let id = topics.get(topic).copied().flatten();
            Note { topic: id, ..note }.to_string()
        };
        let offset = |topic: &Arc<str>| {
            let (topic, metadata) = (Arc::clone(topic), text(topic));
            CommittedOffset { topic, partition: 0, offset: 0, metadata }
        };
        let (transactional_id, group) = (id.to_string(), id.to_string());
        let offsets = topics.keys().map(offset).collect();
        let commit = TxnOffsetCommit { transactional_id, group, producer_id, epoch, offsets };
        let mut kept = BTreeSet::new();
        for one in groups.txn_offset_commit(commit).await? {
            match one.code {
                codes::NONE => drop(kept.insert(one.topic)),
                // Deleted by now, or not to be read: another topic has it.
                codes::UNKNOWN_TOPIC_OR_PARTITION | codes::TOPIC_AUTHORIZATION_FAILED => {}
                code => {
                    let group = Some(id.to_string());
                    let refusal = groups.refusal(TxnOffsetCommit::NAME, code);
                    let refusal = Refusal { group, ..refusal };
                    fenced(&groups, TxnOffsetCommit::NAME, Err(refusal.into()))?;
                }
            }
        }
        failpoint::hit("offsets in a transaction");
        let transactional_id = id.to_string();
        let end = EndTxn { transactional_id, producer_id, epoch, commit: true };
        fenced(&transactions, EndTxn::NAME, transactions.end_txn(end).await)?;
        failpoint::hit("offsets committed");
        for one in self.offsets(id, true).await? {
            if one.partition == 0 && one.metadata == text(&one.topic) {
                kept.remove(&one.topic);
            }
        }
        match kept.pop_first() {
            Some(topic) => Err(Error::NotKept { topic }),
            None => Ok(()),
        }
    }

    async fn groups(&mut self, group: &Arc<str>) -> Result<Broker, Error> {
        if let Some(broker) = self.groups.as_ref().filter(|broker| !broker.is_closed()) {
            return Ok(broker.clone());
        }
        let question =
            async |broker: Broker| broker.find_coordinator(CoordinatorOf::Group, group).await;
        let node = ask::any(self.candidates.clone(), &self.options, question).await?;
        let broker = self.link(&node).await?;
        Ok(self.groups.insert(broker).clone())
    }
}
