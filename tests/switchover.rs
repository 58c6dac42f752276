//! A standby becomes the primary: with a slot that it was given in time the stream goes on, each row once; without it that is a
//! gap, and said.
//!
//! How long nothing is streamed is printed, and never asserted: the machine of a test may be busy.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "clippy only sees #[test] functions as tests, not their helpers"
)]

#[path = "switchover/missing.rs"]
mod missing;
#[path = "switchover/pair.rs"]
mod pair;
#[path = "switchover/planned.rs"]
mod planned;
#[path = "switchover/reasons.rs"]
mod reasons;
mod support;
