//! Makes partitions ours: whoever wrote there before is shut out, and what is stored is read back.
//!
//! 1. `InitProducerId` of our transactional id: the same producer id as ever, under a higher epoch.
//! 2. A transaction without data over all partitions, aborted. It leaves a marker of that epoch in
//!    each, which no consumer sees. Once it stands below the high watermark nothing of an older epoch
//!    can be appended there, be it the late bytes of a dead process or a frozen one's.
//! 3. From the marker backwards, the names of our records ([`tail`](super::tail)).
//!
//! Measured against brokers 3.9 and 4.4: `InitProducerId` alone shuts out nobody; every step may
//! answer `CONCURRENT_TRANSACTIONS` (51) for some milliseconds and is then repeated.
//!
//! **Must stay true.** An identity is asked for once a taking, never in the middle of one's work:
//! whoever was shut out must not shut out its successor.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::{
    ask::{self, Candidate, Random, chain},
    claim::{Claim, Ours, Read, Taken},
    queue::Identity,
    tail::{Sight, Tail},
};
use crate::{
    retry::{Backoff, Disposition},
    sink::kafka::{
        Options,
        broker::Broker,
        codes,
        error::Error,
        metadata::{Metadata, Node},
        wire::{
            AddPartitionsToTxn, Call as _, CoordinatorOf, EndTxn, Fetch, FetchPartition,
            InitProducerId, ListOffsets, OffsetAt, PartitionFetched,
        },
    },
    stored::Stored,
};

/// The first pause before a step is repeated: a marker is written in a few milliseconds.
const FIRST_PAUSE: Duration = Duration::from_millis(4);

/// A broker ends a transaction without data after this, should we be gone in its middle.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a broker may wait for the marker before it answers without it.
const MARKER_WAIT: Duration = Duration::from_millis(200);

/// Bytes asked for of one partition, and in one request.
const FETCH_PARTITION: usize = 1 << 20;
const FETCH: usize = 8 << 20;

/// What an entry of [`Stored`] takes, with its share of the tree.
const NAME_BYTES: usize = 64;

/// Partitions in one fetch: what [`FETCH`] holds.
const FETCHED_AT_ONCE: usize = FETCH / FETCH_PARTITION;

/// How brokers are reached while the topics are taken.
pub(super) struct Taker {
    pub(super) options: Arc<Options>,
    pub(super) claim: Arc<Claim>,
    pub(super) candidates: Vec<Candidate>,
    /// Connections, by broker.
    pub(super) links: BTreeMap<i32, Broker>,
    coordinator: Option<Broker>,
    random: Random,
}

impl Taker {
    pub(super) fn new(
        options: Arc<Options>,
        claim: Arc<Claim>,
        candidates: Vec<Candidate>,
        links: BTreeMap<i32, Broker>,
    ) -> Self {
        Self { options, claim, candidates, links, coordinator: None, random: Random::new() }
    }

    /// Everything, from a new epoch on.
    pub(super) async fn take(mut self, topics: Vec<Arc<str>>) -> Result<Ours, Error> {
        let Some(id) = self.claim.transactional_id.clone() else {
            return self.plain(&topics).await;
        };
        let mut pauses = self.pauses();
        let identity = loop {
            match self.init(&id).await {
                Ok(identity) => break identity,
                Err(error)
                    if error.code() == Some(codes::TRANSACTIONAL_ID_AUTHORIZATION_FAILED) =>
                {
                    warn!("rows may be repeated after a crash, as nobody can be shut out: {error}");
                    return self.plain(&topics).await;
                }
                Err(error) => {
                    self.again(&mut pauses, error, "no producer id of our own yet").await?
                }
            }
        };
        debug!(producer_id = identity.id, epoch = identity.epoch, "a new epoch is ours");
        self.join(identity, topics).await
    }

    /// The same for topics that are met later, in the epoch that is ours already.
    pub(super) async fn join(
        &mut self,
        identity: Identity,
        topics: Vec<Arc<str>>,
    ) -> Result<Ours, Error> {
        let Some(id) = self.claim.transactional_id.clone() else {
            let partitions = self.partitions(&topics).await?;
            return Ok(self.unread(identity, partitions));
        };
        let (begin, mut pauses) = (Instant::now(), self.pauses());
        let ours = loop {
            match self.fence(&id, identity, &topics).await {
                Ok(ours) => break ours,
                Err(error) => {
                    self.again(&mut pauses, error, "the topics cannot be taken yet").await?
                }
            }
        };
        let Taken { stored, read } = &ours.taken;
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
                Ok((identity, partitions)) => return Ok(self.unread(identity, partitions)),
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

    fn unread(&self, identity: Identity, partitions: Vec<(Arc<str>, i32)>) -> Ours {
        let read = Read { partitions: partitions.len(), ..Read::default() };
        Ours { identity, partitions, taken: Taken { stored: self.empty(), read } }
    }

    fn empty(&self) -> Stored {
        let (source, memory) = self.claim.read_back.map_or((0, 0), |w| (w.source, w.memory));
        Stored::new(source, memory / NAME_BYTES)
    }

    fn pauses(&self) -> Backoff {
        Backoff::new(FIRST_PAUSE, self.options.retry_max)
    }

    /// A step failed: waits until it may be tried again, unless only a person or a new taking helps.
    async fn again(&mut self, pauses: &mut Backoff, error: Error, what: &str) -> Result<(), Error> {
        let fenced = matches!(error, Error::Fenced { .. });
        if fenced || matches!(error.disposition(), Disposition::Halt(_)) {
            return Err(error);
        }
        let pause = pauses.next(self.random.next());
        // 51 for some milliseconds is the usual course of things.
        if pauses.attempts() == 8 {
            warn!("{what}, trying on: {}", chain(&error));
        } else {
            debug!("{what}, trying on: {}", chain(&error));
        }
        if error.code() != Some(codes::CONCURRENT_TRANSACTIONS) {
            self.coordinator = None;
            self.links.retain(|_, link| !link.is_closed());
        }
        sleep(pause).await;
        Ok(())
    }

    async fn init(&mut self, id: &Arc<str>) -> Result<Identity, Error> {
        let broker = self.coordinator(id).await?;
        let transactional_id = Some(id.to_string());
        let request = InitProducerId { transactional_id, timeout: TRANSACTION_TIMEOUT };
        let (id, epoch) = broker.init_producer_id(request).await?;
        Ok(Identity { id, epoch })
    }

    async fn coordinator(&mut self, id: &Arc<str>) -> Result<Broker, Error> {
        if let Some(broker) = self.coordinator.as_ref().filter(|broker| !broker.is_closed()) {
            return Ok(broker.clone());
        }
        let question =
            async |broker: Broker| broker.find_coordinator(CoordinatorOf::Transaction, id).await;
        let node = ask::any(self.candidates.clone(), &self.options, question).await?;
        let broker = self.link(&node).await?;
        Ok(self.coordinator.insert(broker).clone())
    }

    async fn link(&mut self, node: &Node) -> Result<Broker, Error> {
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

    /// Steps 2 and 3.
    async fn fence(
        &mut self,
        id: &Arc<str>,
        identity: Identity,
        topics: &[Arc<str>],
    ) -> Result<Ours, Error> {
        let metadata = self.metadata(topics).await?;
        let mut tails = self.lows(&metadata).await?;
        let partitions: Vec<_> =
            tails.iter().map(|tail| (Arc::clone(&tail.topic), tail.partition)).collect();
        let mut sight =
            Sight { identity, wanted: self.claim.read_back, stored: self.empty(), bytes: 0 };
        let mut read = Read { partitions: partitions.len(), ..Read::default() };
        if !partitions.is_empty() {
            self.mark(id, identity, &partitions).await?;
            match self.read(&metadata, &mut tails, &mut sight, &mut read).await {
                Err(error) if error.code() == Some(codes::TOPIC_AUTHORIZATION_FAILED) => {
                    warn!(
                        "rows may be repeated after a crash, as nothing can be read back: {error}"
                    );
                    return Ok(self.unread(identity, partitions));
                }
                done => done?,
            }
        }
        read.bytes = sight.bytes;
        read.cut = tails.iter().filter(|tail| tail.cut).count();
        if read.cut > 0 || sight.stored.refused() > 0 {
            // A row that comes again must be followed by all that followed it, or its key would be
            // left with an old value: and what was not read is what came first.
            sight.stored.retain(|_, _| false);
        }
        Ok(Ours { identity, partitions, taken: Taken { stored: sight.stored, read } })
    }

    /// The high watermark of every partition: the marker is to come at or above it.
    async fn lows(&mut self, metadata: &Metadata) -> Result<Vec<Tail>, Error> {
        let mut by_leader = BTreeMap::<i32, Vec<(Arc<str>, i32)>>::new();
        for topic in &metadata.topics {
            // One that is not there has nothing to be taken, and cannot be written to.
            for partition in &topic.partitions {
                let Some(leader) = partition.leader else {
                    return Err(Error::TopicNotReady { topic: topic.name.to_string() });
                };
                let of_leader = by_leader.entry(leader).or_default();
                of_leader.push((Arc::clone(&topic.name), partition.index));
            }
        }
        let mut tails = Vec::new();
        for (leader, partitions) in by_leader {
            let broker = self.leader(metadata, leader).await?;
            let request = ListOffsets { partitions, at: OffsetAt::Latest };
            for listed in broker.list_offsets(request).await? {
                let (topic, partition) = (listed.topic, listed.partition);
                judge(&broker, ListOffsets::NAME, listed.code, &topic, partition)?;
                tails.push(Tail::new(topic, partition, leader, listed.offset));
            }
        }
        Ok(tails)
    }

    async fn leader(&mut self, metadata: &Metadata, id: i32) -> Result<Broker, Error> {
        let node = metadata.node(id).cloned().ok_or_else(|| Error::NoSuchBroker { id })?;
        self.link(&node).await
    }

    /// A marker of our epoch into every partition.
    async fn mark(
        &mut self,
        id: &Arc<str>,
        identity: Identity,
        partitions: &[(Arc<str>, i32)],
    ) -> Result<(), Error> {
        let broker = self.coordinator(id).await?;
        let mut by_topic = BTreeMap::<Arc<str>, Vec<i32>>::new();
        for (topic, partition) in partitions {
            by_topic.entry(Arc::clone(topic)).or_default().push(*partition);
        }
        let request = AddPartitionsToTxn {
            transactional_id: id.to_string(),
            producer_id: identity.id,
            epoch: identity.epoch,
            partitions: by_topic.into_iter().collect(),
        };
        let added =
            fenced(&broker, AddPartitionsToTxn::NAME, broker.add_partitions_to_txn(request).await)?;
        // What was not attempted was not because of another one.
        let (spared, judged): (Vec<_>, Vec<_>) =
            added.into_iter().partition(|one| one.code == codes::OPERATION_NOT_ATTEMPTED);
        for one in judged.into_iter().chain(spared) {
            judge(&broker, AddPartitionsToTxn::NAME, one.code, &one.topic, one.partition)?;
        }
        let request = EndTxn {
            transactional_id: id.to_string(),
            producer_id: identity.id,
            epoch: identity.epoch,
            commit: false,
        };
        fenced(&broker, EndTxn::NAME, broker.end_txn(request).await)
    }

    /// Fetches until every tail knows all.
    async fn read(
        &mut self,
        metadata: &Metadata,
        tails: &mut [Tail],
        sight: &mut Sight,
        read: &mut Read,
    ) -> Result<(), Error> {
        loop {
            let Some(leader) = next_leader(tails) else { return Ok(()) };
            let broker = self.leader(metadata, leader).await?;
            let chosen = choose(tails, leader);
            let request = request(&chosen);
            read.requests += 1;
            let only = chosen.len() == 1;
            let fetched = broker.fetch(request).await?;
            for tail in chosen {
                let of = |answer: &&PartitionFetched| {
                    answer.topic == tail.topic && answer.partition == tail.partition
                };
                let Some(answer) = fetched.partitions.iter().find(of) else { continue };
                digest(&broker, tail, sight, answer, only)?;
            }
            tails.rotate_left(1);
        }
    }
}

/// Whose turn it is: brokers with something to read before those that wait for a marker.
fn next_leader(tails: &[Tail]) -> Option<i32> {
    let wanted = || tails.iter().filter(|tail| tail.wanted().is_some());
    let reading = wanted().find(|tail| !tail.waits());
    reading.or_else(|| wanted().next()).map(|tail| tail.leader)
}

/// What one fetch is to be about.
fn choose(tails: &mut [Tail], leader: i32) -> Vec<&mut Tail> {
    let wanted = |tail: &&mut Tail| tail.leader == leader && tail.wanted().is_some();
    let mut chosen: Vec<_> = tails.iter_mut().filter(wanted).collect();
    match chosen.iter().position(|tail| tail.alone) {
        Some(at) => vec![chosen.swap_remove(at)],
        None => {
            chosen.truncate(FETCHED_AT_ONCE);
            chosen
        }
    }
}

fn request(chosen: &[&mut Tail]) -> Fetch {
    let waits = chosen.iter().all(|tail| tail.waits() || tail.alone);
    let partitions = chosen.iter().map(|tail| FetchPartition {
        topic: Arc::clone(&tail.topic),
        partition: tail.partition,
        from: tail.wanted().unwrap_or_default(),
        max_bytes: bytes(FETCH_PARTITION),
    });
    Fetch {
        partitions: partitions.collect(),
        max_bytes: bytes(FETCH),
        max_wait: if waits { MARKER_WAIT } else { Duration::ZERO },
        min_bytes: 1,
    }
}

fn bytes(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn digest(
    broker: &Broker,
    tail: &mut Tail,
    sight: &mut Sight,
    answer: &PartitionFetched,
    only: bool,
) -> Result<(), Error> {
    let start = answer.log_start_offset;
    if answer.code == codes::OFFSET_OUT_OF_RANGE && tail.out_of_range(sight, start) {
        return Ok(());
    }
    judge(broker, Fetch::NAME, answer.code, &answer.topic, answer.partition)?;
    tail.feed(sight, &answer.records, start, only).map_err(|source| Error::Log {
        topic: Arc::clone(&answer.topic),
        partition: answer.partition,
        source,
    })
}

fn judge(
    broker: &Broker,
    api: &'static str,
    code: i16,
    topic: &Arc<str>,
    partition: i32,
) -> Result<(), Error> {
    match code {
        codes::NONE => Ok(()),
        _ => fenced(broker, api, Err(broker.refuse(api, code, topic, Some(partition), None))),
    }
}

/// Tells an end that only a new taking can mend from what is to be tried again.
fn fenced<T>(broker: &Broker, api: &'static str, result: Result<T, Error>) -> Result<T, Error> {
    match result {
        Err(error) if error.code().is_some_and(codes::is_fence) => Err(Error::Fenced {
            broker: broker.name().to_owned(),
            api,
            code: error.code().unwrap_or_default(),
        }),
        result => result,
    }
}
