//! The record batch as Kafka stores it, magic 2.
//!
//! | offset | field | |
//! |---|---|---|
//! | 0 | base offset | i64, 0: the broker fills it in |
//! | 8 | batch length | i32, of what follows it |
//! | 12 | partition leader epoch | i32, -1: the broker fills it in |
//! | 16 | magic | i8, 2 |
//! | 17 | CRC-32C | u32, of what follows it |
//! | 21 | attributes | i16: bits 0–2 codec, 3 timestamp type, 4 transactional, 5 control |
//! | 23 | last offset delta | i32 |
//! | 27 | base timestamp | i64, ms since 1970, the first record's |
//! | 35 | max timestamp | i64 |
//! | 43 | producer id | i64, -1: none |
//! | 51 | producer epoch | i16 |
//! | 53 | base sequence | i32 |
//! | 57 | records | i32 |
//! | 61 | the records, compressed together | |
//!
//! All big-endian. See <https://kafka.apache.org/documentation/#recordbatch>.
//!
//! A batch is made without producer; [`seal`] is the last step before it is sent, and may be done
//! again with other numbers.

use super::codec;
use crate::varint;

/// Bytes before the first record.
pub const HEADER: usize = 61;

/// Offset and batch length are not counted in the batch length.
pub(super) const BEFORE_LENGTH_COUNTS: usize = 12;
pub(super) const LENGTH: usize = 8;
pub(super) const MAGIC: usize = 16;
pub(super) const CRC: usize = 17;
/// From here on the checksum counts.
pub(super) const ATTRIBUTES: usize = 21;
pub(super) const LAST_OFFSET_DELTA: usize = 23;
const BASE_TIMESTAMP: usize = 27;
pub(super) const PRODUCER: usize = 43;
pub(super) const EPOCH: usize = 51;
pub(super) const BASE_SEQUENCE: usize = 53;
pub(super) const RECORDS: usize = 57;

/// The low three bits of the attributes.
pub(super) const CODEC_BITS: u8 = 0x07;

/// In the low byte of the attributes.
const TRANSACTIONAL_BIT: u8 = 0x10;

/// What the header says of the records.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Summary {
    pub(super) records: u32,
    pub(super) base_timestamp: i64,
    pub(super) max_timestamp: i64,
}

/// Room for the header: [`close`] fills it in.
pub(super) fn open(out: &mut Vec<u8>) {
    out.clear();
    out.resize(HEADER, 0);
}

/// Writes the header of an uncompressed batch without producer.
pub(super) fn close(batch: &mut [u8], summary: Summary) {
    let Some(header) = batch.first_chunk_mut::<HEADER>() else { return };
    *header = [0; HEADER];
    let last_offset = summary.records.saturating_sub(1);
    put(header, 12, (-1_i32).to_be_bytes());
    put(header, MAGIC, [2]);
    put(header, LAST_OFFSET_DELTA, last_offset.to_be_bytes());
    put(header, BASE_TIMESTAMP, summary.base_timestamp.to_be_bytes());
    put(header, 35, summary.max_timestamp.to_be_bytes());
    put(header, PRODUCER, [0xff; 14]); // -1 in all three fields
    put(header, RECORDS, summary.records.to_be_bytes());
    set_length(batch);
}

/// Writes the batch length.
pub(super) fn set_length(batch: &mut [u8]) {
    // The batcher makes none over i32::MAX.
    let length = u32::try_from(batch.len().saturating_sub(BEFORE_LENGTH_COUNTS));
    put(batch, LENGTH, length.unwrap_or(u32::MAX).to_be_bytes());
}

/// Makes it part of its producer's transaction. Before [`seal`].
pub fn make_transactional(batch: &mut [u8]) {
    if let Some(attributes) = batch.get_mut(ATTRIBUTES + 1) {
        *attributes |= TRANSACTIONAL_BIT;
    }
}

/// Writes the producer's fields and the checksum over all of it: the batch can be sent.
pub fn seal(batch: &mut [u8], producer_id: i64, epoch: i16, base_sequence: i32) {
    put(batch, PRODUCER, producer_id.to_be_bytes());
    put(batch, EPOCH, epoch.to_be_bytes());
    put(batch, BASE_SEQUENCE, base_sequence.to_be_bytes());
    let crc = crc32c::crc32c(batch.get(ATTRIBUTES..).unwrap_or_default());
    put(batch, CRC, crc.to_be_bytes());
}

/// Two batches of about half the bytes each, with their numbers of records, for a broker that finds
/// this one too large. `None` if it has only one record. Takes compressed batches too; the halves
/// are neither compressed nor sealed.
#[must_use]
pub fn split(batch: &[u8]) -> Option<(Vec<u8>, u32, Vec<u8>, u32)> {
    let plain = codec::decompress(batch)?;
    let base_timestamp = i64::from_be_bytes(*plain.get(BASE_TIMESTAMP..)?.first_chunk()?);
    let mut records = plain.get(HEADER..)?;
    let half = plain.len() / 2;
    let mut halves = [Half::new(half), Half::new(half)];
    while !records.is_empty() {
        let length = usize::try_from(varint::take(&mut records)?).ok()?;
        let (record, rest) = records.split_at_checked(length)?;
        records = rest;
        let [first, second] = &mut halves;
        // The last record always goes into the second half, the first never.
        let fits = first.bytes.len() + length / 2 <= half && !rest.is_empty();
        let open = second.summary.records == 0 && (first.summary.records == 0 || fits);
        (if open { first } else { second }).push(record, base_timestamp)?;
    }
    let [(first, a), (second, b)] = halves.map(Half::close);
    (a > 0 && b > 0).then_some((first, a, second, b))
}

struct Half {
    bytes: Vec<u8>,
    summary: Summary,
}

impl Half {
    fn new(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity);
        open(&mut bytes);
        Self { bytes, summary: Summary::default() }
    }

    /// A record without its length: both deltas are counted anew from this half's beginning.
    fn push(&mut self, record: &[u8], base_timestamp: i64) -> Option<()> {
        let (&attributes, mut rest) = record.split_first()?;
        let timestamp = base_timestamp.wrapping_add(varint::take(&mut rest)?);
        varint::take(&mut rest)?; // the old offset delta
        if self.summary.records == 0 {
            self.summary.base_timestamp = timestamp;
            self.summary.max_timestamp = timestamp;
        }
        let timestamp_delta = timestamp.wrapping_sub(self.summary.base_timestamp);
        let offset_delta = i64::from(self.summary.records);
        let length = 1 + varint::width(timestamp_delta) + varint::width(offset_delta) + rest.len();
        varint::put(&mut self.bytes, length as i64);
        self.bytes.push(attributes);
        varint::put(&mut self.bytes, timestamp_delta);
        varint::put(&mut self.bytes, offset_delta);
        self.bytes.extend_from_slice(rest);
        self.summary.records += 1;
        self.summary.max_timestamp = self.summary.max_timestamp.max(timestamp);
        Some(())
    }

    fn close(mut self) -> (Vec<u8>, u32) {
        close(&mut self.bytes, self.summary);
        (self.bytes, self.summary.records)
    }
}

/// Overwrites a field; nothing if the batch ends before it.
pub(super) fn put<const N: usize>(batch: &mut [u8], at: usize, field: [u8; N]) {
    if let Some(place) = batch.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = field;
    }
}
