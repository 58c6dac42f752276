//! The loop: stop, acks, deadline, frames; then drain.

use std::time::Duration;

/// Which time a record carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Timestamp {
    /// Of sending.
    Sent,
    /// Of the commit, unless that is more than an hour ago.
    Commit,
}

/// How the loop runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest wait for acks at shutdown.
    pub drain: Duration,
    /// Record timestamps.
    pub timestamp: Timestamp,
}
