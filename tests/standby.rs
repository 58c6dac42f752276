//! A standby as the source: its slot, its promotion, and that of the server that it follows.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "clippy only sees #[test] functions as tests, not their helpers"
)]

#[path = "standby/bed.rs"]
mod bed;
#[path = "standby/follows.rs"]
mod follows;
#[path = "standby/life.rs"]
mod life;
#[path = "standby/lost.rs"]
mod lost;
mod support;
#[path = "standby/unmade.rs"]
mod unmade;
