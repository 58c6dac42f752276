//! A partition's log, built by our own batcher, and a naive reading of it.

use std::{convert::Infallible, time::Instant};

use super::SOURCE;
use crate::{
    batch::{
        Batcher, Codec, Limits, RecordWriter, Stamp, compress, log::Marker, record_batch::seal,
    },
    lsn::Lsn,
    progress::Ledger,
};

/// Commit and index of each.
pub(super) type Names = Vec<(u64, u32)>;

/// What may stand in a log. Names are commit and index.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    /// Plain, of this source.
    Plain {
        source: u64,
        names: Vec<(u64, u32)>,
        codec: Codec,
    },
    /// Of a writer without names.
    Nameless(u8),
    /// A part of the transaction that this producer has open.
    Part {
        producer: i64,
        names: Vec<(u64, u32)>,
        codec: Codec,
    },
    /// The end of that transaction; of our own id it is one of an older epoch.
    End {
        producer: i64,
        marker: Marker,
    },
    /// What brokers tell each other.
    Leader,
    /// A batch that compaction took all records of, or what it left of it: nothing.
    Emptied(u8),
    Gap(u8),
}

/// What a naive reader knows of one batch.
#[derive(Debug)]
struct Told {
    first: i64,
    last: i64,
    producer: i64,
    transactional: bool,
    marker: Option<Marker>,
    names: Vec<(i64, u64, u32)>,
    bytes: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    told: Vec<Told>,
    pub(super) end: i64,
}

impl Log {
    pub(super) fn push(&mut self, piece: &Piece) {
        match piece {
            Piece::Plain { source, names, codec } => {
                let batch = compress(&named(*source, names), *codec);
                self.add(batch, (-1, -1), 0, names.len(), None);
                let (first, told) = (self.end - names.len() as i64, self.told.last_mut().unwrap());
                if *source == SOURCE {
                    told.names = (first..).zip(names).map(|(at, &(c, i))| (at, c, i)).collect();
                }
            }
            Piece::Nameless(count) => {
                let records: Vec<_> = (0..*count).map(|_| (None, None)).collect();
                self.add(batch(&records), (77, 0), 0, records.len(), None);
            }
            Piece::Part { producer, names, codec } => {
                let batch = compress(&named(SOURCE, names), *codec);
                self.add(batch, (*producer, 3), 0x10, names.len(), None);
                let (first, told) = (self.end - names.len() as i64, self.told.last_mut().unwrap());
                told.names = (first..).zip(names).map(|(at, &(c, i))| (at, c, i)).collect();
            }
            Piece::End { producer, marker } => self.marker(*producer, 3, *marker),
            Piece::Leader => {
                let control = batch(&[(Some(vec![0, 0, 0, 2]), None)]);
                self.add(control, (-1, -1), 0x20, 1, None);
            }
            Piece::Emptied(count) => {
                let records: Vec<_> = (0..*count).map(|_| (None, None)).collect();
                let mut emptied = batch(&records);
                emptied.truncate(61);
                emptied[57..61].fill(0);
                emptied[8..12].copy_from_slice(&49_i32.to_be_bytes());
                self.add(emptied, (77, 0), 0x10, records.len(), None);
            }
            Piece::Gap(count) => self.end += i64::from(*count),
        }
    }

    pub(super) fn marker(&mut self, producer: i64, epoch: i16, marker: Marker) {
        let control = batch(&[(Some(vec![0, 0, 0, u8::from(marker == Marker::Commit)]), None)]);
        self.add(control, (producer, epoch), 0x30, 1, Some(marker));
    }

    fn add(
        &mut self,
        mut bytes: Vec<u8>,
        (producer, epoch): (i64, i16),
        bits: u8,
        count: usize,
        marker: Option<Marker>,
    ) {
        bytes[..8].copy_from_slice(&self.end.to_be_bytes());
        bytes[22] |= bits;
        seal(&mut bytes, producer, epoch, -1);
        let last = self.end + count as i64 - 1;
        let transactional = bits & 0x10 != 0;
        let names = Vec::new();
        self.told.push(Told {
            first: self.end,
            last,
            producer,
            transactional,
            marker,
            names,
            bytes,
        });
        self.end = last + 1;
    }

    /// Whole batches from the one that holds the offset on, the first of them in any case.
    pub(super) fn fetch(&self, from: i64, max_bytes: usize) -> Vec<u8> {
        let mut set = Vec::new();
        for told in self.told.iter().filter(|told| told.last >= from) {
            if !set.is_empty() && set.len() + told.bytes.len() > max_bytes {
                let room = max_bytes.saturating_sub(set.len());
                set.extend_from_slice(&told.bytes[..room]);
                break;
            }
            set.extend_from_slice(&told.bytes);
        }
        set
    }

    /// Names that must be found, and those that may be.
    pub(super) fn naive(&self, from: u64, log_start: i64) -> (Names, Names) {
        let ours = self.told.len() - 1;
        let (mut must, mut may) = (Vec::new(), Vec::new());
        for (at, told) in self.told.iter().enumerate().take(ours) {
            let counts = !told.transactional || {
                let later = self.told[at + 1..=ours].iter();
                let mut ends = later.filter(|end| end.producer == told.producer);
                ends.find_map(|end| end.marker) == Some(Marker::Commit)
            };
            for &(offset, commit, index) in told.names.iter().filter(|name| name.0 >= log_start) {
                if commit < from {
                    must.clear();
                } else if counts {
                    must.push((commit, index));
                    may.push((commit, index));
                }
                assert!((told.first..=told.last).contains(&offset));
            }
        }
        (must, may)
    }
}

/// Records with a key and an `id`, or without.
fn batch(records: &[(Option<Vec<u8>>, Option<String>)]) -> Vec<u8> {
    let limits = Limits {
        max_bytes: 1 << 20,
        max_records: 10_000,
        linger: std::time::Duration::ZERO,
        in_flight: 8 << 20,
    };
    let mut batcher = Batcher::new(limits);
    let topic = batcher.topic("t".into(), 1, 1 << 20);
    let ticket = Ledger::new(Lsn::ZERO).begin();
    let stamp = Stamp { timestamp_ms: 1_700_000_000_000, committed_at: 0, now: Instant::now() };
    for (key, id) in records {
        let block = id.as_ref().map(|id| [b"\x04id\x66", id.as_bytes()].concat());
        let write = |record: &mut RecordWriter<'_>| {
            record.key(key.as_deref());
            record.value_with(|out| {
                out.extend_from_slice(&[b'v'; 40]);
                Ok::<_, Infallible>(())
            })?;
            if let Some(block) = &block {
                record.headers(1, block);
            }
            Ok::<_, Infallible>(())
        };
        batcher.append(topic, 0, stamp, ticket, write).unwrap();
    }
    batcher.flush_all();
    batcher.closed().unwrap().bytes
}

/// The index is the key as well.
fn named(source: u64, names: &[(u64, u32)]) -> Vec<u8> {
    let id = |(commit, index): &(u64, u32)| {
        let id = format!("{source:016x}-00000001-{commit:016x}-{index:08x}");
        (Some(index.to_be_bytes().to_vec()), Some(id))
    };
    batch(&names.iter().map(id).collect::<Vec<_>>())
}
