//! Groups records by partition: one growing record batch a partition, no clock of its own.

use std::time::Duration;

/// When a batch is full or late.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Encoded bytes in one batch, at most, before compression.
    pub max_bytes: usize,
    /// Records in one batch, at most.
    pub max_records: u32,
    /// How long the first record of a batch waits for company.
    pub linger: Duration,
    /// Bytes in open and unacknowledged batches, every copy counted; above it nothing is read.
    pub in_flight: usize,
}
