//! A consumer with `isolation.level=read_committed`: it reads each partition up to its last stable offset.

use std::sync::Arc;

use pgsluice::batch::log::Marker;
use tokio::time::sleep;

use super::{Chance, Cluster};

impl Cluster {
    /// From partition to partition, as long as the world lasts.
    pub async fn consume(self, seed: u64) {
        let mut chance = Chance::of(seed, "consumer");
        let mut places: Vec<(Arc<str>, usize, usize)> = Vec::new();
        for (topic, all) in &self.lock().topics {
            places.extend((0..all.len()).map(|number| (Arc::clone(topic), number, 0)));
        }
        loop {
            for (topic, number, cursor) in &mut places {
                sleep(chance.ms(0, 30)).await;
                self.read_committed(topic, *number, cursor);
            }
        }
    }

    /// What has come to be stable behind so many entries of the log.
    fn read_committed(&self, topic: &Arc<str>, number: usize, cursor: &mut usize) {
        let mut state = self.lock();
        let Some(partition) = state.partition(topic, number) else { return };
        let stable = partition.last_stable();
        let log = &partition.log[..partition.high];
        while let Some(entry) = log.get(*cursor).filter(|entry| entry.last < stable) {
            *cursor += 1;
            if entry.names.is_empty() {
                continue;
            }
            let mut later = log[*cursor..].iter().filter(|later| later.id == entry.id);
            let committed = !entry.transactional
                || later.find_map(|later| later.marker) == Some(Marker::Commit);
            if committed {
                self.oracle.stored(topic, number as i32, entry.base, &entry.names);
            }
        }
        self.oracle.consumed();
    }
}
