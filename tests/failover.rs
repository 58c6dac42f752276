//! Several instances of one pipeline: one streams, the others take over, and not one row is lost, repeated or out of order.
//!
//! With `TESTS_SOAK=1` the numbers are those that are promised: 50 take-overs by SIGKILL, 20 by SIGTERM, five minutes of
//! chance. How long a take-over takes is printed, and never asserted: the machine of a test may be busy.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "clippy only sees #[test] functions as tests, not their helpers"
)]

#[path = "failover/bed.rs"]
mod bed;
#[path = "failover/load.rs"]
mod load;
#[path = "failover/lock.rs"]
mod lock;
#[path = "failover/many.rs"]
mod many;
#[path = "failover/passive.rs"]
mod passive;
#[path = "failover/rounds.rs"]
mod rounds;
#[path = "failover/superseded.rs"]
mod superseded;
mod support;
