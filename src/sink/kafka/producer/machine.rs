//! What the producer knows, and what it decides: events and the time go in, [`Action`]s come out.
//!
//! Plain code without I/O, clock or chance, so that it can be tried against a simulated cluster.
//!
//! **Invariants.** A partition's batches are under way on one broker at a time. Nothing is sent to a
//! partition that was not taken, to a broker over its limit of requests, while it throttles us, or
//! while its connection is replaced. Once an answer has left a doubt about what is stored, nothing
//! is sent at all until the topics are taken anew.

mod answers;
mod cluster;
mod intake;
mod offsets;
mod transaction;
mod turn;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    queue::{Failure, Identity, Part, Queue},
    trouble::{Troubles, What},
};
use crate::{
    batch::{Batch, Codec},
    metrics,
    retry::Backoff,
    sink::{
        Delivery,
        kafka::{
            error::{Doubt, Error},
            topics::Topic as LookedUp,
            wire::{PartitionProduced, PartitionRecords, Produced},
        },
    },
};

use offsets::Offsets;
pub(super) use transaction::Failure as NotCoordinated;
use transaction::{Counted, Transaction};
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
    offsets: Offsets,
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
    counted: Counted,
}

#[derive(Debug, Default)]
struct Topic {
    /// Places of its partitions that were ever written.
    places: BTreeMap<i32, usize>,
    max_message_bytes: Option<usize>,
    /// How many partitions records are spread over: those that there were when it was looked up.
    routed: usize,
    /// How many partitions there are, by the broker that knows most of them.
    count: usize,
    /// Another one after it was deleted and made anew, as far as brokers tell.
    id: Option<[u8; 16]>,
    /// Its id before that.
    replaced: Option<[u8; 16]>,
    /// A broker said that there is none.
    away: bool,
    /// Somebody else writes there, which was said.
    shared: bool,
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
    pub(super) id: Option<[u8; 16]>,
    /// By partition; `None`: an election is under way.
    pub(super) leaders: BTreeMap<i32, Option<i32>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Machine {
    settings: Settings,
    /// An answer left a doubt, or nothing was taken yet.
    in_doubt: bool,
    /// Connections are kept, though nothing is sent yet.
    prepared: bool,
    /// They are to be looked after in this turn.
    look_after: bool,
    topics: HashMap<Arc<str>, Topic>,
    partitions: Vec<Partition>,
    /// Places of partitions that have something to send or to mend; who was served goes to the back.
    active: VecDeque<usize>,
    brokers: BTreeMap<i32, Broker>,
    requests: HashMap<u64, Request>,
    parcels: HashMap<u64, Parcel>,
    /// In transactional mode.
    transaction: Option<Transaction>,
    metadata: Errand,
    metadata_at: Option<Instant>,
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
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            in_doubt: true,
            prepared: false,
            look_after: false,
            topics: HashMap::new(),
            partitions: Vec::new(),
            active: VecDeque::new(),
            brokers: BTreeMap::new(),
            requests: HashMap::new(),
            parcels: HashMap::new(),
            transaction: None,
            metadata: Errand::new(settings.longest_pause),
            metadata_at: None,
            last_name: 0,
            held: 0,
            deliveries: Vec::new(),
            halt: None,
            troubles: Troubles::default(),
            settings,
        }
    }

    /// A topic was looked up.
    pub(super) fn topic(&mut self, name: &str, looked_up: &LookedUp) {
        let topic = self.topics.entry(Arc::from(name)).or_default();
        topic.max_message_bytes = Some(looked_up.max_message_bytes);
        topic.routed = usize::try_from(looked_up.partitions).unwrap_or(usize::MAX);
        topic.count = topic.routed;
        topic.id = looked_up.id;
        self.metadata.wanted = true; // who leads is known before the first batch comes
    }

    /// Everything that is not delivered is given up: its source sends again what is not stored.
    /// Nothing is sent until [`Self::taken`].
    pub(super) fn give_up(&mut self, now: Instant) {
        (self.in_doubt, self.prepared) = (true, false);
        let longest_pause = self.settings.longest_pause;
        for partition in &mut self.partitions {
            partition.queue = Queue::new(longest_pause);
            (partition.on, partition.listed) = (None, false);
        }
        self.active.clear();
        self.requests.clear(); // what is answered to them counts for nothing
        self.brokers.values_mut().for_each(|broker| broker.requests = 0);
        self.parcels.clear();
        self.transaction = None;
        self.deliveries.clear();
        (self.held, self.halt) = (0, None);
        self.troubles.forget_partitions(now);
    }

    /// The doubt is over: what is stored was read back. From now on batches go in transactions of this
    /// id, or without.
    pub(super) fn taken(&mut self, transactional_id: Option<Arc<str>>) {
        self.in_doubt = false;
        let longest_pause = self.settings.longest_pause;
        self.transaction = transactional_id.map(|id| Transaction::new(id, longest_pause));
    }

    /// These partitions are ours, under this identity.
    pub(super) fn own(&mut self, identity: Identity, partitions: &[(Arc<str>, i32)]) {
        for (topic, number) in partitions {
            let place = self.place(topic, *number);
            if let Some(partition) = self.partitions.get_mut(place) {
                partition.queue.own(identity, self.transaction.is_some());
                partition.offsets = Offsets::default();
            }
            self.list(place);
        }
    }

    /// Every topic that was looked up.
    pub(super) fn topic_names(&self) -> Vec<Arc<str>> {
        self.topics.keys().map(Arc::clone).collect()
    }

    /// Whether all of a topic's partitions are ours.
    pub(super) fn owns(&self, name: &str) -> bool {
        let Some(topic) = self.topics.get(name) else { return false };
        let ours = |place: &usize| self.partitions.get(*place).is_some_and(|p| p.queue.is_ours());
        let owned = topic.places.values().filter(|place| ours(place)).count();
        topic.routed > 0 && owned >= topic.routed
    }

    /// Only reading the topics can tell what is stored.
    pub(super) fn doubt(&mut self, topic: &Arc<str>, partition: i32, why: Doubt) {
        if !std::mem::replace(&mut self.in_doubt, true) {
            metrics::producer_reset();
            self.halt(Error::Doubt { topic: Arc::clone(topic), partition, why });
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

    fn broker(&mut self, id: i32) -> &mut Broker {
        let longest_pause = self.settings.longest_pause;
        self.brokers.entry(id).or_insert_with(|| Broker::new(longest_pause))
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
        let longest_pause = self.settings.longest_pause;
        *places.entry(number).or_insert_with(|| {
            partitions.push(Partition {
                topic: Arc::clone(topic),
                number,
                queue: Queue::new(longest_pause),
                offsets: Offsets::default(),
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
