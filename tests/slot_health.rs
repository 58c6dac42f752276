//! Heartbeats, and what is said of a slot: on real servers, with times that are short.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "clippy only sees #[test] functions as tests, not their helpers"
)]

#[path = "slot_health/heartbeats.rs"]
mod heartbeats;
mod support;
#[path = "slot_health/wal.rs"]
mod wal;
#[path = "slot_health/world.rs"]
mod world;
