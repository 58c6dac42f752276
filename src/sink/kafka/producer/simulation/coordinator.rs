//! The coordinator of our transactions, as real ones were measured to answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Key, World, log::Log};
use crate::sink::kafka::{
    error::Doubt,
    producer::machine::{Machine, NotCoordinated},
};

/// The producer id of the transactions.
pub(super) const DATA: i64 = 2;

#[derive(Clone)]
enum Asked {
    Add(Vec<Key>),
    End,
}

/// With the epoch of whoever asks.
#[derive(Clone)]
struct Question(i16, Asked);

/// See the module.
#[derive(Default)]
pub(super) struct Coordinator {
    pub(super) epoch: i16,
    /// The open transaction's.
    open: BTreeSet<Key>,
    /// The last one was.
    committed: bool,
    /// Whether it commits, and where the marker is still to be written.
    ending: Option<(bool, Vec<Key>)>,
    /// Not yet carried out, and what was answered and has not arrived.
    question: Option<Question>,
    answer: Option<(Asked, i16)>,
    /// Bytes of connections that ended.
    late: VecDeque<Question>,
}

impl Coordinator {
    fn carry_out(&mut self, Question(epoch, asked): &Question) -> i16 {
        if *epoch != self.epoch {
            return 90;
        }
        if self.ending.is_some() {
            return 51;
        }
        match asked {
            Asked::Add(keys) => self.open.extend(keys.iter().cloned()),
            Asked::End if self.open.is_empty() && self.committed => {} // asked again
            Asked::End if self.open.is_empty() => return 48,
            Asked::End => self.end(true),
        }
        0
    }

    fn end(&mut self, commit: bool) {
        self.committed = commit;
        self.ending = Some((commit, std::mem::take(&mut self.open).into_iter().collect()));
    }

    /// Writes one of the markers.
    fn mark(&mut self, logs: &mut BTreeMap<Key, Log>) {
        let Some((commit, keys)) = &mut self.ending else { return };
        if let Some(log) = keys.pop().and_then(|key| logs.get_mut(&key)) {
            log.mark(DATA, self.epoch, *commit);
        }
        if keys.is_empty() {
            self.ending = None;
        }
    }

    fn mark_all(&mut self, logs: &mut BTreeMap<Key, Log>) {
        while self.ending.is_some() {
            self.mark(logs);
        }
    }

    /// It was open for too long.
    fn time_out(&mut self) {
        if !self.open.is_empty() {
            self.epoch += 1;
            self.end(false);
        }
    }

    /// The next epoch: what is open is aborted, what is decided is ended as it was decided.
    pub(super) fn init(&mut self, logs: &mut BTreeMap<Key, Log>) -> i16 {
        self.time_out();
        self.mark_all(logs);
        self.epoch += 1;
        self.committed = false;
        (self.question, self.answer) = (None, None);
        self.epoch
    }

    /// Whether a broker takes a batch of this transaction.
    pub(super) fn admits(&self, key: &Key) -> bool {
        self.open.contains(key)
    }

    /// Whether it is decided that what is open in the log will be visible.
    pub(super) fn commits(&self, key: &Key) -> bool {
        self.ending.as_ref().is_some_and(|(commit, keys)| *commit && keys.contains(key))
    }

    /// Between two transactions of its own, or in the midst of one.
    pub(super) fn is_calm(&self) -> bool {
        self.ending.is_none()
    }

    pub(super) fn is_asked(&self) -> bool {
        self.question.is_some() || self.answer.is_some()
    }

    pub(super) fn ask_to_add(&mut self, epoch: i16, keys: Vec<Key>) {
        assert!(!self.is_asked(), "one at a time");
        self.question = Some(Question(epoch, Asked::Add(keys)));
    }

    pub(super) fn ask_to_end(&mut self, epoch: i16) {
        assert!(!self.is_asked(), "one at a time");
        self.question = Some(Question(epoch, Asked::End));
    }

    fn proceed(&mut self) {
        if let Some(question) = self.question.take() {
            let code = self.carry_out(&question);
            self.answer = Some((question.1, code));
        }
    }

    fn tell(&mut self, machine: &mut Machine, now: tokio::time::Instant) {
        match self.answer.take() {
            None => {}
            Some((_, 0)) => machine.coordinated(now),
            Some((_, 51)) => machine.not_coordinated(NotCoordinated::Busy, now, 0),
            Some((_, code)) => {
                let doubt = NotCoordinated::Doubt(Doubt::Refused(code));
                machine.not_coordinated(doubt, now, 0);
            }
        }
    }

    /// The connection ends: what was not carried out may be later, or never.
    fn lose(&mut self, arrives: bool, machine: &mut Machine, now: tokio::time::Instant) {
        let question = self.question.take();
        let answer = self.answer.take();
        let asked = question.as_ref().map(|question| question.1.clone());
        let Some(asked) = asked.or_else(|| answer.map(|answer| answer.0)) else { return };
        self.late.extend(question.filter(|_| arrives));
        let why = match asked {
            Asked::Add(_) => NotCoordinated::Later("lost".to_owned()),
            Asked::End => NotCoordinated::Doubt(Doubt::Unanswered),
        };
        machine.not_coordinated(why, now, 0);
    }
}

impl World {
    /// Something happens at the coordinator.
    pub(super) fn coordinate(&mut self) {
        let (which, rare, arrives) = (self.random(12), self.random(4) == 0, self.random(4) > 0);
        let Self { coordinator: Some(coordinator), machine, logs, now, .. } = self else { return };
        match which {
            0..4 => coordinator.proceed(),
            4..8 => coordinator.tell(machine, *now),
            8..10 => coordinator.mark(logs),
            10 => coordinator.lose(arrives, machine, *now),
            _ if !rare => {}
            _ if coordinator.late.is_empty() && coordinator.is_calm() => coordinator.time_out(),
            _ => {
                if let Some(late) = coordinator.late.pop_front() {
                    coordinator.carry_out(&late);
                }
            }
        }
    }

    /// All goes well.
    pub(super) fn coordinate_well(&mut self) {
        let Self { coordinator: Some(coordinator), machine, logs, now, .. } = self else { return };
        coordinator.proceed();
        coordinator.tell(machine, *now);
        coordinator.mark_all(logs);
        while let Some(late) = coordinator.late.pop_front() {
            coordinator.carry_out(&late);
        }
    }

    /// What belongs together is seen as a whole or not at all, unless markers are being written.
    pub(super) fn check_groups(&self) {
        if !self.coordinator.as_ref().is_some_and(Coordinator::is_calm) {
            return;
        }
        let visible: BTreeMap<&Key, u64> =
            self.logs.iter().map(|(key, log)| (key, log.visible().len() as u64)).collect();
        for group in &self.groups {
            let mut seen = group.iter().map(|(key, values)| visible[key] >= values.end);
            let none = group.iter().all(|(key, values)| visible[key] <= values.start);
            assert!(none || seen.all(|seen| seen), "{group:?} is seen in part: {visible:?}");
        }
    }
}
