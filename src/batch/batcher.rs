//! One open batch a partition; full or late ones wait in a row to be taken.

mod spare;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use crate::{
    progress::Ticket,
    retry::{Disposition, Exit},
};

use self::spare::Spare;
use super::{
    Batch, Limits,
    record::{RecordWriter, Widths},
    record_batch::{self, Summary},
};

/// Kafka's lengths are i32.
const LARGEST_BATCH: usize = i32::MAX as usize;

/// Buffers of delivered batches are kept up to this part of `Limits::in_flight`: some full ones,
/// or many small.
const SPARE: usize = 2;

/// Up to this size a batch is copied out of its buffer when it is closed.
const SMALL: usize = 16 << 10;

/// Names a topic of one [`Batcher`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TopicId(u32);

/// The times of a record.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The record's timestamp: milliseconds since 1970.
    pub timestamp_ms: i64,
    /// When the row was committed: microseconds since 2000, as PostgreSQL counts.
    pub committed_at: i64,
    /// Now: a batch is late by the `now` of its first record.
    pub now: Instant,
}

/// Why a record was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error<E> {
    /// The caller's own, from writing the record.
    #[error("the record could not be written")]
    Write(#[source] E),
    /// Kafka cannot hold it, whatever its settings are.
    #[error("a record of {bytes} bytes for {topic} is over what a record batch can hold")]
    TooLarge {
        /// Where it was to go.
        topic: Arc<str>,
        /// Encoded.
        bytes: usize,
    },
    /// A bug of the caller.
    #[error("{topic} has no partition {partition}")]
    NoPartition {
        /// Where it was to go.
        topic: Arc<str>,
        /// Of the topic.
        partition: u32,
    },
}

impl<E> Error<E> {
    /// What to do about it; `write` judges the caller's own.
    pub fn disposition(&self, write: impl FnOnce(&E) -> Disposition) -> Disposition {
        match self {
            Self::Write(error) => write(error),
            Self::TooLarge { .. } => Disposition::Halt(Exit::Data),
            Self::NoPartition { .. } => Disposition::Halt(Exit::Software),
        }
    }
}

#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    /// The smaller of ours and the topic's own.
    max_bytes: usize,
    /// By partition.
    open: Vec<Open>,
}

/// The batch that grows; without records it has no buffer either.
#[derive(Debug, Default)]
struct Open {
    bytes: Vec<u8>,
    tickets: Vec<(Ticket, u32)>,
    summary: Summary,
    first_committed_at: i64,
    /// Of its first record.
    since: Option<Instant>,
    /// Encoded bytes of the last record, to see that the next will not fit.
    last: usize,
    widths: Widths,
}

impl Open {
    /// Writes a record at the end; gives its encoded size. Unless [`accept`](Self::accept)ed it must
    /// be cut off again.
    fn write<E>(
        &mut self,
        stamp: Stamp,
        write: impl FnOnce(&mut RecordWriter<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let start = self.bytes.len();
        let base = match self.summary.records {
            0 => stamp.timestamp_ms,
            _ => self.summary.base_timestamp,
        };
        let delta = stamp.timestamp_ms.wrapping_sub(base);
        let offset = self.summary.records;
        let mut writer = RecordWriter::begin(&mut self.bytes, &mut self.widths, delta, offset);
        write(&mut writer)?;
        writer.finish();
        Ok(self.bytes.len() - start)
    }

    fn accept(&mut self, stamp: Stamp, ticket: Ticket, size: usize) {
        if self.summary.records == 0 {
            self.summary.base_timestamp = stamp.timestamp_ms;
            self.summary.max_timestamp = stamp.timestamp_ms;
            self.first_committed_at = stamp.committed_at;
            self.since = Some(stamp.now);
        }
        self.summary.records += 1;
        self.summary.max_timestamp = self.summary.max_timestamp.max(stamp.timestamp_ms);
        self.first_committed_at = self.first_committed_at.min(stamp.committed_at);
        self.last = size;
        match self.tickets.last_mut() {
            Some((last, count)) if *last == ticket => *count += 1,
            _ => self.tickets.push((ticket, 1)),
        }
    }
}

/// Groups records by partition. See the [module](super).
#[derive(Debug)]
pub struct Batcher {
    limits: Limits,
    topics: Vec<Topic>,
    by_name: HashMap<Arc<str>, TopicId>,
    /// The open batches, oldest first.
    order: VecDeque<(TopicId, u32)>,
    /// Full or late, in the order in which they became so.
    closed: VecDeque<Batch>,
    /// In `order` and `closed` together.
    bytes: usize,
    spare: Spare,
}

impl Batcher {
    /// Without topics.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            topics: Vec::new(),
            by_name: HashMap::new(),
            order: VecDeque::new(),
            closed: VecDeque::new(),
            bytes: 0,
            spare: Spare::new(limits.in_flight / SPARE),
        }
    }

    /// Makes a topic known. The same name again gives the same id, and sets its limits anew; it
    /// keeps its partitions, as Kafka's never become fewer.
    pub fn topic(&mut self, topic: Arc<str>, partitions: u32, max_batch_bytes: usize) -> TopicId {
        let max_bytes = max_batch_bytes.min(self.limits.max_bytes);
        let count = partitions as usize;
        if let Some(&id) = self.by_name.get(&topic) {
            if let Some(known) = self.topics.get_mut(id.0 as usize) {
                known.max_bytes = max_bytes;
                known.open.resize_with(count.max(known.open.len()), Open::default);
            }
            return id;
        }
        let id = TopicId(self.topics.len() as u32); // one for each name: no 2^32 of them
        let open = std::iter::repeat_with(Open::default).take(count).collect();
        self.topics.push(Topic { name: Arc::clone(&topic), max_bytes, open });
        self.by_name.insert(topic, id);
        id
    }

    /// Adds one record to a partition's batch.
    ///
    /// `write` is called a second time if the record did not fit into the open batch.
    ///
    /// # Errors
    /// Those of `write`, and records that Kafka cannot hold at all. The batch is as it was then.
    pub fn append<E>(
        &mut self,
        to: TopicId,
        partition: u32,
        stamp: Stamp,
        ticket: Ticket,
        mut write: impl FnMut(&mut RecordWriter<'_>) -> Result<(), E>,
    ) -> Result<(), Error<E>> {
        loop {
            let Some((topic, limit, open)) = find(&mut self.topics, to, partition) else {
                return Err(self.no_partition(to, partition));
            };
            let before = open.bytes.len();
            let alone = open.summary.records == 0;
            if alone {
                self.spare.lend(open, limit);
            } else if before + open.last > limit {
                // The next record is likely as large as the last: do not write it twice.
                self.close(to, partition);
                continue;
            }
            let start = open.bytes.len();
            let written = open.write(stamp, &mut write);
            let after = open.bytes.len();
            match written {
                Ok(size) if (alone || after <= limit) && after <= LARGEST_BATCH => {
                    open.accept(stamp, ticket, size);
                    self.bytes += after - before;
                    let full = after >= limit || open.summary.records >= self.limits.max_records;
                    if alone {
                        self.order.push_back((to, partition));
                    }
                    if full {
                        self.close(to, partition);
                    }
                    return Ok(());
                }
                Ok(_) if !alone => {
                    open.bytes.truncate(start);
                    self.close(to, partition);
                }
                refused => {
                    open.bytes.truncate(start);
                    if alone {
                        self.spare.take_back(open);
                    }
                    let (topic, bytes) = (Arc::clone(topic), after - start);
                    return Err(match refused {
                        Ok(_) => Error::TooLarge { topic, bytes },
                        Err(error) => Error::Write(error),
                    });
                }
            }
        }
    }

    /// The next finished batch.
    pub fn closed(&mut self) -> Option<Batch> {
        let batch = self.closed.pop_front()?;
        self.bytes -= batch.bytes.len();
        Some(batch)
    }

    /// Finishes the batches whose linger is over.
    pub fn flush_due(&mut self, now: Instant) {
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            self.close_oldest();
        }
    }

    /// Finishes every open batch.
    pub fn flush_all(&mut self) {
        while !self.order.is_empty() {
            self.close_oldest();
        }
    }

    /// Finishes the largest open batch, to make room.
    pub fn flush_largest(&mut self) {
        let size = |&(to, partition): &(TopicId, u32)| {
            self.topics.get(to.0 as usize)?.open.get(partition as usize).map(|o| o.bytes.len())
        };
        if let Some((to, partition)) = self.order.iter().copied().max_by_key(size) {
            self.close(to, partition);
        }
    }

    /// When the oldest open batch is late.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let &(to, partition) = self.order.front()?;
        let open = self.topics.get(to.0 as usize)?.open.get(partition as usize)?;
        open.since.map(|since| since + self.limits.linger)
    }

    /// Encoded bytes in open batches and finished ones not yet taken.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives the buffers of a delivered batch back, to be used again.
    pub fn recycle(&mut self, bytes: Vec<u8>, tickets: Vec<(Ticket, u32)>) {
        self.spare.keep(bytes, tickets);
    }

    /// Capacity kept for later.
    #[cfg(test)]
    pub(super) const fn spare_bytes(&self) -> usize {
        self.spare.kept
    }

    fn close_oldest(&mut self) {
        if let Some(&(to, partition)) = self.order.front() {
            self.close(to, partition);
        }
    }

    fn close(&mut self, to: TopicId, partition: u32) {
        // Mostly the first: batches become late in the order in which they were opened.
        if let Some(at) = self.order.iter().position(|&key| key == (to, partition)) {
            self.order.remove(at);
        }
        let Some((topic, _, open)) = find(&mut self.topics, to, partition) else { return };
        let Open { widths, last, .. } = *open;
        let full = std::mem::replace(open, Open { widths, last, ..Open::default() });
        let mut bytes = full.bytes;
        record_batch::close(&mut bytes, full.summary);
        if bytes.len() <= SMALL && bytes.capacity() > 4 * SMALL {
            // A small batch waits in a buffer of its size, and the large one is used again.
            let exact = bytes.as_slice().into();
            self.spare.keep(std::mem::replace(&mut bytes, exact), Vec::new());
        }
        self.closed.push_back(Batch {
            topic: Arc::clone(topic),
            partition: partition as i32, // from Kafka, which counts them as i32
            records: full.summary.records,
            tickets: full.tickets,
            bytes,
            first_committed_at: full.first_committed_at,
        });
    }

    fn no_partition<E>(&self, to: TopicId, partition: u32) -> Error<E> {
        let known = self.topics.get(to.0 as usize);
        let topic = known.map_or_else(|| "an unknown topic".into(), |t| Arc::clone(&t.name));
        Error::NoPartition { topic, partition }
    }
}

/// The topic's name and limit, and the partition's batch.
fn find(
    topics: &mut [Topic],
    to: TopicId,
    partition: u32,
) -> Option<(&Arc<str>, usize, &mut Open)> {
    let topic = topics.get_mut(to.0 as usize)?;
    let open = topic.open.get_mut(partition as usize)?;
    Some((&topic.name, topic.max_bytes, open))
}
