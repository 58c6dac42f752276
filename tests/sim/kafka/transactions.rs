//! The coordinator of transactions, and the offsets of groups.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{Cluster, State, code};

type Place = (Arc<str>, usize);

#[derive(Default)]
pub struct Transactions(BTreeMap<String, Transaction>);

struct Transaction {
    id: i64,
    epoch: i16,
    state: Phase,
    partitions: BTreeSet<Place>,
    groups: BTreeSet<String>,
    timeout: Duration,
    /// Counts what was begun.
    number: u64,
    /// When something was last done with it.
    at: Instant,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Empty,
    Ongoing,
    Prepared { commit: bool },
    Complete { commit: bool },
}

/// By group: what each partition's offset is, and what an open transaction would make of it.
#[derive(Default)]
pub struct Groups {
    all: BTreeMap<String, Group>,
    /// Since when something is kept.
    since: Option<Instant>,
}

#[derive(Default)]
pub struct Group {
    offsets: BTreeMap<Place, (i64, String)>,
    pending: BTreeMap<i64, BTreeMap<Place, (i64, String)>>,
}

impl Groups {
    /// Whether nothing is kept, or only since a moment ago.
    pub fn is_new(&self, moment: Duration) -> bool {
        self.all.values().all(|group| group.offsets.is_empty())
            || self.since.is_none_or(|since| since.elapsed() < moment)
    }

    /// A topic is deleted.
    pub fn forget(&mut self, topic: &str) {
        for group in self.all.values_mut() {
            group.offsets.retain(|place, _| &*place.0 != topic);
            group.pending.values_mut().for_each(|all| all.retain(|place, _| &*place.0 != topic));
        }
    }
}

impl Transactions {
    /// Those that were not used for so long are known no more. Gives their names.
    pub fn expire(&mut self, time: Duration) -> Vec<String> {
        let old = |one: &Transaction| {
            matches!(one.state, Phase::Empty | Phase::Complete { .. }) && one.at.elapsed() >= time
        };
        let old: Vec<String> =
            self.0.iter().filter(|(_, one)| old(one)).map(|(name, _)| name.clone()).collect();
        old.iter().for_each(|name| drop(self.0.remove(name)));
        old
    }

    /// Whether this id's transaction is open over that partition.
    pub fn includes(&self, id: i64, epoch: i16, topic: &Arc<str>, number: usize) -> bool {
        self.0.values().any(|one| {
            (one.id, one.epoch) == (id, epoch)
                && one.state == Phase::Ongoing
                && one.partitions.contains(&(Arc::clone(topic), number))
        })
    }

    /// A marker is stored; after the last one the transaction is over.
    pub fn marked(&mut self, name: &str, topic: &Arc<str>, number: usize, groups: &mut Groups) {
        let Some(one) = self.0.get_mut(name) else { return };
        one.partitions.remove(&(Arc::clone(topic), number));
        one.finish(groups);
    }
}

impl Transaction {
    fn finish(&mut self, groups: &mut Groups) {
        let Phase::Prepared { commit } = self.state else { return };
        if !self.partitions.is_empty() {
            return;
        }
        for group in std::mem::take(&mut self.groups) {
            groups.since.get_or_insert_with(Instant::now);
            let group = groups.all.entry(group).or_default();
            let pending = group.pending.remove(&self.id).unwrap_or_default();
            if commit {
                group.offsets.extend(pending);
            }
        }
        (self.state, self.at) = (Phase::Complete { commit }, Instant::now());
    }

    fn check(&self, id: i64, epoch: i16) -> i16 {
        match self.state {
            _ if id != self.id => code::INVALID_ID_MAPPING,
            _ if epoch != self.epoch => code::FENCED,
            Phase::Prepared { .. } => code::CONCURRENT,
            _ => 0,
        }
    }
}

impl Cluster {
    pub(super) fn init_producer_id(
        &self,
        name: Option<&str>,
        timeout: Duration,
    ) -> (i16, i64, i16) {
        let mut state = self.lock();
        let Some(name) = name else {
            state.next_id += 1;
            return (0, state.next_id, 0);
        };
        let State { transactions, next_id, .. } = &mut *state;
        let one = transactions.0.entry(name.to_owned()).or_insert_with(|| {
            *next_id += 1;
            Transaction {
                id: *next_id,
                epoch: -1,
                state: Phase::Empty,
                partitions: BTreeSet::new(),
                groups: BTreeSet::new(),
                timeout,
                number: 0,
                at: Instant::now(),
            }
        });
        match one.state {
            Phase::Prepared { .. } => (code::CONCURRENT, -1, -1),
            Phase::Ongoing => {
                one.epoch += 1;
                let name = name.to_owned();
                drop(state);
                self.end(&name, false);
                (code::CONCURRENT, -1, -1)
            }
            Phase::Empty | Phase::Complete { .. } => {
                one.epoch += 1;
                (one.timeout, one.at) = (timeout, Instant::now());
                let told = (0, one.id, one.epoch);
                self.oracle.identity(name, one.id, one.epoch);
                self.trace.say(format_args!("{name} is {}/{} now", told.1, told.2));
                told
            }
        }
    }

    pub(super) fn add_partitions(
        &self,
        name: &str,
        id: i64,
        epoch: i16,
        all: &[Place],
    ) -> Vec<i16> {
        let mut state = self.lock();
        let known = |place: &Place| state.topics.get(&place.0).is_some_and(|t| place.1 < t.len());
        let known: Vec<bool> = all.iter().map(known).collect();
        if known.contains(&false) {
            let code =
                |known: &bool| if *known { code::NOT_ATTEMPTED } else { code::UNKNOWN_TOPIC };
            return known.iter().map(code).collect();
        }
        let Some(one) = state.transactions.0.get_mut(name) else {
            return vec![code::INVALID_ID_MAPPING; all.len()];
        };
        let code = one.check(id, epoch);
        if code == 0 {
            one.partitions.extend(all.iter().cloned());
            let begun = one.begin();
            drop(state);
            self.limit(name, begun);
        }
        vec![code; all.len()]
    }

    pub(super) fn add_offsets(&self, name: &str, id: i64, epoch: i16, group: &str) -> i16 {
        let mut state = self.lock();
        let Some(one) = state.transactions.0.get_mut(name) else { return code::INVALID_ID_MAPPING };
        let code = one.check(id, epoch);
        if code == 0 {
            one.groups.insert(group.to_owned());
            let begun = one.begin();
            drop(state);
            self.limit(name, begun);
        }
        code
    }

    /// What is open for too long is aborted under the next epoch.
    fn limit(&self, name: &str, begun: Option<(u64, Duration)>) {
        let Some((number, timeout)) = begun else { return };
        let (this, name) = (self.clone(), name.to_owned());
        tokio::spawn(async move {
            sleep(timeout).await;
            let mut state = this.lock();
            let Some(one) = state.transactions.0.get_mut(&name) else { return };
            if one.number == number && one.state == Phase::Ongoing {
                one.epoch += 1;
                drop(state);
                this.trace.say(format_args!("the transaction of {name} is over its time"));
                this.end(&name, false);
            }
        });
    }

    pub(super) fn end_txn(&self, name: &str, id: i64, epoch: i16, commit: bool) -> i16 {
        let state = self.lock();
        let Some(one) = state.transactions.0.get(name) else { return code::INVALID_ID_MAPPING };
        match (one.check(id, epoch), one.state) {
            (0, Phase::Ongoing) => {}
            (0, Phase::Complete { commit: before }) if before == commit => return 0,
            (0, _) => return code::INVALID_TXN_STATE,
            (code, _) => return code,
        }
        drop(state);
        self.end(name, commit);
        0
    }

    /// It is decided; the markers follow.
    fn end(&self, name: &str, commit: bool) {
        let mut state = self.lock();
        let State { transactions, groups, topics, .. } = &mut *state;
        let Some(one) = transactions.0.get_mut(name) else { return };
        one.state = Phase::Prepared { commit };
        let (id, epoch, partitions) = (one.id, one.epoch, one.partitions.clone());
        if commit {
            // What is not on all replicas may be lost yet.
            let there =
                partitions.iter().filter_map(|(topic, number)| topics.get(topic)?.get(*number));
            let pending = there.filter_map(|partition| partition.pending.get(&id)).flatten();
            let names: Vec<_> = pending.flat_map(|(_, names)| names.iter().copied()).collect();
            self.oracle.decided(&names);
        }
        one.finish(groups);
        drop(state);
        for (topic, number) in partitions {
            self.mark_soon(id, epoch, commit, topic, number, name.to_owned());
        }
    }

    pub(super) fn commit_offset(
        &self,
        name: &str,
        group: &str,
        id: i64,
        epoch: i16,
        place: Place,
        kept: (i64, String),
    ) -> i16 {
        let mut state = self.lock();
        let Some(one) = state.transactions.0.get(name) else { return code::INVALID_ID_MAPPING };
        if one.id != id || one.epoch != epoch {
            return code::INVALID_EPOCH;
        }
        if one.state != Phase::Ongoing || !one.groups.contains(group) {
            return code::INVALID_TXN_STATE;
        }
        if state.topics.get(&place.0).is_none_or(|all| place.1 >= all.len()) {
            return code::UNKNOWN_TOPIC;
        }
        let group = state.groups.all.entry(group.to_owned()).or_default();
        group.pending.entry(id).or_default().insert(place, kept);
        0
    }

    /// Each partition's offset, with a code where it may change yet.
    pub(super) fn offsets(&self, group: &str, stable: bool) -> Vec<(Place, i64, String, i16)> {
        let state = self.lock();
        let Some(group) = state.groups.all.get(group) else { return Vec::new() };
        let of = |place: &Place| {
            let open = stable && group.pending.values().any(|all| all.contains_key(place));
            let (offset, text) = group.offsets.get(place).cloned().unwrap_or((-1, String::new()));
            match open {
                true => (place.clone(), -1, String::new(), code::UNSTABLE_OFFSET),
                false => (place.clone(), offset, text, 0),
            }
        };
        group.offsets.keys().map(of).collect() // of all, only those that have one
    }
}

impl Transaction {
    /// Its number and time, if it has just begun.
    fn begin(&mut self) -> Option<(u64, Duration)> {
        if self.state == Phase::Ongoing {
            return None;
        }
        self.state = Phase::Ongoing;
        self.number += 1;
        Some((self.number, self.timeout))
    }
}

/// How far away what may come is.
pub fn after(time: Duration) -> Instant {
    Instant::now() + time
}
