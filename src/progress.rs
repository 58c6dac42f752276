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
//! Whoever comes later is to be able to tell whether it was us who confirmed a position, or somebody
//! moved the slot. So each is first known in Kafka, by what [`Evidence`] says.
//!
//! **Invariants.** Only this module makes a [`Confirmed`], and the stream takes nothing else. No
//! position is confirmed that is not known as the evidence asks.

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

/// What must be in Kafka before a position is confirmed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Evidence {
    /// Nothing: it cannot be kept.
    #[default]
    None,
    /// A note of it, or the names of records of the transaction that ends there.
    Names,
    /// A note: records bear no names.
    Notes,
}

#[derive(Debug)]
struct Open {
    /// Where to move when it is done; `None` until its commit was received.
    upto: Option<Lsn>,
    /// Records handed on and not yet stored.
    unacked: u64,
    /// Some record of it is, or will be, in Kafka.
    covered: bool,
}

/// Turns acks in any order into one position that is safe to confirm.
#[derive(Debug)]
pub struct Ledger {
    /// Transactions not yet confirmed, oldest first.
    open: VecDeque<Open>,
    /// The ticket of `open`'s first.
    first: u64,
    /// All below is stored.
    stored: Lsn,
    /// And known to be, by the evidence.
    confirmed: Lsn,
    evidence: Evidence,
}

impl Ledger {
    /// Starts from what the server already holds as confirmed.
    #[must_use]
    pub const fn new(confirmed: Lsn) -> Self {
        Self {
            open: VecDeque::new(),
            first: 0,
            stored: confirmed,
            confirmed,
            evidence: Evidence::None,
        }
    }

    /// Forgets what is open, as a new connection will send it again. Acks of before count for
    /// nothing: their tickets are not used a second time.
    pub fn restart(&mut self, confirmed: Lsn) {
        if !planted(Bug::StaleDeliveries) {
            self.first += self.open.len() as u64;
        }
        self.open.clear();
        (self.stored, self.confirmed) = (confirmed, confirmed);
    }

    /// What must be in Kafka from now on. Gives the new position if that moved it.
    pub fn ask_for(&mut self, evidence: Evidence) -> Option<Confirmed> {
        self.evidence = evidence;
        self.known(self.confirmed)
    }

    /// A transaction begins. Its records go by this ticket.
    pub fn begin(&mut self) -> Ticket {
        self.open.push_back(Open { upto: None, unacked: 0, covered: false });
        Ticket(self.first + self.open.len() as u64 - 1)
    }

    /// `records` of it were handed on.
    pub fn add(&mut self, ticket: Ticket, records: u64) {
        if let Some(open) = self.get(ticket) {
            open.unacked += records;
            open.covered |= records > 0;
        }
    }

    /// A record of it is stored already.
    pub fn cover(&mut self, ticket: Ticket) {
        if let Some(open) = self.get(ticket) {
            open.covered = true;
        }
    }

    /// A note of this position is in Kafka. Gives the new position if that moved it.
    pub fn noted(&mut self, upto: Lsn) -> Option<Confirmed> {
        self.known(upto.min(self.stored))
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
        if !closed || end <= self.stored {
            return None;
        }
        self.stored = end;
        self.known(self.confirmed)
    }

    /// The position as it stands.
    #[must_use]
    pub const fn confirmed(&self) -> Confirmed {
        Confirmed(self.confirmed)
    }

    /// All below is stored, whether that is known or not.
    #[must_use]
    pub const fn stored(&self) -> Lsn {
        self.stored
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
        let mut known = self.confirmed;
        while let Some(Open { upto: Some(upto), unacked, covered }) = self.open.front() {
            if *unacked > 0 && !planted(Bug::ConfirmBeforeAck) {
                break;
            }
            self.stored = self.stored.max(*upto);
            if *covered && self.evidence == Evidence::Names {
                known = known.max(*upto);
            }
            self.first += 1;
            self.open.pop_front();
        }
        self.known(known)
    }

    fn known(&mut self, upto: Lsn) -> Option<Confirmed> {
        let upto = if self.evidence == Evidence::None { self.stored } else { upto };
        let moved = upto > self.confirmed;
        self.confirmed = self.confirmed.max(upto);
        moved.then_some(Confirmed(self.confirmed))
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

    #[test]
    fn what_no_record_covers_waits_for_its_note() {
        let mut ledger = Ledger::new(lsn(5));
        assert_eq!(ledger.ask_for(Evidence::Names), None);
        let (nowhere, somewhere) = (ledger.begin(), ledger.begin());
        ledger.add(somewhere, 1);
        assert_eq!(ledger.commit(nowhere, lsn(10)), None);
        assert_eq!((ledger.stored(), ledger.confirmed().lsn()), (lsn(11), lsn(5)));
        ledger.commit(somewhere, lsn(20));
        assert_eq!(ledger.ack(somewhere, 1), Some(Confirmed(lsn(21))), "it covers the other");
        assert_eq!(ledger.idle(lsn(30)), None);
        assert_eq!(ledger.noted(lsn(25)), Some(Confirmed(lsn(25))));
        assert_eq!(ledger.noted(lsn(99)), Some(Confirmed(lsn(30))), "no further than is stored");
        let again = ledger.begin();
        ledger.cover(again);
        assert_eq!(ledger.commit(again, lsn(40)), Some(Confirmed(lsn(41))));
        assert_eq!(ledger.idle(lsn(50)), None);
        assert_eq!(ledger.ask_for(Evidence::None), Some(Confirmed(lsn(50))));
    }

    #[test]
    fn records_without_names_cover_nothing() {
        let mut ledger = Ledger::new(Lsn::ZERO);
        ledger.ask_for(Evidence::Notes);
        let ticket = ledger.begin();
        ledger.add(ticket, 1);
        ledger.commit(ticket, lsn(10));
        assert_eq!(ledger.ack(ticket, 1), None);
        assert_eq!(ledger.noted(lsn(11)), Some(Confirmed(lsn(11))));
    }

    /// The model: every transaction with what it still lacks, and the position recomputed from all
    /// of them at every step.
    #[derive(Default)]
    struct Naive {
        transactions: Vec<(Ticket, Option<u64>, u64)>,
        /// Those of which a record was handed on, or is stored already.
        covered: std::collections::HashSet<u64>,
        idle: u64,
        /// The highest that a note, or a lack of evidence, has allowed.
        allowed: u64,
    }

    impl Naive {
        fn position(&self) -> u64 {
            self.highest(|_| true).max(self.idle)
        }
        /// The commit + 1 of the last of the unbroken prefix for which `counts`.
        fn highest(&self, counts: impl Fn(Ticket) -> bool) -> u64 {
            let whole = |t: &&(Ticket, Option<u64>, u64)| t.1.is_some() && t.2 == 0;
            let prefix = self.transactions.iter().take_while(whole);
            let counting = prefix.filter(|t| counts(t.0));
            counting.filter_map(|t| t.1).map(|at| at + 1).max().unwrap_or(0)
        }
        /// What may be confirmed.
        fn known(&mut self, evidence: Evidence) -> u64 {
            match evidence {
                Evidence::None => self.allowed = self.allowed.max(self.position()),
                Evidence::Names => {
                    let covered = self.highest(|ticket| self.covered.contains(&ticket.0));
                    self.allowed = self.allowed.max(covered);
                }
                Evidence::Notes => {}
            }
            self.allowed
        }
        fn all_done(&self) -> bool {
            self.transactions.iter().all(|t| t.1.is_some() && t.2 == 0)
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(512))]
        #[test]
        fn equals_the_naive_model(
            evidence in proptest::sample::select(vec![Evidence::None, Evidence::Names, Evidence::Notes]),
            steps in proptest::collection::vec((0u8..7, 0usize..64, 1u64..4), 0..300),
        ) {
            let mut ledger = Ledger::new(Lsn::ZERO);
            ledger.ask_for(evidence);
            let mut naive = Naive::default();
            let mut wal = 1;
            for (step, pick, count) in steps {
                let being_received = naive.transactions.last().is_some_and(|t| t.1.is_none());
                let before = ledger.confirmed();
                let mut moved = None;
                match step {
                    0 if !being_received => {
                        naive.transactions.push((ledger.begin(), None, 0));
                    }
                    1 | 2 | 6 if being_received => {
                        let last = naive.transactions.last_mut().expect("just seen");
                        let ticket = last.0;
                        if step == 1 {
                            last.2 += count;
                            ledger.add(ticket, count);
                            naive.covered.insert(ticket.0);
                        } else if step == 6 {
                            ledger.cover(ticket);
                            naive.covered.insert(ticket.0);
                        } else {
                            wal += 10;
                            last.1 = Some(wal);
                            moved = ledger.commit(ticket, lsn(wal));
                        }
                    }
                    3 if !naive.transactions.is_empty() => {
                        let at = pick % naive.transactions.len();
                        let (ticket, _, unacked) = &mut naive.transactions[at];
                        let acked = count.min(*unacked);
                        *unacked -= acked;
                        moved = ledger.ack(*ticket, acked);
                    }
                    4 => {
                        wal += 3;
                        if naive.all_done() {
                            naive.idle = wal;
                        }
                        moved = ledger.idle(lsn(wal));
                    }
                    5 => {
                        let upto = wal.saturating_sub(pick as u64) + 2;
                        naive.allowed = naive.allowed.max(upto.min(naive.position()));
                        moved = ledger.noted(lsn(upto));
                    }
                    _ => {}
                }
                let after = ledger.confirmed();
                proptest::prop_assert_eq!(moved, (after > before).then_some(after));
                proptest::prop_assert_eq!(ledger.stored().get(), naive.position());
                proptest::prop_assert_eq!(after.lsn().get(), naive.known(evidence));
            }
        }
    }
}
