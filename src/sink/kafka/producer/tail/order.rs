//! Which keys of a partition end with an older record than there is.
//!
//! A replay that has to send records again behind newer ones (they had been deleted, or lay behind a
//! limit) sends what followed them again as well. If it was broken off, a key's last record is not its
//! newest, and if at the next start each record that is stored were left out, it would stay so. A
//! truncate is a record of every key.
//!
//! **Must stay true.** By the key, not by the partition: where rows changed their partition between two
//! starts, an older row of another key stands behind a newer one, and nothing is wrong. Only a truncate
//! counts for the whole partition, as it does for whoever reads that.

use foldhash::{HashMap, HashMapExt as _, HashSet, HashSetExt as _};

use crate::stored::{Name, Place};

/// Keys told apart in one partition, up to 300 bytes each. Others count as one: in a partition that is
/// in order that makes no difference.
const KEYS: usize = 1024;
/// The same in all partitions together, but a few there are in each.
const ALL_KEYS: usize = 1 << 15;
const KEYS_LEAST: usize = 16;

/// What was read of a partition: forwards within a step, and the steps backwards.
#[derive(Debug)]
pub(super) struct Order {
    whole: Place,
    /// How many keys are told apart.
    most: usize,
    /// These, and of each the last record in the steps that are over.
    keys: HashMap<Place, Option<Name>>,
    /// The same of truncates.
    truncates: Truncates,
    step: Seen,
    behind: HashSet<Place>,
}

/// Records that stand one behind the other.
#[derive(Debug, Default)]
pub(super) struct Seen {
    keys: HashMap<Place, Ends>,
    truncates: Truncates,
}

/// Of one key.
#[derive(Clone, Copy, Debug)]
struct Ends {
    last: Name,
    newest: Name,
}

/// The last truncate, and the newest records before and behind it.
#[derive(Clone, Copy, Debug, Default)]
struct Truncates {
    before: Option<Name>,
    last: Option<Name>,
    behind: Option<Name>,
}

impl Seen {
    /// The next record, and as what its key is told apart; `None`: it has none.
    pub(super) fn add(&mut self, place: Option<Place>, name: Name) {
        let next = Ends { last: name, newest: name };
        place.into_iter().for_each(|place| self.append_ends(place, next));
        // Of several parts and without a key: one for each partition.
        let truncate = (place.is_none() && name.part.is_some()).then_some(name);
        let behind = truncate.is_none().then_some(name);
        self.truncates.append(Truncates { before: None, last: truncate, behind });
    }

    fn append_ends(&mut self, place: Place, next: Ends) {
        let add = |ends: &mut Ends| {
            *ends = Ends { last: next.last, newest: ends.newest.max(next.newest) };
        };
        self.keys.entry(place).and_modify(add).or_insert(next);
    }

    /// What stands behind.
    pub(super) fn append(&mut self, next: Self) {
        next.keys.into_iter().for_each(|(place, ends)| self.append_ends(place, ends));
        self.truncates.append(next.truncates);
    }
}

impl Truncates {
    fn append(&mut self, next: Self) {
        *self = match next.last {
            None => Self { behind: self.behind.max(next.behind), ..*self },
            Some(_) => Self { before: self.newest().max(next.before), ..next },
        };
    }

    fn newest(&self) -> Option<Name> {
        self.before.max(self.last).max(self.behind)
    }

    /// Whether what a truncate should not have taken stands before it.
    fn take_newer(&self) -> bool {
        self.last.is_some() && self.before > self.last.max(self.behind)
    }
}

impl Order {
    /// Of one of so many partitions that are read at the same time.
    pub(super) fn new(whole: Place, partitions: usize) -> Self {
        Self {
            whole,
            most: (ALL_KEYS / partitions.max(1)).clamp(KEYS_LEAST, KEYS),
            keys: HashMap::new(),
            truncates: Truncates::default(),
            step: Seen::default(),
            behind: HashSet::new(),
        }
    }

    /// As what the records of this key are told apart. `None`: one without a key replaces no other.
    pub(super) fn told(&mut self, place: Place) -> Option<Place> {
        if place.is_whole() {
            return None;
        }
        let told = self.keys.len() < self.most || self.keys.contains_key(&place);
        let place = if told { place } else { place.whole() };
        self.keys.entry(place).or_default();
        Some(place)
    }

    /// What comes next in this step.
    pub(super) fn next(&mut self) -> &mut Seen {
        &mut self.step
    }

    /// The next step, of what stands before all that was seen.
    pub(super) fn step(&mut self) {
        let Seen { keys, mut truncates } = std::mem::take(&mut self.step);
        for (place, ends) in keys {
            let last = self.keys.entry(place).or_default().get_or_insert(ends.last);
            if ends.newest > *last {
                self.behind.insert(place);
            }
        }
        truncates.append(self.truncates);
        self.truncates = truncates;
    }

    /// Keys that end with an older record than there is.
    pub(super) fn behind(&mut self) -> HashSet<Place> {
        self.step();
        if self.truncates.take_newer() {
            self.behind.insert(self.whole);
        }
        std::mem::take(&mut self.behind)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::lsn::Lsn;

    fn name(commit: u64) -> Name {
        Name { source: 7, timeline: 1, commit: Lsn::new(commit), index: 0, part: None }
    }

    fn place(key: u64) -> Place {
        Place::topic("t").key(Some(&key.to_be_bytes()))
    }

    fn order() -> Order {
        Order::new(place(0).whole(), 1)
    }

    fn see(order: &mut Order, place: Place, name: Name) {
        let place = order.told(place);
        order.next().add(place, name);
    }

    /// Keys of this log that end with an older commit, read in steps backwards of these lengths.
    fn behind(log: &[(u64, u64)], steps: &[usize]) -> HashSet<Place> {
        let (mut order, mut end) = (order(), log.len());
        for step in steps.iter().copied().chain([log.len()]) {
            let start = end.saturating_sub(step);
            for &(key, commit) in &log[start..end] {
                see(&mut order, place(key), name(commit));
            }
            order.step();
            end = start;
        }
        order.behind()
    }

    #[test]
    fn an_older_record_behind_a_newer_one_is_seen_wherever_a_step_begins() {
        for step in 1..4 {
            let steps = [step, step, step];
            let behind = |log: &[(u64, u64)]| behind(log, &steps);
            let (none, one) = (HashSet::new(), HashSet::from_iter([place(1)]));
            assert_eq!(behind(&[(1, 10), (1, 20), (1, 30)]), none);
            assert_eq!(behind(&[(1, 30), (2, 40), (1, 10), (1, 20)]), one, "broken off before 30");
            assert_eq!(behind(&[(1, 30), (1, 10), (1, 20), (1, 30)]), none, "it came to its end");
            assert_eq!(behind(&[(1, 30), (1, 10), (1, 40)]), none, "there is a newer one now");
            assert_eq!(behind(&[(1, 30), (2, 10), (2, 20)]), none, "of another key");
        }
    }

    #[test]
    fn a_record_of_an_older_timeline_is_older() {
        let mut order = order();
        see(&mut order, place(1), Name { timeline: 1, ..name(50) });
        see(&mut order, place(1), Name { timeline: 2, ..name(40) });
        assert!(order.behind().is_empty());
    }

    #[test]
    fn records_without_a_key_are_in_any_order() {
        let mut order = order();
        see(&mut order, place(1).whole(), name(50));
        see(&mut order, place(1).whole(), name(40));
        assert!(order.behind().is_empty());
    }

    /// Whether a truncate in this log took what is newer; commits, and 0 for the truncate of commit 20.
    fn taken(log: &[u64], step: usize) -> bool {
        let (mut order, mut end) = (order(), log.len());
        while end > 0 {
            let start = end.saturating_sub(step);
            for &commit in &log[start..end] {
                let truncate = Name { part: Some(0), ..name(20) };
                let this = if commit == 0 { truncate } else { name(commit) };
                see(&mut order, place(commit).key(None), this);
            }
            order.step();
            end = start;
        }
        order.behind().contains(&place(0).whole())
    }

    #[test]
    fn a_truncate_behind_what_is_newer_is_seen_wherever_a_step_begins() {
        for step in 1..5 {
            let taken = |log: &[u64]| taken(log, step);
            assert!(!taken(&[10, 0, 30]));
            assert!(!taken(&[30, 10]), "no truncate");
            assert!(taken(&[10, 30, 40, 0]) && taken(&[10, 0, 30, 40, 0, 30]), "broken off");
            assert!(!taken(&[10, 30, 40, 0, 30, 40]), "it came to its end");
            assert!(!taken(&[10, 30, 0, 50]), "there is a newer one now");
        }
    }

    #[test]
    fn a_truncate_behind_a_newer_truncate_is_seen() {
        let mut order = order();
        for commit in [30, 20] {
            see(&mut order, place(1).whole(), Name { part: Some(2), ..name(commit) });
        }
        assert_eq!(order.behind(), HashSet::from_iter([place(1).whole()]));
    }

    #[test]
    fn more_keys_than_there_is_room_for_are_in_order_all_the_same() {
        for (partitions, keys) in [(1, KEYS), (100, ALL_KEYS / 100), (100_000, KEYS_LEAST)] {
            let keys = keys as u64;
            let of = |names: &[u64]| {
                let mut order = Order::new(place(0).whole(), partitions);
                names.iter().for_each(|&at| see(&mut order, place(at), name(at)));
                assert_eq!(order.keys.len() as u64, keys + 1);
                order
            };
            let ascending: Vec<_> = (0..keys + 50).collect();
            assert!(of(&ascending).behind().is_empty());
            // The others are one.
            let back = [ascending.as_slice(), &[keys + 40]].concat();
            assert_eq!(of(&back).behind(), HashSet::from_iter([place(0).whole()]));
        }
    }

    proptest! {
        #[test]
        fn sees_what_is_seen_from_the_front(
            log in vec((0..4_u64, 0..20_u64), 0..30),
            steps in vec(1..9_usize, 0..9),
        ) {
            let old = (0..4).filter(|&key| {
                let commits = || log.iter().filter(|record| record.0 == key).map(|record| record.1);
                commits().next_back() != commits().max()
            });
            prop_assert_eq!(behind(&log, &steps), old.map(place).collect());
        }
    }
}
