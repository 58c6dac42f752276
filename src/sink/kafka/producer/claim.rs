//! Whose the topics are to be, and what comes of taking them.

use std::{sync::Arc, time::Duration};

use super::{note::Found, queue::Identity};
use crate::{lease::Lease, lsn::Lsn, stored::Stored};

/// Who takes the topics, and what of theirs is to be read back.
#[derive(Clone, Debug)]
pub struct Claim {
    /// `transactional.id`: whoever wrote under it before is shut out. `None`: nobody is, and nothing
    /// is read back, so that rows may be repeated.
    pub transactional_id: Option<Arc<str>>,
    /// `Some`: batches go in transactions, and Kafka aborts one that is open for so long.
    pub transaction_timeout: Option<Duration>,
    /// The first field of the header `id` that our records bear; `None`: they bear none.
    pub source: Option<u64>,
    /// How our records are told from others', if their names are to be read back.
    pub read_back: Option<ReadBack>,
    /// How long nobody else can be the one that may write.
    pub lease: Lease,
}

/// Which records are looked for, and how far.
#[derive(Clone, Copy, Debug)]
pub struct ReadBack {
    /// The first field of the header `id`.
    pub source: u64,
    /// All below is confirmed, and comes no more.
    pub from: Lsn,
    /// Most bytes to fetch. What lies behind them may be repeated.
    pub max_bytes: u64,
    /// Most memory for names, in bytes. What it does not hold may be repeated.
    pub memory: usize,
}

/// What taking the topics brought.
#[derive(Debug)]
pub struct Taken {
    /// Names of our records at or above [`ReadBack::from`].
    pub stored: Stored,
    /// What was read.
    pub read: Read,
    /// How far we had come.
    pub found: Found,
}

impl Taken {
    /// Adds what other topics brought.
    pub(super) fn add(&mut self, other: Self) {
        let Self { stored, read, found } = other;
        let refused = self.stored.refused();
        self.stored.merge(stored);
        if self.stored.refused() > refused {
            // What comes again must be followed by all that followed it.
            self.stored.retain(|_, _| false);
        }
        self.read.partitions += read.partitions;
        self.read.bytes += read.bytes;
        self.read.requests += read.requests;
        self.read.cut += read.cut;
        self.found.newest.extend(found.newest);
        self.found.unsure = self.found.unsure.take().or(found.unsure);
    }
}

/// How much was read back.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Read {
    /// Partitions.
    pub partitions: usize,
    /// Bytes fetched.
    pub bytes: u64,
    /// Fetches.
    pub requests: u64,
    /// Partitions that were not read to the end, as a limit was reached.
    pub cut: usize,
}

impl Claim {
    /// The transactional id under which transactions with data are. Another one than that of the
    /// fences: a broker of 3.9 that refuses a late batch of a transaction would refuse plain ones of
    /// the same producer too.
    pub(super) fn data_id(&self) -> Option<Arc<str>> {
        self.transactional_id.as_ref().map(|id| Arc::from(format!("{id}-tx")))
    }
}

/// As whom we write.
#[derive(Clone, Debug)]
pub(super) struct Identities {
    /// Whom batches name.
    pub(super) data: Identity,
    /// All transactional ids that a partition must have a marker of, before it is written to.
    pub(super) fences: Vec<(Arc<str>, Identity)>,
}

/// What the driver keeps of it.
#[derive(Debug)]
pub(super) struct Ours {
    pub(super) identities: Identities,
    pub(super) partitions: Vec<(Arc<str>, i32)>,
    /// Topics that are there, by their ids.
    pub(super) ids: Vec<(Arc<str>, Option<u128>)>,
    pub(super) taken: Taken,
}
