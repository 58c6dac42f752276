//! What the producer knows, and what it decides: events and the time go in, [`Action`]s come out.
//!
//! Plain code without I/O, clock or chance, so that it can be tried against a simulated cluster.
//!
//! **Invariants.** A partition's batches are under way on one broker at a time. Nothing is sent to a
//! broker over its limit of requests, while it throttles us, or while its connection is replaced.

mod turn;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;
use tracing::info;

use super::{
    queue::{Failure, Identity, Part, Queue},
    trouble::{Troubles, What},
};
use crate::{
    batch::{Batch, Codec, compress, record_batch},
    metrics,
    retry::Backoff,
    sink::{
        Delivery,
        kafka::{
            codes::{self, Named, Verdict},
            error::{Error, Refusal},
            wire::{PartitionProduced, PartitionRecords, Produced},
        },
    },
};

pub(super) use turn::Action;

/// Pauses of brokers and metadata begin here. A refused connection costs next to nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// What the options say, as far as it concerns decisions.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) codec: Codec,
    pub(super) longest_pause: Duration,
    pub(super) metadata_max_age: Duration,
    /// Whom an ACL must name.
    pub(super) user: Option<String>,
}

#[derive(Debug)]
struct Partition {
    topic: Arc<str>,
    number: i32,
    queue: Queue,
    leader: Option<i32>,
    /// Where its batches are under way.
    on: Option<i32>,
    /// Whether it is in [`Machine::active`].
    listed: bool,
}

#[derive(Debug)]
struct Broker {
    /// Host and port, once there was a connection.
    name: String,
    link: Link,
    /// Requests not yet answered.
    requests: usize,
    /// It throttles us.
    throttled_until: Option<Instant>,
    /// Its connection is about to be replaced.
    held: bool,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Link {
    Down { retry_at: Option<Instant> },
    Connecting,
    Up,
}

#[derive(Debug)]
struct Request {
    broker: i32,
    /// Places of the partitions, and names of their parts.
    parts: Vec<(usize, u64)>,
    bytes: usize,
}

/// A submitted batch, of which parts are on their way.
#[derive(Debug)]
struct Parcel {
    batch: Batch,
    parts: usize,
    base_offset: i64,
}

#[derive(Debug, Default)]
struct Topic {
    /// Places of its partitions that were ever written.
    places: BTreeMap<i32, usize>,
    max_message_bytes: Option<usize>,
    /// How many partitions there were at the last look.
    count: usize,
    /// By partition, as metadata last said.
    leaders: BTreeMap<i32, Option<i32>>,
}

/// Something that one request at a time is asked for.
#[derive(Debug)]
struct Errand {
    wanted: bool,
    asked: bool,
    not_before: Option<Instant>,
    backoff: Backoff,
}

/// Who leads a topic's partitions.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaders {
    pub(super) topic: Arc<str>,
    pub(super) code: i16,
    /// By partition; `None`: an election is under way.
    pub(super) leaders: BTreeMap<i32, Option<i32>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Machine {
    settings: Settings,
    /// The newest producer id: what partitions begin with.
    identity: Identity,
    topics: HashMap<Arc<str>, Topic>,
    partitions: Vec<Partition>,
    /// Places of partitions that have something to send or to mend; who was served goes to the back.
    active: VecDeque<usize>,
    brokers: BTreeMap<i32, Broker>,
    requests: HashMap<u64, Request>,
    parcels: HashMap<u64, Parcel>,
    metadata: Errand,
    metadata_at: Option<Instant>,
    producer_id: Errand,
    /// Of parts, parcels and requests.
    last_name: u64,
    held: usize,
    deliveries: Vec<Delivery>,
    halt: Option<Error>,
    troubles: Troubles,
}

impl Errand {
    const fn new(longest_pause: Duration) -> Self {
        let backoff = Backoff::new(FIRST_PAUSE, longest_pause);
        Self { wanted: false, asked: false, not_before: None, backoff }
    }

    /// Whether to ask now; else when, if time is what it waits for.
    fn due(&self, now: Instant) -> Result<(), Option<Instant>> {
        match self.not_before {
            _ if !self.wanted || self.asked => Err(None),
            Some(at) if at > now => Err(Some(at)),
            _ => Ok(()),
        }
    }

    fn failed(&mut self, now: Instant, random: u32) {
        self.asked = false;
        self.not_before = Some(now + self.backoff.next(random));
    }
}

impl Broker {
    const fn new(longest_pause: Duration) -> Self {
        Self {
            name: String::new(),
            link: Link::Down { retry_at: None },
            requests: 0,
            throttled_until: None,
            held: false,
            backoff: Backoff::new(FIRST_PAUSE, longest_pause),
        }
    }
}

impl Machine {
    pub(super) fn new(settings: Settings, identity: Identity) -> Self {
        let errand = || Errand::new(settings.longest_pause);
        Self {
            identity,
            topics: HashMap::new(),
            partitions: Vec::new(),
            active: VecDeque::new(),
            brokers: BTreeMap::new(),
            requests: HashMap::new(),
            parcels: HashMap::new(),
            metadata: errand(),
            metadata_at: None,
            producer_id: errand(),
            last_name: 0,
            held: 0,
            deliveries: Vec::new(),
            halt: None,
            troubles: Troubles::default(),
            settings,
        }
    }

    /// Takes a batch. One that is over its topic's limit goes in parts.
    pub(super) fn submit(&mut self, mut batch: Batch) {
        let place = self.place(&batch.topic, batch.partition);
        let plain = std::mem::take(&mut batch.bytes);
        let bytes = match self.settings.codec {
            Codec::None => plain,
            codec => compress(&plain, codec),
        };
        let limit = self.topics.get(&batch.topic).and_then(|topic| topic.max_message_bytes);
        let pieces = match self.pieces(bytes, batch.records, limit.unwrap_or(usize::MAX)) {
            Ok(pieces) => pieces,
            Err(bytes) => return self.too_large(place, bytes),
        };
        let parcel = self.name();
        let parts = pieces.len();
        for (records, bytes) in pieces {
            self.held += bytes.len();
            let id = self.name();
            if let Some(partition) = self.partitions.get_mut(place) {
                partition.queue.push(id, parcel, records, Bytes::from(bytes));
            }
        }
        self.parcels.insert(parcel, Parcel { batch, parts, base_offset: i64::MAX });
        self.list(place);
    }

    /// Halves what is over the limit until nothing is. Fails with the size of a single record that
    /// is by itself.
    fn pieces(
        &self,
        bytes: Vec<u8>,
        records: u32,
        limit: usize,
    ) -> Result<Vec<(u32, Vec<u8>)>, usize> {
        let mut rest = vec![(records, bytes)];
        let mut pieces = Vec::with_capacity(1);
        while let Some((records, bytes)) = rest.pop() {
            if bytes.len() <= limit {
                pieces.push((records, bytes));
                continue;
            }
            let [first, second] = self.halves(&bytes).ok_or(bytes.len())?;
            rest.extend([second, first]);
        }
        Ok(pieces)
    }

    /// `None`: it cannot be halved, as it holds one record.
    fn halves(&self, batch: &[u8]) -> Option<[(u32, Vec<u8>); 2]> {
        let (first, a, second, b) = record_batch::split(batch)?;
        let codec = self.settings.codec;
        let pack =
            |plain: Vec<u8>| if codec == Codec::None { plain } else { compress(&plain, codec) };
        Some([(a, pack(first)), (b, pack(second))])
    }

    fn too_large(&mut self, place: usize, bytes: usize) {
        let Some(partition) = self.partitions.get(place) else { return };
        let topic = Arc::clone(&partition.topic);
        let limit = self.topics.get(&topic).and_then(|topic| topic.max_message_bytes);
        let partition = Some(partition.number);
        self.halt(Error::TooLarge { topic, partition, bytes, limit });
    }

    /// A topic was looked up.
    pub(super) fn topic(&mut self, name: &str, partitions: usize, max_message_bytes: usize) {
        let topic = self.topics.entry(Arc::from(name)).or_default();
        topic.max_message_bytes = Some(max_message_bytes);
        topic.count = partitions;
        self.metadata.wanted = true; // who leads is known before the first batch comes
    }

    /// What became of a request.
    pub(super) fn answered(&mut self, id: u64, produced: Produced, now: Instant, random: u32) {
        let Some(request) = self.forget(id) else { return };
        if !produced.throttle.is_zero() {
            metrics::throttled(produced.throttle);
            if let Some(broker) = self.brokers.get_mut(&request.broker) {
                broker.throttled_until = Some(now + produced.throttle);
            }
        }
        let mut missing = request.parts;
        for answer in produced.partitions {
            let of = |&(place, _): &(usize, u64)| {
                self.partitions.get(place).is_some_and(|partition| {
                    partition.number == answer.partition && partition.topic == answer.topic
                })
            };
            if let Some(at) = missing.iter().position(of) {
                let (place, part) = missing.swap_remove(at);
                self.judge(place, part, request.broker, answer, now, random);
            }
        }
        // The connection sees to it that none is; but nothing may hang on it.
        for (place, part) in missing {
            self.fail(place, part, Failure::InDoubt, now, random);
        }
    }

    fn judge(
        &mut self,
        place: usize,
        part: u64,
        broker: i32,
        answer: PartitionProduced,
        now: Instant,
        random: u32,
    ) {
        let failure = match codes::produce(answer.code) {
            Verdict::Stored => return self.stored(place, part, answer.base_offset, now),
            Verdict::Wait => unstored(answer.code),
            Verdict::Refresh => {
                self.metadata.wanted = true;
                if let Some(partition) = self.partitions.get_mut(place) {
                    partition.leader = None;
                }
                unstored(answer.code)
            }
            Verdict::Split => Failure::TooLarge,
            Verdict::NewProducer if matches!(answer.code, 45 | 46 | 59) => Failure::OutOfOrder,
            Verdict::NewProducer => Failure::Fenced,
            Verdict::Halt(..) => return self.refused(broker, answer),
        };
        self.fail(place, part, failure, now, random);
        // That a batch is too large, or out of order behind one that failed, is no trouble.
        let consequence = matches!(failure, Failure::TooLarge)
            || failure == Failure::OutOfOrder && !self.must_renumber(place);
        if !consequence {
            let name = Named(answer.code).to_string();
            let Some(partition) = self.partitions.get(place) else { return };
            let text = format!("{}[{}]: {name}", partition.topic, partition.number);
            self.troubles.begin(What::Partition(place), &name, text, now);
            metrics::retry(codes::name(answer.code));
        }
    }

    fn must_renumber(&self, place: usize) -> bool {
        self.partitions.get(place).is_some_and(|partition| partition.queue.must_renumber())
    }

    fn stored(&mut self, place: usize, part: u64, base_offset: i64, now: Instant) {
        let Some(partition) = self.partitions.get_mut(place) else { return };
        let Some(part) = partition.queue.stored(part, now) else { return };
        if !partition.queue.stalled() {
            self.troubles.end(What::Partition(place), now);
        }
        self.list(place);
        self.unpack(part, base_offset);
        self.unpack_implied(place);
    }

    fn unpack_implied(&mut self, place: usize) {
        while let Some(part) = self.partitions.get_mut(place).and_then(|p| p.queue.implied()) {
            self.unpack(part, -1);
        }
    }

    /// One part of a parcel less is on its way.
    fn unpack(&mut self, part: Part, base_offset: i64) {
        self.held -= part.bytes.len();
        metrics::batch_stored(u64::from(part.records), part.bytes.len() as u64);
        let Some(parcel) = self.parcels.get_mut(&part.parcel) else { return };
        parcel.parts -= 1;
        if base_offset >= 0 {
            parcel.base_offset = parcel.base_offset.min(base_offset);
        }
        if parcel.parts > 0 {
            return;
        }
        if let Some(Parcel { mut batch, base_offset, .. }) = self.parcels.remove(&part.parcel) {
            batch.bytes = Vec::from(part.bytes);
            let base_offset = if base_offset == i64::MAX { -1 } else { base_offset };
            self.deliveries.push(Delivery { batch, base_offset });
        }
    }

    fn fail(&mut self, place: usize, part: u64, why: Failure, now: Instant, random: u32) {
        if let Some(partition) = self.partitions.get_mut(place) {
            partition.queue.failed(part, why, now, random);
        }
        self.unpack_implied(place);
        self.list(place);
    }

    /// A connection with a broker ended: what was asked over it is not answered. If that is nothing,
    /// it was closed for idleness, which is no trouble.
    pub(super) fn lost(&mut self, id: i32, why: &str, now: Instant, random: u32) {
        if let Some(broker) = self.brokers.get_mut(&id) {
            broker.link = Link::Down { retry_at: None };
        }
        let lost: Vec<_> =
            self.requests.iter().filter(|(_, r)| r.broker == id).map(|(&name, _)| name).collect();
        for name in lost {
            let Some(request) = self.forget(name) else { continue };
            for (place, part) in request.parts {
                self.fail(place, part, Failure::InDoubt, now, random);
                metrics::retry("connection");
                let Some(partition) = self.partitions.get(place) else { continue };
                let text = format!("{}[{}]: {why}", partition.topic, partition.number);
                self.troubles.begin(What::Partition(place), "connection", text, now);
            }
            self.metadata.wanted = true;
        }
    }

    /// Takes a request off the lists.
    fn forget(&mut self, id: u64) -> Option<Request> {
        let request = self.requests.remove(&id)?;
        self.held -= request.bytes;
        if let Some(broker) = self.brokers.get_mut(&request.broker) {
            broker.requests -= 1;
        }
        Some(request)
    }

    /// There is a connection with a broker.
    pub(super) fn connected(&mut self, id: i32, name: &str, now: Instant) {
        let broker = self.broker(id);
        name.clone_into(&mut broker.name);
        broker.link = Link::Up;
        broker.backoff.reset();
        self.troubles.end(What::Broker(id), now);
    }

    /// A broker could not be reached, or is not in the cluster.
    pub(super) fn unreachable(&mut self, id: i32, why: &str, now: Instant, random: u32) {
        let broker = self.broker(id);
        let retry_at = Some(now + broker.backoff.next(random));
        broker.link = Link::Down { retry_at };
        metrics::retry("connect");
        self.troubles.begin(What::Broker(id), &format!("broker {id}"), why.to_owned(), now);
        // Its partitions may be led by another one by now.
        self.metadata.wanted = true;
    }

    fn broker(&mut self, id: i32) -> &mut Broker {
        let longest_pause = self.settings.longest_pause;
        self.brokers.entry(id).or_insert_with(|| Broker::new(longest_pause))
    }

    /// Sends nothing to a broker until it is let go again.
    pub(super) fn hold(&mut self, id: i32, held: bool) {
        self.broker(id).held = held;
    }

    /// Whether nothing is under way on a broker.
    pub(super) fn is_drained(&self, id: i32) -> bool {
        self.brokers.get(&id).is_none_or(|broker| broker.requests == 0)
    }

    /// Who leads what now. Topics that are not named are left as they are.
    pub(super) fn leaders(&mut self, topics: Vec<Leaders>, now: Instant, random: u32) {
        self.troubles.end(What::Metadata, now);
        let mut complete = true;
        for Leaders { topic, code, leaders } in topics {
            let Some(known) = self.topics.get_mut(&topic) else { continue };
            let (before, count) = (known.count, leaders.len());
            if code == codes::NONE && count != before {
                known.count = count;
                if before > 0 {
                    info!(
                        "{topic} has {count} partitions now, {before} before; records go to those \
                         that it had when it was looked up"
                    );
                }
            }
            for (&number, &place) in &known.places {
                let Some(partition) = self.partitions.get_mut(place) else { continue };
                partition.leader = leaders.get(&number).copied().flatten();
                if partition.leader.is_some() || partition.queue.is_empty() {
                    continue;
                }
                complete = false;
                let (cause, text) = leaderless(&topic, number, code, leaders.contains_key(&number));
                self.troubles.begin(What::Partition(place), &cause, text, now);
            }
            known.leaders = leaders;
        }
        self.metadata.asked = false;
        self.metadata.wanted = !complete;
        self.metadata_at = Some(now);
        if complete {
            self.metadata.backoff.reset();
        }
        // Even good news is not asked for in a tight loop: brokers learn of a new leader one by one.
        self.metadata.not_before = Some(now + self.metadata.backoff.next(random));
        let partitions = &self.partitions;
        let leads = |id| partitions.iter().any(|p| p.leader == Some(id) && !p.queue.is_empty());
        self.troubles.keep_brokers(leads, now);
    }

    /// No broker told who leads.
    pub(super) fn metadata_failed(&mut self, why: &str, now: Instant, random: u32) {
        self.metadata.failed(now, random);
        metrics::retry("metadata");
        self.troubles.begin(What::Metadata, "metadata", format!("no metadata: {why}"), now);
    }

    /// The cluster gave a producer id.
    pub(super) fn identity(&mut self, identity: Identity, now: Instant) {
        self.identity = identity;
        self.producer_id = Errand::new(self.settings.longest_pause);
        self.troubles.end(What::ProducerId, now);
    }

    /// It did not.
    pub(super) fn identity_failed(&mut self, why: &str, now: Instant, random: u32) {
        self.producer_id.failed(now, random);
        metrics::retry("producer id");
        self.troubles.begin(What::ProducerId, "producer id", format!("no producer id: {why}"), now);
    }

    /// A code that comes back at every attempt.
    fn refused(&mut self, broker: i32, answer: PartitionProduced) {
        let reason = answer.bad_records.into_iter().next().map(|(_, reason)| reason);
        let refusal = Refusal {
            broker: self.broker(broker).name.clone(),
            user: self.settings.user.clone(),
            api: "Produce",
            code: answer.code,
            topic: Some(answer.topic.to_string()),
            partition: Some(answer.partition),
            message: answer.message.or(reason).filter(|text| !text.is_empty()),
        };
        self.halt(refusal.into());
    }

    /// The first reason to stop is the one that is told.
    pub(super) fn halt(&mut self, error: Error) {
        self.halt.get_or_insert(error);
    }

    pub(super) fn take_halt(&mut self) -> Option<Error> {
        self.halt.take()
    }

    pub(super) fn take_deliveries(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.deliveries)
    }

    /// Bytes of batches, and of the copies of them in requests.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    pub(super) const fn troubles(&mut self) -> &mut Troubles {
        &mut self.troubles
    }

    /// The place of a partition.
    fn place(&mut self, topic: &Arc<str>, number: i32) -> usize {
        let Topic { places, leaders, .. } = self.topics.entry(Arc::clone(topic)).or_default();
        let partitions = &mut self.partitions;
        let (identity, longest_pause) = (self.identity, self.settings.longest_pause);
        *places.entry(number).or_insert_with(|| {
            partitions.push(Partition {
                topic: Arc::clone(topic),
                number,
                queue: Queue::new(identity, longest_pause),
                leader: leaders.get(&number).copied().flatten(),
                on: None,
                listed: false,
            });
            partitions.len() - 1
        })
    }

    fn list(&mut self, place: usize) {
        let Some(partition) = self.partitions.get_mut(place) else { return };
        if !partition.listed && !partition.queue.is_empty() {
            partition.listed = true;
            self.active.push_back(place);
        }
    }

    fn name(&mut self) -> u64 {
        self.last_name += 1;
        self.last_name
    }
}

/// Whether a batch with this code may be in the log all the same.
const fn unstored(code: i16) -> Failure {
    match code {
        codes::UNKNOWN_TOPIC_OR_PARTITION
        | codes::NOT_LEADER_OR_FOLLOWER
        | codes::NOT_ENOUGH_REPLICAS => Failure::Refused,
        _ => Failure::InDoubt,
    }
}

/// Why a partition has no leader: as a cause, and in words.
fn leaderless(topic: &str, number: i32, code: i16, there: bool) -> (String, String) {
    if code != codes::NONE {
        let cause = format!("{topic}: {}", Named(code));
        (cause.clone(), format!("topic {cause}"))
    } else if there {
        ("no leader".to_owned(), format!("{topic}[{number}] has no leader"))
    } else {
        let text = format!("{topic}[{number}] is not there any more: was the topic made anew?");
        (format!("{topic}: partition missing"), text)
    }
}
