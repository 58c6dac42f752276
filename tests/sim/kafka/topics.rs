//! Topics that are deleted, and made anew: from offset 0, under another id, with nothing known of producers.

use std::{sync::Arc, time::Duration};

use super::{
    Cluster,
    partition::{Partition, code},
};

/// Leaders' epochs of a topic that was made anew begin here times how many there were.
const EPOCHS: i32 = 1000;

/// In which somebody who looked has come to his conclusion.
const MOMENT: Duration = Duration::from_secs(5);

impl Cluster {
    /// It is gone with all that it held, and what groups kept of it.
    pub fn delete_topic(&self, name: &str) {
        let mut state = self.lock();
        if state.topics.remove(name).is_some() {
            self.trace.say(format_args!("{name} is deleted"));
            state.groups.forget(name);
            self.oracle.deleted(name);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Whether neither a group nor a topic told of us a moment ago, when somebody looked.
    pub fn kept_nothing(&self) -> bool {
        let state = self.lock();
        let mut entries = state.topics.values().flatten().flat_map(|partition| &partition.log);
        state.groups.is_new(MOMENT)
            && entries.all(|entry| entry.names.is_empty() || entry.at.elapsed() < MOMENT)
    }

    /// The code of `CreateTopics`.
    pub fn make_topic(&self, name: &str, partitions: usize) -> i16 {
        let mut state = self.lock();
        if state.topics.contains_key(name) {
            return code::TOPIC_EXISTS;
        }
        state.anew += 1;
        let epoch = state.anew * EPOCHS;
        let none = state.brokers.iter().all(|broker| broker.fenced);
        let led = |at: usize| {
            let leader = (0..3).map(|shift| (at + shift) % 3).find(|at| !state.brokers[*at].fenced);
            let mut partition = Partition::new(leader.unwrap_or(0));
            (partition.leader, partition.epoch, partition.born) = (leader, epoch, epoch.into());
            partition.isr.retain(|broker| none || !state.brokers[*broker].fenced);
            partition
        };
        let all = (0..partitions).map(led).collect();
        state.topics.insert(Arc::from(name), all);
        self.trace.say(format_args!("{name} is made anew"));
        drop(state);
        self.changed.notify_waiters();
        0
    }
}
