//! Every committed change of a real PostgreSQL, in a real Apache Kafka, by the real binary.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "clippy only sees #[test] functions as tests, not their helpers"
)]

#[path = "end_to_end/metrics.rs"]
mod metrics;
#[path = "end_to_end/restored.rs"]
mod restored;
#[path = "end_to_end/routes.rs"]
mod routes;
#[path = "end_to_end/shapes.rs"]
mod shapes;
mod support;
#[path = "end_to_end/versions.rs"]
mod versions;
#[path = "end_to_end/world.rs"]
mod world;
