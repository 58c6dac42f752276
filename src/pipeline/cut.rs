//! Where one transaction of Kafka's ends and the next begins: at commits of PostgreSQL's.
//!
//! It collects whole transactions until `kafka.transaction.interval` is over, and ends with the one
//! that is being received then. A `read_committed` consumer has each of them whole or not at all, but
//! for one that is over `max_bytes` or `max_time` by itself: it is cut where it reaches them, counted
//! and said.

use std::time::{Duration, Instant};

use super::Pipeline;
use crate::{
    lsn::Lsn,
    metrics,
    sim::{Bug, planted},
};

/// `[kafka.transaction]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transactions {
    /// How long one collects.
    pub interval: Duration,
    /// Bytes in one, at most.
    pub max_bytes: usize,
    /// How long one may last.
    pub max_time: Duration,
}

/// What became of the present transaction so far.
#[derive(Debug, Default)]
pub struct Cuts {
    options: Option<Transactions>,
    /// Since when it has records.
    since: Option<Instant>,
    /// Bytes of it that were handed to the producer.
    bytes: usize,
    /// The commit of the transaction that was last said to be over a limit.
    said: Option<Lsn>,
}

impl Cuts {
    /// `None`: there are no transactions.
    #[must_use]
    pub fn new(options: Option<Transactions>) -> Self {
        Self { options, ..Self::default() }
    }

    /// Its first record has come.
    fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    pub(super) const fn submitted(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// When it is to end; within a transaction of the source only by force.
    fn end(&self, within: bool) -> Option<Instant> {
        let (options, since) = (self.options.as_ref()?, self.since?);
        Some(since + if within { options.max_time } else { options.interval })
    }

    /// Whether it is to end now, with so many bytes that were not handed to the producer yet.
    fn ends(&self, now: Instant, within: bool, more: usize) -> bool {
        let full = |options: &Transactions| self.bytes + more >= options.max_bytes;
        self.end(within).is_some_and(|end| end <= now)
            || self.since.is_some() && self.options.as_ref().is_some_and(full)
    }
}

impl Pipeline<'_> {
    /// When the transaction ends if nothing else ends it.
    pub(super) fn cut_at(&self) -> Option<tokio::time::Instant> {
        self.cuts.end(self.relations.in_transaction()).map(tokio::time::Instant::from_std)
    }

    /// Ends the transaction if it is time.
    pub(super) fn cut_if_due(&mut self, now: Instant) {
        if self.cuts.options.is_none() {
            return;
        }
        let more = self.records.batcher.bytes();
        if more > 0 {
            self.cuts.begin(now);
        }
        let within = self.relations.in_transaction() && !planted(Bug::CutAnywhere);
        if !self.cuts.ends(now, within, more) {
            return;
        }
        if within {
            self.say_split();
        }
        self.cut();
    }

    /// Ends it now.
    pub(super) fn cut(&mut self) {
        if self.cuts.options.is_none() {
            return;
        }
        self.records.batcher.flush_all();
        self.submit("the transaction ends");
        self.producer.commit();
        (self.cuts.since, self.cuts.bytes) = (None, 0);
    }

    fn say_split(&mut self) {
        metrics::split_transaction();
        let commit = self.relations.open_commit();
        let Some(commit) = commit.filter(|commit| self.cuts.said != Some(*commit)) else { return };
        self.cuts.said = Some(commit);
        tracing::warn!(
            %commit,
            "a transaction is over kafka.transaction.max_bytes or max_time: read_committed consumers \
             see it in parts"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);
    const TIME: Duration = Duration::from_secs(60);

    fn cuts() -> Cuts {
        let options = Transactions { interval: INTERVAL, max_bytes: 1000, max_time: TIME };
        Cuts::new(Some(options))
    }

    #[test]
    fn ends_with_the_first_commit_after_the_interval() {
        let now = Instant::now();
        let mut cuts = cuts();
        assert!(!cuts.ends(now, false, 0), "there is nothing to end");
        cuts.begin(now);
        cuts.begin(now + INTERVAL);
        let before = now + INTERVAL - Duration::from_millis(1);
        assert!(!cuts.ends(before, false, 10));
        assert!(cuts.ends(now + INTERVAL, false, 10));
        assert_eq!(cuts.end(false), Some(now + INTERVAL));
        assert!(!cuts.ends(now + INTERVAL, true, 10), "not in the midst of one");
    }

    #[test]
    fn what_is_over_a_limit_ends_in_its_midst() {
        let now = Instant::now();
        let mut cuts = cuts();
        cuts.begin(now);
        assert_eq!(cuts.end(true), Some(now + TIME));
        assert!(cuts.ends(now + TIME, true, 10));
        cuts.submitted(900);
        assert!(!cuts.ends(now, true, 99));
        assert!(cuts.ends(now, true, 100));
    }

    #[test]
    fn without_transactions_nothing_ends() {
        let now = Instant::now();
        let mut cuts = Cuts::default();
        cuts.begin(now);
        cuts.submitted(1 << 40);
        assert!(!cuts.ends(now + 2 * TIME, false, 0));
        assert_eq!(cuts.end(false), None);
    }
}
