//! In transactional mode: what becomes visible together, and where the open transaction stands.
//!
//! What was submitted between two calls of [`Machine::commit`] is one transaction of Kafka's. A
//! partition is added to it before anything is sent there, and it ends when all of it is stored. What
//! is submitted behind it is made ready meanwhile, and waits until that end was answered.
//!
//! **Must stay true.** Nothing is under way when the end is asked for, and nothing is sent before the
//! answer. A delivery is given once its transaction is committed, never before. An end whose answer was
//! lost is not asked for again: late bytes of the first would end the next transaction in its midst.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{Action, Backoff, Delivery, Doubt, Machine, What, intake::Ready, metrics, turn::Turn};
use crate::sim::{Bug, planted};

/// The first pause after the coordinator was not ready: it is done with the markers of the last
/// transaction in some milliseconds, and until then answers 51.
const FIRST_PAUSE: Duration = Duration::from_millis(2);

/// Longest pause for that reason.
const SHORT: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) id: Arc<str>,
    /// Places of the partitions that belong to the open one.
    added: HashSet<usize>,
    /// Those of partitions that have something to send and do not belong to it yet.
    wanted: BTreeSet<usize>,
    /// What the coordinator was asked for and has not answered.
    asked: Option<Asked>,
    not_before: Option<Instant>,
    busy: Backoff,
    failing: Backoff,
    /// All of it was submitted.
    whole: bool,
    /// Of it, and stored.
    stored: Vec<(Delivery, Counted)>,
    /// What comes behind it.
    later: VecDeque<Later>,
}

#[derive(Debug)]
enum Asked {
    Add(Vec<usize>),
    End,
}

#[derive(Debug)]
enum Later {
    Batch(Ready),
    Commit,
}

/// What a delivery is for the metrics.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    pub(super) batches: u64,
    pub(super) bytes: u64,
}

/// Why a coordinator did not do what it was asked for.
#[derive(Debug)]
pub(in super::super) enum Failure {
    /// The last transaction's markers are not written yet.
    Busy,
    /// It may work later; in words.
    Later(String),
    /// Only a new taking helps.
    Doubt(Doubt),
}

impl Transaction {
    pub(super) fn new(id: Arc<str>, longest_pause: Duration) -> Self {
        Self {
            id,
            added: HashSet::new(),
            wanted: BTreeSet::new(),
            asked: None,
            not_before: None,
            busy: Backoff::new(FIRST_PAUSE, SHORT),
            failing: Backoff::new(super::FIRST_PAUSE.min(longest_pause), longest_pause),
            whole: false,
            stored: Vec::new(),
            later: VecDeque::new(),
        }
    }

    /// Gives a batch back unless it belongs behind the open transaction.
    pub(super) fn defer(&mut self, ready: Ready) -> Option<Ready> {
        if self.whole && !planted(Bug::NothingDeferred) {
            self.later.push_back(Later::Batch(ready));
            return None;
        }
        Some(ready)
    }

    /// Whether a partition may be sent to; else it is going to be added.
    pub(super) fn admits(&mut self, place: usize) -> bool {
        self.added.contains(&place) || {
            self.wanted.insert(place);
            false
        }
    }

    /// A batch of it is stored. Its bytes are of no use any more, and there may be many.
    pub(super) fn keep(&mut self, mut delivery: Delivery, counted: Counted) {
        delivery.batch.bytes = Vec::new();
        self.stored.push((delivery, counted));
    }
}

impl Machine {
    /// What was submitted until now becomes visible together, and apart from what comes next. Nothing
    /// without transactions.
    pub(in super::super) fn commit(&mut self) {
        let nothing = self.parcels.is_empty();
        let Some(transaction) = &mut self.transaction else { return };
        match transaction.later.back() {
            Some(Later::Batch(_)) => transaction.later.push_back(Later::Commit),
            Some(Later::Commit) => {}
            None => transaction.whole |= !(nothing && transaction.stored.is_empty()),
        }
    }

    /// Whether a transaction is open, or something waits for one.
    pub(in super::super) fn in_transaction(&self) -> bool {
        let busy = |it: &Transaction| {
            !self.parcels.is_empty()
                || !it.stored.is_empty()
                || !it.added.is_empty()
                || it.asked.is_some()
        };
        self.transaction.as_ref().is_some_and(busy)
    }

    /// Asks the coordinator for what is needed now.
    pub(super) fn transact(&mut self, turn: &mut Turn, now: Instant) {
        let all_stored = self.parcels.is_empty() || self.ends_too_soon();
        let Some(transaction) = &mut self.transaction else { return };
        let ends = transaction.whole && all_stored;
        if transaction.asked.is_some() || (transaction.wanted.is_empty() && !ends) {
            return;
        }
        if let Some(at) = transaction.not_before.filter(|&at| at > now) {
            turn.wake_at(at);
            return;
        }
        if ends {
            transaction.asked = Some(Asked::End);
            turn.actions.push(Action::EndTransaction);
            return;
        }
        let places: Vec<usize> = std::mem::take(&mut transaction.wanted).into_iter().collect();
        let partitions = places.iter().filter_map(|&place| self.partitions.get(place));
        let partitions = partitions.map(|p| (Arc::clone(&p.topic), p.number)).collect();
        transaction.asked = Some(Asked::Add(places));
        turn.actions.push(Action::AddPartitions { partitions });
    }

    /// A fault that is planted: some is stored, and all is sent.
    fn ends_too_soon(&self) -> bool {
        planted(Bug::EndBeforeAcks)
            && self.transaction.as_ref().is_some_and(|it| !it.stored.is_empty())
            && self.partitions.iter().all(|partition| !partition.queue.has_waiting())
    }

    /// The coordinator has done it.
    pub(in super::super) fn coordinated(&mut self, now: Instant) {
        let Some(transaction) = &mut self.transaction else { return };
        (transaction.not_before, transaction.busy) = (None, Backoff::new(FIRST_PAUSE, SHORT));
        transaction.failing.reset();
        let asked = transaction.asked.take();
        self.troubles.end(What::Coordinator, now);
        match asked {
            Some(Asked::Add(places)) => transaction.added.extend(places),
            Some(Asked::End) => self.ended(),
            None => {}
        }
    }

    /// The open transaction is committed: the next one begins.
    fn ended(&mut self) {
        let Some(transaction) = &mut self.transaction else { return };
        metrics::kafka_transaction();
        transaction.whole = false;
        for place in std::mem::take(&mut transaction.added) {
            if let Some(partition) = self.partitions.get_mut(place) {
                partition.offsets.marked();
            }
        }
        for (delivery, counted) in std::mem::take(&mut transaction.stored) {
            self.delivered(delivery, counted);
        }
        while let Some(later) = self.transaction.as_mut().and_then(|it| it.later.pop_front()) {
            match later {
                Later::Batch(ready) => self.enqueue(ready),
                Later::Commit => {
                    if let Some(transaction) = &mut self.transaction {
                        transaction.whole = true; // a batch came before it
                    }
                    return;
                }
            }
        }
    }

    /// The coordinator has not done it, or did not say. `random` spreads the pause.
    pub(in super::super) fn not_coordinated(&mut self, why: Failure, now: Instant, random: u32) {
        let Some(transaction) = &mut self.transaction else { return };
        transaction.asked = None; // who has something to send is wanted anew
        match why {
            Failure::Busy => transaction.not_before = Some(now + transaction.busy.next(random)),
            Failure::Later(text) => {
                transaction.not_before = Some(now + transaction.failing.next(random));
                metrics::retry("coordinator");
                self.troubles.begin(What::Coordinator, "coordinator", text, now);
            }
            Failure::Doubt(why) => self.doubt_transaction(why),
        }
    }

    /// Only a new taking can tell what became of the open transaction.
    pub(in super::super) fn doubt_transaction(&mut self, why: Doubt) {
        let of = |it: &Transaction| it.added.iter().min().copied();
        let place = self.transaction.as_ref().and_then(of).unwrap_or(0);
        let Some(partition) = self.partitions.get(place) else { return };
        let (topic, number) = (Arc::clone(&partition.topic), partition.number);
        self.doubt(&topic, number, why);
    }
}
