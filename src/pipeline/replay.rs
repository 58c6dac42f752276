//! Whether the server goes on with the history that it had.
//!
//! Rows that are stored already are known by their names. A name says too little if the server was
//! put back from a copy of its files: it goes on under the same system identifier and timeline, and
//! fills the same positions with other rows. So each transaction leaves a mark (its xid and the
//! microsecond of its commit), and one that comes at the same position with another mark, or where
//! an earlier connection that was past it saw none, gives the other history away. What another
//! process streamed in between is unknown to this one, and says nothing.
//!
//! **Must stay true.** From the first transaction that is another one nothing is dropped any more:
//! its records have names in common with others, and a row that comes again must be followed by all
//! that followed it, or its key would be left with an old value.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher as _},
};

use crate::lsn::Lsn;

/// Transactions that are remembered: 2 MiB at the most. A slot's position is saved every 15 s or
/// so, and a server that crashed sends again what came after it.
const MOST: usize = 1 << 17;

/// Connections of which it is remembered what they covered.
const CONNECTIONS: usize = 64;

/// The transactions of this process, as far as they are remembered.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Commit LSN and mark, ascending.
    seen: VecDeque<(Lsn, u64)>,
    /// First and last commit of each earlier connection: it saw all that there was between them.
    covered: VecDeque<(Lsn, Lsn)>,
    /// Of this one.
    covers: Option<(Lsn, Lsn)>,
    /// All that earlier connections gave is below.
    before: Lsn,
}

impl Replay {
    /// A new connection begins; `false`: to a server with another history.
    pub(super) fn restart(&mut self, same_history: bool) {
        let Some((last, _)) = self.seen.back().filter(|_| same_history) else {
            *self = Self::default();
            return;
        };
        self.before = last.next();
        if self.covered.len() == CONNECTIONS {
            self.covered.pop_front();
        }
        self.covered.extend(self.covers.take());
    }

    /// Whether this is another transaction than the one that was at this position before, or one
    /// where there was none.
    pub(super) fn is_another(&mut self, at: Lsn, mark: impl Hash) -> bool {
        let mut hasher = DefaultHasher::new();
        mark.hash(&mut hasher);
        let mark = hasher.finish();
        let first = self.covers.map_or(at, |(first, _)| first);
        self.covers = Some((first, at));
        let (mut another, mut place) = (false, self.seen.len());
        if at < self.before {
            let forgotten = self.seen.front().is_none_or(|(oldest, _)| at < *oldest);
            match self.seen.binary_search_by_key(&at, |(at, _)| *at) {
                Ok(found) if self.seen.get(found) == Some(&(at, mark)) => return false,
                Ok(_) => another = true,
                Err(_) if forgotten => return false,
                Err(between) => {
                    let covered = |(first, last): &(Lsn, Lsn)| *first <= at && at <= *last;
                    another = self.covered.iter().any(covered);
                    place = between; // another process streamed it, and it comes to us now
                }
            }
            if another {
                self.other_history(at);
                place = 0;
            }
        }
        if self.seen.len() == MOST {
            self.seen.pop_front();
            place = place.saturating_sub(1);
        }
        self.seen.insert(place, (at, mark));
        another
    }

    fn other_history(&mut self, at: Lsn) {
        tracing::warn!(
            commit = %at,
            reached = %self.before,
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

    /// After transactions at 10, 20 … 50 of an earlier connection.
    fn after_five() -> Replay {
        let mut replay = Replay::default();
        for at in 1..=5u64 {
            assert!(!replay.is_another(Lsn::new(at * 10), at));
        }
        replay.restart(true);
        replay
    }

    fn others(replay: &mut Replay, from: u64, marks: &[u64]) -> Vec<bool> {
        let at = (from..).step_by(10);
        at.zip(marks).map(|(at, mark)| replay.is_another(Lsn::new(at), mark)).collect()
    }

    #[test]
    fn the_same_transactions_are_the_same_history() {
        let mut replay = after_five();
        assert_eq!(others(&mut replay, 20, &[2, 3, 4, 5, 6]), [false; 5]);
        // Also by the connection after the next, though the one between came to nothing.
        replay.restart(true);
        replay.restart(true);
        assert_eq!(others(&mut replay, 30, &[3, 4, 5, 6, 7]), [false; 5]);
    }

    #[test]
    fn another_transaction_at_the_same_place_is_another_history() {
        assert_eq!(others(&mut after_five(), 20, &[2, 30, 4]), [false, true, false]);
        // Where there was none, too, and what comes then is remembered in its place.
        let mut replay = after_five();
        assert!(!replay.is_another(Lsn::new(20), 2u64));
        assert!(replay.is_another(Lsn::new(25), 9u64));
        assert!(!replay.is_another(Lsn::new(30), 3u64));
        replay.restart(true);
        assert!(!replay.is_another(Lsn::new(25), 9u64));
    }

    /// Found by chaos: a server that crashed forgets what the other instance has confirmed.
    #[test]
    fn what_another_process_streamed_in_between_says_nothing() {
        let mut replay = after_five();
        assert!(!replay.is_another(Lsn::new(90), 9u64));
        replay.restart(true);
        assert_eq!(others(&mut replay, 50, &[5, 6, 7, 8, 9, 10]), [false; 6]);
        // But by now it was seen what there is, also if the server crashes once more.
        replay.restart(true);
        assert_eq!(others(&mut replay, 50, &[5, 6, 7, 8, 9, 10]), [false; 6]);
        replay.restart(true);
        assert!(replay.is_another(Lsn::new(75), 7u64));
    }

    #[test]
    fn what_nobody_remembers_says_nothing() {
        let mut replay = after_five();
        assert!(!replay.is_another(Lsn::new(5), 0u64));
        replay.restart(false);
        assert_eq!(others(&mut replay, 10, &[1, 2]), [false, false]);
    }

    #[test]
    fn no_more_is_remembered_than_the_limit() {
        let mut replay = Replay::default();
        for at in 0..=MOST as u64 {
            replay.is_another(Lsn::new(at + 1), at);
        }
        assert_eq!(replay.seen.len(), MOST);
        replay.restart(true);
        assert!(!replay.is_another(Lsn::new(2), 1u64));
        assert!(!replay.is_another(Lsn::new(1), 7u64), "nobody knows");
        assert!(replay.is_another(Lsn::new(3), 9u64));
    }
}
