//! The connection to PostgreSQL.

use std::{path::PathBuf, time::Duration};

use crate::net::{SecretSource, TcpOptions, TlsOptions};

/// A server to try.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Host {
    /// By TCP: name or address, and port.
    Tcp(String, u16),
    /// By the Unix socket `<folder>/.s.PGSQL.<port>`.
    Unix(PathBuf, u16),
}

/// libpq's `target_session_attrs`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TargetSession {
    /// The first that answers.
    Any,
    /// One that is no standby and takes writes.
    ReadWrite,
    /// One that takes no writes.
    ReadOnly,
    /// One that is not in recovery.
    Primary,
    /// One that is in recovery.
    Standby,
    /// A standby, or if none answers, any.
    PreferStandby,
}

/// libpq's `channel_binding`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// If the server offers it; always tried with TLS.
    Prefer,
    /// Refuse to log in without it.
    Require,
}

/// Where PostgreSQL is and how to log in.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tried in order.
    pub hosts: Vec<Host>,
    /// Which of them will do.
    pub target: TargetSession,
    /// Role.
    pub user: String,
    /// Database.
    pub database: String,
    /// Password, if it does not come from `passfile`.
    pub password: Option<SecretSource>,
    /// libpq's password file; `None`: there is none.
    pub passfile: Option<PathBuf>,
    /// `None`: plain text.
    pub tls: Option<TlsOptions>,
    /// Binding of SCRAM to TLS.
    pub channel_binding: ChannelBinding,
    /// Whether a server may ask for an md5 digest.
    pub allow_md5: bool,
    /// Whether a server may ask for the password itself.
    pub allow_cleartext: bool,
    /// Sockets.
    pub tcp: TcpOptions,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// `wal_sender_timeout` of our own walsender; zero: the server's own timeout is left off.
    pub wal_sender_timeout: Duration,
    /// `logical_decoding_work_mem` of our own walsender, in bytes.
    pub decoding_memory: u64,
    /// More `-c name=value` for the startup packet, as the user wrote them.
    pub extra: Option<String>,
    /// Longest backend message, in bytes: a longer one means that the stream is broken. At least a
    /// row of PostgreSQL's own limit of 1 GB.
    pub max_message: u32,
}
