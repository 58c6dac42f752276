//! pgsluice streams every committed PostgreSQL change to Kafka.

pub mod admin;
pub mod app;
pub mod batch;
pub mod change;
pub mod cli;
pub mod config;
pub mod encode;
pub mod lsn;
pub mod metrics;
pub mod net;
pub mod pg;
pub mod pipeline;
pub mod progress;
pub mod retry;
pub mod route;
pub mod schema;
pub mod sink;
pub mod status;
pub mod telemetry;
