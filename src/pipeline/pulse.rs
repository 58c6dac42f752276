//! Which of our heartbeats came back, and whether anything else moves.
//!
//! A heartbeat has arrived when its position was told to PostgreSQL: then it was sent, received, known
//! in Kafka by a note, and confirmed, as any row is. Who writes them is elsewhere, on a connection of
//! its own, and is told from here; the loop waits for none of it.
//!
//! **What one costs.** A transaction of about 200 bytes in the WAL, and one note in the consumer group, which is three
//! requests to the coordinator (AddOffsetsToTxn, TxnOffsetCommit, EndTxn): no record covers its
//! position. So that it is one note and not two, it waits for the keepalive that follows it at
//! once and is some bytes further on; see [`Notes::gather`](super::Notes).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{sync::watch, time::Instant};

use crate::{lsn::Lsn, pg::slot::heartbeat};

/// Seen from the loop. By default nobody listens.
#[derive(Debug)]
pub struct Pulse {
    slot: Arc<str>,
    process: u64,
    /// Received and not yet told: which, and where its commit record begins.
    under_way: Option<(u64, Lsn)>,
    /// Of the open transaction: a heartbeat came in it.
    beat: bool,
    shared: Arc<Shared>,
    returned: watch::Sender<Option<(u64, Instant)>>,
}

#[derive(Debug, Default)]
struct Shared {
    moved: AtomicU64,
    received: AtomicU64,
}

/// Seen from who writes them.
#[derive(Clone, Debug)]
pub struct Signs {
    shared: Arc<Shared>,
    returned: watch::Receiver<Option<(u64, Instant)>>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new("", 0).0
    }
}

impl Pulse {
    /// For the heartbeats that this process writes for this slot.
    #[must_use]
    pub fn new(slot: &str, process: u64) -> (Self, Signs) {
        let shared = Arc::new(Shared::default());
        let (returned, receiver) = watch::channel(None);
        let signs = Signs { shared: Arc::clone(&shared), returned: receiver };
        let slot = slot.into();
        (Self { slot, process, under_way: None, beat: false, shared, returned }, signs)
    }

    /// A heartbeat, in the transaction that commits there.
    pub(super) fn came(&mut self, message: heartbeat::Message<'_>, commit: Lsn) {
        self.beat = true;
        let heartbeat::Message::Ours(beat) = message else { return };
        if beat.slot == &*self.slot && beat.process == self.process {
            self.under_way = Some((beat.number, commit));
            self.shared.received.store(beat.number, Ordering::Relaxed);
        }
    }

    /// Whether the open transaction is a heartbeat.
    pub(super) const fn beats(&self) -> bool {
        self.beat
    }

    /// A transaction is whole.
    pub(super) fn committed(&mut self) {
        if !std::mem::take(&mut self.beat) {
            let moved = self.shared.moved.load(Ordering::Relaxed); // only this task writes it
            self.shared.moved.store(moved.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// PostgreSQL was told that all below is stored.
    #[inline]
    pub(super) fn told(&mut self, told: Lsn) {
        if let Some((number, _)) = self.under_way.take_if(|(_, commit)| *commit < told) {
            self.returned.send_replace(Some((number, Instant::now())));
        }
    }
}

impl Signs {
    /// Changes with each transaction that is no heartbeat.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.shared.moved.load(Ordering::Relaxed)
    }

    /// The newest of ours that was received.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// The next that arrives, and when it did. Waits for ever if nothing will. Cancel-safe.
    pub async fn returned(&mut self) -> (u64, Instant) {
        loop {
            if self.returned.changed().await.is_err() {
                return std::future::pending().await;
            }
            if let Some(returned) = *self.returned.borrow_and_update() {
                return returned;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::pg::slot::heartbeat::{Heartbeat, Message};

    fn beat(slot: &str, process: u64, number: u64) -> Message<'_> {
        Message::Ours(Heartbeat { slot, process, number })
    }

    #[test]
    fn a_heartbeat_has_arrived_when_its_position_was_told() {
        let (mut pulse, mut signs) = Pulse::new("s", 5);
        pulse.came(beat("s", 5, 3), Lsn::new(100));
        assert!(pulse.beats());
        pulse.committed();
        assert_eq!(signs.received(), 3);
        pulse.told(Lsn::new(100)); // its commit record begins there, and is sent again
        assert_eq!(signs.returned().now_or_never(), None);
        pulse.told(Lsn::new(101));
        assert_eq!(signs.returned().now_or_never().map(|(number, _)| number), Some(3));
        pulse.told(Lsn::new(200));
        assert_eq!(signs.returned().now_or_never(), None);
        assert_eq!(signs.moved(), 0);
    }

    #[test]
    fn those_of_others_neither_arrive_nor_move_anything() {
        let (mut pulse, mut signs) = Pulse::new("s", 5);
        for other in [beat("t", 5, 1), beat("s", 6, 1), Message::Unread] {
            pulse.came(other, Lsn::new(100));
            pulse.committed();
        }
        pulse.told(Lsn::new(200));
        assert_eq!(signs.returned().now_or_never(), None);
        assert_eq!((signs.received(), signs.moved()), (0, 0));
        assert!(!pulse.beats());
        pulse.committed();
        assert_eq!(signs.moved(), 1);
    }
}
