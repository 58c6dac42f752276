//! Makes partitions ours: whoever wrote there before is shut out, and what is stored is read back.
//!
//! 1. `InitProducerId` of our transactional id: the same producer id as ever, under a higher epoch. And
//!    of the one whose transactions have data, so that whoever was here before is shut out in whichever
//!    mode it was: its open transaction is over then.
//! 2. A transaction without data over all partitions, aborted. It leaves a marker of that epoch in
//!    each, which no consumer sees. Once it stands below the high watermark nothing of an older epoch
//!    can be appended there, be it the late bytes of a dead process or a frozen one's.
//! 3. From the marker backwards, the names of our records ([`tail`](super::tail)).
//!
//! Measured against brokers 3.9 and 4.4: `InitProducerId` alone shuts out nobody; every step may
//! answer `CONCURRENT_TRANSACTIONS` (51) for some milliseconds and is then repeated.
//!
//! Steps 2 and 3 are `fence`'s.
//!
//! **Must stay true.** An identity is asked for once a taking, never in the middle of one's work:
//! whoever was shut out must not shut out its successor.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

mod epochs;
mod fence;
mod look;

pub(super) use fence::{add_partitions, end_transaction, fenced};

use super::{
    ask::{self, Candidate, Random, chain},
    claim::{Claim, Identities, Ours, Read, Taken},
    note::{Found, Kept, Note, Unsure},
    queue::Identity,
};
use crate::{
    retry::{Backoff, Disposition},
    sink::kafka::{
        Options,
        broker::Broker,
        codes,
        error::Error,
        metadata::{Metadata, Node},
        wire::{CoordinatorOf, FetchedOffset},
    },
    stored::Stored,
};

/// The first pause before a step is repeated: a marker is written in a few milliseconds.
const FIRST_PAUSE: Duration = Duration::from_millis(4);

/// As long as a marker should be there in a moment, a pause is no longer than this.
const BUSY_PAUSE: Duration = Duration::from_millis(8);

/// For so many attempts.
const SOON: u32 = 50;

/// What an entry of [`Stored`] takes, with its share of the tree.
const NAME_BYTES: usize = 64;

/// How brokers are reached while the topics are taken.
pub(super) struct Taker {
    pub(super) options: Arc<Options>,
    pub(super) claim: Arc<Claim>,
    pub(super) candidates: Vec<Candidate>,
    /// Connections, by broker.
    pub(super) links: BTreeMap<i32, Broker>,
    /// By transactional id.
    coordinators: BTreeMap<Arc<str>, Broker>,
    /// Of the group.
    pub(super) groups: Option<Broker>,
    /// Whether it was said that the group cannot be used.
    pub(super) said: Arc<AtomicBool>,
    random: Random,
}

impl Taker {
    pub(super) fn new(
        options: Arc<Options>,
        claim: Arc<Claim>,
        candidates: Vec<Candidate>,
        links: BTreeMap<i32, Broker>,
        said: Arc<AtomicBool>,
    ) -> Self {
        Self {
            options,
            claim,
            candidates,
            links,
            coordinators: BTreeMap::new(),
            groups: None,
            said,
            random: Random::new(),
        }
    }

    /// Connections of its own from now on, where nothing waits behind batches.
    pub(super) fn part(&mut self) {
        self.links.clear();
        self.coordinators.clear();
        self.groups = None;
    }

    /// Everything, from a new epoch on.
    pub(super) async fn take(&mut self, topics: Vec<Arc<str>>) -> Result<Ours, Error> {
        let Some((id, identities)) = self.identities().await? else {
            return self.plain(&topics).await;
        };
        let kept = self.kept(&id, true).await?.map(notes);
        let mut ours = self.join(&identities, topics.clone()).await?;
        // Where we wrote before, and may not from now on.
        let mut others: BTreeSet<_> = kept.iter().flatten().map(|one| &one.topic).collect();
        others.retain(|topic| !topics.contains(topic));
        let mut ids = ours.ids.clone();
        if !others.is_empty() {
            match self.join(&identities, others.into_iter().cloned().collect()).await {
                Ok(theirs) => {
                    ids.extend(theirs.ids);
                    ours.taken.add(theirs.taken);
                }
                Err(error) if matches!(error.disposition(), Disposition::Halt(_)) => {
                    info!("topics of earlier are not read back: {}", chain(&error));
                    ours.taken.found.unsure.get_or_insert(Unsure::NotRead);
                }
                Err(error) => return Err(error),
            }
        }
        let is_there = |one: &Kept| {
            let now = ids.iter().find(|(topic, _)| *topic == one.topic);
            now.is_some_and(|(_, id)| {
                id.is_none() || one.note.topic.is_none_or(|old| *id == Some(old))
            })
        };
        ours.taken.found.notes = kept.map(|kept| {
            kept.into_iter().map(|one| Kept { gone: !is_there(&one), ..one }).collect()
        });
        Ok(ours)
    }

    /// The same for topics that are met later, in the epoch that is ours already.
    pub(super) async fn join(
        &mut self,
        identities: &Identities,
        topics: Vec<Arc<str>>,
    ) -> Result<Ours, Error> {
        if identities.fences.is_empty() {
            let partitions = self.partitions(&topics).await?;
            return Ok(self.unread(identities.clone(), partitions));
        }
        let (begin, mut pauses) = (Instant::now(), self.pauses());
        let ours = loop {
            match self.fence(identities, &topics).await {
                Ok(ours) => break ours,
                Err(error) => {
                    self.again(&mut pauses, error, "the topics cannot be taken yet").await?
                }
            }
        };
        let Taken { stored, read, .. } = &ours.taken;
        info!(
            partitions = read.partitions,
            bytes = read.bytes,
            requests = read.requests,
            stored = stored.len(),
            ms = begin.elapsed().as_millis(),
            "the topics are ours, and read back"
        );
        if read.cut > 0 || stored.refused() > 0 {
            warn!(
                partitions = read.cut,
                names = stored.refused(),
                "not all could be read back, see kafka.read_back: what is not confirmed is repeated"
            );
        }
        Ok(ours)
    }

    /// Under an id that shuts out nobody.
    async fn plain(&mut self, topics: &[Arc<str>]) -> Result<Ours, Error> {
        let mut pauses = self.pauses();
        loop {
            match self.plain_identity(topics).await {
                Ok((data, partitions)) => {
                    let identities = Identities { data, fences: Vec::new() };
                    return Ok(self.unread(identities, partitions));
                }
                Err(error) => self.again(&mut pauses, error, "no producer id yet").await?,
            }
        }
    }

    async fn plain_identity(
        &mut self,
        topics: &[Arc<str>],
    ) -> Result<(Identity, Vec<(Arc<str>, i32)>), Error> {
        let candidates = self.candidates.clone();
        let (id, epoch) = ask::any(candidates, &self.options, ask::producer_id).await?;
        Ok((Identity { id, epoch }, self.partitions(topics).await?))
    }

    fn unread(&self, identities: Identities, partitions: Vec<(Arc<str>, i32)>) -> Ours {
        let read = Read { partitions: partitions.len(), ..Read::default() };
        let producer = identities.fences.first().map_or(identities.data.id, |(_, first)| first.id);
        let found = Found { producer, unsure: Some(Unsure::NotRead), ..Found::default() };
        let taken = Taken { stored: self.empty(), read, found };
        Ours { identities, partitions, ids: Vec::new(), taken }
    }

    fn empty(&self) -> Stored {
        let (source, memory) = self.claim.read_back.map_or((0, 0), |w| (w.source, w.memory));
        Stored::new(source, memory / NAME_BYTES)
    }

    pub(super) fn pauses(&self) -> Backoff {
        Backoff::new(FIRST_PAUSE, self.options.retry_max)
    }

    /// A step failed: waits until it may be tried again, unless only a person or a new taking helps.
    pub(super) async fn again(
        &mut self,
        pauses: &mut Backoff,
        error: Error,
        what: &str,
    ) -> Result<(), Error> {
        let fenced = matches!(error, Error::Fenced { .. });
        if fenced || matches!(error.disposition(), Disposition::Halt(_)) {
            return Err(error);
        }
        let mut pause = pauses.next(self.random.next());
        // 51 for some milliseconds is the usual course of things.
        if pauses.attempts() == 8 {
            warn!("{what}, trying on: {}", chain(&error));
        } else {
            debug!("{what}, trying on: {}", chain(&error));
        }
        if error.code() == Some(codes::CONCURRENT_TRANSACTIONS) {
            if pauses.attempts() < SOON {
                pause = pause.min(BUSY_PAUSE);
            }
        } else {
            self.coordinators.clear();
            self.groups = None;
            self.links.retain(|_, link| !link.is_closed());
        }
        sleep(pause).await;
        Ok(())
    }

    pub(super) async fn coordinator(&mut self, id: &Arc<str>) -> Result<Broker, Error> {
        if let Some(broker) = self.coordinators.get(id).filter(|broker| !broker.is_closed()) {
            return Ok(broker.clone());
        }
        let question =
            async |broker: Broker| broker.find_coordinator(CoordinatorOf::Transaction, id).await;
        let node = ask::any(self.candidates.clone(), &self.options, question).await?;
        let broker = self.link(&node).await?;
        self.coordinators.insert(Arc::clone(id), broker.clone());
        Ok(broker)
    }

    pub(super) async fn link(&mut self, node: &Node) -> Result<Broker, Error> {
        if let Some(broker) = self.links.get(&node.id).filter(|broker| !broker.is_closed()) {
            return Ok(broker.clone());
        }
        let broker = Broker::connect(&node.host, node.port, &self.options).await?;
        self.links.insert(node.id, broker.clone());
        Ok(broker)
    }

    async fn metadata(&self, topics: &[Arc<str>]) -> Result<Metadata, Error> {
        let question = |broker| ask::metadata(broker, topics);
        ask::any(self.candidates.clone(), &self.options, question).await
    }

    async fn partitions(&self, topics: &[Arc<str>]) -> Result<Vec<(Arc<str>, i32)>, Error> {
        let metadata = self.metadata(topics).await?;
        let of = |topic: &crate::sink::kafka::metadata::TopicMetadata| {
            let name = Arc::clone(&topic.name);
            topic.partitions.iter().map(move |p| (Arc::clone(&name), p.index)).collect::<Vec<_>>()
        };
        Ok(metadata.topics.iter().flat_map(of).collect())
    }
}

/// Those of offsets that bear one.
fn notes(offsets: Vec<FetchedOffset>) -> Vec<Kept> {
    let kept = |one: FetchedOffset| {
        let note = Note::parse(&one.metadata)?;
        Some(Kept { topic: one.topic, note, gone: false })
    };
    offsets.into_iter().filter_map(kept).collect()
}
