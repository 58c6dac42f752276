//! Others who write into our topics: their records have no `id`, or one that is not of our source.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{Cluster, MIN_ISR, State, batch::batch, partition::Verdict};
use crate::plan::Writer;

/// What their records have as their `id`: nothing, something else, a name of another pipeline's.
const HEADERS: [Option<&[u8]>; 3] =
    [None, Some(b"17"), Some(b"00000000000000aa-00000001-0000000000000001-00000000")];

type Place = (Arc<str>, usize);

impl Cluster {
    /// So many batches, here and there.
    pub fn foreign(&self, writer: Writer, batches: u64) {
        let this = self.clone();
        tokio::spawn(async move { this.write(writer, batches).await });
    }

    async fn write(&self, writer: Writer, batches: u64) {
        let id = {
            let mut state = self.lock();
            match writer {
                Writer::Plain => -1,
                _ => {
                    state.next_id += 1;
                    state.next_id
                }
            }
        };
        let transactional = matches!(writer, Writer::Transactional { .. });
        let mut next = BTreeMap::<Place, i32>::new();
        for _ in 0..batches {
            let (place, count, header, pause) = {
                let mut state = self.lock();
                let State { topics, foreign, .. } = &mut *state;
                let all = topics.iter().flat_map(|(topic, all)| {
                    (0..all.len()).map(move |number| (Arc::clone(topic), number))
                });
                let all: Vec<Place> = all.collect();
                if all.is_empty() {
                    return; // nobody has a topic
                }
                let place = all[foreign.below(all.len() as u64) as usize].clone();
                let count = if foreign.one_in(3) { foreign.between(20, 60) } else { 1 };
                (place, count as u32, foreign.pick(&HEADERS), foreign.ms(0, 200))
            };
            let sequence = next.entry(place.clone()).or_default();
            let (epoch, first) = if id < 0 { (-1, -1) } else { (0, *sequence) };
            let bytes = batch((id, epoch), first, count, transactional, header);
            if self.put(&place, &bytes, transactional) {
                *sequence += count as i32;
            }
            sleep(pause).await;
        }
        let Writer::Transactional { commit, open } = writer else { return };
        sleep(Duration::from_millis(open)).await;
        for (topic, number) in next.into_keys() {
            self.mark_soon(id, 0, commit, topic, number, String::new());
        }
    }

    /// Whether the leader takes it.
    fn put(&self, (topic, number): &Place, bytes: &[u8], transactional: bool) -> bool {
        let mut state = self.lock();
        let runs = state.runs();
        let Some(partition) = state.partition(topic, *number) else { return false };
        let led = partition.leader.is_some_and(|leader| runs[leader]);
        if !led || partition.isr.len() < MIN_ISR {
            return false;
        }
        let Verdict::Appended(..) = partition.produce(bytes, transactional, |_, _| true) else {
            return false;
        };
        if let Some(entry) = partition.log.last_mut() {
            entry.names.clear(); // of another source
            let (base, last, id) = (entry.base, entry.last, entry.id);
            self.trace.say(format_args!("{topic}[{number}] takes {base}..{last} of foreign {id}"));
        }
        drop(state);
        self.replicate_soon(topic, *number);
        true
    }
}
