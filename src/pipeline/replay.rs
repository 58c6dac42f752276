//! Which transactions that come a second time are stored already.
//!
//! A server that crashed may have forgotten what it was told, and sends again what this process
//! has seen stored: that is dropped. A position alone says too little for it. A server that was
//! put back from a copy of its files goes on under the same system identifier and timeline, and
//! fills the same positions with other rows. So each transaction leaves a mark (its xid and the
//! microsecond of its commit), and only one with the same position and the same mark is dropped.
//!
//! **Must stay true.** What was not recognised is stored, if need be a second time: its record has
//! the same `id` then. After the first transaction that was not recognised nothing is dropped any
//! more: a row that comes again must be followed by all that followed it, or its key would be left
//! with an old value.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher as _},
};

use crate::lsn::Lsn;

/// Transactions that are remembered: 2 MiB at the most. A slot's position is saved every 15 s or
/// so; if a server that commits more than this in that time crashes, all of it comes twice.
const MOST: usize = 1 << 17;

/// The transactions of this process, as far as they are remembered.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Commit LSN and mark, ascending.
    seen: VecDeque<(Lsn, u64)>,
    /// All that was seen below is stored.
    stored_below: Lsn,
}

impl Replay {
    /// A new connection begins, and all below `stored` is stored. `false`: to a server with another
    /// history, of which nothing is.
    pub(super) fn restart(&mut self, stored: Lsn, same_history: bool) {
        if same_history {
            self.stored_below = self.stored_below.max(stored);
            // What is not stored comes again, or something else in its place.
            self.seen.truncate(self.seen.partition_point(|(at, _)| *at < self.stored_below));
        } else {
            *self = Self::default();
        }
    }

    /// Whether what is at this position was stored by an earlier connection; if not, it is
    /// remembered.
    pub(super) fn stored(&mut self, at: Lsn, mark: impl Hash) -> bool {
        let mut hasher = DefaultHasher::new();
        mark.hash(&mut hasher);
        let mark = hasher.finish();
        if at < self.stored_below {
            match self.seen.binary_search_by_key(&at, |(at, _)| *at) {
                Ok(found) if self.seen.get(found) == Some(&(at, mark)) => return true,
                // Older than all that is remembered: nobody knows, and it is stored again.
                Err(0) if !self.seen.is_empty() => *self = Self::default(),
                Ok(_) | Err(_) => self.other_history(at),
            }
        }
        if self.seen.len() == MOST {
            self.seen.pop_front();
        }
        self.seen.push_back((at, mark));
        false
    }

    fn other_history(&mut self, at: Lsn) {
        tracing::warn!(
            commit = %at,
            stored = %self.stored_below,
            "PostgreSQL sends another transaction than the one that was at this position before: it \
             was put back to an earlier state, as from a copy of its files, and went on from there. \
             Everything it sends is stored; what was stored before stays in its topics, and some of \
             it has an id in common with what comes now"
        );
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After transactions at 10, 20 … 50, of which those below 41 are stored.
    fn after_five() -> Replay {
        let mut replay = Replay::default();
        for at in 1..=5u64 {
            assert!(!replay.stored(Lsn::new(at * 10), at));
        }
        replay.restart(Lsn::new(41), true);
        replay
    }

    fn stored(replay: &mut Replay, from: u64, marks: &[u64]) -> Vec<bool> {
        let at = (from..).step_by(10);
        at.zip(marks).map(|(at, mark)| replay.stored(Lsn::new(at), mark)).collect()
    }

    #[test]
    fn the_same_transactions_are_dropped_as_far_as_they_are_stored() {
        let mut replay = after_five();
        assert_eq!(stored(&mut replay, 20, &[2, 3, 4, 5, 6]), [true, true, true, false, false]);
        // Also by the connection after the next, though the one between came to nothing.
        replay.restart(Lsn::new(10), true);
        assert_eq!(stored(&mut replay, 20, &[2, 3, 4, 5, 6]), [true, true, true, false, false]);
        replay.restart(Lsn::new(61), true);
        assert_eq!(stored(&mut replay, 50, &[5, 6, 7]), [true, true, false]);
    }

    #[test]
    fn from_the_first_that_is_another_one_nothing_is_dropped() {
        assert_eq!(stored(&mut after_five(), 20, &[2, 30, 4, 5]), [true, false, false, false]);
        // Where there was none, even if those after it look the same.
        let mut replay = after_five();
        assert!(replay.stored(Lsn::new(20), 2u64));
        assert!(!replay.stored(Lsn::new(25), 9u64));
        assert!(!replay.stored(Lsn::new(30), 3u64));
        // And what comes now is remembered in its place.
        replay.restart(Lsn::new(31), true);
        assert!(replay.stored(Lsn::new(25), 9u64));
    }

    #[test]
    fn what_nobody_remembers_is_stored_again_and_so_is_all_that_follows_it() {
        let mut replay = after_five();
        assert!(!replay.stored(Lsn::new(5), 0u64));
        assert!(!replay.stored(Lsn::new(10), 1u64), "its key would be left with the value at 5");
        let mut nothing = Replay::default();
        nothing.restart(Lsn::new(100), true); // by a keepalive
        assert!(!nothing.stored(Lsn::new(50), 1u64));
        replay.restart(Lsn::new(51), false);
        assert_eq!(stored(&mut replay, 10, &[1, 2]), [false, false]);
    }

    #[test]
    fn no_more_is_remembered_than_the_limit() {
        let mut replay = Replay::default();
        for at in 0..=MOST as u64 {
            replay.stored(Lsn::new(at + 1), at);
        }
        assert_eq!(replay.seen.len(), MOST);
        replay.restart(Lsn::new(u64::MAX), true);
        assert!(replay.stored(Lsn::new(2), 1u64));
        assert!(!replay.stored(Lsn::new(1), 0u64));
        assert!(!replay.stored(Lsn::new(2), 1u64));
    }
}
