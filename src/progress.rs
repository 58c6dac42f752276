//! Which WAL position is safe to confirm.
//!
//! Kafka acks in any order; PostgreSQL wants one position below which everything is stored. The
//! [`Ledger`] stands between the two: it keeps the transactions that are open, in commit order, and
//! moves its position over one only when that one is committed and all of it, and of every one
//! before it, has been acked.
//!
//! What is confirmed is the commit LSN + 1: PostgreSQL sends a transaction again only if its
//! commit record begins at or above the confirmed position, and the end LSN stands in no record.
//!
//! **Invariant.** Only this module makes a [`Confirmed`], and the stream takes nothing else.

use std::collections::VecDeque;

use crate::{
    lsn::Lsn,
    sim::{Bug, planted},
};

/// A position below which every record is stored. Only [`Ledger`] makes one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Confirmed(Lsn);

impl Confirmed {
    /// The position.
    #[must_use]
    pub const fn lsn(self) -> Lsn {
        self.0
    }
}

/// Names one transaction of a [`Ledger`]; never used twice.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Ticket(u64);

#[derive(Debug)]
struct Open {
    /// Where to move when it is done; `None` until its commit was received.
    upto: Option<Lsn>,
    /// Records handed on and not yet stored.
    unacked: u64,
}

/// Turns acks in any order into one position that is safe to confirm.
#[derive(Debug)]
pub struct Ledger {
    /// Transactions not yet confirmed, oldest first.
    open: VecDeque<Open>,
    /// The ticket of `open`'s first.
    first: u64,
    confirmed: Lsn,
}

impl Ledger {
    /// Starts from what the server already holds as confirmed.
    #[must_use]
    pub const fn new(confirmed: Lsn) -> Self {
        Self { open: VecDeque::new(), first: 0, confirmed }
    }

    /// Forgets what is open, as a new connection will send it again. Acks of before count for
    /// nothing: their tickets are not used a second time.
    pub fn restart(&mut self, confirmed: Lsn) {
        if !planted(Bug::StaleDeliveries) {
            self.first += self.open.len() as u64;
        }
        self.open.clear();
        self.confirmed = confirmed;
    }

    /// A transaction begins. Its records go by this ticket.
    pub fn begin(&mut self) -> Ticket {
        self.open.push_back(Open { upto: None, unacked: 0 });
        Ticket(self.first + self.open.len() as u64 - 1)
    }

    /// `records` of it were handed on.
    pub fn add(&mut self, ticket: Ticket, records: u64) {
        if let Some(open) = self.get(ticket) {
            open.unacked += records;
        }
    }

    /// Its commit record, which begins at `commit`, was received: it is whole.
    pub fn commit(&mut self, ticket: Ticket, commit: Lsn) -> Option<Confirmed> {
        let open = self.get(ticket)?;
        open.upto = Some(commit.next());
        self.advance()
    }

    /// `records` of a transaction are stored. Gives the new position if it moved.
    pub fn ack(&mut self, ticket: Ticket, records: u64) -> Option<Confirmed> {
        let open = self.get(ticket)?;
        debug_assert!(records <= open.unacked, "acked more than was handed on");
        open.unacked = open.unacked.saturating_sub(records);
        self.advance()
    }

    /// A keepalive: all that the server has below `end` was sent. Counts only while nothing is open.
    pub fn idle(&mut self, end: Lsn) -> Option<Confirmed> {
        let closed = self.open.is_empty() || planted(Bug::KeepaliveOverOpen);
        let safe = closed && end > self.confirmed;
        safe.then(|| {
            self.confirmed = end;
            Confirmed(end)
        })
    }

    /// The position as it stands.
    #[must_use]
    pub const fn confirmed(&self) -> Confirmed {
        Confirmed(self.confirmed)
    }

    /// Transactions that hold the position back, the one being received included.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    fn get(&mut self, ticket: Ticket) -> Option<&mut Open> {
        let index = usize::try_from(ticket.0.checked_sub(self.first)?).ok()?;
        self.open.get_mut(index)
    }

    fn advance(&mut self) -> Option<Confirmed> {
        let before = self.confirmed;
        while let Some(Open { upto: Some(upto), unacked }) = self.open.front() {
            if *unacked > 0 && !planted(Bug::ConfirmBeforeAck) {
                break;
            }
            self.confirmed = self.confirmed.max(*upto);
            self.first += 1;
            self.open.pop_front();
        }
        (before < self.confirmed).then_some(Confirmed(self.confirmed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(raw: u64) -> Lsn {
        Lsn::new(raw)
    }

    #[test]
    fn confirms_only_the_unbroken_prefix() {
        let mut ledger = Ledger::new(Lsn::ZERO);
        let first = ledger.begin();
        ledger.add(first, 2);
        assert_eq!(ledger.commit(first, lsn(10)), None);
        let second = ledger.begin();
        ledger.add(second, 1);
        ledger.commit(second, lsn(20));
        assert_eq!(ledger.ack(second, 1), None); // the first is still open
        assert_eq!(ledger.ack(first, 1), None); // half of it
        assert_eq!(ledger.ack(first, 1), Some(Confirmed(lsn(21))));
    }

    #[test]
    fn never_confirms_into_a_transaction_whose_commit_is_to_come() {
        let mut ledger = Ledger::new(lsn(5));
        let ticket = ledger.begin();
        ledger.add(ticket, 1);
        assert_eq!(ledger.ack(ticket, 1), None);
        assert_eq!(ledger.idle(lsn(100)), None);
        assert_eq!(ledger.commit(ticket, lsn(50)), Some(Confirmed(lsn(51))));
        assert_eq!(ledger.idle(lsn(100)), Some(Confirmed(lsn(100))));
        assert_eq!(ledger.idle(lsn(99)), None);
    }

    #[test]
    fn an_empty_transaction_is_done_at_its_commit() {
        let mut ledger = Ledger::new(Lsn::ZERO);
        let ticket = ledger.begin();
        assert_eq!(ledger.commit(ticket, lsn(7)), Some(Confirmed(lsn(8))));
    }

    #[test]
    fn acks_of_an_earlier_connection_count_for_nothing() {
        let mut ledger = Ledger::new(Lsn::ZERO);
        let old = ledger.begin();
        ledger.add(old, 1);
        ledger.commit(old, lsn(10));
        ledger.restart(Lsn::ZERO);
        let new = ledger.begin();
        ledger.add(new, 1);
        ledger.commit(new, lsn(10));
        assert_eq!(ledger.ack(old, 1), None);
        assert_eq!(ledger.ack(new, 1), Some(Confirmed(lsn(11))));
    }

    /// The model: every transaction with what it still lacks, and the position recomputed from all
    /// of them at every step.
    #[derive(Default)]
    struct Naive {
        transactions: Vec<(Ticket, Option<u64>, u64)>,
        idle: u64,
    }

    impl Naive {
        fn position(&self) -> u64 {
            let whole = |t: &&(Ticket, Option<u64>, u64)| t.1.is_some() && t.2 == 0;
            let prefix = self.transactions.iter().take_while(whole);
            prefix.filter_map(|t| t.1).map(|at| at + 1).max().unwrap_or(0).max(self.idle)
        }
        fn all_done(&self) -> bool {
            self.transactions.iter().all(|t| t.1.is_some() && t.2 == 0)
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(512))]
        #[test]
        fn equals_the_naive_model(steps in proptest::collection::vec((0u8..5, 0usize..64, 1u64..4), 0..300)) {
            let mut ledger = Ledger::new(Lsn::ZERO);
            let mut naive = Naive::default();
            let mut wal = 1;
            for (step, pick, count) in steps {
                let being_received = naive.transactions.last().is_some_and(|t| t.1.is_none());
                match step {
                    0 if !being_received => {
                        naive.transactions.push((ledger.begin(), None, 0));
                    }
                    1 | 2 if being_received => {
                        let last = naive.transactions.last_mut().expect("just seen");
                        if step == 1 {
                            last.2 += count;
                            ledger.add(last.0, count);
                        } else {
                            wal += 10;
                            last.1 = Some(wal);
                            let ticket = last.0;
                            ledger.commit(ticket, lsn(wal));
                        }
                    }
                    3 if !naive.transactions.is_empty() => {
                        let at = pick % naive.transactions.len();
                        let (ticket, _, unacked) = &mut naive.transactions[at];
                        let acked = count.min(*unacked);
                        *unacked -= acked;
                        let ticket = *ticket;
                        let before = ledger.confirmed();
                        let moved = ledger.ack(ticket, acked);
                        proptest::prop_assert_eq!(moved.is_some(), ledger.confirmed() > before);
                    }
                    4 => {
                        wal += 3;
                        if naive.all_done() {
                            naive.idle = wal;
                        }
                        ledger.idle(lsn(wal));
                    }
                    _ => {}
                }
                proptest::prop_assert_eq!(ledger.confirmed().lsn(), lsn(naive.position()));
            }
        }
    }
}
