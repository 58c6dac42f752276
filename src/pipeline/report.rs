//! How far a session is, told about once a second: for `/status`, the metrics, and whoever asks whether
//! the loop lives.

use std::{pin::pin, time::Duration};

use tokio::{select, sync::watch, time::sleep};

use super::Pipeline;
use crate::{
    clock,
    lsn::Lsn,
    metrics::{self, Stage},
};

/// How far one session is; for `/status` and the metrics.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Read from the walsender.
    pub received: Lsn,
    /// Stored, and everything before it.
    pub stored: Lsn,
    /// Told to PostgreSQL.
    pub confirmed: Lsn,
    /// Age of what was received last and may not be stored; zero if all is stored.
    pub lag: Duration,
    /// What Kafka has, if it takes no records now.
    pub kafka_trouble: Option<String>,
    /// Whether the drain has begun.
    pub draining: bool,
}

/// How often progress is reported.
pub(super) const REPORT: Duration = Duration::from_secs(1);

impl Pipeline<'_> {
    pub(super) fn tell(&mut self, draining: bool) {
        let progress = self.progress(draining);
        let Progress { received, stored, confirmed, lag, .. } = progress;
        metrics::lag_bytes(Stage::Stored, received.since(stored));
        metrics::lag_bytes(Stage::Confirmed, received.since(confirmed));
        let held = self.records.batcher.bytes() + self.producer.in_flight();
        metrics::in_flight(held, self.in_flight);
        let open = self.records.ledger.open();
        metrics::open_transactions(open);
        metrics::lag_seconds(lag);
        tracing::debug!(%received, %stored, %confirmed, open, held, "position; what is open holds it back");
        (self.report)(progress);
    }

    /// How long it took from when the slot was to be had until something is stored.
    pub(super) fn tell_first(&mut self) {
        if let Some(begun) = self.begun.take() {
            let ms = begun.elapsed().as_millis();
            tracing::info!(ms, "the first records are stored, since the slot was to be had");
        }
    }

    pub(super) fn progress(&self, draining: bool) -> Progress {
        let stored = self.records.ledger.stored();
        let open = self.records.ledger.open() > 0;
        let lag = if open { since(self.last_commit) } else { Duration::ZERO };
        let (received, confirmed) = (self.stream.received(), self.stream.told());
        let kafka_trouble = self.producer.trouble();
        Progress { received, stored, confirmed, lag, kafka_trouble, draining }
    }
}

/// Waits for a server, which may take long, and reports all the while: it is no reason to be taken
/// for dead. Cancel-safe if `work` is.
pub(super) async fn telling<T>(
    work: impl Future<Output = T>,
    report: &mut dyn FnMut(Progress),
    mut told: Progress,
    trouble: watch::Receiver<Option<String>>,
) -> T {
    let mut work = pin!(work);
    loop {
        select! {
            biased;
            done = &mut work => return done,
            () = sleep(REPORT) => {
                told.kafka_trouble.clone_from(&trouble.borrow());
                report(told.clone());
            }
        }
    }
}

/// From a time of PostgreSQL's until now.
pub(super) fn since(committed_at: i64) -> Duration {
    const EPOCH_US: i64 = 946_684_800_000_000;
    let now = i64::try_from(clock::unix().as_micros()).unwrap_or(i64::MAX);
    let age = now.saturating_sub(committed_at.saturating_add(EPOCH_US));
    Duration::from_micros(u64::try_from(age).unwrap_or(0))
}
