//! The machine against a simulated cluster that answers as real brokers were measured to, loses
//! answers, carries out bytes of dead connections late, moves leaders, drops what was not
//! replicated, and restarts with a short memory. Whenever the machine is in doubt the topics are taken
//! anew, and the source sends again what is not stored. With transactions or without.

mod cluster;
mod coordinator;
mod end;
mod log;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use self::{
    coordinator::{Coordinator, DATA},
    log::{Log, STORED},
};
use super::{
    machine::{Action, Leaders, Machine, Settings},
    queue::Identity,
};
use crate::{
    batch::{Batch, Batcher, Codec, Limits, Stamp},
    lsn::Lsn,
    progress::Ledger,
    sink::{
        Delivery,
        kafka::{
            error::Error,
            topics,
            wire::{PartitionProduced, PartitionRecords, Produced},
        },
    },
};

type Key = (Arc<str>, i32);

const BROKERS: i32 = 3;

struct Sent {
    request: u64,
    batches: Vec<PartitionRecords>,
}

struct World {
    now: Instant,
    chance: u64,
    machine: Machine,
    logs: BTreeMap<Key, Log>,
    limit: usize,
    /// By broker: not yet carried out.
    queued: BTreeMap<i32, VecDeque<Sent>>,
    /// Carried out, the answer not yet arrived.
    answers: Vec<(i32, u64, Produced)>,
    /// Bytes of connections that ended, still with their broker.
    late: Vec<(i32, Sent)>,
    connecting: Vec<i32>,
    connected: Vec<i32>,
    metadata: bool,
    epoch: i16,
    /// Under which the machine writes.
    machine_epoch: i16,
    /// With transactions.
    coordinator: Option<Coordinator>,
    /// What the source committed together.
    groups: Vec<Vec<(Key, Range<u64>)>>,
    /// Since the last commit something was submitted.
    uncommitted: bool,
    /// The machine is in doubt.
    doubt: bool,
    batcher: Batcher,
    ledger: Ledger,
    next_value: BTreeMap<Key, u64>,
    submitted: u64,
    delivered: u64,
    /// By partition, as far as the machine says that it is stored.
    acked: BTreeMap<Key, u64>,
    restarts: bool,
}

impl World {
    fn new(seed: u64, restarts: bool, transactional: bool) -> Self {
        let settings = Settings {
            codec: Codec::None,
            longest_pause: Duration::from_secs(1),
            metadata_max_age: Duration::from_secs(60),
            user: None,
        };
        let limits = Limits {
            max_bytes: 1 << 20,
            max_records: 100,
            linger: Duration::ZERO,
            in_flight: 1 << 20,
        };
        let keys = [("a", 0), ("a", 1), ("b", 0), ("b", 1)];
        let logs = keys.into_iter().zip(0..).map(|((topic, partition), at)| {
            let log = Log { leader: Some(at % BROKERS), ..Log::default() };
            ((Arc::from(topic), partition), log)
        });
        let mut machine = Machine::new(settings);
        let looked_up = topics::Topic {
            partitions: 2,
            max_message_bytes: 2000,
            min_insync_replicas: None,
            compacted: false,
            id: None,
        };
        for topic in ["a", "b"] {
            machine.topic(topic, &looked_up);
        }
        let limit = 400 + usize::try_from(seed % 1000).unwrap();
        let mut world = Self {
            now: Instant::now(),
            chance: seed | 1,
            machine,
            logs: logs.collect(),
            limit,
            queued: BTreeMap::new(),
            answers: Vec::new(),
            late: Vec::new(),
            connecting: Vec::new(),
            connected: Vec::new(),
            metadata: false,
            epoch: 0,
            machine_epoch: 0,
            coordinator: transactional.then(Coordinator::default),
            groups: Vec::new(),
            uncommitted: false,
            doubt: false,
            batcher: Batcher::new(limits),
            ledger: Ledger::new(Lsn::ZERO),
            next_value: BTreeMap::new(),
            submitted: 0,
            delivered: 0,
            acked: BTreeMap::new(),
            restarts,
        };
        world.take();
        world
    }

    /// Shuts out the epoch before, reads back, and sends again what is not stored.
    fn take(&mut self) {
        self.doubt = false;
        self.epoch += 1;
        self.machine.give_up(self.now);
        let mut identity = Identity { id: 1, epoch: self.epoch };
        self.logs.values_mut().for_each(|log| log.fence(identity.id, identity.epoch));
        if let Some(coordinator) = &mut self.coordinator {
            identity = Identity { id: DATA, epoch: coordinator.init(&mut self.logs) };
            self.logs.values_mut().for_each(|log| log.fence(identity.id, identity.epoch));
        }
        self.machine_epoch = identity.epoch;
        self.acked.clear();
        for (key, log) in &self.logs {
            self.acked.insert(key.clone(), log.visible().len() as u64);
        }
        let partitions: Vec<_> = self.logs.keys().cloned().collect();
        self.machine.taken(self.coordinator.is_some().then(|| Arc::from("ours-tx")));
        self.machine.own(identity, &partitions);
        self.delivered = self.acked.values().sum();
        self.check_groups();
        self.send_again();
    }

    /// What is not stored, in the order of its commits.
    fn send_again(&mut self) {
        let stored = self.acked.clone();
        for group in self.groups.clone() {
            for (key, values) in group {
                let values = values.start.max(stored[&key])..values.end;
                if !values.is_empty() {
                    let batch = self.records(&key, values);
                    self.machine.submit(batch);
                }
            }
            if self.random(3) == 0 {
                self.machine.commit();
            }
        }
        self.machine.commit();
        self.uncommitted = false;
    }

    fn random(&mut self, below: u64) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        (self.chance >> 11) % below
    }

    fn pick(&mut self, len: usize) -> usize {
        usize::try_from(self.random(len as u64)).unwrap()
    }

    fn some_key(&mut self) -> Key {
        let at = self.pick(self.logs.len());
        self.logs.keys().nth(at).unwrap().clone()
    }

    fn some_log(&mut self) -> &mut Log {
        let key = self.some_key();
        self.logs.get_mut(&key).unwrap()
    }

    /// Submits what is committed together.
    fn submit(&mut self) {
        let count = if self.coordinator.is_some() { 1 + self.random(4) } else { 1 };
        let mut group = Vec::new();
        for _ in 0..count {
            let key = self.some_key();
            let more = 1 + self.random(13);
            let next = self.next_value.entry(key.clone()).or_default();
            let values = *next..*next + more;
            *next = values.end;
            self.submitted += more;
            group.push((key.clone(), values.clone()));
            let batch = self.records(&key, values);
            self.machine.submit(batch);
        }
        self.groups.push(group);
        self.uncommitted = true;
        if self.random(2) == 0 {
            self.commit();
        }
    }

    fn commit(&mut self) {
        self.machine.commit();
        self.uncommitted = false;
    }

    fn records(&mut self, (topic, partition): &Key, values: Range<u64>) -> Batch {
        let id = self.batcher.topic(Arc::clone(topic), 2, 1 << 20);
        let ticket = self.ledger.begin();
        let stamp = Stamp { timestamp_ms: 0, committed_at: 0, now: self.now.into_std() };
        for value in values {
            self.batcher
                .append(id, partition.unsigned_abs(), stamp, ticket, |record| {
                    record.key(None);
                    record.value_with(|out| {
                        out.push(b'<');
                        out.extend(value.to_be_bytes());
                        out.push(b'>');
                        out.extend([b'.'; 40]);
                        Ok::<_, std::convert::Infallible>(())
                    })
                })
                .unwrap();
        }
        self.batcher.flush_all();
        self.batcher.closed().unwrap()
    }

    /// Lets the machine act, and takes what it delivers.
    fn turn(&mut self) {
        let turn = self.machine.turn(self.now);
        for action in turn.actions {
            match action {
                Action::Produce { broker, request, batches } => {
                    assert!(self.connected.contains(&broker));
                    let mut keys: Vec<_> =
                        batches.iter().map(|b| (Arc::clone(&b.topic), b.partition)).collect();
                    keys.sort();
                    keys.dedup();
                    assert_eq!(keys.len(), batches.len(), "two batches of one partition");
                    self.queued.entry(broker).or_default().push_back(Sent { request, batches });
                }
                Action::AddPartitions { partitions } => {
                    let coordinator = self.coordinator.as_mut().expect("only with transactions");
                    coordinator.ask_to_add(self.machine_epoch, partitions);
                }
                Action::EndTransaction => {
                    let under_way = self.queued.values().any(|queue| !queue.is_empty());
                    assert!(!under_way && self.answers.is_empty(), "something is under way");
                    let coordinator = self.coordinator.as_mut().expect("only with transactions");
                    coordinator.ask_to_end(self.machine_epoch);
                }
                Action::Connect { broker } => self.connecting.push(broker),
                Action::Metadata { .. } => self.metadata = true,
            }
        }
        for delivery in self.machine.take_deliveries() {
            let Delivery { batch, .. } = delivery;
            self.delivered += u64::from(batch.records);
            let key = (Arc::clone(&batch.topic), batch.partition);
            let acked = self.acked.entry(key.clone()).or_default();
            *acked += u64::from(batch.records);
            let commits = self.coordinator.as_ref().is_some_and(|it| it.commits(&key));
            assert!(
                *acked <= self.logs[&key].stored(commits),
                "{key:?}: not stored, yet delivered"
            );
        }
        if let Some(error) = self.machine.take_halt() {
            assert!(matches!(error, Error::Doubt { .. }), "{error}");
            self.doubt = true;
        }
        // Without anything to do the machine must have named a time, or wait for us.
        let waits = turn.wake.is_some()
            || !self.connecting.is_empty()
            || !self.answers.is_empty()
            || self.metadata
            || self.doubt
            || self.uncommitted
            || self.coordinator.as_ref().is_some_and(Coordinator::is_asked)
            || self.queued.values().any(|queue| !queue.is_empty());
        assert!(waits || self.delivered == self.submitted, "hangs");
    }

    fn step(&mut self) {
        let broker = i32::try_from(self.random(3)).unwrap();
        if self.coordinator.is_some() && self.random(3) == 0 {
            self.coordinate();
            self.check_groups();
            return self.turn();
        }
        match self.random(100) {
            0..20 => self.submit(),
            20..45 => self.process(broker),
            45..70 => self.answer(),
            70..74 => self.tell_leaders(),
            74..78 => {
                let works = self.random(3) > 0;
                self.connect(works);
            }
            78..80 => self.lose(broker),
            80..82 => self.move_leader(),
            82..84 => self.some_log().too_few_replicas ^= true,
            84..86 => self.some_log().slow_replicas ^= true,
            // One that was appended and is now too large goes in parts, which are not known.
            86 if self.restarts => self.limit = 300 + self.pick(1000),
            87 if self.restarts => self.restart(broker),
            88 if self.doubt || self.restarts => self.take(), // an instance of ours may die as well
            89 if !self.late.is_empty() => {
                // In the order in which they were sent, as they came over one connection.
                let (broker, sent) = self.late.remove(0);
                self.carry_out(broker, &sent);
            }
            _ => self.now += Duration::from_millis(20),
        }
        self.turn();
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(100))]

    /// Brokers that remember: nothing is lost, nothing is twice, all is in order.
    #[test]
    fn stores_everything_once_and_in_order(seed: u64, steps in 1..1500_usize) {
        let mut world = World::new(seed, false, false);
        (0..steps).for_each(|_| world.step());
        world.settle();
        world.check();
    }

    /// A restarted broker knows only the last batch: what came of the others must be read back.
    #[test]
    fn stores_everything_once_and_in_order_when_brokers_forget(seed: u64, steps in 1..1500_usize) {
        let mut world = World::new(seed, true, false);
        (0..steps).for_each(|_| world.step());
        world.settle();
        world.check();
    }

    /// The same, and what is committed together is seen together, at every step.
    #[test]
    fn in_transactions_everything_is_seen_once_in_order_and_whole(
        seed: u64,
        restarts: bool,
        steps in 1..1500_usize,
    ) {
        let mut world = World::new(seed, restarts, true);
        (0..steps).for_each(|_| world.step());
        world.settle();
        world.check();
    }
}
