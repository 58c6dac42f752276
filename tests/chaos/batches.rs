//! Who stored a record: a batch's head in the broker's own file tells, consumers are not told.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::support::Kafka;

/// Bytes of a batch before its records.
const HEAD: usize = 61;

/// The heads of a topic's batches, by partition, in the order of offsets.
pub struct Batches(HashMap<i32, Vec<Head>>);

/// [The head of a batch](https://kafka.apache.org/documentation/#recordbatch), what of it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    base: i64,
    last: i64,
    producer: i64,
    epoch: i64,
    sequence: i64,
    leader_epoch: i64,
    control: bool,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { base, last, producer, epoch, sequence, leader_epoch, .. } = self;
        write!(
            f,
            "offsets {base} to {last}, producer {producer} epoch {epoch} sequence {sequence}, leader epoch {leader_epoch}"
        )
    }
}

impl Batches {
    /// Of each partition what the broker has that has most; nothing is written any more.
    pub fn read(kafka: &Kafka, topic: &str, partitions: u32) -> Self {
        let logs = kafka.ctl("all", "log");
        let brokers: Vec<&Path> = logs.lines().filter_map(|log| Path::new(log).parent()).collect();
        let of = |partition: i32| {
            let folders = brokers.iter().map(|it| it.join(format!("data/{topic}-{partition}")));
            let each = folders.map(|folder| segments(folder).iter().flat_map(heads).collect());
            (partition, each.max_by_key(Vec::len).unwrap_or_default())
        };
        Self((0..i32::try_from(partitions).expect("few")).map(of).collect())
    }

    /// The batch that has this record.
    pub fn find(&self, partition: i32, offset: i64) -> Option<&Head> {
        let heads = self.0.get(&partition)?;
        heads.get(heads.partition_point(|head| head.last < offset))
    }

    /// How many came from an epoch of a producer when a later one had left its marker there, or a batch.
    pub fn returns(&self) -> usize {
        let of = |heads: &Vec<Head>| {
            let mut last: HashMap<i64, i64> = HashMap::new();
            let returns = heads.iter().filter(|head| {
                let last = last.entry(head.producer).or_insert(head.epoch);
                *last = head.epoch.max(*last);
                !head.control && head.epoch < *last
            });
            returns.count()
        };
        self.0.values().map(of).sum()
    }
}

fn segments(folder: PathBuf) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let paths = files.map(|file| file.path());
    let mut logs: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    logs.sort(); // named by their first offset
    logs
}

fn heads(file: &PathBuf) -> Vec<Head> {
    let bytes = std::fs::read(file).unwrap_or_default();
    let (mut rest, mut heads) = (bytes.as_slice(), Vec::new());
    while rest.len() >= HEAD {
        let number = |at: usize, length: usize| {
            let bytes = rest.get(at..at + length).unwrap_or_default();
            let unsigned = bytes.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
            let unused = 64 - 8 * u32::try_from(length).unwrap_or(8);
            (unsigned << unused).cast_signed() >> unused
        };
        let (base, length) = (number(0, 8), usize::try_from(number(8, 4)).unwrap_or(0));
        if length == 0 {
            break; // what is allocated and not written
        }
        heads.push(Head {
            base,
            last: base + number(23, 4),
            producer: number(43, 8),
            epoch: number(51, 2),
            sequence: number(53, 4),
            leader_epoch: number(12, 4),
            control: number(21, 2) & 0x20 != 0,
        });
        rest = rest.get(12 + length..).unwrap_or_default();
    }
    heads
}

#[test]
fn a_batch_behind_a_later_epochs_marker_is_a_return() {
    let head = |producer, epoch, control| Head {
        base: 0,
        last: 0,
        producer,
        epoch,
        sequence: 0,
        leader_epoch: 0,
        control,
    };
    let of = |heads: &[Head]| Batches(HashMap::from([(0, heads.to_vec())])).returns();
    let (first, marker, second) = (head(7, 1, false), head(7, 2, true), head(7, 2, false));
    assert_eq!(of(&[first, first, marker, second, head(8, 0, false)]), 0);
    assert_eq!(of(&[first, marker, first]), 1);
    assert_eq!(of(&[marker, second, first, second]), 1);
}
