//! What must be true of every history, looked at all along.
//!
//! 1. Confirmed means stored: whenever PostgreSQL is told a position, each row of every transaction
//!    below it is on all in-sync replicas.
//! 2. No row is stored twice: no name is seen twice below the high watermarks.
//! 3. The rows of a partition are in the order in which they were committed.
//! 4. What is stored was committed, on the timeline that its name says.
//! 5. After a marker of a higher epoch no record of a lower one of the same producer id follows.
//! 6. In the end every row that the last primary has is stored.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use pgsluice::stored::Name;

use super::trace::Trace;

/// A row by its place: timeline, commit LSN, index.
pub type Row = (u32, u64, u32);

#[derive(Clone)]
pub struct Oracle(Arc<Mutex<State>>);

struct State {
    trace: Trace,
    /// Rows that the primary has and that are not stored, by commit LSN.
    missing: BTreeMap<u64, BTreeSet<Row>>,
    /// All that was ever committed.
    committed: BTreeSet<Row>,
    stored: BTreeMap<Row, (Arc<str>, i32)>,
    last: BTreeMap<(Arc<str>, i32), Row>,
    /// By topic, partition and producer id, the highest epoch of a marker.
    fenced: BTreeMap<(Arc<str>, i32, i64), i16>,
    /// As far as PostgreSQL could forget, whatever it crashes.
    safe: u64,
}

fn row(name: &Name) -> Row {
    (name.timeline, name.commit.get(), name.index)
}

impl Oracle {
    pub fn new(trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(State {
            trace,
            missing: BTreeMap::new(),
            committed: BTreeSet::new(),
            stored: BTreeMap::new(),
            last: BTreeMap::new(),
            fenced: BTreeMap::new(),
            safe: 0,
        })))
    }

    /// PostgreSQL committed a transaction of so many published rows.
    pub fn commit(&self, timeline: u32, commit: u64, rows: u32) {
        let mut state = self.0.lock().unwrap();
        let all: BTreeSet<Row> = (0..rows).map(|index| (timeline, commit, index)).collect();
        state.committed.extend(&all);
        if !all.is_empty() {
            state.missing.insert(commit, all);
        }
    }

    /// A standby was promoted that had not got this.
    pub fn lost(&self, commit: u64) {
        self.0.lock().unwrap().missing.remove(&commit);
    }

    /// Below the high watermark of a partition: rows, or the end of a transaction.
    pub fn stored(&self, topic: &Arc<str>, partition: i32, offset: i64, names: &[Name]) {
        let mut state = self.0.lock().unwrap();
        let state = &mut *state;
        let place = (Arc::clone(topic), partition);
        for name in names {
            let row = row(name);
            state.trace.checked();
            if !state.committed.contains(&row) {
                state.trace.broken(format_args!(
                    "{topic}[{partition}] at {offset} holds a row that was never committed: {row:x?}"
                ));
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
            if let Some(rows) = state.missing.get_mut(&row.1) {
                rows.remove(&row);
                if rows.is_empty() {
                    state.missing.remove(&row.1);
                }
            }
        }
    }

    /// A batch or a marker is appended.
    pub fn appended(&self, topic: &Arc<str>, partition: i32, id: i64, epoch: i16, marker: bool) {
        let mut state = self.0.lock().unwrap();
        let highest = state.fenced.entry((Arc::clone(topic), partition, id)).or_insert(-1);
        let (before, trace) = (*highest, state.trace.clone());
        trace.checked();
        if marker {
            state.fenced.insert((Arc::clone(topic), partition, id), before.max(epoch));
        } else if epoch < before {
            trace.broken(format_args!(
                "{topic}[{partition}] takes epoch {epoch} after {before}'s marker"
            ));
        }
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

    /// How many rows are still to be stored.
    pub fn missing(&self) -> usize {
        self.0.lock().unwrap().missing.values().map(BTreeSet::len).sum()
    }

    pub fn stored_rows(&self) -> usize {
        self.0.lock().unwrap().stored.len()
    }
}
