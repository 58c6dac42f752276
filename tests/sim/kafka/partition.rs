//! One partition: its log, which broker has how much of it, and what its leader knows of producers.
//!
//! What a leader answers a producer is as it was measured on 3.9 and 4.x: it compares producer id,
//! epoch, first and last sequence, remembers the last five batches of an id, and after a restart only
//! the last one.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use pgsluice::{
    batch::log::{Entries, Marker},
    stored::Name,
};
use tokio::time::Instant;

use super::batch::seal;

/// Error codes of the protocol.
pub mod code {
    pub const OFFSET_OUT_OF_RANGE: i16 = 1;
    pub const UNKNOWN_TOPIC: i16 = 3;
    pub const NOT_LEADER: i16 = 6;
    pub const TIMED_OUT: i16 = 7;
    pub const LOADING: i16 = 14;
    pub const NO_COORDINATOR: i16 = 15;
    pub const NOT_COORDINATOR: i16 = 16;
    pub const NOT_ENOUGH_REPLICAS: i16 = 19;
    pub const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
    pub const TOPIC_EXISTS: i16 = 36;
    pub const OUT_OF_ORDER_SEQUENCE: i16 = 45;
    pub const INVALID_EPOCH: i16 = 47;
    pub const INVALID_TXN_STATE: i16 = 48;
    pub const STORAGE: i16 = 56;
    pub const INVALID_ID_MAPPING: i16 = 49;
    pub const CONCURRENT: i16 = 51;
    pub const NO_TRANSACTIONAL_ID: i16 = 53;
    pub const NOT_ATTEMPTED: i16 = 55;
    pub const UNSTABLE_OFFSET: i16 = 88;
    pub const FENCED: i16 = 90;
    pub const ABORTABLE: i16 = 120;
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub base: i64,
    pub last: i64,
    pub bytes: Arc<Vec<u8>>,
    pub id: i64,
    pub epoch: i16,
    pub sequence: i32,
    pub count: u32,
    pub transactional: bool,
    pub marker: Option<Marker>,
    pub names: Vec<Name>,
    pub at: Instant,
}

/// What is known of an id: its epoch, and its last batches by first and last sequence, with offsets.
#[derive(Clone, Debug, Default)]
struct Known {
    epoch: i16,
    batches: VecDeque<(i32, i32, i64, i64)>,
}

pub struct Partition {
    pub leader: Option<usize>,
    pub epoch: i32,
    /// Tells topics of one name apart.
    pub born: i64,
    pub isr: BTreeSet<usize>,
    pub log: Vec<Entry>,
    /// Entries that each broker has.
    pub has: [usize; 3],
    /// Entries below the high watermark.
    pub high: usize,
    pub log_start: i64,
    known: BTreeMap<i64, Known>,
    /// By id, how many entries of the log nobody remembers.
    forgotten: BTreeMap<i64, usize>,
    /// Transactions that are open, by id.
    pub open: BTreeSet<i64>,
    /// Names of transactions that are open.
    pub pending: BTreeMap<i64, Vec<(i64, Vec<Name>)>>,
}

/// What becomes of a batch.
pub enum Verdict {
    /// Appended, and stored once the high watermark is beyond this many entries.
    Appended(i64, usize),
    Refused(i16),
}

impl Partition {
    pub fn new(leader: usize) -> Self {
        Self {
            leader: Some(leader),
            epoch: 0,
            born: 0,
            isr: [0, 1, 2].into(),
            log: Vec::new(),
            has: [0; 3],
            high: 0,
            log_start: 0,
            known: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            open: BTreeSet::new(),
            pending: BTreeMap::new(),
        }
    }

    pub fn end(&self) -> i64 {
        self.log.last().map_or(0, |entry| entry.last + 1)
    }

    pub fn high_watermark(&self) -> i64 {
        match self.high {
            0 => 0,
            high => self.log[high - 1].last + 1,
        }
    }

    /// A batch from a producer.
    pub fn produce(
        &mut self,
        bytes: &[u8],
        named: bool,
        in_transaction: impl Fn(i64, i16) -> bool,
    ) -> Verdict {
        let Some(Ok(entry)) = Entries::new(bytes).next() else { return Verdict::Refused(2) };
        if entry.transactional && !named {
            return Verdict::Refused(code::NO_TRANSACTIONAL_ID);
        }
        let (id, epoch, first) = (entry.producer_id, entry.epoch, entry.base_sequence);
        let last = first.wrapping_add(entry.records as i32 - 1) & i32::MAX;
        if self.known.get(&id).is_some_and(|known| epoch < known.epoch) {
            return Verdict::Refused(code::INVALID_EPOCH);
        }
        if entry.transactional && !in_transaction(id, epoch) {
            return Verdict::Refused(code::ABORTABLE); // so the coordinator says, who is asked
        }
        if !entry.transactional && self.open.contains(&id) {
            return Verdict::Refused(code::INVALID_TXN_STATE);
        }
        if let Some(known) = self.known.get(&id) {
            let same = known.batches.iter().find(|b| (b.0, b.1) == (first, last));
            if let Some((.., offset, end)) = same.filter(|_| epoch == known.epoch) {
                let upto = self.log.partition_point(|entry| entry.last < *end) + 1;
                return Verdict::Appended(*offset, upto);
            }
            let due = match known.batches.back().filter(|_| epoch == known.epoch) {
                Some((_, last, ..)) => last.wrapping_add(1) & i32::MAX,
                None => 0,
            };
            if first != due {
                return Verdict::Refused(code::OUT_OF_ORDER_SEQUENCE);
            }
        }
        let mut names = Vec::new();
        let _ = entry.headers(b"id", 1 << 20, |_, _, value| names.extend(Name::parse(value)));
        let base = self.end();
        let mut bytes = bytes.to_vec();
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        let entry = Entry {
            base,
            last: base + i64::from(entry.records) - 1,
            bytes: Arc::new(bytes),
            id,
            epoch,
            sequence: first,
            count: entry.records,
            transactional: entry.transactional,
            marker: None,
            names,
            at: Instant::now(),
        };
        self.append(entry);
        Verdict::Appended(base, self.log.len())
    }

    /// The end of a transaction; `false`: somebody has a higher epoch.
    pub fn mark(&mut self, id: i64, epoch: i16, commit: bool) -> bool {
        if self.known.get(&id).is_some_and(|known| epoch < known.epoch) {
            return false;
        }
        let base = self.end();
        let entry = Entry {
            base,
            last: base,
            bytes: Arc::new(control(base, id, epoch, commit)),
            id,
            epoch,
            sequence: -1,
            count: 1,
            transactional: true,
            marker: Some(if commit { Marker::Commit } else { Marker::Abort }),
            names: Vec::new(),
            at: Instant::now(),
        };
        self.append(entry);
        true
    }

    fn append(&mut self, entry: Entry) {
        Self::note(&mut self.known, &mut self.open, &entry);
        self.log.push(entry);
        if let Some(leader) = self.leader {
            self.has[leader] = self.log.len();
        }
    }

    fn note(known: &mut BTreeMap<i64, Known>, open: &mut BTreeSet<i64>, entry: &Entry) {
        if entry.id < 0 {
            return;
        }
        let known = known.entry(entry.id).or_default();
        if entry.epoch > known.epoch {
            *known = Known { epoch: entry.epoch, batches: VecDeque::new() };
        }
        if entry.marker.is_some() {
            open.remove(&entry.id);
            return;
        }
        if entry.transactional {
            open.insert(entry.id);
        }
        if known.batches.len() == 5 {
            known.batches.pop_front();
        }
        let last = entry.sequence.wrapping_add(entry.count as i32 - 1) & i32::MAX;
        known.batches.push_back((entry.sequence, last, entry.base, entry.last));
    }

    /// This broker leads now: what it does not have is gone.
    pub fn elect(&mut self, leader: Option<usize>) {
        (self.leader, self.epoch) = (leader, self.epoch + 1);
        let Some(leader) = leader else { return };
        self.log.truncate(self.has[leader]);
        self.has.iter_mut().for_each(|has| *has = (*has).min(self.log.len()));
        (self.known, self.open) = (BTreeMap::new(), BTreeSet::new());
        for (at, entry) in self.log.iter().enumerate() {
            if self.forgotten.get(&entry.id).is_some_and(|forgotten| at < *forgotten) {
                continue;
            }
            Self::note(&mut self.known, &mut self.open, entry);
        }
    }

    /// Producer id and epoch of each marker that is there.
    pub fn markers(&self) -> impl Iterator<Item = (i64, i16)> {
        self.log.iter().filter(|entry| entry.marker.is_some()).map(|entry| (entry.id, entry.epoch))
    }

    /// Its leader was started anew: of each id it knows the last batch.
    pub fn forget(&mut self) {
        for known in self.known.values_mut() {
            let earlier = known.batches.len().saturating_sub(1);
            known.batches.drain(..earlier);
        }
    }

    /// Who has written nothing for so long is known no more, unless a transaction is open. Gives them.
    pub fn expire(&mut self, time: Duration) -> Vec<i64> {
        let old = |id: &&i64| {
            let last = self.log.iter().rev().find(|entry| entry.id == **id);
            !self.open.contains(id) && last.is_none_or(|entry| entry.at.elapsed() >= time)
        };
        let old: Vec<i64> = self.known.keys().filter(old).copied().collect();
        for id in &old {
            self.known.remove(id);
            self.forgotten.insert(*id, self.log.len());
        }
        old
    }

    /// Everything before this is deleted.
    pub fn delete(&mut self, before: i64) {
        self.log_start = self.log_start.max(before.min(self.high_watermark()));
    }

    /// Below the high watermark, from the batch on that holds this offset.
    pub fn fetch(&self, from: i64, max: usize) -> Vec<u8> {
        let first = self.log.partition_point(|entry| entry.last < from);
        let mut bytes = Vec::new();
        for entry in self.log.get(first..self.high).unwrap_or_default() {
            if !bytes.is_empty() && bytes.len() + entry.bytes.len() > max {
                break;
            }
            bytes.extend_from_slice(&entry.bytes);
        }
        bytes
    }

    /// Before it every transaction has ended.
    pub fn last_stable(&self) -> i64 {
        let first = self.pending.values().flatten().map(|(base, _)| *base).min();
        first.unwrap_or_else(|| self.high_watermark())
    }
}

/// The batch that ends a transaction.
fn control(base: i64, id: i64, epoch: i16, commit: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(78);
    out.extend(base.to_be_bytes());
    out.extend(66_i32.to_be_bytes()); // what follows
    out.extend(0_i32.to_be_bytes()); // leader epoch
    out.push(2);
    out.extend([0; 4]); // checksum
    out.extend(0x30_i16.to_be_bytes());
    out.extend(0_i32.to_be_bytes());
    out.extend([0; 16]); // timestamps
    out.extend(id.to_be_bytes());
    out.extend(epoch.to_be_bytes());
    out.extend((-1_i32).to_be_bytes());
    out.extend(1_i32.to_be_bytes());
    out.extend([32, 0, 0, 0, 8, 0, 0, 0, u8::from(commit), 12, 0, 0, 0, 0, 0, 0, 0]);
    seal(&mut out);
    out
}
