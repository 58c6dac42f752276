//! Which keys of a partition end with an older record than there is.
//!
//! A replay that has to send records again behind newer ones (they had been deleted, or lay behind a
//! limit) sends what followed them again as well. If it was broken off, a key's last record is not its
//! newest, and if at the next start each record that is stored were left out, it would stay so.
//!
//! **Must stay true.** By the key, not by the partition: where rows changed their partition between two
//! starts, an older row of another key stands behind a newer one, and nothing is wrong.

use std::collections::hash_map::Entry;

use foldhash::{HashMap, HashSet};

use crate::stored::{Name, Place};

/// Keys told apart in one partition, 80 bytes each. Others count as one: in a partition that is in order
/// that makes no difference.
const KEYS: usize = 1024;

/// What was read of a partition: forwards within a step, and the steps backwards.
#[derive(Debug, Default)]
pub(super) struct Order {
    keys: HashMap<Place, Last>,
    step: u32,
    /// Of this step, keys whose last record so far is not their newest, which this is.
    newest: HashMap<Place, Name>,
    behind: HashSet<Place>,
}

/// The last record of a key, and in which step it stands.
#[derive(Clone, Copy, Debug)]
struct Last {
    name: Name,
    step: u32,
}

impl Order {
    /// The next record of this step. One without a key is newer or older than no other.
    pub(super) fn see(&mut self, place: Place, name: Name) {
        if place.is_whole() {
            return;
        }
        let told = self.keys.len() < KEYS || self.keys.contains_key(&place);
        let place = if told { place } else { place.whole() };
        match self.keys.entry(place) {
            Entry::Vacant(new) => {
                new.insert(Last { name, step: self.step });
            }
            Entry::Occupied(mut last) if last.get().step == self.step => {
                let before = std::mem::replace(&mut last.get_mut().name, name);
                let newest = self.newest.get(&place).copied().unwrap_or(before);
                if name < newest {
                    self.newest.insert(place, newest);
                } else {
                    self.newest.remove(&place);
                }
            }
            Entry::Occupied(last) if name > last.get().name => {
                self.behind.insert(place);
            }
            Entry::Occupied(_) => {}
        }
    }

    /// The next step, of what stands before all that was seen.
    pub(super) fn step(&mut self) {
        self.behind.extend(self.newest.drain().map(|(place, _)| place));
        self.step += 1;
    }

    /// Keys that end with an older record than there is.
    pub(super) fn behind(&mut self) -> HashSet<Place> {
        self.step();
        std::mem::take(&mut self.behind)
    }
}

#[cfg(test)]
mod tests {
    use foldhash::HashSetExt as _;
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::lsn::Lsn;

    fn name(commit: u64) -> Name {
        Name { source: 7, timeline: 1, commit: Lsn::new(commit), index: 0, part: None }
    }

    fn place(key: u64) -> Place {
        Place::topic("t").key(Some(&key.to_be_bytes()))
    }

    /// Keys of this log that end with an older commit, read in steps backwards of these lengths.
    fn behind(log: &[(u64, u64)], steps: &[usize]) -> HashSet<Place> {
        let (mut order, mut end) = (Order::default(), log.len());
        for step in steps.iter().copied().chain([log.len()]) {
            let start = end.saturating_sub(step);
            for &(key, commit) in &log[start..end] {
                order.see(place(key), name(commit));
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
        let mut order = Order::default();
        order.see(place(1), Name { timeline: 1, ..name(50) });
        order.see(place(1), Name { timeline: 2, ..name(40) });
        assert!(order.behind().is_empty());
    }

    #[test]
    fn records_without_a_key_are_in_any_order() {
        let mut order = Order::default();
        order.see(place(1).whole(), name(50));
        order.see(place(1).whole(), name(40));
        assert!(order.behind().is_empty());
    }

    #[test]
    fn more_keys_than_there_is_room_for_are_in_order_all_the_same() {
        let mut order = Order::default();
        (0..KEYS as u64 + 50).for_each(|at| order.see(place(at), name(at)));
        assert!(order.newest.is_empty());
        assert!(order.keys.len() <= KEYS + 1);
        // The others are one.
        order.see(place(KEYS as u64 + 40), name(1));
        assert_eq!(order.behind(), HashSet::from_iter([place(0).whole()]));
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
