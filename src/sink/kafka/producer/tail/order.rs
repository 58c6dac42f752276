//! Which keys of a partition end with an older record than there is.
//!
//! A replay that has to send records again behind newer ones (they had been deleted, or lay behind a
//! limit) sends what followed them again as well. If it was broken off, a key's last record is not its
//! newest, and if at the next start each record that is stored were left out, it would stay so.
//!
//! **Must stay true.** By the key, not by the partition: where rows changed their partition between two
//! starts, an older row of another key stands behind a newer one, and nothing is wrong.

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
    /// How many keys are told apart.
    most: usize,
    /// These, and of each the last record in the steps that are over.
    keys: HashMap<Place, Option<Name>>,
    step: HashMap<Place, Ends>,
    behind: HashSet<Place>,
}

/// Of records of one key that stand one behind the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    last: Name,
    newest: Name,
}

impl From<Name> for Ends {
    fn from(name: Name) -> Self {
        Self { last: name, newest: name }
    }
}

impl Ends {
    /// These stand behind.
    fn add(&mut self, Self { last, newest }: Self) {
        *self = Self { last, newest: self.newest.max(newest) };
    }
}

/// The next records of a key.
pub(super) fn append(to: &mut HashMap<Place, Ends>, place: Place, next: Ends) {
    to.entry(place).and_modify(|ends| ends.add(next)).or_insert(next);
}

impl Order {
    /// Of one of so many partitions that are read at the same time.
    pub(super) fn new(partitions: usize) -> Self {
        let most = (ALL_KEYS / partitions.max(1)).clamp(KEYS_LEAST, KEYS);
        Self { most, keys: HashMap::new(), step: HashMap::new(), behind: HashSet::new() }
    }

    /// As what the records of this key count. `None`: one without a key is newer or older than no other.
    pub(super) fn told(&mut self, place: Place) -> Option<Place> {
        if place.is_whole() {
            return None;
        }
        let told = self.keys.len() < self.most || self.keys.contains_key(&place);
        let place = if told { place } else { place.whole() };
        self.keys.entry(place).or_default();
        Some(place)
    }

    /// The next of this step, as they are told apart.
    pub(super) fn see(&mut self, place: Place, next: Ends) {
        append(&mut self.step, place, next);
    }

    /// The next step, of what stands before all that was seen.
    pub(super) fn step(&mut self) {
        for (place, ends) in self.step.drain() {
            let last = self.keys.entry(place).or_default().get_or_insert(ends.last);
            if ends.newest > *last {
                self.behind.insert(place);
            }
        }
    }

    /// Keys that end with an older record than there is.
    pub(super) fn behind(&mut self) -> HashSet<Place> {
        self.step();
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

    fn see(order: &mut Order, place: Place, name: Name) {
        if let Some(place) = order.told(place) {
            order.see(place, name.into());
        }
    }

    /// Keys of this log that end with an older commit, read in steps backwards of these lengths.
    fn behind(log: &[(u64, u64)], steps: &[usize]) -> HashSet<Place> {
        let (mut order, mut end) = (Order::new(1), log.len());
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
        let mut order = Order::new(1);
        see(&mut order, place(1), Name { timeline: 1, ..name(50) });
        see(&mut order, place(1), Name { timeline: 2, ..name(40) });
        assert!(order.behind().is_empty());
    }

    #[test]
    fn records_without_a_key_are_in_any_order() {
        let mut order = Order::new(1);
        see(&mut order, place(1).whole(), name(50));
        see(&mut order, place(1).whole(), name(40));
        assert!(order.behind().is_empty());
    }

    #[test]
    fn more_keys_than_there_is_room_for_are_in_order_all_the_same() {
        for (partitions, keys) in [(1, KEYS), (100, ALL_KEYS / 100), (100_000, KEYS_LEAST)] {
            let keys = keys as u64;
            let of = |names: &[u64]| {
                let mut order = Order::new(partitions);
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
