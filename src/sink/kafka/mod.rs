//! Apache Kafka, over rskafka's messenger and protocol types.

use std::{collections::BTreeMap, time::Duration};

use crate::net::{SecretSource, TcpOptions, TlsOptions};

pub mod broker;
pub mod codes;
mod error;
mod flow;
mod line;
pub mod metadata;
pub mod producer;
mod sasl;
#[doc(hidden)]
pub mod scram;
pub mod topics;
#[doc(hidden)]
pub mod wire;

pub use error::{Doubt, Error, Refusal};
pub use producer::Producer;

/// How to log in.
#[derive(Clone, Debug)]
pub struct Sasl {
    /// Which mechanism.
    pub mechanism: Mechanism,
    /// User name.
    pub user: String,
    /// Its password.
    pub password: SecretSource,
}

/// SASL mechanisms.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mechanism {
    /// The password as it is: only over TLS does nobody else read it.
    Plain,
    /// RFC 7677.
    ScramSha256,
    /// The same with SHA-512.
    ScramSha512,
}

/// How a record batch is compressed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Codec 1.
    Gzip,
    /// Codec 2.
    Snappy,
    /// Codec 3.
    Lz4,
}

/// How a missing topic is made.
#[derive(Clone, Debug)]
pub struct TopicOptions {
    /// Whether one is made at all.
    pub create: bool,
    /// Its partitions.
    pub partitions: i32,
    /// Its replicas; -1: the broker's default.
    pub replication_factor: i16,
    /// Its settings.
    pub config: BTreeMap<String, String>,
}

/// Where Kafka is and how records get there.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bootstrap brokers: host and port.
    pub brokers: Vec<(String, u16)>,
    /// Shown in the broker's logs and quotas.
    pub client_id: String,
    /// `None`: plain text.
    pub tls: Option<TlsOptions>,
    /// `None`: no login.
    pub sasl: Option<Sasl>,
    /// Sockets.
    pub tcp: TcpOptions,
    /// Codec.
    pub compression: Compression,
    /// Longest wait for the answer to one request while nothing moves on the connection. A Produce asks
    /// the broker to answer within it.
    pub request_timeout: Duration,
    /// Longest pause between two attempts.
    pub retry_max: Duration,
    /// Metadata is asked for again when it is older.
    pub metadata_max_age: Duration,
    /// Missing topics.
    pub topic: TopicOptions,
}
