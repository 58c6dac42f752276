//! What the simulated brokers do, and what happens to them.

use super::*;

impl World {
    pub(super) fn carry_out(&mut self, broker: i32, sent: &Sent) -> Vec<PartitionProduced> {
        let limit = self.limit;
        let answer = |batch: &PartitionRecords| {
            let key = (Arc::clone(&batch.topic), batch.partition);
            let admits = self.coordinator.as_ref().is_some_and(|it| it.admits(&key));
            let log = self.logs.get_mut(&key).unwrap();
            let code = log.append(broker, &batch.records, limit, admits);
            PartitionProduced {
                topic: Arc::clone(&batch.topic),
                partition: batch.partition,
                code,
                base_offset: if code == STORED { 0 } else { -1 },
                log_append_time: -1,
                log_start_offset: 0,
                bad_records: Vec::new(),
                message: None,
            }
        };
        sent.batches.iter().map(answer).collect()
    }

    pub(super) fn process(&mut self, broker: i32) {
        let Some(sent) = self.queued.get_mut(&broker).and_then(VecDeque::pop_front) else { return };
        let partitions = self.carry_out(broker, &sent);
        let throttle = Duration::from_millis(if self.random(20) == 0 { 100 } else { 0 });
        self.answers.push((broker, sent.request, Produced { throttle, partitions }));
    }

    pub(super) fn answer(&mut self) {
        if !self.answers.is_empty() {
            // A broker answers in order.
            let at = self.pick(self.answers.len());
            let broker = self.answers[at].0;
            let at = self.answers.iter().position(|(of, ..)| *of == broker).unwrap();
            let (_, request, produced) = self.answers.remove(at);
            self.machine.answered(request, produced, self.now, 0);
        }
    }

    /// What is not carried out may be later, or never.
    pub(super) fn lose(&mut self, broker: i32) {
        self.answers.retain(|(of, ..)| *of != broker);
        let queue = self.queued.remove(&broker).unwrap_or_default();
        let arrived = self.pick(queue.len() + 1);
        self.late.extend(queue.into_iter().take(arrived).map(|sent| (broker, sent)));
        if self.connected.contains(&broker) {
            self.connected.retain(|&id| id != broker);
            self.machine.lost(broker, "lost", self.now, 0);
        }
    }

    pub(super) fn tell_leaders(&mut self) {
        if !std::mem::take(&mut self.metadata) {
            return;
        }
        let topics = ["a", "b"].map(|topic| Leaders {
            topic: Arc::from(topic),
            code: 0,
            id: None,
            leaders: self
                .logs
                .iter()
                .filter(|((of, _), _)| &**of == topic)
                .map(|((_, partition), log)| (*partition, log.leader))
                .collect(),
        });
        self.machine.leaders(topics.into(), self.now, 0);
    }

    pub(super) fn connect(&mut self, works: bool) {
        for broker in std::mem::take(&mut self.connecting) {
            if works {
                self.connected.push(broker);
                self.machine.connected(broker, "b", self.now);
            } else {
                self.machine.unreachable(broker, "unreachable", self.now, 0);
            }
        }
    }

    /// The new leader has what was replicated, and perhaps more.
    pub(super) fn move_leader(&mut self) {
        let (to, keep) = (self.random(4), self.random(100));
        let log = self.some_log();
        log.leader = i32::try_from(to).ok().filter(|&to| to < BROKERS);
        let more = log.entries.len() - log.replicated;
        log.entries.truncate(log.replicated + usize::try_from(keep).unwrap() % (more + 1));
        log.recall(5);
    }

    pub(super) fn restart(&mut self, broker: i32) {
        self.lose(broker);
        self.late.retain(|(of, _)| *of != broker);
        for log in self.logs.values_mut().filter(|log| log.leader == Some(broker)) {
            log.recall(1);
        }
    }
}
