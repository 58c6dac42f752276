//! What was appended gets to the followers, and the high watermark to where all in-sync replicas are.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Cluster, State};

impl Cluster {
    /// What was appended to a partition gets to its followers after a while.
    pub(super) fn replicate_soon(&self, topic: &Arc<str>, number: usize) {
        for broker in 0..3 {
            let delay = {
                let mut state = self.lock();
                let slow = state.slow_until > Instant::now();
                match state.chance.below(50) {
                    0 => state.chance.ms(50, 800),
                    1..10 => state.chance.ms(2, 30),
                    _ if slow => state.chance.ms(500, 3000),
                    _ => state.chance.ms(0, 1),
                }
            };
            let (this, topic) = (self.clone(), Arc::clone(topic));
            tokio::spawn(async move {
                sleep(delay).await;
                this.replicate(broker, &topic, number);
            });
        }
    }

    /// This broker fetches all that the leader has.
    fn replicate(&self, broker: usize, topic: &Arc<str>, number: usize) {
        let mut state = self.lock();
        let runs = state.runs();
        let fenced = state.brokers[broker].fenced;
        let Some(partition) = state.partition(topic, number) else { return };
        let Some(leader) = partition.leader.filter(|leader| runs[*leader]) else { return };
        if !runs[broker] {
            return;
        }
        partition.has[broker] = partition.log.len();
        if broker != leader && !fenced {
            partition.isr.insert(broker);
        }
        self.advance(&mut state, topic, number);
    }

    /// The high watermark, to where all in-sync replicas are.
    pub(super) fn advance(&self, state: &mut State, topic: &Arc<str>, number: usize) {
        let Some(partition) = state.partition(topic, number) else { return };
        if partition.leader.is_none() {
            return;
        }
        let high = partition.isr.iter().map(|broker| partition.has[*broker]).min().unwrap_or(0);
        let (from, upto) = (partition.high, high.max(partition.high));
        partition.high = upto;
        for at in from..upto {
            let entry = partition.log[at].clone();
            self.trace.say(format_args!(
                "{topic}[{number}] stores {}..{} of {}/{} {:?}",
                entry.base, entry.last, entry.id, entry.epoch, entry.marker
            ));
            let index = number as i32;
            match entry.marker {
                Some(_) => drop(partition.pending.remove(&entry.id)),
                None if entry.transactional => {
                    partition.pending.entry(entry.id).or_default().push((entry.base, entry.names));
                }
                None => self.oracle.plain(topic, index, entry.base, &entry.names),
            }
        }
        if upto > from {
            self.changed.notify_waiters();
        }
    }

    /// Followers are slow for so long.
    pub fn slow(&self, time: Duration) {
        self.lock().slow_until = Instant::now() + time;
    }
}
