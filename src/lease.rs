//! How long this process may still take itself for the one that streams.
//!
//! PostgreSQL gives the slot to another process when it has heard nothing of this one for
//! `wal_sender_timeout`. Whoever was frozen for longer does not know: it would go on where it stood,
//! and send what its successor has sent by then. Kafka shuts it out by its epoch, where it may; this
//! is the second line, and the only one where the transactional id may not be used. So before each
//! batch is sent the [`Lease`] is looked at, which each status that reached PostgreSQL renews.
//!
//! **Must stay true.** Its clock counts the time that a machine was suspended (`CLOCK_BOOTTIME`).
//! What was never renewed holds: the stream has just begun.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    clock,
    sim::{Bug, planted},
};

/// See the module. A clone is the same lease.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Milliseconds; 0: PostgreSQL waits for ever.
    span: u64,
    /// Of the clock.
    renewed_at: AtomicU64,
}

impl Lease {
    /// One that begins now and lasts for `wal_sender_timeout` from its last renewal on. Zero: for
    /// ever, as PostgreSQL ends nobody's stream for silence.
    #[must_use]
    pub fn new(wal_sender_timeout: Duration) -> Self {
        let span = u64::try_from(wal_sender_timeout.as_millis()).unwrap_or(u64::MAX);
        Self(Arc::new(Inner { span, renewed_at: AtomicU64::new(now_ms()) }))
    }

    /// The time, for [`Self::renew`].
    #[must_use]
    pub fn now(&self) -> u64 {
        now_ms()
    }

    /// PostgreSQL was sent a sign of life that was made at this time. A lease that was over by then stays
    /// over: the kernel takes a status also where nobody reads it any more.
    pub fn renew(&self, at: u64) {
        let Inner { span, renewed_at } = &*self.0;
        let renewed = |before: u64| {
            let over = *span > 0 && at.saturating_sub(before) >= *span;
            let over = over && !planted(Bug::LeaseRevived);
            (!over && at > before).then_some(at)
        };
        // Else it stays as it is.
        let _ = renewed_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, renewed);
    }

    /// Whether nobody else can have the slot yet.
    #[must_use]
    pub fn holds(&self) -> bool {
        let Inner { span, renewed_at } = &*self.0;
        *span == 0 || now_ms().saturating_sub(renewed_at.load(Ordering::Relaxed)) < *span
    }
}

fn now_ms() -> u64 {
    u64::try_from(clock::boot().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_unless_it_is_renewed() {
        let lease = Lease::new(Duration::from_secs(3600));
        assert!(lease.holds());
        let now = lease.now();
        assert!(now > 0);
        let old = Lease(Arc::new(Inner { span: 50, renewed_at: AtomicU64::new(now - 51) }));
        assert!(!old.holds());
        old.clone().renew(now - 52);
        assert!(!old.holds(), "an older sign of life says nothing");
        let old = Lease(Arc::new(Inner { span: 60_000, renewed_at: AtomicU64::new(now - 50_000) }));
        old.clone().renew(now - 1000);
        assert_eq!(old.0.renewed_at.load(Ordering::Relaxed), now - 1000);
        assert!(old.holds());
    }

    #[test]
    fn stays_over_whatever_the_kernel_takes() {
        let now = now_ms();
        let old = Lease(Arc::new(Inner { span: 60_000, renewed_at: AtomicU64::new(now - 60_001) }));
        old.renew(now);
        assert!(!old.holds());
    }

    #[test]
    fn without_a_timeout_it_never_ends() {
        let lease = Lease(Arc::new(Inner { span: 0, renewed_at: AtomicU64::new(0) }));
        assert!(lease.holds());
    }
}
