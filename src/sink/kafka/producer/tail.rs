//! One partition's end, read back: from its markers to the first record of ours that is confirmed.
//!
//! Plain code: it says from which offset to fetch, and is fed what came. First forward, from an
//! offset that is before the markers, as something may have been appended until a marker shut it
//! out; then backwards in growing steps, as Kafka reads only forward.
//!
//! **Must stay true.** A name goes into the set only if its record is stored and visible: below the
//! high watermark, and, in a transaction, committed. What is not understood is not taken for ours.

mod order;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use tracing::warn;

use self::order::{Order, Seen};
use super::{claim::ReadBack, note::Unsure, queue::Identity};
use crate::{
    batch::log::{self, Entries, Marker},
    lsn::Lsn,
    sim::{Bug, planted},
    stored::{Name, Place, Stored},
};

/// Offsets of the first step backwards; each next one is four times as long.
const FIRST_STEP: i64 = 64;

/// Records of one batch, unpacked: more than any batch of ours, and a bound for others'.
const UNPACKED: usize = 128 << 20;

/// Answers without a record to a request for nothing else. None is due, as a marker stands behind, but
/// a broker that has to get the segment from a remote store may need several.
const PATIENCE: u32 = 50;

/// What all partitions have in common.
#[derive(Debug)]
pub(super) struct Sight {
    /// Whose markers are to be there: nobody that they shut out can append anything behind them.
    pub(super) fences: Vec<Identity>,
    pub(super) wanted: Option<ReadBack>,
    pub(super) stored: Stored,
    pub(super) bytes: u64,
    /// By timeline, the newest commit of ours that was met at all.
    pub(super) newest: BTreeMap<u32, Lsn>,
    /// The same of those below what is read back. The newest of all may be of no worth, as one that a
    /// promotion took back.
    pub(super) newest_below: BTreeMap<u32, Lsn>,
}

/// Where the reading of one partition is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// To the last of the markers.
    Forward,
    /// Over offsets from `start` to before `end`.
    Back {
        start: i64,
        end: i64,
        step: i64,
    },
    Done,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) leader: i32,
    /// From where it was read forward.
    low: i64,
    /// Markers that came, by their place in [`Sight::fences`].
    came: BTreeSet<usize>,
    cursor: i64,
    phase: Phase,
    /// A record of ours that is confirmed was met.
    met: bool,
    /// A record of ours was met.
    any: bool,
    /// Records were missing between others.
    thinned: bool,
    log_start: i64,
    /// It was not read to the end.
    pub(super) cut: bool,
    /// Nothing came of it in a request for several: it goes alone.
    pub(super) alone: bool,
    /// Nor when it went alone, so many times.
    nothing: u32,
    place: Place,
    order: Order,
    /// By producer, what is in a transaction whose marker is still to come in this step.
    open: HashMap<i64, Open>,
    /// The first marker of each producer in this step.
    first: HashMap<i64, Marker>,
    /// The first marker of each producer after this step.
    later: HashMap<i64, Marker>,
}

/// Of a transaction that may have been committed or aborted.
#[derive(Debug)]
struct Open {
    seen: Seen,
    names: Stored,
}

impl Tail {
    /// The marker is to come at or after `low`.
    pub(super) fn new(topic: Arc<str>, partition: i32, leader: i32, low: i64) -> Self {
        let (mut cursor, mut phase) = (low, Phase::Forward);
        if planted(Bug::ReadBackBeforeMarker) || planted(Bug::NoFence) {
            cursor = low.saturating_sub(FIRST_STEP).max(0);
            phase = Phase::Back { start: cursor, end: low, step: FIRST_STEP };
        }
        let place = Place::topic(&topic).partition(u32::try_from(partition).unwrap_or(u32::MAX));
        Self {
            topic,
            partition,
            leader,
            low,
            came: BTreeSet::new(),
            cursor,
            phase,
            met: false,
            any: false,
            thinned: false,
            log_start: 0,
            cut: false,
            alone: false,
            nothing: 0,
            place,
            order: Order::new(place, 1),
            open: HashMap::new(),
            first: HashMap::new(),
            later: HashMap::new(),
        }
    }

    /// One of so many that are read at the same time.
    pub(super) fn among(self, partitions: usize) -> Self {
        Self { order: Order::new(self.place, partitions), ..self }
    }

    /// The offset to fetch from. `None`: all is known.
    pub(super) fn wanted(&self) -> Option<i64> {
        (self.phase != Phase::Done).then_some(self.cursor)
    }

    /// Only for the newest record of ours, backwards from `low` to `log_start`: no marker is due.
    pub(super) fn glance(mut self, log_start: i64) -> Self {
        self.log_start = log_start.max(0);
        let (end, step) = (self.low, FIRST_STEP);
        let start = end.saturating_sub(step).max(self.log_start);
        self.cursor = start;
        self.phase = if start < end { Phase::Back { start, end, step } } else { Phase::Done };
        self
    }

    /// Why there may have been newer records of ours than those that were met.
    pub(super) fn unsure(&self) -> Option<Unsure> {
        let topic = || Arc::clone(&self.topic);
        match self {
            Self { cut: true, .. } => Some(Unsure::NotRead),
            Self { thinned: true, .. } => Some(Unsure::Compacted(topic(), self.partition)),
            Self { any: false, log_start: 1.., .. } => {
                Some(Unsure::Emptied(topic(), self.partition))
            }
            _ => None,
        }
    }

    /// Keys that end with an older record than there is: all that is stored of them comes again.
    pub(super) fn behind(&mut self, stored: &mut Stored) {
        let behind = self.order.behind();
        if behind.is_empty() {
            return;
        }
        warn!(
            topic = &*self.topic,
            partition = self.partition,
            keys = behind.len(),
            "a replay into it was broken off, and some keys end with an older row, or a truncate, than \
             there is: what is not confirmed of them is sent once more"
        );
        behind.into_iter().for_each(|place| stored.again(place));
    }

    /// Whether the marker is still to come: a broker may be asked to wait for it.
    pub(super) fn waits(&self) -> bool {
        self.phase == Phase::Forward
    }

    /// Takes what a fetch from [`Self::wanted`] brought; `only`: it was asked about nothing else.
    pub(super) fn feed(
        &mut self,
        sight: &mut Sight,
        records: &[u8],
        log_start: i64,
        only: bool,
    ) -> Result<(), log::Error> {
        sight.bytes += records.len() as u64;
        self.log_start = self.log_start.max(log_start);
        let mut came = false;
        let mut entries = Entries::new(records);
        for entry in entries.by_ref() {
            let entry = entry?;
            if entry.last_offset < self.cursor {
                continue; // a broker gives whole batches
            }
            if let Phase::Back { start, end, .. } = &mut self.phase {
                if entry.base_offset >= *end {
                    came = true;
                    self.cursor = *end;
                    break;
                }
                *start = (*start).min(entry.base_offset);
            }
            came = true;
            // What was deleted from the front is no gap.
            let first = self.cursor.max(log_start);
            let span = entry.last_offset.saturating_sub(entry.base_offset);
            self.thinned |= entry.base_offset > first || span >= i64::from(entry.records);
            self.take(sight, &entry, log_start);
            self.cursor = entry.last_offset + 1;
            if self.phase == Phase::Forward && entry.marker.is_some() {
                let of = Identity { id: entry.producer_id, epoch: entry.epoch };
                self.came.extend(sight.fences.iter().position(|&fence| fence == of));
                if self.came.len() == sight.fences.len() {
                    self.step_back(sight, log_start);
                    return Ok(());
                }
            }
        }
        // Entries older than the record batch were stepped over.
        if let Some(next) = entries.next_offset().filter(|&next| next > self.cursor) {
            (self.cursor, came) = (next, true);
        }
        let Phase::Back { end, .. } = self.phase else { return Ok(()) };
        self.alone = !came;
        self.nothing = if came { 0 } else { self.nothing + u32::from(only) };
        if self.cursor >= end {
            self.step_back(sight, log_start);
        } else if sight.is_enough() || self.nothing > PATIENCE {
            // How the open transactions end is in what is not read.
            std::mem::take(&mut self.open)
                .into_values()
                .for_each(|open| self.end(sight, open, None));
            (self.phase, self.cut) = (Phase::Done, true);
        }
        Ok(())
    }

    /// What is older than `log_start` is gone. `false`: that explains nothing, as where brokers do not
    /// tell with this error where the log begins.
    pub(super) fn out_of_range(&mut self, sight: &mut Sight, log_start: i64) -> bool {
        if self.phase == Phase::Forward || log_start <= self.cursor {
            return false;
        }
        self.cursor = log_start;
        if let Phase::Back { end, .. } = self.phase
            && self.cursor >= end
        {
            self.step_back(sight, log_start);
        }
        true
    }

    fn take(&mut self, sight: &mut Sight, entry: &log::Entry<'_>, log_start: i64) {
        if let Some(marker) = entry.marker {
            if let Some(open) = self.open.remove(&entry.producer_id) {
                self.end(sight, open, Some(marker));
            }
            self.first.entry(entry.producer_id).or_insert(marker);
            return;
        }
        let Some(wanted) = sight.wanted else { return };
        let read = entry.headers(b"id", UNPACKED, |offset, key, value| {
            let short = planted(Bug::ReadBackShort) && offset + 1 == self.low;
            if offset < log_start || short {
                return; // deleted, though its batch is still there
            }
            let Some(name) = Name::parse(value).filter(|name| name.source == wanted.source) else {
                self.met |= planted(Bug::EndsAtForeign);
                return;
            };
            self.any = true;
            sight.meet(&name);
            self.met |= name.commit < wanted.from;
            let place = self.order.told(self.place.key(key));
            let unconfirmed = name.commit >= wanted.from;
            if entry.transactional {
                let new = || Open { seen: Seen::default(), names: sight.stored.pending() };
                let open = self.open.entry(entry.producer_id).or_insert_with(new);
                open.seen.add(place, name);
                if unconfirmed {
                    sight.stored.insert_pending(&mut open.names, &name);
                }
            } else {
                self.order.next().add(place, name);
                if unconfirmed {
                    sight.stored.insert(&name);
                }
            }
        });
        // Its checksum was right: it would be no other the next time.
        if let Err(error) = read {
            warn!(
                topic = &*self.topic,
                partition = self.partition,
                "passed over, as if it were not ours: {error}"
            );
        }
    }

    /// How a transaction ended: consumers can read what is in it, or cannot.
    fn end(&mut self, sight: &mut Sight, open: Open, marker: Option<Marker>) {
        let stored = marker == Some(Marker::Commit) || planted(Bug::AbortedCounts);
        if stored {
            self.order.next().append(open.seen);
        }
        sight.stored.settle(open.names, stored);
    }

    /// The next step backwards, if one is needed.
    fn step_back(&mut self, sight: &mut Sight, log_start: i64) {
        for (producer, open) in std::mem::take(&mut self.open) {
            let marker = self.later.get(&producer).copied();
            self.end(sight, open, marker);
        }
        self.order.step();
        self.later.extend(self.first.drain());
        self.alone = false;
        let (end, step) = match self.phase {
            Phase::Forward => (self.low, FIRST_STEP),
            Phase::Back { start, step, .. } => (start, step.saturating_mul(4)),
            Phase::Done => return,
        };
        let enough = planted(Bug::ReadBackOneStep) && self.phase != Phase::Forward;
        if self.met || sight.wanted.is_none() || end <= log_start || enough {
            self.phase = Phase::Done;
        } else if sight.is_enough() {
            (self.phase, self.cut) = (Phase::Done, true);
        } else {
            let start = end.saturating_sub(step).max(log_start);
            self.cursor = start;
            self.phase = Phase::Back { start, end, step };
        }
    }
}

impl Sight {
    /// Whether no more is to be fetched.
    fn is_enough(&self) -> bool {
        self.wanted.is_some_and(|wanted| self.bytes >= wanted.max_bytes)
    }

    fn meet(&mut self, name: &Name) {
        let below = self.wanted.is_some_and(|wanted| name.commit < wanted.from);
        for map in [Some(&mut self.newest), below.then_some(&mut self.newest_below)] {
            let Some(map) = map else { continue };
            let newest = map.entry(name.timeline).or_default();
            *newest = name.commit.max(*newest);
        }
    }

    /// What of both is known.
    pub(super) fn newest(&self) -> Vec<(u32, Lsn)> {
        let both = self.newest.iter().chain(&self.newest_below);
        both.map(|(timeline, commit)| (*timeline, *commit)).collect()
    }
}
