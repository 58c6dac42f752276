//! A partition's log, which knows its producers as a broker does.

use std::collections::{HashMap, VecDeque};

use super::coordinator::DATA;

pub(super) const STORED: i16 = 0;
const TIMED_OUT: i16 = 7;
const OUT_OF_ORDER: i16 = 45;
const NOT_IN_TRANSACTION: i16 = 48;

/// A batch in a partition's log.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) id: i64,
    pub(super) epoch: i16,
    pub(super) first: i32,
    pub(super) last: i32,
    pub(super) values: Vec<u64>,
    pub(super) transactional: bool,
    /// The end of a transaction: whether it was committed.
    pub(super) marker: Option<bool>,
}

/// What a leader remembers of a producer: its epoch, and the sequence ranges of its last batches.
#[derive(Clone, Default)]
pub(super) struct Memory {
    pub(super) epoch: i16,
    pub(super) ranges: VecDeque<(i32, i32)>,
}

#[derive(Default)]
pub(super) struct Log {
    pub(super) entries: Vec<Entry>,
    /// Entries that all replicas have.
    pub(super) replicated: usize,
    pub(super) leader: Option<i32>,
    pub(super) memory: HashMap<i64, Memory>,
    /// Answers 19 and appends nothing.
    pub(super) too_few_replicas: bool,
    /// Answers 7, though it appends.
    pub(super) slow_replicas: bool,
}

impl Log {
    /// `admits`: the coordinator has this partition in the open transaction.
    pub(super) fn append(&mut self, broker: i32, bytes: &[u8], limit: usize, admits: bool) -> i16 {
        if self.leader != Some(broker) {
            return 6;
        }
        if bytes.len() > limit {
            return 10;
        }
        if self.too_few_replicas {
            return 19;
        }
        let entry = entry(bytes);
        if let Some(memory) = self.memory.get(&entry.id) {
            let known = memory.ranges.contains(&(entry.first, entry.last));
            let next = memory.ranges.back().map_or(0, |&(_, last)| after(last));
            match entry.epoch.cmp(&memory.epoch) {
                std::cmp::Ordering::Less => return 47,
                std::cmp::Ordering::Greater if entry.first != 0 => return OUT_OF_ORDER,
                std::cmp::Ordering::Equal if known => return self.acknowledge(),
                std::cmp::Ordering::Equal if entry.first != next => return OUT_OF_ORDER,
                _ => {}
            }
        }
        if entry.transactional && !admits {
            return NOT_IN_TRANSACTION;
        }
        remember(&mut self.memory, &entry, 5);
        self.entries.push(entry);
        self.acknowledge()
    }

    /// A marker of this epoch, which all replicas have: nothing of an older one is taken any more.
    pub(super) fn fence(&mut self, id: i64, epoch: i16) {
        self.mark(id, epoch, false);
    }

    /// The end of a producer's transaction, which all replicas have.
    pub(super) fn mark(&mut self, id: i64, epoch: i16, commit: bool) {
        let (values, marker) = (Vec::new(), Some(commit));
        let marker = Entry { id, epoch, first: -1, last: -1, values, transactional: true, marker };
        remember(&mut self.memory, &marker, 5);
        self.entries.push(marker);
        self.replicated = self.entries.len();
    }

    /// The values that a consumer sees: all that are not in a transaction, and those of committed ones.
    pub(super) fn visible(&self) -> Vec<u64> {
        self.seen(self.entries.len(), false)
    }

    /// The same of what all replicas have; `commits`: what is open is as good as committed.
    pub(super) fn stored(&self, commits: bool) -> u64 {
        self.seen(self.replicated, commits).len() as u64
    }

    fn seen(&self, most: usize, commits: bool) -> Vec<u64> {
        let (mut all, mut open) = (Vec::new(), Vec::new());
        for entry in self.entries.iter().take(most) {
            match entry.marker {
                Some(true) => all.append(&mut open),
                Some(false) if entry.id == DATA => open.clear(),
                Some(false) => {}
                None if entry.transactional => open.extend(&entry.values),
                None => all.extend(&entry.values),
            }
        }
        if commits {
            all.append(&mut open);
        }
        all
    }

    pub(super) fn acknowledge(&mut self) -> i16 {
        if self.slow_replicas {
            return TIMED_OUT;
        }
        self.replicated = self.entries.len();
        STORED
    }

    /// Memory as it is rebuilt from the log.
    pub(super) fn recall(&mut self, ranges: usize) {
        self.memory.clear();
        for entry in &self.entries {
            remember(&mut self.memory, entry, ranges);
        }
    }
}

fn remember(memory: &mut HashMap<i64, Memory>, entry: &Entry, ranges: usize) {
    let known = memory.entry(entry.id).or_default();
    if known.epoch != entry.epoch {
        *known = Memory { epoch: entry.epoch, ranges: VecDeque::new() };
    }
    if entry.marker.is_some() {
        return;
    }
    known.ranges.push_back((entry.first, entry.last));
    if known.ranges.len() > ranges {
        known.ranges.pop_front();
    }
}

fn after(sequence: i32) -> i32 {
    sequence.checked_add(1).unwrap_or(0)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().unwrap()
}

/// Reads a batch and checks that its checksum is of these very bytes.
fn entry(bytes: &[u8]) -> Entry {
    assert_eq!(u32::from_be_bytes(field(bytes, 17)), crc32c::crc32c(&bytes[21..]));
    let first = i32::from_be_bytes(field(bytes, 53));
    let records = i32::from_be_bytes(field(bytes, 57));
    let last = (i64::from(first) + i64::from(records) - 1) & i64::from(i32::MAX);
    // Values are eight bytes between two marks, which no length or delta of ours looks like.
    let values = bytes[61..].windows(10).filter(|w| w.starts_with(b"<") && w.ends_with(b">"));
    let values: Vec<u64> = values.map(|w| u64::from_be_bytes(field(w, 1))).collect();
    assert_eq!(values.len(), usize::try_from(records).unwrap());
    Entry {
        id: i64::from_be_bytes(field(bytes, 43)),
        epoch: i16::from_be_bytes(field(bytes, 51)),
        first,
        last: i32::try_from(last).unwrap(),
        values,
        transactional: bytes[22] & 0x10 != 0,
        marker: None,
    }
}
