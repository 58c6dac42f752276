//! The metrics of the slot itself, and of our heartbeats through it.

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

/// Name of the heartbeats' histogram, for its buckets, which are those of the acknowledgements.
pub const HEARTBEAT_SECONDS: &str = "pgsluice_heartbeat_seconds";

/// PostgreSQL's words.
const WAL_STATUS: [&str; 4] = ["reserved", "extended", "unreserved", "lost"];

/// Those of all versions; what is none of them is `other`.
const INVALIDATIONS: [&str; 7] = [
    "wal_removed",
    "rows_removed",
    "wal_level_insufficient",
    "idle_timeout",
    "conflict",
    "lost",
    "other",
];

const STANDBY_READY: &str = "pgsluice_standby_slot_ready";
const STANDBY_BEHIND: &str = "pgsluice_standby_slot_behind_bytes";

/// What is shown where no limit is set.
const NO_LIMIT: f64 = i64::MAX as f64;

/// One look at the slot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot<'a> {
    /// `wal_status`.
    pub wal_status: Option<&'a str>,
    /// `safe_wal_size`.
    pub safe_wal: Option<i64>,
    /// From `restart_lsn` to the end of the WAL.
    pub retained: u64,
    /// From `confirmed_flush_lsn` to the end of the WAL.
    pub unconfirmed: u64,
    /// Since nobody reads it.
    pub inactive_seconds: u64,
    /// Why it can be read no more.
    pub invalidation: Option<&'a str>,
    /// Transactions since the oldest open one began.
    pub oldest_age: u64,
    /// For how long that one is open.
    pub oldest_seconds: u64,
}

pub(super) fn register() {
    describe();
    counter!("pgsluice_heartbeats_total").absolute(0);
    drop(histogram!(HEARTBEAT_SECONDS));
    heartbeat_pending(Duration::ZERO);
    slot(Slot::default());
    slot_stale(false);
    slot_waits_for_standby(false);
}

fn describe() {
    let bytes = |name: &'static str, text: &'static str| describe_gauge!(name, Unit::Bytes, text);
    let seconds =
        |name: &'static str, text: &'static str| describe_gauge!(name, Unit::Seconds, text);
    describe_counter!(
        "pgsluice_heartbeats_total",
        "Heartbeats of ours that came back and were confirmed"
    );
    describe_histogram!(
        HEARTBEAT_SECONDS,
        Unit::Seconds,
        "From the writing of a heartbeat into the WAL to the confirmation of its position"
    );
    seconds(
        "pgsluice_heartbeat_pending_seconds",
        "Age of the heartbeat that is under way; 0 if none",
    );
    bytes("pgsluice_slot_retained_bytes", "WAL that the slot keeps: from restart_lsn to the end");
    bytes("pgsluice_slot_unconfirmed_bytes", "WAL from confirmed_flush_lsn to the end");
    bytes(
        "pgsluice_slot_safe_wal_bytes",
        "WAL that may still be written before the slot may be lost; 2^63 where no limit is set",
    );
    seconds("pgsluice_slot_inactive_seconds", "Since nobody reads the slot; 0 if somebody does");
    seconds(
        "pgsluice_slot_oldest_transaction_seconds",
        "Age of the oldest open transaction, where the role may see it",
    );
    describe_gauge!(
        "pgsluice_slot_oldest_transaction_age",
        "Transactions begun since the oldest open one; the slot cannot move past its beginning"
    );
    describe_gauge!("pgsluice_slot_wal_status", "1 for the slot's wal_status, 0 for the others");
    describe_gauge!("pgsluice_slot_invalidated", "1 for the reason why the slot is lost, if it is");
    describe_gauge!("pgsluice_slot_stale", "1 while the slot cannot be looked at");
    describe_gauge!(
        "pgsluice_slot_waits_for_standby",
        "1 while the stream stands still, as a standby of synchronized_standby_slots does not confirm"
    );
    describe_gauge!(
        STANDBY_READY,
        "1 if the stream could go on at this host after its promotion; NaN while another instance streams"
    );
    bytes(STANDBY_BEHIND, "WAL by which this host's copy of the slot lies behind the slot itself");
}

/// The slot was looked at.
pub fn slot(seen: Slot<'_>) {
    gauge!("pgsluice_slot_retained_bytes").set(seen.retained as f64);
    gauge!("pgsluice_slot_unconfirmed_bytes").set(seen.unconfirmed as f64);
    gauge!("pgsluice_slot_safe_wal_bytes")
        .set(seen.safe_wal.map_or(NO_LIMIT, |bytes| bytes as f64));
    gauge!("pgsluice_slot_inactive_seconds").set(seen.inactive_seconds as f64);
    gauge!("pgsluice_slot_oldest_transaction_age").set(seen.oldest_age as f64);
    gauge!("pgsluice_slot_oldest_transaction_seconds").set(seen.oldest_seconds as f64);
    for status in WAL_STATUS {
        let is = f64::from(u8::from(seen.wal_status == Some(status)));
        gauge!("pgsluice_slot_wal_status", "status" => status).set(is);
    }
    let known = |reason: &str| INVALIDATIONS.contains(&reason);
    let invalidation = seen.invalidation.map(|reason| if known(reason) { reason } else { "other" });
    for reason in INVALIDATIONS {
        let is = f64::from(u8::from(invalidation == Some(reason)));
        gauge!("pgsluice_slot_invalidated", "reason" => reason).set(is);
    }
}

/// Whether the slot cannot be looked at now.
pub fn slot_stale(stale: bool) {
    gauge!("pgsluice_slot_stale").set(f64::from(u8::from(stale)));
}

/// Whether a standby that does not confirm holds the stream up.
pub fn slot_waits_for_standby(waits: bool) {
    gauge!("pgsluice_slot_waits_for_standby").set(f64::from(u8::from(waits)));
}

/// Whether the stream could go on at a standby, and how far its copy lies behind, if that is known.
pub fn standby(host: &str, seen: Option<(bool, Option<u64>)>) {
    let ready = seen.map_or(f64::NAN, |(ready, _)| f64::from(u8::from(ready)));
    gauge!(STANDBY_READY, "host" => host.to_owned()).set(ready);
    let behind = seen.and_then(|(_, behind)| behind).map_or(f64::NAN, |bytes| bytes as f64);
    gauge!(STANDBY_BEHIND, "host" => host.to_owned()).set(behind);
}

/// A heartbeat is confirmed, so long after it was written.
pub fn heartbeat(after: Duration) {
    counter!("pgsluice_heartbeats_total").increment(1);
    histogram!(HEARTBEAT_SECONDS).record(after.as_secs_f64());
}

/// Age of the one that is under way; zero: there is none.
pub fn heartbeat_pending(age: Duration) {
    gauge!("pgsluice_heartbeat_pending_seconds").set(age.as_secs_f64());
}
