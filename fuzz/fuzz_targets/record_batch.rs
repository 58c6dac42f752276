//! A record batch of our own: made, compressed, opened, split down to single records; rskafka reads the same records from
//! all of it. `codec (1) │` records, each `timestamp step (1) │ key length (1) │ value length (2) │ headers (1) │ bytes`.
//! Then the same with one byte wrong, which must not panic.

#![no_main]

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use libfuzzer_sys::fuzz_target;
use pgsluice::{
    batch::{Batcher, Codec, Limits, Stamp, compress, decompress, record_batch},
    lsn::Lsn,
    progress::Ledger,
    varint,
};
use rskafka::protocol::{
    record::{ControlBatchOrRecords, RecordBatch},
    traits::ReadType as _,
};

#[derive(Clone, Debug, Eq, PartialEq)]
struct Record {
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
}

fuzz_target!(|input: &[u8]| {
    let [codec, input @ ..] = input else { return };
    let codec = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4][usize::from(codec & 3)];
    let records = records(input);
    if records.is_empty() {
        return;
    }
    let batch = batch(&records);
    assert_eq!(read(&batch), records);
    let small = compress(&batch, codec);
    assert!(small.len() <= batch.len());
    assert_eq!(decompress(&small).as_ref(), Some(&batch));
    let mut pieces = Vec::new();
    split(small, records.len(), &mut pieces);
    assert_eq!(pieces, records);
    damage(batch, input);
});

/// As many records as the bytes give, up to 64.
fn records(mut rest: &[u8]) -> Vec<Record> {
    let (mut records, mut timestamp_ms) = (Vec::new(), 1_700_000_000_000_i64);
    while let [step, key, high, low, headers, tail @ ..] = rest {
        let nullable = |length: usize, null: bool, from: &mut &[u8]| {
            let (field, tail) = from.split_at(length.min(from.len()));
            *from = tail;
            (!null).then(|| field.to_vec())
        };
        rest = tail;
        timestamp_ms += i64::from(step.cast_signed()) << (step & 0x1f);
        let key = nullable(usize::from(*key), *key == 0xff, &mut rest);
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let value = nullable(length, *high == 0xff, &mut rest);
        let headers = (0..headers & 3)
            .map(|number| (format!("h{number}"), vec![b'x'; usize::from(headers >> 2) * 2]))
            .collect();
        records.push(Record { timestamp_ms, key, value, headers });
        if records.len() == 64 {
            break;
        }
    }
    records
}

fn batch(records: &[Record]) -> Vec<u8> {
    let limits = Limits {
        max_bytes: 1 << 30,
        max_records: u32::MAX,
        linger: Duration::ZERO,
        in_flight: 1 << 30,
    };
    let mut batcher = Batcher::new(limits);
    let to = batcher.topic("t".into(), 1, usize::MAX);
    let ticket = Ledger::new(Lsn::ZERO).begin();
    let now = Instant::now();
    for record in records {
        let stamp = Stamp { timestamp_ms: record.timestamp_ms, committed_at: 0, now };
        let written = batcher.append(to, 0, stamp, ticket, |writer| {
            writer.key(record.key.as_deref());
            match &record.value {
                None => writer.null_value(),
                Some(value) => writer.value_with(|out| {
                    out.extend_from_slice(value);
                    Ok::<_, Infallible>(())
                })?,
            }
            let mut block = Vec::new();
            for part in record.headers.iter().flat_map(|(name, value)| [name.as_bytes(), value]) {
                varint::put(&mut block, part.len() as i64);
                block.extend_from_slice(part);
            }
            writer.headers(record.headers.len(), &block);
            Ok::<_, Infallible>(())
        });
        assert!(written.is_ok(), "it is far below the limits");
    }
    batcher.flush_all();
    let batch = batcher.closed().expect("one batch");
    assert!(batcher.closed().is_none(), "one batch only");
    batch.bytes
}

/// What rskafka finds in a batch.
fn read(batch: &[u8]) -> Vec<Record> {
    let mut sealed = batch.to_vec();
    record_batch::seal(&mut sealed, 1, 2, 3);
    let mut rest = sealed.as_slice();
    let batch = RecordBatch::read(&mut rest).expect("rskafka reads it");
    assert!(rest.is_empty(), "bytes after the batch");
    let ControlBatchOrRecords::Records(records) = batch.records else { panic!("no records") };
    assert_eq!(batch.last_offset_delta + 1, records.len() as i32);
    let latest = records.iter().map(|r| batch.first_timestamp + r.timestamp_delta).max();
    assert_eq!(latest, Some(batch.max_timestamp));
    let records = records.into_iter().zip(0..).map(|(record, offset)| {
        assert_eq!(record.offset_delta, offset);
        Record {
            timestamp_ms: batch.first_timestamp + record.timestamp_delta,
            key: record.key,
            value: record.value,
            headers: record.headers.into_iter().map(|h| (h.key, h.value)).collect(),
        }
    });
    records.collect()
}

/// Down to single records, in their order.
fn split(batch: Vec<u8>, count: usize, pieces: &mut Vec<Record>) {
    match record_batch::split(&batch) {
        None => {
            assert_eq!(count, 1, "it can be split");
            pieces.extend(read(&decompress(&batch).expect("it is ours")));
        }
        Some((first, a, second, b)) => {
            let (a, b) = (a as usize, b as usize);
            assert_eq!(a + b, count);
            assert_eq!(read(&first).len(), a);
            assert_eq!(read(&second).len(), b);
            split(first, a, pieces);
            split(second, b, pieces);
        }
    }
}

/// Only uncompressed: of a compressed batch, which is always ours, the size is believed.
fn damage(mut batch: Vec<u8>, input: &[u8]) {
    let [.., high, low, byte] = input else { return };
    let at = usize::from(u16::from_be_bytes([*high, *low])) % batch.len();
    if at != 22 {
        batch[at] ^= byte;
        let _ = record_batch::split(&batch);
    }
    batch.truncate(at);
    let _ = (record_batch::split(&batch), compress(&batch, Codec::None));
}
