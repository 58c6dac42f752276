//! Every metric and label, named once, as functions.
//!
//! Base units (bytes, seconds), described and set to zero at the start, so that a dashboard never
//! meets a metric that is not there yet. Labels hold operations, causes, stages and who is active: never
//! a row's value, never a secret.

mod slot;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

pub use self::slot::{
    HEARTBEAT_SECONDS, Slot, heartbeat, heartbeat_pending, slot, slot_stale,
    slot_waits_for_standby, standby,
};
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

/// The other end of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Peer {
    /// The walsender.
    Postgres,
    /// A broker.
    Kafka,
}

impl Peer {
    const ALL: [Self; 2] = [Self::Postgres, Self::Kafka];

    const fn label(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Kafka => "kafka",
        }
    }
}

/// How far a position has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Read from the walsender.
    Received,
    /// Acknowledged by Kafka, and everything before it.
    Stored,
    /// Told to PostgreSQL.
    Confirmed,
}

impl Stage {
    const ALL: [Self; 3] = [Self::Received, Self::Stored, Self::Confirmed];

    const fn label(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Stored => "stored",
            Self::Confirmed => "confirmed",
        }
    }
}

/// Why a change became no record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Nowhere {
    /// `topic.unlisted = "skip"`.
    Unlisted,
    /// `truncate = "skip"`.
    Truncate,
    /// No `message.topic`, or a prefix that is not asked for.
    Message,
    /// A heartbeat, ours or another slot's.
    Heartbeat,
}

impl Nowhere {
    const ALL: [Self; 4] = [Self::Unlisted, Self::Truncate, Self::Message, Self::Heartbeat];

    const fn label(self) -> &'static str {
        match self {
            Self::Unlisted => "unlisted",
            Self::Truncate => "truncate",
            Self::Message => "message",
            Self::Heartbeat => "heartbeat",
        }
    }
}

const ROLES: [&str; 4] = ["connecting", "passive", "streaming", "draining"];

/// Upper bounds of the commit→ack histogram, in seconds.
pub const ACK_BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// Name of the commit→ack histogram, for its buckets.
pub const ACK_SECONDS: &str = "pgsluice_commit_to_ack_seconds";

/// Describes every metric and sets it to zero. Call once, after the recorder is installed.
pub fn register(version: &'static str) {
    describe();
    for op in ["c", "u", "d", "t", "m"] {
        counter!("pgsluice_rows_total", "op" => op).absolute(0);
        for cause in Nowhere::ALL {
            counter!("pgsluice_rows_nowhere_total", "op" => op, "cause" => cause.label())
                .absolute(0);
        }
    }
    for cause in ["connect", "connection", "coordinator", "metadata"] {
        counter!("pgsluice_retries_total", "cause" => cause).absolute(0);
    }
    throttled(Duration::ZERO);
    drop(histogram!(ACK_SECONDS)); // without a sample it is shown as zeros
    for name in [
        "pgsluice_transactions_total",
        "pgsluice_batches_total",
        "pgsluice_records_total",
        "pgsluice_stored_bytes_total",
        "pgsluice_received_bytes_total",
        "pgsluice_producer_resets_total",
        "pgsluice_already_stored_total",
        "pgsluice_phantoms_total",
        "pgsluice_foreign_offsets_total",
        "pgsluice_kafka_transactions_total",
        "pgsluice_split_transactions_total",
        "pgsluice_keyless_relations_total",
        "pgsluice_stale_timestamps_total",
        "pgsluice_take_overs_total",
    ] {
        counter!(name).absolute(0);
    }
    for peer in Peer::ALL {
        counter!("pgsluice_reconnects_total", "peer" => peer.label()).absolute(0);
    }
    for stage in Stage::ALL {
        lag_bytes(stage, 0);
    }
    lag_seconds(Duration::ZERO);
    in_flight(0, 0);
    open_transactions(0);
    slot::register();
    role(ROLES[0]);
    could_take_over(false);
    active_info("", "", false);
    gauge!("pgsluice_build_info", "version" => version).set(1.0);
}

fn describe() {
    describe_counters();
    describe_gauge!(
        "pgsluice_throttled_seconds",
        Unit::Seconds,
        "Time that brokers asked us to wait, added up"
    );
    describe_gauge!("pgsluice_lag_bytes", Unit::Bytes, "WAL between the server's end and a stage");
    describe_gauge!(
        "pgsluice_lag_seconds",
        Unit::Seconds,
        "Age of the oldest commit not yet stored; 0 if none"
    );
    describe_gauge!(
        "pgsluice_in_flight_bytes",
        Unit::Bytes,
        "Bytes in open and unacknowledged batches, every copy"
    );
    describe_gauge!("pgsluice_in_flight_limit_bytes", Unit::Bytes, "batch.in_flight");
    describe_gauge!("pgsluice_open_transactions", "Transactions received and not yet stored whole");
    describe_gauge!("pgsluice_role", "1 for the role that this process has, 0 for the others");
    describe_gauge!(
        "pgsluice_could_take_over",
        "1 while this process is passive and could take over now, else 0"
    );
    describe_gauge!(
        "pgsluice_active_info",
        "1 for the instance that streams while this one is passive, as far as our role may see it"
    );
    describe_gauge!("pgsluice_build_info", "1, with the version as a label");
    describe_histogram!(
        ACK_SECONDS,
        Unit::Seconds,
        "From the commit in PostgreSQL to Kafka's acknowledgement"
    );
}

fn describe_counters() {
    describe_counter!(
        "pgsluice_rows_total",
        "Rows, truncates and messages made into records, by op"
    );
    describe_counter!(
        "pgsluice_rows_nowhere_total",
        "Changes that became no record, by op and cause"
    );
    describe_counter!("pgsluice_transactions_total", "Transactions received whole");
    describe_counter!("pgsluice_batches_total", "Record batches that Kafka acknowledged");
    describe_counter!("pgsluice_records_total", "Records that Kafka acknowledged");
    describe_counter!(
        "pgsluice_stored_bytes_total",
        Unit::Bytes,
        "Bytes of acknowledged batches, as sent"
    );
    describe_counter!(
        "pgsluice_received_bytes_total",
        Unit::Bytes,
        "Bytes read from the walsender"
    );
    describe_counter!("pgsluice_retries_total", "Attempts repeated, by cause");
    describe_counter!("pgsluice_reconnects_total", "Connections lost and made again, by peer");
    describe_counter!(
        "pgsluice_producer_resets_total",
        "Times that an answer left a doubt, and the topics had to be taken anew"
    );
    describe_counter!(
        "pgsluice_already_stored_total",
        "Records that came again after a restart and were stored already"
    );
    describe_counter!(
        "pgsluice_phantoms_total",
        "Stored records of transactions that a promotion lost"
    );
    describe_counter!(
        "pgsluice_foreign_offsets_total",
        "Offsets between batches of ours that somebody else took: records and markers of transactions"
    );
    describe_counter!(
        "pgsluice_kafka_transactions_total",
        "Transactions of Kafka's that were committed (kafka.delivery = \"transactional\")"
    );
    describe_counter!(
        "pgsluice_split_transactions_total",
        "Times that a transaction was over a limit of [kafka.transaction], and became visible in parts"
    );
    describe_counter!(
        "pgsluice_take_overs_total",
        "Times that this process was passive and got the slot"
    );
    describe_counter!(
        "pgsluice_keyless_relations_total",
        "Tables without a usable key that were met"
    );
    describe_counter!(
        "pgsluice_stale_timestamps_total",
        "Records given the time of sending, as their commit was more than an hour away"
    );
}

/// `count` changes of one op were made into records.
pub fn rows(op: &'static str, count: u64) {
    counter!("pgsluice_rows_total", "op" => op).increment(count);
}

/// `count` changes of one op became no record.
pub fn nowhere(op: &'static str, cause: Nowhere, count: u64) {
    counter!("pgsluice_rows_nowhere_total", "op" => op, "cause" => cause.label()).increment(count);
}

/// `count` transactions were received whole.
pub fn transactions(count: u64) {
    counter!("pgsluice_transactions_total").increment(count);
}

/// Bytes came from the walsender.
pub fn received(bytes: u64) {
    counter!("pgsluice_received_bytes_total").increment(bytes);
}

/// Records that came again and were not sent again.
pub fn already_stored(count: u64) {
    counter!("pgsluice_already_stored_total").increment(count);
}

/// Stored records of transactions that a promotion lost.
pub fn phantoms(count: u64) {
    counter!("pgsluice_phantoms_total").increment(count);
}

/// Offsets between batches of ours that somebody else took.
pub fn foreign(count: u64) {
    counter!("pgsluice_foreign_offsets_total").increment(count);
}

/// Kafka acknowledged batches, and has committed the transaction that they were part of, if any.
pub fn batches_stored(batches: u64, records: u64, bytes: u64) {
    counter!("pgsluice_batches_total").increment(batches);
    counter!("pgsluice_records_total").increment(records);
    counter!("pgsluice_stored_bytes_total").increment(bytes);
}

/// A transaction of Kafka's was committed.
pub fn kafka_transaction() {
    counter!("pgsluice_kafka_transactions_total").increment(1);
}

/// A transaction was over a limit of `[kafka.transaction]`, and was cut once.
pub fn split_transaction() {
    counter!("pgsluice_split_transactions_total").increment(1);
}

/// From commit to acknowledgement of one batch's oldest row.
pub fn acknowledged(after: Duration) {
    histogram!(ACK_SECONDS).record(after.as_secs_f64());
}

/// An attempt is repeated.
pub fn retry(cause: &'static str) {
    counter!("pgsluice_retries_total", "cause" => cause).increment(1);
}

/// A connection is made again.
pub fn reconnect(peer: Peer) {
    counter!("pgsluice_reconnects_total", "peer" => peer.label()).increment(1);
}

/// A new producer id was needed.
pub fn producer_reset() {
    counter!("pgsluice_producer_resets_total").increment(1);
}

/// A broker asks us to wait.
pub fn throttled(pause: Duration) {
    // Counters are whole numbers, and a pause is a fraction of a second.
    gauge!("pgsluice_throttled_seconds").increment(pause.as_secs_f64());
}

/// Records that carry the time of sending, as their commit's is too far away.
pub fn stale_timestamps(count: u64) {
    counter!("pgsluice_stale_timestamps_total").increment(count);
}

/// A table without a usable key was met.
pub fn keyless_relation() {
    counter!("pgsluice_keyless_relations_total").increment(1);
}

/// WAL between the server's end and a stage.
pub fn lag_bytes(stage: Stage, bytes: u64) {
    gauge!("pgsluice_lag_bytes", "stage" => stage.label()).set(bytes as f64);
}

/// Age of the oldest commit that is not yet stored.
pub fn lag_seconds(age: Duration) {
    gauge!("pgsluice_lag_seconds").set(age.as_secs_f64());
}

/// Bytes held, and the most that may be.
pub fn in_flight(bytes: usize, limit: usize) {
    gauge!("pgsluice_in_flight_bytes").set(bytes as f64);
    gauge!("pgsluice_in_flight_limit_bytes").set(limit as f64);
}

/// Transactions received and not yet stored whole.
pub fn open_transactions(count: usize) {
    gauge!("pgsluice_open_transactions").set(count as f64);
}

/// What this process does now: one of `connecting passive streaming draining`.
pub fn role(now: &str) {
    for role in ROLES {
        gauge!("pgsluice_role", "role" => role).set(f64::from(u8::from(role == now)));
    }
}

/// Whether this process is passive and could take over now.
pub fn could_take_over(now: bool) {
    gauge!("pgsluice_could_take_over").set(f64::from(u8::from(now)));
}

/// This process was passive, and has got the slot.
pub fn take_over() {
    counter!("pgsluice_take_overs_total").increment(1);
}

/// Who streams while this process is passive: its application name and address, as far as they are seen.
pub fn active(now: Option<(Option<&str>, Option<&str>)>) {
    /// The one of whom 1 was told.
    static LAST: Mutex<Option<(String, String)>> = Mutex::new(None);
    let now = now.map(|(name, address)| {
        (name.unwrap_or_default().to_owned(), address.unwrap_or_default().to_owned())
    });
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if *last != now {
        if let Some((name, address)) = &*last {
            active_info(name, address, false);
        }
        if let Some((name, address)) = &now {
            active_info(name, address, true);
        }
        *last = now;
    }
}

fn active_info(application_name: &str, address: &str, now: bool) {
    let labels =
        [("application_name", application_name.to_owned()), ("address", address.to_owned())];
    gauge!("pgsluice_active_info", &labels).set(f64::from(u8::from(now)));
}
