//! Three brokers: leaders, in-sync replicas, high watermarks, and a controller that notices after a while
//! who is away.

pub mod partition;
mod serve;
mod transactions;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use pgsluice::sim::{Gate, gated};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};

use self::{
    partition::{Partition, Verdict, code},
    transactions::{Groups, Transactions},
};
use super::{chance::Chance, net::Net, oracle::Oracle, trace::Trace};

/// `min.insync.replicas`.
const MIN_ISR: usize = 2;

#[derive(Clone)]
pub struct Cluster {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    net: Net,
    trace: Trace,
    oracle: Oracle,
}

pub struct State {
    chance: Chance,
    brokers: [Broker; 3],
    topics: BTreeMap<Arc<str>, Vec<Partition>>,
    transactions: Transactions,
    groups: Groups,
    next_id: i64,
    coordinator: Option<usize>,
    loading_until: Instant,
    /// Followers are slow until then.
    slow_until: Instant,
    /// By broker, how many batches are to get an odd answer.
    odd: [u64; 3],
}

#[derive(Clone)]
struct Broker {
    gate: Gate,
    /// The controller takes it for away.
    fenced: bool,
    /// Counts its starts.
    starts: u64,
}

pub fn name(broker: usize) -> String {
    format!("kafka{broker}")
}

impl Cluster {
    pub fn new(
        seed: u64,
        topics: &[(&str, usize)],
        net: Net,
        trace: Trace,
        oracle: Oracle,
    ) -> Self {
        let broker = || Broker { gate: Gate::default(), fenced: false, starts: 0 };
        let topics = topics.iter().enumerate().map(|(shift, (name, count))| {
            (Arc::from(*name), (0..*count).map(|at| Partition::new((at + shift) % 3)).collect())
        });
        let state = State {
            chance: Chance::of(seed, "kafka"),
            brokers: [broker(), broker(), broker()],
            topics: topics.collect(),
            transactions: Transactions::default(),
            groups: Groups::default(),
            next_id: 1000,
            coordinator: Some(1),
            loading_until: Instant::now(),
            slow_until: Instant::now(),
            odd: [0; 3],
        };
        let this = Self {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::new(Notify::new()),
            net,
            trace,
            oracle,
        };
        (0..3).for_each(|broker| this.listen(broker));
        this
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn listen(&self, broker: usize) {
        let (this, gate) = (self.clone(), self.lock().brokers[broker].gate.clone());
        let process = gate.clone();
        let accept = move |client, end| {
            let (this, gate) = (this.clone(), gate.clone());
            tokio::spawn(gated(gate, async move { this.serve(broker, client, end).await }));
        };
        self.net.listen(&name(broker), process, Arc::new(accept));
    }

    /// Waits until `look` finds something, at most until then.
    async fn wait<T>(
        &self,
        until: Instant,
        mut look: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.lock()) {
                return Some(found);
            }
            if timeout_at(until, changed).await.is_err() {
                return None;
            }
        }
    }

    /// What was appended to a partition gets to its followers after a while.
    fn replicate_soon(&self, topic: &Arc<str>, number: usize) {
        for broker in 0..3 {
            let delay = {
                let mut state = self.lock();
                let slow = state.slow_until > Instant::now();
                match state.chance.below(50) {
                    0 => state.chance.ms(50, 800),
                    1..10 => state.chance.ms(2, 30),
                    _ if slow => state.chance.ms(500, 3000),
                    _ => state.chance.ms(0, 1),
                }
            };
            let (this, topic) = (self.clone(), Arc::clone(topic));
            tokio::spawn(async move {
                sleep(delay).await;
                this.replicate(broker, &topic, number);
            });
        }
    }

    /// This broker fetches all that the leader has.
    fn replicate(&self, broker: usize, topic: &Arc<str>, number: usize) {
        let mut state = self.lock();
        let runs = state.runs();
        let fenced = state.brokers[broker].fenced;
        let Some(partition) = state.partition(topic, number) else { return };
        let Some(leader) = partition.leader.filter(|leader| runs[*leader]) else { return };
        if !runs[broker] {
            return;
        }
        partition.has[broker] = partition.log.len();
        if broker != leader && !fenced {
            partition.isr.insert(broker);
        }
        self.advance(&mut state, topic, number);
    }

    /// The high watermark, to where all in-sync replicas are.
    fn advance(&self, state: &mut State, topic: &Arc<str>, number: usize) {
        let Some(partition) = state.partition(topic, number) else { return };
        if partition.leader.is_none() {
            return;
        }
        let high = partition.isr.iter().map(|broker| partition.has[*broker]).min().unwrap_or(0);
        let (from, upto) = (partition.high, high.max(partition.high));
        partition.high = upto;
        for at in from..upto {
            let entry = partition.log[at].clone();
            self.trace.say(format_args!(
                "{topic}[{number}] stores {}..{} of {}/{} {:?}",
                entry.base, entry.last, entry.id, entry.epoch, entry.marker
            ));
            let index = number as i32;
            match entry.marker {
                Some(end) => {
                    let all = partition.pending.remove(&entry.id).unwrap_or_default();
                    if end == pgsluice::batch::log::Marker::Commit {
                        all.iter()
                            .for_each(|(at, names)| self.oracle.stored(topic, index, *at, names));
                    }
                }
                None if entry.transactional => {
                    partition.pending.entry(entry.id).or_default().push((entry.base, entry.names));
                }
                None => self.oracle.stored(topic, index, entry.base, &entry.names),
            }
        }
        if upto > from {
            self.changed.notify_waiters();
        }
    }

    /// A batch, on the broker that was asked; `named`: the request has a transactional id.
    async fn produce(
        &self,
        broker: usize,
        topic: &Arc<str>,
        number: usize,
        (bytes, named): (&[u8], bool),
        until: Instant,
    ) -> (i16, i64) {
        let (base, upto, epoch, odd) = match self.append(broker, topic, number, bytes, named) {
            Ok(appended) => appended,
            Err(code) => return (code, -1),
        };
        self.replicate_soon(topic, number);
        if odd != 0 {
            return (odd, -1);
        }
        let code = self.wait(until, |state| {
            let partition = state.partition(topic, number)?;
            if partition.epoch != epoch {
                return Some(code::NOT_LEADER);
            }
            if partition.high >= upto {
                return Some(0);
            }
            (partition.isr.len() < MIN_ISR).then_some(code::NOT_ENOUGH_REPLICAS_AFTER_APPEND)
        });
        match code.await.unwrap_or(code::TIMED_OUT) {
            0 => (0, base),
            code => (code, -1),
        }
    }

    /// Its first offset, the entries that there must be below the high watermark, the leader's epoch, and an odd
    /// answer that is to be given all the same.
    fn append(
        &self,
        broker: usize,
        topic: &Arc<str>,
        number: usize,
        bytes: &[u8],
        named: bool,
    ) -> Result<(i64, usize, i32, i16), i16> {
        let mut state = self.lock();
        let State { topics, transactions, odd, chance, .. } = &mut *state;
        let Some(partition) = topics.get_mut(topic).and_then(|all| all.get_mut(number)) else {
            return Err(code::UNKNOWN_TOPIC);
        };
        if partition.leader != Some(broker) {
            return Err(code::NOT_LEADER);
        }
        if partition.isr.len() < MIN_ISR {
            return Err(code::NOT_ENOUGH_REPLICAS);
        }
        let odd = match odd[broker] {
            0 => 0,
            _ => {
                odd[broker] -= 1;
                chance.pick(&[
                    0,
                    code::NOT_ENOUGH_REPLICAS,
                    code::STORAGE,
                    code::TIMED_OUT,
                    code::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
                ])
            }
        };
        if matches!(odd, code::NOT_ENOUGH_REPLICAS | code::STORAGE) {
            self.trace.say(format_args!("{topic}[{number}] is asked to wait: {odd}"));
            return Err(odd);
        }
        let before = partition.log.len();
        let verdict =
            partition.produce(bytes, named, |id| transactions.includes(id, topic, number));
        match verdict {
            Verdict::Refused(code) => {
                self.trace.say(format_args!("{topic}[{number}] refuses a batch: {code}"));
                Err(code)
            }
            Verdict::Appended(base, upto) => {
                if partition.log.len() > before {
                    let entry = &partition.log[before];
                    self.oracle.appended(topic, number as i32, entry.id, entry.epoch, false);
                    self.trace.say(format_args!(
                        "{topic}[{number}] takes {}..{} of {}/{} seq {}",
                        entry.base, entry.last, entry.id, entry.epoch, entry.sequence
                    ));
                }
                Ok((base, upto, partition.epoch, odd))
            }
        }
    }

    /// The end of a transaction gets into a partition sooner or later.
    fn mark_soon(
        &self,
        id: i64,
        epoch: i16,
        commit: bool,
        topic: Arc<str>,
        number: usize,
        name: String,
    ) {
        let delay = {
            let mut state = self.lock();
            match state.chance.below(12) {
                0 => state.chance.ms(50, 1500),
                1..4 => state.chance.ms(2, 40),
                _ => state.chance.ms(0, 1),
            }
        };
        let this = self.clone();
        tokio::spawn(async move {
            sleep(delay).await;
            loop {
                let upto = {
                    let mut state = this.lock();
                    let runs = state.runs();
                    let Some(partition) = state.partition(&topic, number) else { return };
                    match partition
                        .leader
                        .filter(|leader| runs[*leader] && partition.isr.len() >= MIN_ISR)
                    {
                        None => None,
                        Some(_) if !partition.mark(id, epoch, commit) => Some((0, partition.epoch)),
                        Some(_) => {
                            this.oracle.appended(&topic, number as i32, id, epoch, true);
                            Some((partition.log.len(), partition.epoch))
                        }
                    }
                };
                if let Some((upto, epoch)) = upto {
                    this.replicate_soon(&topic, number);
                    let far = Instant::now() + Duration::from_secs(60);
                    let stored = this.wait(far, |state| {
                        let partition = state.partition(&topic, number)?;
                        (partition.epoch != epoch || partition.high >= upto)
                            .then_some(partition.high >= upto)
                    });
                    if stored.await == Some(true) {
                        break;
                    }
                }
                sleep(Duration::from_millis(100)).await;
            }
            let mut state = this.lock();
            let State { transactions, groups, .. } = &mut *state;
            transactions.marked(&name, &topic, number, groups);
            drop(state);
            this.changed.notify_waiters();
        });
    }

    /// A broker's process ends.
    pub fn crash(&self, broker: usize) {
        self.trace.say(format_args!("broker {broker} crashes"));
        let gate = self.lock().brokers[broker].gate.clone();
        gate.kill();
        self.notice_later(broker);
    }

    /// It stands still.
    pub fn freeze(&self, broker: usize) {
        self.trace.say(format_args!("broker {broker} is frozen"));
        let gate = self.lock().brokers[broker].gate.clone();
        gate.freeze();
        self.notice_later(broker);
    }

    fn notice_later(&self, broker: usize) {
        let (delay, starts) = {
            let mut state = self.lock();
            (state.chance.ms(200, 3000), state.brokers[broker].starts)
        };
        let this = self.clone();
        tokio::spawn(async move {
            sleep(delay).await;
            let away = {
                let state = this.lock();
                state.brokers[broker].starts == starts && !state.brokers[broker].gate.runs()
            };
            if away {
                this.fence(broker);
            }
        });
    }

    /// The controller takes it for away.
    fn fence(&self, broker: usize) {
        self.trace.say(format_args!("broker {broker} is fenced"));
        let mut state = self.lock();
        state.brokers[broker].fenced = true;
        if state.coordinator == Some(broker) {
            state.coordinator = None;
        }
        self.elect(&mut state, broker);
        drop(state);
        self.changed.notify_waiters();
    }

    fn elect(&self, state: &mut State, gone: usize) {
        let fenced = state.brokers.clone().map(|broker| broker.fenced);
        let names: Vec<Arc<str>> = state.topics.keys().cloned().collect();
        for topic in names {
            for number in 0..state.topics[&topic].len() {
                let partition = &mut state.topics.get_mut(&topic).unwrap()[number];
                if partition.isr.len() > 1 && fenced[gone] {
                    partition.isr.remove(&gone);
                }
                if partition.leader.is_none_or(|leader| fenced[leader]) {
                    let next = partition.isr.iter().copied().find(|broker| !fenced[*broker]);
                    if next != partition.leader {
                        partition.elect(next);
                        self.trace.say(format_args!("{topic}[{number}] is led by {next:?}"));
                    }
                }
                self.advance(state, &topic, number);
            }
        }
        if state.coordinator.is_none() {
            state.coordinator = (0..3).find(|broker| !fenced[*broker]);
            let delay = state.chance.ms(10, 500);
            state.loading_until = Instant::now() + delay;
        }
    }

    /// It goes on, or is started anew.
    pub fn resume(&self, broker: usize) {
        let delay = {
            let mut state = self.lock();
            state.brokers[broker].starts += 1;
            if state.brokers[broker].gate.is_dead() {
                state.brokers[broker].gate = Gate::default();
                for partition in state.topics.values_mut().flatten() {
                    if partition.leader == Some(broker) {
                        partition.forget();
                    }
                }
            } else {
                state.brokers[broker].gate.thaw();
            }
            state.chance.ms(50, 1000)
        };
        self.trace.say(format_args!("broker {broker} goes on"));
        self.listen(broker);
        self.changed.notify_waiters();
        let this = self.clone();
        tokio::spawn(async move {
            sleep(delay).await;
            let mut state = this.lock();
            if !state.brokers[broker].gate.runs() {
                return;
            }
            state.brokers[broker].fenced = false;
            this.elect(&mut state, broker);
            let all: Vec<(Arc<str>, usize)> = state
                .topics
                .iter()
                .flat_map(|(name, all)| (0..all.len()).map(|at| (Arc::clone(name), at)))
                .collect();
            drop(state);
            all.iter().for_each(|(topic, number)| this.replicate_soon(topic, *number));
        });
    }

    /// Another in-sync replica leads a partition.
    pub fn move_leaders(&self) {
        let mut state = self.lock();
        let runs = state.runs();
        let State { topics, chance, .. } = &mut *state;
        for (topic, all) in topics.iter_mut() {
            for (number, partition) in all.iter_mut().enumerate() {
                let others: Vec<usize> = partition
                    .isr
                    .iter()
                    .copied()
                    .filter(|broker| Some(*broker) != partition.leader && runs[*broker])
                    .collect();
                if !others.is_empty() && chance.one_in(2) {
                    let next = chance.pick(&others);
                    partition.elect(Some(next));
                    self.trace.say(format_args!("{topic}[{number}] is led by {next}"));
                }
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Followers are slow for so long.
    pub fn slow(&self, time: Duration) {
        self.lock().slow_until = Instant::now() + time;
    }

    /// So many batches of this broker get an odd answer.
    pub fn mistreat(&self, broker: usize, count: u64) {
        self.lock().odd[broker] = count;
    }

    /// What is confirmed goes.
    pub fn delete(&self, oracle: &Oracle) {
        let confirmed = oracle.told();
        let mut state = self.lock();
        for (topic, all) in &mut state.topics {
            for (number, partition) in all.iter_mut().enumerate() {
                let kept = |entry: &partition::Entry| {
                    entry.names.iter().any(|name| name.commit.get() >= confirmed)
                };
                let first = partition.log[..partition.high].iter().find(|entry| kept(entry));
                let before = first.map_or_else(|| partition.high_watermark(), |entry| entry.base);
                partition.delete(before);
                self.trace.say(format_args!("{topic}[{number}] begins at {}", partition.log_start));
            }
        }
    }

    /// Everything goes on.
    pub fn heal(&self) {
        self.lock().odd = [0; 3];
        for broker in 0..3 {
            let heal =
                !self.lock().brokers[broker].gate.runs() || self.lock().brokers[broker].fenced;
            if heal {
                self.resume(broker);
            }
        }
    }

    fn coordinator(&self, broker: usize) -> i16 {
        let state = self.lock();
        if state.coordinator != Some(broker) {
            return code::NOT_COORDINATOR;
        }
        if Instant::now() < state.loading_until { code::LOADING } else { 0 }
    }
}

impl State {
    fn runs(&self) -> [bool; 3] {
        self.brokers.clone().map(|broker| broker.gate.runs())
    }

    fn partition(&mut self, topic: &str, number: usize) -> Option<&mut Partition> {
        self.topics.get_mut(topic)?.get_mut(number)
    }
}
