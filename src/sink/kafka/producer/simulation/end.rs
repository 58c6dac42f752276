//! How a run ends, and what must be true then.

use super::*;

impl World {
    /// All is well from now on, and everything arrives.
    pub(super) fn settle(&mut self) {
        for log in self.logs.values_mut() {
            (log.too_few_replicas, log.slow_replicas) = (false, false);
            log.leader = log.leader.or(Some(0));
        }
        self.commit();
        for _ in 0..3000 {
            (0..BROKERS).for_each(|broker| self.process(broker));
            self.answer();
            self.coordinate_well();
            self.tell_leaders();
            self.connect(true);
            if self.doubt {
                self.take();
            }
            self.now += Duration::from_millis(20);
            self.turn();
        }
        for (broker, sent) in std::mem::take(&mut self.late) {
            self.carry_out(broker, &sent);
        }
    }

    pub(super) fn check(&mut self) {
        assert_eq!(self.delivered, self.submitted, "not everything was delivered");
        assert_eq!(self.machine.held(), 0);
        assert_eq!(self.machine.troubles().text(), None);
        for (key, log) in &self.logs {
            let entries: Vec<_> =
                log.entries.iter().map(|e| (e.id, e.epoch, e.first, e.last)).collect();
            let values = log.visible();
            let count = self.next_value.get(key).copied().unwrap_or_default();
            let mut previous = None;
            for &value in &values {
                let next = previous.map_or(0, |previous| previous + 1);
                assert!(value == next, "{key:?}: {value} after {previous:?}: {entries:?}");
                previous = Some(value);
            }
            assert_eq!(previous.map_or(0, |last| last + 1), count, "{key:?}: its end is wrong");
        }
    }
}
