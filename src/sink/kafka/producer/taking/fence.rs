//! The marker in every partition, and what is read back from there.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::Instant;
use tracing::warn;

use super::{
    super::{
        claim::{Identities, Ours, Read, Taken},
        note::Found,
        queue::Identity,
        tail::{Sight, Tail},
    },
    Taker,
};
use crate::{
    failpoint,
    sim::{Bug, planted},
    sink::kafka::{
        broker::Broker,
        codes,
        error::{Doubt, Error},
        metadata::Metadata,
        wire::{
            AddPartitionsToTxn, Call as _, EndTxn, Fetch, FetchPartition, ListOffsets,
            ListedOffset, OffsetAt, PartitionFetched,
        },
    },
};

/// How long a broker may wait for the marker before it answers without it.
const MARKER_WAIT: Duration = Duration::from_millis(200);

/// Bytes asked for of one partition, and in one request.
const FETCH_PARTITION: usize = 1 << 20;
const FETCH: usize = 8 << 20;

/// Partitions in one fetch: what [`FETCH`] holds.
const FETCHED_AT_ONCE: usize = FETCH / FETCH_PARTITION;

impl Taker {
    /// Steps 2 and 3.
    pub(super) async fn fence(
        &mut self,
        identities: &Identities,
        topics: &[Arc<str>],
    ) -> Result<Ours, Error> {
        let metadata = self.metadata(topics).await?;
        let mut tails = self.lows(&metadata).await?;
        let partitions: Vec<_> =
            tails.iter().map(|tail| (Arc::clone(&tail.topic), tail.partition)).collect();
        let Identities { fences, .. } = identities;
        let mut sight = Sight {
            fences: fences.iter().map(|(_, identity)| *identity).collect(),
            wanted: self.claim.read_back,
            stored: self.empty(),
            bytes: 0,
            newest: BTreeMap::new(),
            newest_below: BTreeMap::new(),
        };
        let mut read = Read { partitions: partitions.len(), ..Read::default() };
        if !partitions.is_empty() {
            if !planted(Bug::NoFence) {
                self.mark(fences, &partitions).await?;
            }
            match self.read(&metadata, &mut tails, &mut sight, &mut read).await {
                Err(error)
                    if error.code() == Some(codes::TOPIC_AUTHORIZATION_FAILED)
                        && self.claim.transaction_timeout.is_none() =>
                {
                    warn!(
                        "rows may be repeated after a crash, as nothing can be read back: {error}"
                    );
                    let ids = ids(&metadata);
                    return Ok(Ours { ids, ..self.unread(identities.clone(), partitions) });
                }
                done => done?,
            }
            self.unchanged(&metadata, topics).await?;
        }
        read.bytes = sight.bytes;
        read.cut = tails.iter().filter(|tail| tail.cut).count();
        if read.cut > 0 || sight.stored.refused() > 0 {
            // A row that comes again must be followed by all that followed it, or its key would be
            // left with an old value: and what was not read is what came first.
            sight.stored.retain(|_, _| false);
        }
        tails.iter_mut().for_each(|tail| tail.behind(&mut sight.stored));
        let found = Found {
            notes: None,
            newest: sight.newest(),
            producer: fences.first().map_or(identities.data.id, |(_, first)| first.id),
            unsure: tails.iter().find_map(Tail::unsure),
        };
        let (ids, identities) = (ids(&metadata), identities.clone());
        let taken = Taken { stored: sight.stored, read, found };
        Ok(Ours { identities, partitions, ids, taken })
    }

    /// Topics are marked and read by their names: what was read must be of those that were there before.
    async fn unchanged(&self, before: &Metadata, topics: &[Arc<str>]) -> Result<(), Error> {
        let now = ids(&self.metadata(topics).await?);
        match ids(before).into_iter().find(|topic| !now.contains(topic)) {
            None => Ok(()),
            Some((topic, _)) => Err(Error::Doubt { topic, partition: 0, why: Doubt::MadeAnew }),
        }
    }

    /// The high watermark of every partition: the marker is to come at or above it.
    pub(super) async fn lows(&mut self, metadata: &Metadata) -> Result<Vec<Tail>, Error> {
        let listed = self.listed(metadata, OffsetAt::Latest).await?;
        let all = listed.len();
        let tail = |(leader, of): (i32, ListedOffset)| {
            Tail::new(of.topic, of.partition, leader, of.offset).among(all)
        };
        Ok(listed.into_iter().map(tail).collect())
    }

    /// An offset of every partition, behind its leader.
    pub(super) async fn listed(
        &mut self,
        metadata: &Metadata,
        at: OffsetAt,
    ) -> Result<Vec<(i32, ListedOffset)>, Error> {
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
        let mut all = Vec::new();
        for (leader, partitions) in by_leader {
            let broker = self.leader(metadata, leader).await?;
            for listed in broker.list_offsets(ListOffsets { partitions, at }).await? {
                let (topic, partition) = (&listed.topic, listed.partition);
                judge(&broker, ListOffsets::NAME, listed.code, topic, partition)?;
                all.push((leader, listed));
            }
        }
        Ok(all)
    }

    async fn leader(&mut self, metadata: &Metadata, id: i32) -> Result<Broker, Error> {
        let node = metadata.node(id).cloned().ok_or_else(|| Error::NoSuchBroker { id })?;
        self.link(&node).await
    }

    /// A marker of each of our epochs into every partition, side by side.
    async fn mark(
        &mut self,
        fences: &[(Arc<str>, Identity)],
        partitions: &[(Arc<str>, i32)],
    ) -> Result<(), Error> {
        let mut marks = Vec::new();
        for (id, identity) in fences {
            let broker = self.coordinator(id).await?;
            marks.push(async move {
                add_partitions(&broker, id, *identity, partitions).await?;
                failpoint::hit("partitions added");
                end_transaction(&broker, id, *identity, false).await?;
                failpoint::hit("transaction ended");
                Ok::<(), Error>(())
            });
        }
        // All are waited for: none is left half done by the failure of another.
        join_all(marks).await.into_iter().collect()
    }

    /// Fetches until every tail knows all.
    pub(super) async fn read(
        &mut self,
        metadata: &Metadata,
        tails: &mut [Tail],
        sight: &mut Sight,
        read: &mut Read,
    ) -> Result<(), Error> {
        let mut heard = Instant::now();
        loop {
            let Some(leader) = next_leader(tails) else { return Ok(()) };
            let waiting = tails.iter().find(|tail| tail.waits());
            let over = heard.elapsed() > self.options.request_timeout;
            if let Some(tail) = waiting.filter(|_| over) {
                // The topic may have been made anew in between.
                let (topic, partition) = (Arc::clone(&tail.topic), tail.partition);
                return Err(Error::NoMarker { topic, partition });
            }
            let broker = self.leader(metadata, leader).await?;
            let chosen = choose(tails, leader);
            let request = request(&chosen);
            read.requests += 1;
            let only = chosen.len() == 1;
            let reads = chosen.iter().any(|tail| !tail.waits());
            let fetched = broker.fetch(request).await?;
            failpoint::hit("fetched");
            for tail in chosen {
                let of = |answer: &&PartitionFetched| {
                    answer.topic == tail.topic && answer.partition == tail.partition
                };
                let Some(answer) = fetched.partitions.iter().find(of) else { continue };
                digest(&broker, tail, sight, answer, only)?;
            }
            // Whoever waits for its marker waits for those that are read back, too, however long that is.
            if reads {
                heard = Instant::now();
            }
            tails.rotate_left(1);
        }
    }
}

/// Topics that are there, by their ids.
fn ids(metadata: &Metadata) -> Vec<(Arc<str>, Option<u128>)> {
    let there = metadata.topics.iter().filter(|topic| !topic.partitions.is_empty());
    there.map(|topic| (Arc::clone(&topic.name), topic.id.map(u128::from_be_bytes))).collect()
}

/// Adds partitions to a transaction of this id.
pub(in super::super) async fn add_partitions(
    broker: &Broker,
    id: &Arc<str>,
    identity: Identity,
    partitions: &[(Arc<str>, i32)],
) -> Result<(), Error> {
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
        fenced(broker, AddPartitionsToTxn::NAME, broker.add_partitions_to_txn(request).await)?;
    // What was not attempted was not because of another one.
    let (spared, judged): (Vec<_>, Vec<_>) =
        added.into_iter().partition(|one| one.code == codes::OPERATION_NOT_ATTEMPTED);
    for one in judged.into_iter().chain(spared) {
        judge(broker, AddPartitionsToTxn::NAME, one.code, &one.topic, one.partition)?;
    }
    Ok(())
}

/// Ends it.
pub(in super::super) async fn end_transaction(
    broker: &Broker,
    id: &Arc<str>,
    identity: Identity,
    commit: bool,
) -> Result<(), Error> {
    let request = EndTxn {
        transactional_id: id.to_string(),
        producer_id: identity.id,
        epoch: identity.epoch,
        commit,
    };
    fenced(broker, EndTxn::NAME, broker.end_txn(request).await)
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
pub(in super::super) fn fenced<T>(
    broker: &Broker,
    api: &'static str,
    result: Result<T, Error>,
) -> Result<T, Error> {
    match result {
        Err(error) if error.code().is_some_and(codes::is_fence) => Err(Error::Fenced {
            broker: broker.name().to_owned(),
            api,
            code: error.code().unwrap_or_default(),
        }),
        result => result,
    }
}
