//! The replication stream.

use std::time::Duration;

/// Limits of the stream.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of the read buffer; it grows for a longer message, and shrinks again.
    pub read_buffer: usize,
    /// `SO_RCVLOWAT` under load, in bytes; 0 turns it off.
    pub low_watermark: usize,
    /// Longest time between two standby status updates.
    pub status_interval: Duration,
}
