//! The log cleaner: of each key the last record stays.
//!
//! Batches of which nothing stays are gone, but for the last one of a producer: of that the header is
//! kept, without a record. It goes only through what PostgreSQL cannot send again, so that none of it is to be
//! stored once more.

use std::{collections::BTreeMap, sync::Arc};

use pgsluice::batch::log::Marker;

use super::{
    Cluster,
    batch::seal,
    partition::{Entry, Partition},
};

/// Of a batch without records.
const HEADER: usize = 61;

impl Cluster {
    /// Every partition, as far as it is stable.
    pub fn compact(&self) {
        let confirmed = self.oracle.told();
        let mut state = self.lock();
        state.compacted = true;
        for (topic, all) in &mut state.topics {
            for (number, partition) in all.iter_mut().enumerate() {
                let gone = self.overwritten(partition, confirmed);
                if !gone.is_empty() {
                    let count = gone.len();
                    self.trace.say(format_args!("{topic}[{number}] is rid of {count} batches"));
                }
                for at in gone {
                    let id = partition.log[at].id;
                    let last = !partition.log[at + 1..].iter().any(|later| later.id == id);
                    let entry = &mut partition.log[at];
                    entry.bytes = Arc::new(if last { emptied(entry) } else { Vec::new() });
                }
            }
        }
    }

    /// Batches all of whose keys come again further on. The last one is in the active segment, which is not cleaned.
    fn overwritten(&self, partition: &Partition, confirmed: u64) -> Vec<usize> {
        let stable = partition.last_stable();
        let log = &partition.log[..partition.high];
        let counts = |at: usize| {
            let entry = &log[at];
            let mut later = log[at..].iter().filter(|later| later.id == entry.id);
            entry.base < stable
                && (!entry.transactional
                    || later.find_map(|later| later.marker) == Some(Marker::Commit))
        };
        let mut last = BTreeMap::<u64, usize>::new();
        let known: Vec<usize> =
            (0..log.len()).filter(|at| !log[*at].names.is_empty() && counts(*at)).collect();
        for at in &known {
            last.extend(
                log[*at].names.iter().filter_map(|name| Some((self.oracle.key(name)?, *at))),
            );
        }
        let overwritten = |at: &usize| {
            *at + 1 < log.len()
                && !log[*at].bytes.is_empty()
                && log[*at].names.iter().all(|name| {
                    name.commit.get() < confirmed
                        && self.oracle.key(name).is_some_and(|key| last[&key] > *at)
                })
        };
        known.into_iter().filter(overwritten).collect()
    }
}

/// Its header, without compression.
fn emptied(entry: &Entry) -> Vec<u8> {
    let mut bytes = entry.bytes[..HEADER].to_vec();
    bytes[22] &= 0xf8;
    bytes[57..].fill(0);
    seal(&mut bytes);
    bytes
}
