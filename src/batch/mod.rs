//! Groups records by partition: one growing record batch a partition, no clock of its own.
//!
//! Kafka stores batches, not records, and pays for each request: the [`Batcher`] lets a batch grow
//! until it is full or late. A record is written once, straight into the bytes that go to the
//! broker ([`record_batch`]), so that a row is copied from the read buffer and never again.
//!
//! **Invariants.** The records of a partition leave in the order in which they came. A batch is
//! over the limits only if it holds one record that is over them by itself.

mod batcher;
mod codec;
pub mod log;
mod record;
pub mod record_batch;

use std::{sync::Arc, time::Duration};

use crate::progress::Ticket;

pub use batcher::{Batcher, Error, Stamp, TopicId};
pub use codec::{Codec, compress, decompress};
pub use record::RecordWriter;

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

/// A finished batch: complete but for the producer's fields and the checksum, which
/// [`record_batch::seal`] adds.
#[derive(Debug, Eq, PartialEq)]
pub struct Batch {
    /// Where it goes.
    pub topic: Arc<str>,
    /// Of the topic.
    pub partition: i32,
    /// How many records.
    pub records: u32,
    /// Whose records they are, in order; neighbours of one ticket are one entry.
    pub tickets: Vec<(Ticket, u32)>,
    /// The encoded record batch, not compressed.
    pub bytes: Vec<u8>,
    /// The oldest commit in it, in microseconds since 2000 as PostgreSQL counts.
    pub first_committed_at: i64,
}

#[cfg(test)]
mod tests;
