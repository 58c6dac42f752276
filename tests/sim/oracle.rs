//! What must be true of every history, looked at all along.
//!
//! 1. Confirmed means stored: whenever PostgreSQL is told a position, each row of every transaction
//!    below it is on all in-sync replicas, and what is in a transaction of Kafka's is committed.
//! 2. No row is stored twice: no name is seen twice below the high watermarks, or of what is committed.
//! 3. The rows of a partition are in the order in which they were committed.
//! 4. What is stored was committed, on the timeline that its name says.
//! 5. After a marker of a higher epoch no record of a lower one of the same producer id follows.
//! 6. In the end every row that the last primary has is stored.
//!
//! And where Kafka's transactions are used ([`Promise`]):
//!
//! 7. One of PostgreSQL's is in one of Kafka's, whole, unless it is over a limit.
//! 8. They are committed in the order of PostgreSQL's commits, over all partitions.
//! 9. A [`Consumer`] that reads all the while applies each, whole and in this order, and keeps none.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use pgsluice::stored::Name;

use super::{
    consumer::{Consumer, Group},
    trace::Trace,
};

/// A row by its place: timeline, commit LSN, index.
pub type Row = (u32, u64, u32);

/// What a way of delivery promises.
#[derive(Clone, Copy, Debug, Default)]
pub struct Promise {
    /// There is a consumer that reads only what is committed; else all that is stored counts at once.
    pub committed: bool,
    /// 8, and 9 in order.
    pub ordered: bool,
    /// 7.
    pub whole: bool,
}

#[derive(Clone)]
pub struct Oracle(Arc<Mutex<State>>);

struct State {
    trace: Trace,
    promise: Promise,
    /// Rows that the primary has and that are not stored for good, by commit LSN.
    missing: BTreeMap<u64, BTreeSet<Row>>,
    /// All that was ever committed, by its rows' keys.
    committed: BTreeMap<Group, Vec<u64>>,
    /// What a promoted standby had not got.
    lost: BTreeSet<Group>,
    /// Rows that are stored for good, and the last of them.
    decided: BTreeSet<Row>,
    stored: BTreeMap<Row, (Arc<str>, i32)>,
    last: BTreeMap<(Arc<str>, i32), Row>,
    /// By topic, partition and producer id, the highest epoch of a marker.
    fenced: BTreeMap<(Arc<str>, i32, i64), i16>,
    /// By transactional id, who has it.
    identities: BTreeMap<String, (i64, i16)>,
    /// Topics that were made anew: no marker stands in them before they are taken.
    anew: BTreeSet<Arc<str>>,
    /// By partition of those and key, what is stored. What was stored in the old topic and is not confirmed comes
    /// again, behind what was written before the topic was taken anew; then all that followed comes again, so that
    /// no key is left with an old value.
    ends: BTreeMap<(Arc<str>, i32, u64), Vec<Row>>,
    /// Brokers have forgotten producers.
    forgot: bool,
    /// Partitions where somebody wrote for one of these two reasons who would be shut out otherwise: there
    /// rows may be repeated.
    loose: BTreeSet<(Arc<str>, i32)>,
    consumer: Consumer,
    /// As far as PostgreSQL could forget, whatever it crashes.
    safe: u64,
}

fn row(name: &Name) -> Row {
    (name.timeline, name.commit.get(), name.index)
}

impl State {
    fn found(&mut self, row: Row) {
        if let Some(rows) = self.missing.get_mut(&row.1) {
            rows.remove(&row);
            if rows.is_empty() {
                self.missing.remove(&row.1);
            }
        }
    }

    fn size(&self, group: &Group) -> usize {
        self.committed.get(group).map_or(0, Vec::len)
    }
}

impl Oracle {
    pub fn new(trace: Trace, promise: Promise) -> Self {
        Self(Arc::new(Mutex::new(State {
            trace,
            promise,
            missing: BTreeMap::new(),
            committed: BTreeMap::new(),
            lost: BTreeSet::new(),
            decided: BTreeSet::new(),
            stored: BTreeMap::new(),
            last: BTreeMap::new(),
            fenced: BTreeMap::new(),
            identities: BTreeMap::new(),
            anew: BTreeSet::new(),
            ends: BTreeMap::new(),
            forgot: false,
            loose: BTreeSet::new(),
            consumer: Consumer::default(),
            safe: 0,
        })))
    }

    /// PostgreSQL committed a transaction of published rows with these keys.
    pub fn commit(&self, timeline: u32, commit: u64, keys: Vec<u64>) {
        let mut state = self.0.lock().unwrap();
        if !keys.is_empty() {
            let all = (0..keys.len() as u32).map(|index| (timeline, commit, index));
            state.missing.insert(commit, all.collect());
            state.committed.insert((timeline, commit), keys);
        }
    }

    /// A standby was promoted that had not got this.
    pub fn lost(&self, timeline: u32, commit: u64) {
        let mut state = self.0.lock().unwrap();
        state.missing.remove(&commit);
        state.lost.insert((timeline, commit));
    }

    /// Below the high watermark of a partition, and in no transaction.
    pub fn plain(&self, topic: &Arc<str>, partition: i32, offset: i64, names: &[Name]) {
        let promise = {
            let mut state = self.0.lock().unwrap();
            for name in names {
                state.found(row(name));
                state.consumer.wait_for((name.timeline, name.commit.get()));
            }
            if state.promise.ordered && !names.is_empty() {
                let what = format_args!("{topic}[{partition}] at {offset} is in no transaction");
                state.trace.broken(what);
            }
            state.promise
        };
        if !promise.committed {
            self.stored(topic, partition, offset, names);
        }
    }

    /// A transaction of Kafka's is going to be committed, whatever happens, with these rows.
    pub fn decided(&self, names: &[Name]) {
        let mut state = self.0.lock().unwrap();
        let state = &mut *state;
        let rows: BTreeSet<Row> = names.iter().map(row).collect();
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return };
        state.trace.say(format_args!("{} rows are committed, to {last:x?}", rows.len()));
        state.trace.checked();
        let Promise { ordered, whole, .. } = state.promise;
        if let Some(before) = state.decided.last().filter(|before| ordered && *before >= first) {
            state
                .trace
                .broken(format_args!("{first:x?} is committed after {before:x?}, in another one"));
        }
        let groups: BTreeSet<Group> = rows.iter().map(|row| (row.0, row.1)).collect();
        groups.iter().for_each(|group| state.consumer.wait_for(*group));
        for group in groups.iter().filter(|_| whole) {
            let range = (group.0, group.1, 0)..=(group.0, group.1, u32::MAX);
            let (have, all) = (rows.range(range).count(), state.size(group));
            if have < all {
                let what = format_args!("{have} of {all} rows of {group:x?} are committed alone");
                state.trace.broken(what);
            }
        }
        for row in rows {
            state.found(row);
            state.decided.insert(row);
        }
    }

    /// A consumer can read this.
    pub fn stored(&self, topic: &Arc<str>, partition: i32, offset: i64, names: &[Name]) {
        let mut state = self.0.lock().unwrap();
        let state = &mut *state;
        let place = (Arc::clone(topic), partition);
        for name in names {
            let row = row(name);
            let group = (row.0, row.1);
            state.trace.checked();
            if state.size(&group) <= row.2 as usize {
                state.trace.broken(format_args!(
                    "{topic}[{partition}] at {offset} holds a row that was never committed: {row:x?}"
                ));
            }
            if state.loose.contains(&place) {
                state.stored.insert(row, place.clone());
                continue;
            }
            if state.anew.contains(topic) {
                let key = state.committed.get(&group).and_then(|keys| keys.get(row.2 as usize));
                let place = (Arc::clone(topic), partition, key.copied().unwrap_or(0));
                state.ends.entry(place).or_default().push(row);
                state.stored.insert(row, (Arc::clone(topic), partition));
                continue;
            }
            if let Some((topic, partition)) = state.stored.insert(row, place.clone()) {
                state.trace.broken(format_args!(
                    "{}[{}] at {offset} repeats {row:x?}, which is in {topic}[{partition}]",
                    place.0, place.1
                ));
            }
            let last = state.last.entry(place.clone()).or_insert((0, 0, 0));
            if row <= *last {
                state.trace.broken(format_args!(
                    "{topic}[{partition}] at {offset}: {row:x?} comes after {last:x?}"
                ));
            }
            *last = row.max(*last);
            if state.promise.committed {
                state.consumer.take(group, row.2);
            }
        }
    }

    /// The consumer was at a partition.
    pub fn consumed(&self) {
        let mut state = self.0.lock().unwrap();
        let State { consumer, committed, lost, promise, trace, .. } = &mut *state;
        let size = |group: &Group| committed.get(group).map_or(0, Vec::len);
        // What was cut in two may have lost the second part.
        let late = consumer.apply(size, |group| !promise.whole && lost.contains(group));
        if let Some(late) = late.filter(|late| promise.ordered && !lost.contains(late)) {
            trace.broken(format_args!("the consumer gets {late:x?} after a later one"));
        }
    }

    /// Nothing comes any more: the consumer has all that the primary has, and no part of anything.
    pub fn finished(&self) {
        let state = self.0.lock().unwrap();
        state.trace.checked();
        let tight = |topic: &Arc<str>, partition: i32| {
            !state.loose.contains(&(Arc::clone(topic), partition))
        };
        for ((topic, partition, key), rows) in &state.ends {
            // What a promotion took back is newer than none.
            let rows = || rows.iter().filter(|row| !state.lost.contains(&(row.0, row.1)));
            let (last, newest) = (rows().next_back(), rows().max());
            if last != newest && tight(topic, *partition) {
                state.trace.broken(format_args!(
                    "{topic}[{partition}] was made anew, and leaves key {key} with {last:x?}, not {newest:x?}"
                ));
            }
        }
        if !state.promise.committed {
            return;
        }
        let unapplied =
            |group: &&Group| !state.lost.contains(group) && !state.consumer.applied(group);
        if let Some(group) = state.committed.keys().find(unapplied) {
            state.trace.broken(format_args!("the consumer never applied {group:x?}"));
        }
        let gone = |group: &&Group| !state.promise.whole && state.lost.contains(group);
        if let Some(group) = state.consumer.kept().find(|group| !gone(group)) {
            state.trace.broken(format_args!("the consumer keeps a part of {group:x?}"));
        }
    }

    /// A batch or a marker is appended.
    pub fn appended(&self, topic: &Arc<str>, partition: i32, id: i64, epoch: i16, marker: bool) {
        let mut state = self.0.lock().unwrap();
        let highest = state.fenced.entry((Arc::clone(topic), partition, id)).or_insert(-1);
        let (before, trace) = (*highest, state.trace.clone());
        trace.checked();
        let ours = state.identities.values().any(|one| *one == (id, epoch));
        if !marker && !ours && (state.forgot || state.anew.contains(topic)) {
            state.loose.insert((Arc::clone(topic), partition));
        }
        if marker {
            state.fenced.insert((Arc::clone(topic), partition, id), before.max(epoch));
        } else if epoch < before {
            trace.broken(format_args!(
                "{topic}[{partition}] takes epoch {epoch} after {before}'s marker"
            ));
        }
    }

    /// A partition has another leader, which may lack what the old one had alone: these markers are there.
    pub fn elected(
        &self,
        topic: &Arc<str>,
        partition: i32,
        markers: impl Iterator<Item = (i64, i16)>,
    ) {
        let there: BTreeMap<i64, i16> = markers.fold(BTreeMap::new(), |mut there, (id, epoch)| {
            let highest = there.entry(id).or_insert(epoch);
            *highest = epoch.max(*highest);
            there
        });
        // Of what was forgotten since the markers nothing is known, though they are there.
        self.0.lock().unwrap().fenced.retain(|(of, number, id), highest| {
            let same = (of, *number) == (topic, partition);
            let known = there.get(id).filter(|_| same);
            *highest = known.map_or(*highest, |known| *known.min(highest));
            !same || known.is_some()
        });
    }

    /// A topic is deleted: what it held is gone, and nobody is shut out from what comes in its place.
    pub fn deleted(&self, topic: &str) {
        let mut state = self.0.lock().unwrap();
        state.stored.retain(|_, (of, _)| &**of != topic);
        state.ends.retain(|(of, ..), _| &**of != topic);
        state.last.retain(|(of, _), _| &**of != topic);
        state.fenced.retain(|(of, ..), _| &**of != topic);
        state.anew.insert(Arc::from(topic));
    }

    /// A partition's leader has forgotten a producer.
    pub fn forgotten_id(&self, topic: &Arc<str>, partition: i32, id: i64) {
        let mut state = self.0.lock().unwrap();
        state.forgot = true;
        state.fenced.remove(&(Arc::clone(topic), partition, id));
    }

    /// Who has a transactional id now.
    pub fn identity(&self, name: &str, id: i64, epoch: i16) {
        self.0.lock().unwrap().identities.insert(name.to_owned(), (id, epoch));
    }

    /// PostgreSQL was told that all below is stored.
    pub fn confirmed(&self, position: u64) {
        let state = self.0.lock().unwrap();
        state.trace.checked();
        if let Some((commit, rows)) = state.missing.range(..position).next() {
            state.trace.broken(format_args!(
                "{position:x} is confirmed, and {} rows of {commit:x} are not stored",
                rows.len()
            ));
        }
    }

    /// PostgreSQL will send nothing below this any more, nor will its standby.
    pub fn forgotten(&self, position: u64) {
        let mut state = self.0.lock().unwrap();
        state.safe = state.safe.max(position);
    }

    /// See [`Self::forgotten`].
    pub fn told(&self) -> u64 {
        self.0.lock().unwrap().safe
    }

    /// A row's key.
    pub fn key(&self, name: &Name) -> Option<u64> {
        let state = self.0.lock().unwrap();
        let keys = state.committed.get(&(name.timeline, name.commit.get()))?;
        keys.get(name.index as usize).copied()
    }

    /// How many rows are still to be stored.
    pub fn missing(&self) -> usize {
        self.0.lock().unwrap().missing.values().map(BTreeSet::len).sum()
    }

    pub fn stored_rows(&self) -> usize {
        self.0.lock().unwrap().stored.len()
    }
}
