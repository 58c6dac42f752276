//! Where records go.

pub mod kafka;
pub mod partition;
pub mod stdout;

use crate::batch::Batch;

/// A batch is stored: on every replica that the topic's `min.insync.replicas` asks for.
#[derive(Debug)]
pub struct Delivery {
    /// As it was submitted, its tickets above all. Its bytes are only good for recycling: they are
    /// sealed and compressed by now.
    pub batch: Batch,
    /// The offset of its first record. Those of the others follow it unless the batch was split.
    pub base_offset: i64,
}
