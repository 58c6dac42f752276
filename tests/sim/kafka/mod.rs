//! Three brokers: leaders, in-sync replicas, high watermarks, and a controller that notices after a while
//! who is away.

mod append;
pub mod batch;
mod cleaner;
mod controller;
mod foreign;
mod forget;
pub mod partition;
mod reader;
mod replicas;
mod serve;
mod topics;
mod transactions;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use pgsluice::sim::{Gate, gated};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use self::{
    partition::{Partition, code},
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
    /// Counts the topics that were made anew.
    anew: i32,
    /// `cleanup.policy` is `compact`.
    compacted: bool,
    /// Of those who write here beside us.
    foreign: Chance,
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
            anew: 0,
            compacted: false,
            foreign: Chance::of(seed, "foreign"),
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
