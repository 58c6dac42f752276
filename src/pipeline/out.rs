//! One change's records into their batches: key, value and headers, written where they are sent from.

use super::{Now, RowError, Timestamp};
use crate::{
    batch::{self, Batcher, TopicId},
    change::{Op, Position, Transaction},
    encode::{Encoder, Headers, Image, Part, Stamp, Template},
    progress::{Ledger, Ticket},
    sink::partition::Partitioner,
    stored::{Place, Stored},
};

/// A topic that was looked up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Topic {
    pub(super) id: TopicId,
    pub(super) place: Place,
    pub(super) partitions: u32,
    /// Whether it takes no null keys.
    pub(super) compacted: bool,
    pub(super) max_message_bytes: usize,
}

/// One of the records that a change makes.
pub(super) struct Record<'a> {
    pub(super) op: Op,
    pub(super) part: Part,
    pub(super) position: Position,
    pub(super) transaction: &'a Transaction,
    pub(super) value: Option<Image<'a>>,
}

/// What one table's records need, borrowed for one change.
pub(super) struct Out<'a> {
    pub(super) batcher: &'a mut Batcher,
    pub(super) ledger: &'a mut Ledger,
    pub(super) encoder: &'a Encoder,
    pub(super) partitioner: Partitioner,
    pub(super) timestamp: Timestamp,
    pub(super) headers: &'a mut Headers,
    pub(super) stale: &'a mut u64,
    /// Names of records that are stored already.
    pub(super) stored: Option<&'a mut Stored>,
    /// There may be some of this transaction.
    pub(super) partly_stored: bool,
    pub(super) already_stored: &'a mut u64,
    pub(super) template: &'a Template,
    pub(super) topic: Topic,
    pub(super) ticket: Ticket,
    pub(super) now: Now,
}

impl Out<'_> {
    /// A deleted row, and a tombstone if they are on.
    pub(super) fn deleted(
        &mut self,
        buffer: &mut Vec<u8>,
        old: Image<'_>,
        record: &Record<'_>,
    ) -> Result<(), RowError> {
        let has_key = self.key(buffer, old)?;
        let key = has_key.then_some(buffer.as_slice());
        self.append(key, record)?;
        if key.is_some() && self.encoder.tombstones() {
            let tombstone = Record { part: Part::Tombstone, value: None, ..*record };
            self.append(key, &tombstone)?;
        }
        Ok(())
    }

    pub(super) fn key(&self, buffer: &mut Vec<u8>, image: Image<'_>) -> Result<bool, RowError> {
        buffer.clear();
        let has_key = self.encoder.key(self.template, image, buffer)?;
        if !has_key && self.topic.compacted {
            return Err(RowError::NoKeyCompacted);
        }
        Ok(has_key)
    }

    pub(super) fn append(
        &mut self,
        key: Option<&[u8]>,
        record: &Record<'_>,
    ) -> Result<(), RowError> {
        let position = hash(record.position);
        let partition = self.partitioner.partition(key, position, self.topic.partitions);
        self.append_to(partition, key, record)
    }

    pub(super) fn append_to(
        &mut self,
        partition: u32,
        key: Option<&[u8]>,
        record: &Record<'_>,
    ) -> Result<(), RowError> {
        let Position { timeline, commit, index } = record.position;
        let part = record.part.number();
        if let Some(all) = &mut self.stored {
            let place = self.topic.place.partition(partition).key(key);
            let named = self.partly_stored && all.contains(timeline, commit, index, part);
            let truncate = record.op == Op::Truncate;
            if named && !all.comes_again(place, truncate) {
                *self.already_stored += 1;
                self.ledger.cover(self.ticket);
                return Ok(());
            }
            all.send(place, truncate);
        }
        let Self { encoder, template, headers, .. } = self;
        let times = times(self.timestamp, record.transaction, self.now, self.stale);
        let limit = self.topic.max_message_bytes;
        self.ledger.add(self.ticket, 1);
        let appended = self.batcher.append(self.topic.id, partition, times, self.ticket, |to| {
            to.key(key);
            let mut left_out = None;
            match record.value {
                None => to.null_value(),
                Some(image) => to.value_with(|out| {
                    let before = out.len();
                    if !encoder.value(template, image, out)? {
                        left_out = Some(image);
                    }
                    let bytes = out.len() - before;
                    if bytes > limit { Err(RowError::TooLarge { bytes, limit }) } else { Ok(()) }
                })?,
            }
            let stamp = Stamp {
                op: record.op,
                position: record.position,
                part: record.part,
                transaction: record.transaction,
                table: Some(template),
                left_out,
                prefix: None,
            };
            encoder.headers(&stamp, headers);
            to.headers(headers.len(), headers.block());
            Ok(())
        });
        appended.map_err(|error| match error {
            batch::Error::Write(error) => error,
            other => RowError::Batch(other.to_string()),
        })
    }
}

/// A number for the row's place, the same at every replay.
pub(super) fn hash(position: Position) -> u64 {
    // The golden ratio spreads commits apart, so that their indexes do not meet.
    position.commit.get().wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(position.index)
}

/// Milliseconds from 1970 to 2000.
const EPOCH_MS: i64 = 946_684_800_000;

/// A broker refuses what is an hour ahead, ages producers by the records' time, and retention may
/// delete what is old as soon as it is stored.
const STALE_MS: i64 = 3_600_000;

pub(super) fn times(
    which: Timestamp,
    transaction: &Transaction,
    now: Now,
    stale: &mut u64,
) -> batch::Stamp {
    let committed_ms = transaction.committed_at.div_euclid(1000).saturating_add(EPOCH_MS);
    let timestamp_ms = match which {
        Timestamp::Sent => now.unix_ms,
        Timestamp::Commit if (committed_ms - now.unix_ms).abs() <= STALE_MS => committed_ms,
        Timestamp::Commit => {
            *stale += 1;
            now.unix_ms
        }
    };
    batch::Stamp { timestamp_ms, committed_at: transaction.committed_at, now: now.instant }
}
