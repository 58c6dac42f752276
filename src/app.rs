//! The supervisor: on error back off or halt.

use std::{net::SocketAddr, time::Duration};

use crate::{batch, encode, pg, pipeline, route, sink};

/// The whole configuration, each part as its module wants it.
#[derive(Clone, Debug)]
pub struct Options {
    /// `[postgres]`.
    pub postgres: pg::connect::Options,
    /// `[publication]`.
    pub publication: pg::slot::PublicationOptions,
    /// `[slot]`.
    pub slot: pg::slot::SlotOptions,
    /// `slot.check_interval`: how often a busy slot is looked at again.
    pub check_interval: Duration,
    /// Longest pause between two attempts to reach PostgreSQL.
    pub retry_max: Duration,
    /// `postgres.…` of the stream.
    pub stream: pg::stream::Options,
    /// `[kafka]` and `[topic]`.
    pub kafka: sink::kafka::Options,
    /// `kafka.partitioner`.
    pub partitioner: sink::partition::Partitioner,
    /// `[tables]`, `[topic]`, `truncate`, `[message]`.
    pub route: route::Options,
    /// `[format]`, `headers`.
    pub encode: encode::Options,
    /// `[batch]`.
    pub batch: batch::Limits,
    /// `[run]`, `kafka.timestamp`.
    pub pipeline: pipeline::Options,
    /// `admin.listen`; `None`: no HTTP.
    pub admin: Option<SocketAddr>,
}
