//! Brokers that come and go, and the controller that notices it after a while: who leads what.

use std::sync::Arc;

use pgsluice::sim::Gate;
use tokio::time::{Instant, sleep};

use super::{Cluster, State};

impl Cluster {
    /// A broker's process ends.
    pub fn crash(&self, broker: usize) {
        self.trace.say(format_args!("broker {broker} crashes"));
        let gate = self.lock().brokers[broker].gate.clone();
        gate.kill();
        self.notice_later(broker);
    }

    /// It stands still.
    pub fn freeze(&self, broker: usize) {
        self.trace.say(format_args!("broker {broker} is frozen"));
        let gate = self.lock().brokers[broker].gate.clone();
        gate.freeze();
        self.notice_later(broker);
    }

    fn notice_later(&self, broker: usize) {
        let (delay, starts) = {
            let mut state = self.lock();
            (state.chance.ms(200, 3000), state.brokers[broker].starts)
        };
        let this = self.clone();
        tokio::spawn(async move {
            sleep(delay).await;
            let away = {
                let state = this.lock();
                state.brokers[broker].starts == starts && !state.brokers[broker].gate.runs()
            };
            if away {
                this.fence(broker);
            }
        });
    }

    /// The controller takes it for away.
    fn fence(&self, broker: usize) {
        self.trace.say(format_args!("broker {broker} is fenced"));
        let mut state = self.lock();
        state.brokers[broker].fenced = true;
        if state.coordinator == Some(broker) {
            state.coordinator = None;
        }
        self.elect(&mut state, broker);
        drop(state);
        self.changed.notify_waiters();
    }

    fn elect(&self, state: &mut State, gone: usize) {
        let fenced = state.brokers.clone().map(|broker| broker.fenced);
        let names: Vec<Arc<str>> = state.topics.keys().cloned().collect();
        for topic in names {
            for number in 0..state.topics[&topic].len() {
                let partition = &mut state.topics.get_mut(&topic).unwrap()[number];
                if partition.isr.len() > 1 && fenced[gone] {
                    partition.isr.remove(&gone);
                }
                if partition.leader.is_none_or(|leader| fenced[leader]) {
                    let next = partition.isr.iter().copied().find(|broker| !fenced[*broker]);
                    if next != partition.leader {
                        partition.elect(next);
                        self.oracle.elected(&topic, number as i32, partition.markers());
                        self.trace.say(format_args!("{topic}[{number}] is led by {next:?}"));
                    }
                }
                self.advance(state, &topic, number);
            }
        }
        if state.coordinator.is_none() {
            state.coordinator = (0..3).find(|broker| !fenced[*broker]);
            let delay = state.chance.ms(10, 500);
            state.loading_until = Instant::now() + delay;
        }
    }

    /// It goes on, or is started anew.
    pub fn resume(&self, broker: usize) {
        let delay = {
            let mut state = self.lock();
            state.brokers[broker].starts += 1;
            if state.brokers[broker].gate.is_dead() {
                state.brokers[broker].gate = Gate::default();
                for partition in state.topics.values_mut().flatten() {
                    if partition.leader == Some(broker) {
                        partition.forget();
                    }
                }
            } else {
                state.brokers[broker].gate.thaw();
            }
            state.chance.ms(50, 1000)
        };
        self.trace.say(format_args!("broker {broker} goes on"));
        self.listen(broker);
        self.changed.notify_waiters();
        let this = self.clone();
        tokio::spawn(async move {
            sleep(delay).await;
            let mut state = this.lock();
            if !state.brokers[broker].gate.runs() {
                return;
            }
            state.brokers[broker].fenced = false;
            this.elect(&mut state, broker);
            let all: Vec<(Arc<str>, usize)> = state
                .topics
                .iter()
                .flat_map(|(name, all)| (0..all.len()).map(|at| (Arc::clone(name), at)))
                .collect();
            drop(state);
            all.iter().for_each(|(topic, number)| this.replicate_soon(topic, *number));
        });
    }

    /// Another in-sync replica leads a partition.
    pub fn move_leaders(&self) {
        let mut state = self.lock();
        let runs = state.runs();
        let State { topics, chance, .. } = &mut *state;
        for (topic, all) in topics.iter_mut() {
            for (number, partition) in all.iter_mut().enumerate() {
                let others: Vec<usize> = partition
                    .isr
                    .iter()
                    .copied()
                    .filter(|broker| Some(*broker) != partition.leader && runs[*broker])
                    .collect();
                if !others.is_empty() && chance.one_in(2) {
                    let next = chance.pick(&others);
                    partition.elect(Some(next));
                    self.oracle.elected(topic, number as i32, partition.markers());
                    self.trace.say(format_args!("{topic}[{number}] is led by {next}"));
                }
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Everything goes on.
    pub fn heal(&self) {
        self.lock().odd = [0; 3];
        for broker in 0..3 {
            let heal =
                !self.lock().brokers[broker].gate.runs() || self.lock().brokers[broker].fenced;
            if heal {
                self.resume(broker);
            }
        }
    }
}
