//! The whole of it: what the batcher hands on, against rskafka's own encoder and a plain model.

mod log;
mod model;

use std::{convert::Infallible, time::Instant};

use proptest::{collection::vec, option, prelude::*};
use rskafka::protocol::{
    record::{
        ControlBatchOrRecords, Record, RecordBatch, RecordBatchCompression,
        RecordBatchTimestampType, RecordHeader,
    },
    traits::{ReadType as _, WriteType as _},
};

use super::*;
use crate::{lsn::Lsn, progress::Ledger, varint};

#[derive(Clone, Debug)]
struct Row {
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
}

impl Row {
    fn of(value: &[u8]) -> Self {
        Self { timestamp_ms: 7, key: None, value: Some(value.to_vec()), headers: Vec::new() }
    }

    fn write(&self, record: &mut RecordWriter<'_>) -> Result<(), Infallible> {
        record.key(self.key.as_deref());
        match &self.value {
            Some(value) => record.value_with(|out| {
                out.extend_from_slice(value);
                Ok::<_, Infallible>(())
            })?,
            None => record.null_value(),
        }
        let mut block = Vec::new();
        for part in self.headers.iter().flat_map(|(name, value)| [name.as_bytes(), value]) {
            varint::put(&mut block, part.len() as i64);
            block.extend_from_slice(part);
        }
        record.headers(self.headers.len(), &block);
        Ok(())
    }
}

/// Lengths on both sides of where a varint grows: 63 and 8191.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => vec(any::<u8>(), 0..80),
        2 => vec(any::<u8>(), 60..68),
        1 => (8150_usize..8230).prop_map(|length| vec![b'x'; length]),
    ]
}

fn row() -> impl Strategy<Value = Row> {
    let timestamp = prop_oneof![9 => 0..2_000_000_000_000_i64, 1 => any::<i64>()];
    let headers = vec(("[a-zé]{0,8}", bytes()), 0..4);
    (timestamp, option::of(bytes()), option::of(bytes()), headers)
        .prop_map(|(timestamp_ms, key, value, headers)| Row { timestamp_ms, key, value, headers })
}

const LIMITS: Limits = Limits {
    max_bytes: 1 << 20,
    max_records: 10_000,
    linger: Duration::from_millis(5),
    in_flight: 8 << 20,
};

fn ticket() -> Ticket {
    Ledger::new(Lsn::ZERO).begin()
}

fn stamp(now: Instant, timestamp_ms: i64) -> Stamp {
    Stamp { timestamp_ms, committed_at: timestamp_ms, now }
}

fn batch_of(rows: &[Row]) -> Batch {
    let mut batcher = Batcher::new(LIMITS);
    let to = batcher.topic("t".into(), 1, usize::MAX);
    let ticket = ticket();
    for row in rows {
        let stamp = stamp(Instant::now(), row.timestamp_ms);
        batcher.append(to, 0, stamp, ticket, |record| row.write(record)).unwrap();
    }
    batcher.flush_all();
    let batch = batcher.closed().unwrap();
    assert_eq!(batcher.closed(), None);
    batch
}

fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    record_batch::seal(&mut bytes, 4711, 3, 42);
    bytes
}

fn as_rskafka_writes_it(rows: &[Row]) -> Vec<u8> {
    let base = rows[0].timestamp_ms;
    let records = rows.iter().zip(0..).map(|(row, offset_delta)| Record {
        timestamp_delta: row.timestamp_ms.wrapping_sub(base),
        offset_delta,
        key: row.key.clone(),
        value: row.value.clone(),
        headers: (row.headers.iter().cloned())
            .map(|(key, value)| RecordHeader { key, value })
            .collect(),
    });
    let batch = RecordBatch {
        base_offset: 0,
        partition_leader_epoch: -1,
        last_offset_delta: rows.len() as i32 - 1,
        first_timestamp: base,
        max_timestamp: rows.iter().map(|row| row.timestamp_ms).max().unwrap(),
        producer_id: 4711,
        producer_epoch: 3,
        base_sequence: 42,
        records: ControlBatchOrRecords::Records(records.collect()),
        compression: RecordBatchCompression::NoCompression,
        is_transactional: false,
        timestamp_type: RecordBatchTimestampType::CreateTime,
    };
    let mut bytes = Vec::new();
    batch.write(&mut bytes).unwrap();
    bytes
}

/// The values in a batch, read by rskafka, which checks lengths and checksum.
fn values(bytes: &[u8]) -> Vec<Vec<u8>> {
    let batch = RecordBatch::read(&mut sealed(bytes).as_slice()).unwrap();
    let ControlBatchOrRecords::Records(records) = batch.records else { panic!("control batch") };
    records.into_iter().map(|record| record.value.unwrap_or_default()).collect()
}

/// Offsets and deltas of one byte, of two, and of three.
#[test]
fn a_long_batch_has_the_very_bytes_too() {
    let at = |timestamp_ms| Row { timestamp_ms, ..Row::of(&[b'x'; 70]) };
    let rows: Vec<_> = (0..8300).map(|n| at(1_000_000 + n / 100 * (n % 3 - 1))).collect();
    assert_eq!(sealed(&batch_of(&rows).bytes), as_rskafka_writes_it(&rows));
}

proptest! {
    #[test]
    fn writes_the_very_bytes_that_rskafka_writes(rows in vec(row(), 1..40)) {
        prop_assert_eq!(sealed(&batch_of(&rows).bytes), as_rskafka_writes_it(&rows));
    }

    #[test]
    fn two_halves_are_what_would_have_been_written_apart(rows in vec(row(), 1..40)) {
        let batch = batch_of(&rows);
        match record_batch::split(&batch.bytes) {
            None => prop_assert_eq!(rows.len(), 1),
            Some((first, a, second, b)) => {
                let (left, right) = rows.split_at(a as usize);
                prop_assert_eq!(b as usize, right.len());
                prop_assert_eq!(sealed(&first), as_rskafka_writes_it(left));
                prop_assert_eq!(sealed(&second), as_rskafka_writes_it(right));
                let largest = rows.iter().map(|row| batch_of(std::slice::from_ref(row)).bytes.len());
                let slack = largest.max().unwrap() + record_batch::HEADER + 20;
                prop_assert!(first.len().abs_diff(second.len()) <= 2 * slack);
            }
        }
    }

    #[test]
    fn compresses_and_back(rows in vec(row(), 1..40), codec in 0..4_usize) {
        let codec = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4][codec];
        let batch = batch_of(&rows);
        let small = compress(&batch.bytes, codec);
        prop_assert!(small.len() <= batch.bytes.len());
        prop_assert_eq!(decompress(&small), Some(batch.bytes.clone()));
        prop_assert_eq!(record_batch::split(&small), record_batch::split(&batch.bytes));
    }

    #[test]
    fn damaged_batches_are_no_reason_to_panic(
        rows in vec(row(), 1..10), codec in 0..4_usize, cut in any::<prop::sample::Index>(),
        flip in any::<prop::sample::Index>(), with in any::<u8>(),
    ) {
        let codec = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4][codec];
        let mut bytes = compress(&batch_of(&rows).bytes, codec);
        let at = flip.index(bytes.len());
        bytes[at] = with;
        bytes.truncate(cut.index(bytes.len() + 1));
        let _ = (decompress(&bytes), record_batch::split(&bytes), compress(&bytes, codec));
        record_batch::seal(&mut bytes, 1, 1, 1);
    }
}

#[test]
fn a_record_over_the_limit_goes_alone() {
    let mut batcher = Batcher::new(Limits { max_bytes: 1000, ..LIMITS });
    let to = batcher.topic("t".into(), 1, usize::MAX);
    for value in [b"a".as_slice(), &[b'b'; 2000], b"c"] {
        let row = Row::of(value);
        batcher.append(to, 0, stamp(Instant::now(), 7), ticket(), |r| row.write(r)).unwrap();
    }
    batcher.flush_all();
    let records: Vec<_> =
        std::iter::from_fn(|| batcher.closed()).map(|b| values(&b.bytes)).collect();
    assert_eq!(records, [vec![b"a".to_vec()], vec![vec![b'b'; 2000]], vec![b"c".to_vec()]]);
}

#[test]
fn a_buffer_that_came_back_is_used_again() {
    let mut batcher = Batcher::new(LIMITS);
    let to = batcher.topic("t".into(), 2, usize::MAX);
    let row = Row::of(&[b'x'; 5000]);
    let once = |batcher: &mut Batcher, partition| {
        batcher
            .append(to, partition, stamp(Instant::now(), 7), ticket(), |r| row.write(r))
            .unwrap();
        batcher.flush_all();
        batcher.closed().unwrap()
    };
    let first = once(&mut batcher, 0);
    let place = first.bytes.as_ptr();
    let same = first.bytes.clone();
    batcher.recycle(first.bytes, first.tickets);
    let second = once(&mut batcher, 1);
    assert_eq!(second.bytes.as_ptr(), place);
    assert_eq!(second.bytes, same);
}

#[test]
fn what_is_kept_for_later_is_bounded() {
    let mut batcher = Batcher::new(LIMITS);
    for _ in 0..100 {
        batcher.recycle(Vec::with_capacity(1 << 20), Vec::with_capacity(10));
    }
    assert!(batcher.spare_bytes() <= LIMITS.in_flight / 2);
}

#[test]
fn a_topic_named_again_keeps_its_batches_and_gets_its_new_limits() {
    let mut batcher = Batcher::new(LIMITS);
    let to = batcher.topic("t".into(), 1, usize::MAX);
    let row = Row::of(&[b'x'; 100]);
    let append = |batcher: &mut Batcher, partition| {
        batcher.append(to, partition, stamp(Instant::now(), 7), ticket(), |r| row.write(r))
    };
    append(&mut batcher, 0).unwrap();
    let error = append(&mut batcher, 1).unwrap_err();
    assert_eq!(error.to_string(), "t has no partition 1");
    assert_eq!(batcher.topic("t".into(), 2, 200), to);
    append(&mut batcher, 1).unwrap();
    append(&mut batcher, 0).unwrap(); // no room for two: the first is finished
    assert_eq!(batcher.closed().unwrap().records, 1);
    assert_eq!(batcher.closed(), None);
}

#[test]
fn a_batch_is_late_by_its_first_record() {
    let mut batcher = Batcher::new(LIMITS);
    let to = batcher.topic("t".into(), 2, usize::MAX);
    let start = Instant::now();
    let row = Row::of(b"x");
    for (partition, after) in [(0, 0), (1, 2), (0, 4)] {
        let now = start + Duration::from_millis(after);
        batcher.append(to, partition, stamp(now, 7), ticket(), |r| row.write(r)).unwrap();
    }
    assert_eq!(batcher.deadline(), Some(start + Duration::from_millis(5)));
    batcher.flush_due(start + Duration::from_millis(5));
    assert_eq!(batcher.closed().unwrap().records, 2);
    assert_eq!(batcher.closed(), None);
    assert_eq!(batcher.deadline(), Some(start + Duration::from_millis(7)));
}
