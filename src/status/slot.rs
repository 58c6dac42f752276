//! The slot's own health, and how long a heartbeat takes through it, as `/status` shows them.

use serde::Serialize;

/// One look at the slot.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct SlotHealth {
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Bytes of WAL that may still be written before the slot may be lost; `None`: no limit is set.
    pub safe_wal_bytes: Option<i64>,
    /// WAL that it keeps: from `restart_lsn` to the end.
    pub retained_bytes: u64,
    /// From `confirmed_flush_lsn` to the end.
    pub unconfirmed_bytes: u64,
    /// From here on WAL is kept.
    pub restart_lsn: Option<String>,
    /// Below it nothing is sent again.
    pub confirmed_flush_lsn: Option<String>,
    /// Since nobody reads it; `None`: somebody does, or the server does not tell (before 17).
    pub inactive_seconds: Option<u64>,
    /// Why it can be read no more.
    pub invalidation_reason: Option<String>,
    /// The slot cannot move past the beginning of this one.
    pub oldest_transaction: Option<OldestTransaction>,
    /// For which standby it stands still, and what ends that.
    pub waits: Option<String>,
    /// When it was looked at.
    pub at_ms: i64,
    /// Whether it cannot be looked at now: then all of this is of then.
    pub stale: bool,
}

/// The oldest open transaction of the server; never what it runs.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct OldestTransaction {
    /// Its process.
    pub pid: Option<i32>,
    /// The name under which it was prepared, if it was.
    pub gid: Option<String>,
    /// How many transactions have begun since.
    pub age: u64,
    /// For how long it is open, where the role may see that.
    pub seconds: Option<u64>,
}

/// The heartbeats.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Heartbeat {
    /// From the writing of the last one that came back to its confirmation.
    pub lag_seconds: Option<f64>,
    /// When that was.
    pub at_ms: Option<i64>,
    /// Since when one is under way.
    pub pending_since_ms: Option<i64>,
}

/// Another host, and its copy of the slot, while this instance streams from the primary.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Standby {
    /// As `postgres.url` names it.
    pub host: String,
    /// Whether the stream could go on there, were it promoted.
    pub ready: bool,
    /// Why not.
    pub reason: Option<String>,
    /// What else should be done for it.
    pub advice: Option<String>,
    /// Whether the slot is there.
    pub present: bool,
    /// Whether PostgreSQL keeps it up to date (17+).
    pub synced: bool,
    /// Whether it would vanish with a promotion.
    pub temporary: bool,
    /// Why it can be read no more.
    pub invalidation_reason: Option<String>,
    /// Where it stands.
    pub confirmed_flush_lsn: Option<String>,
    /// From here on it keeps WAL.
    pub restart_lsn: Option<String>,
    /// WAL from there to where the slot itself stands.
    pub behind_bytes: Option<u64>,
    /// When it was looked at.
    pub at_ms: i64,
}
