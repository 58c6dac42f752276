//! Each row once: whatever message a process was killed at, and whatever was changed before the next one was started.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "clippy only sees #[test] functions as tests, not their helpers"
)]

#[path = "once/atomic.rs"]
mod atomic;
#[path = "once/bank.rs"]
mod bank;
#[path = "once/changed.rs"]
mod changed;
#[path = "once/crash.rs"]
mod crash;
#[cfg(feature = "failpoints")]
#[path = "once/failpoints.rs"]
mod failpoints;
#[path = "once/forgotten.rs"]
mod forgotten;
#[path = "once/gaps.rs"]
mod gaps;
#[path = "once/promotion.rs"]
mod promotion;
mod support;
#[path = "once/topics.rs"]
mod topics;
#[path = "once/world.rs"]
mod world;
#[path = "once/zombie.rs"]
mod zombie;
