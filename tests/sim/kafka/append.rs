//! What gets into a partition: batches, and the ends of transactions; and what is deleted.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    Cluster, MIN_ISR, Oracle, State,
    partition::{self, Verdict, code},
};

impl Cluster {
    /// A batch, on the broker that was asked; `named`: the request has a transactional id.
    pub(super) async fn produce(
        &self,
        broker: usize,
        topic: &Arc<str>,
        number: usize,
        (bytes, named): (&[u8], bool),
        until: Instant,
    ) -> (i16, i64) {
        let (base, upto, epoch, odd) = match self.append(broker, topic, number, bytes, named) {
            Ok(appended) => appended,
            Err(code) => return (code, -1),
        };
        self.replicate_soon(topic, number);
        if odd != 0 {
            return (odd, -1);
        }
        let code = self.wait(until, |state| {
            let Some(partition) = state.partition(topic, number) else {
                return Some(code::UNKNOWN_TOPIC);
            };
            if partition.epoch != epoch {
                return Some(code::NOT_LEADER);
            }
            if partition.high >= upto {
                return Some(0);
            }
            (partition.isr.len() < MIN_ISR).then_some(code::NOT_ENOUGH_REPLICAS_AFTER_APPEND)
        });
        match code.await.unwrap_or(code::TIMED_OUT) {
            0 => (0, base),
            code => (code, -1),
        }
    }

    /// Its first offset, the entries that there must be below the high watermark, the leader's epoch, and an odd
    /// answer that is to be given all the same.
    fn append(
        &self,
        broker: usize,
        topic: &Arc<str>,
        number: usize,
        bytes: &[u8],
        named: bool,
    ) -> Result<(i64, usize, i32, i16), i16> {
        let mut state = self.lock();
        let State { topics, transactions, odd, chance, .. } = &mut *state;
        let Some(partition) = topics.get_mut(topic).and_then(|all| all.get_mut(number)) else {
            return Err(code::UNKNOWN_TOPIC);
        };
        if partition.leader != Some(broker) {
            return Err(code::NOT_LEADER);
        }
        if partition.isr.len() < MIN_ISR {
            return Err(code::NOT_ENOUGH_REPLICAS);
        }
        let odd = match odd[broker] {
            0 => 0,
            _ => {
                odd[broker] -= 1;
                chance.pick(&[
                    0,
                    code::NOT_ENOUGH_REPLICAS,
                    code::STORAGE,
                    code::TIMED_OUT,
                    code::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
                ])
            }
        };
        if matches!(odd, code::NOT_ENOUGH_REPLICAS | code::STORAGE) {
            self.trace.say(format_args!("{topic}[{number}] is asked to wait: {odd}"));
            return Err(odd);
        }
        let before = partition.log.len();
        let verdict = partition
            .produce(bytes, named, |id, epoch| transactions.includes(id, epoch, topic, number));
        match verdict {
            Verdict::Refused(code) => {
                self.trace.say(format_args!("{topic}[{number}] refuses a batch: {code}"));
                Err(code)
            }
            Verdict::Appended(base, upto) => {
                if partition.log.len() > before {
                    let entry = &partition.log[before];
                    self.oracle.appended(topic, number as i32, entry.id, entry.epoch, false);
                    self.trace.say(format_args!(
                        "{topic}[{number}] takes {}..{} of {}/{} seq {}",
                        entry.base, entry.last, entry.id, entry.epoch, entry.sequence
                    ));
                }
                Ok((base, upto, partition.epoch, odd))
            }
        }
    }

    /// The end of a transaction gets into a partition sooner or later.
    pub(super) fn mark_soon(
        &self,
        id: i64,
        epoch: i16,
        commit: bool,
        topic: Arc<str>,
        number: usize,
        name: String,
    ) {
        let delay = {
            let mut state = self.lock();
            match state.chance.below(12) {
                0 => state.chance.ms(50, 1500),
                1..4 => state.chance.ms(2, 40),
                _ => state.chance.ms(0, 1),
            }
        };
        let this = self.clone();
        tokio::spawn(async move {
            sleep(delay).await;
            loop {
                let upto = {
                    let mut state = this.lock();
                    let runs = state.runs();
                    // To one that is gone it is as good as written.
                    let Some(partition) = state.partition(&topic, number) else { break };
                    match partition
                        .leader
                        .filter(|leader| runs[*leader] && partition.isr.len() >= MIN_ISR)
                    {
                        None => None,
                        Some(_) if !partition.mark(id, epoch, commit) => Some((0, partition.epoch)),
                        Some(_) => {
                            this.oracle.appended(&topic, number as i32, id, epoch, true);
                            Some((partition.log.len(), partition.epoch))
                        }
                    }
                };
                if let Some((upto, epoch)) = upto {
                    this.replicate_soon(&topic, number);
                    let far = Instant::now() + Duration::from_secs(60);
                    let stored = this.wait(far, |state| {
                        let Some(partition) = state.partition(&topic, number) else {
                            return Some(true);
                        };
                        (partition.epoch != epoch || partition.high >= upto)
                            .then_some(partition.high >= upto)
                    });
                    if stored.await == Some(true) {
                        break;
                    }
                }
                sleep(Duration::from_millis(100)).await;
            }
            let mut state = this.lock();
            let State { transactions, groups, .. } = &mut *state;
            transactions.marked(&name, &topic, number, groups);
            drop(state);
            this.changed.notify_waiters();
        });
    }

    /// So many batches of this broker get an odd answer.
    pub fn mistreat(&self, broker: usize, count: u64) {
        self.lock().odd[broker] = count;
    }

    /// What is confirmed goes.
    pub fn delete(&self, oracle: &Oracle) {
        let confirmed = oracle.told();
        let mut state = self.lock();
        for (topic, all) in &mut state.topics {
            for (number, partition) in all.iter_mut().enumerate() {
                let kept = |entry: &partition::Entry| {
                    entry.names.iter().any(|name| name.commit.get() >= confirmed)
                };
                let first = partition.log[..partition.high].iter().find(|entry| kept(entry));
                let before = first.map_or_else(|| partition.high_watermark(), |entry| entry.base);
                partition.delete(before);
                self.trace.say(format_args!("{topic}[{number}] begins at {}", partition.log_start));
            }
        }
    }
}
