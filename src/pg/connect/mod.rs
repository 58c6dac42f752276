//! The connection to PostgreSQL: the right one of several hosts, logged in, with every setting
//! pinned that changes what a value looks like.
//!
//! It is our own for replication, which tokio-postgres does not know. [`sql`] hands an ordinary
//! connection to tokio-postgres after the same login, so that one place decides what a server may
//! ask and how it proves itself.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html>

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::{io::AsyncWriteExt, time::timeout};

use crate::{
    net::{self, SecretSource, Stream, TcpOptions, TlsOptions},
    pg::sqlstate::During,
};

mod auth;
mod error;
mod passfile;
mod query;
mod server_error;
mod sql;
mod startup;
mod target;
mod wire;

pub use error::Error;
pub use query::Row;
pub use server_error::ServerError;
pub use sql::{Sql, sql, sql_at_any};
pub use target::Candidates;
use wire::Wire;

/// A server to try.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Host {
    /// By TCP: name or address, and port.
    Tcp(String, u16),
    /// By the Unix socket `<folder>/.s.PGSQL.<port>`.
    Unix(PathBuf, u16),
}

impl Host {
    /// The file of a Unix socket; an empty path for TCP.
    fn socket(&self) -> PathBuf {
        match self {
            Self::Tcp(..) => PathBuf::new(),
            Self::Unix(folder, port) => folder.join(format!(".s.PGSQL.{port}")),
        }
    }
}

/// As it is named in errors.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(name, port) => f.write_str(&net::name(name, *port)),
            Self::Unix(..) => self.socket().display().fmt(f),
        }
    }
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
    /// libpq's password file, asked if `password` is `None` or empty; `None`: there is none.
    pub passfile: Option<PathBuf>,
    /// `None`: plain text.
    pub tls: Option<TlsOptions>,
    /// Binding of SCRAM to TLS.
    pub channel_binding: ChannelBinding,
    /// Whether a server may ask for an md5 digest.
    pub allow_md5: bool,
    /// Whether a server may ask for the password itself.
    pub allow_cleartext: bool,
    /// Sockets. `connect_timeout` is for a host's whole login.
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

/// What a connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A walsender of the database: replication commands, and simple statements too.
    Replication,
    /// An ordinary backend.
    Sql,
}

/// A connection that is logged in and ready for a statement.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
    host: Host,
    parameters: BTreeMap<String, String>,
    notices: Vec<ServerError>,
    process_id: i32,
    secret_key: i32,
}

impl Connection {
    /// So many notices are kept until somebody takes them.
    const MOST_NOTICES: usize = 100;

    fn new(wire: Wire, host: Host) -> Self {
        let (parameters, notices) = (BTreeMap::new(), Vec::new());
        Self { wire, host, parameters, notices, process_id: 0, secret_key: 0 }
    }

    /// Logs in at the first of the hosts that will do, each within `tcp.connect_timeout`.
    ///
    /// A host that is away, starting, full, or of the wrong role is passed over; one that refuses us
    /// is not, as libpq does it: the next one would hide what only a person can heal.
    ///
    /// # Errors
    /// The one host's, or all of theirs.
    pub async fn open(options: &Options, kind: Kind) -> Result<Self, Error> {
        target::open(options, kind).await
    }

    /// Logs in at all of the hosts at once: whoever is to choose among them.
    pub async fn candidates(options: &Options, kind: Kind, wanted: TargetSession) -> Candidates {
        Candidates::find(options, kind, wanted).await
    }

    /// Logs in at this host, whatever its role.
    ///
    /// # Errors
    /// Why not.
    pub async fn open_at(options: &Options, host: &Host, kind: Kind) -> Result<Self, Error> {
        let after = options.tcp.connect_timeout;
        match timeout(after, Box::pin(startup::login(options, host, kind))).await {
            Ok(result) => result,
            Err(_) => Err(net::Error::Timeout { to: host.to_string(), after }.into()),
        }
    }

    /// Where it leads.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// `server_version_num`, for example 170010; 0 if the server hides its version.
    #[must_use]
    pub fn server_version_num(&self) -> u32 {
        version_num(self.parameter("server_version").unwrap_or_default())
    }

    /// A setting as the server last reported it: those marked `GUC_REPORT` only.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The backend's process, as in `pg_stat_activity`.
    #[must_use]
    pub const fn process_id(&self) -> i32 {
        self.process_id
    }

    /// Whether it is encrypted.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.wire.stream.is_encrypted()
    }

    /// Notices since the last time; the oldest hundred at most.
    pub fn take_notices(&mut self) -> Vec<ServerError> {
        std::mem::take(&mut self.notices)
    }

    /// The socket and what was read from it and not used, for who reads the stream of changes.
    #[must_use]
    pub fn into_parts(self) -> (Stream, BytesMut) {
        (self.wire.stream, self.wire.received)
    }

    /// Says goodbye; without it the server's log shows a lost connection.
    pub async fn close(mut self) {
        let mut farewell = BytesMut::new();
        frontend::terminate(&mut farewell);
        // It is over either way.
        let _ = self.wire.stream.write_all(&farewell).await;
        let _ = self.wire.stream.shutdown().await;
    }
}

/// `17.10 (Debian 17.10-1)` is 170010, `18beta1` is 180000, `9.6.24` is 90624.
fn version_num(text: &str) -> u32 {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let mut numbers =
        text.get(..end).unwrap_or_default().split('.').map(|part| part.parse().unwrap_or(0_u32));
    let mut next = || numbers.next().unwrap_or(0).min(9999);
    match next() {
        major @ ..10 => major * 10_000 + next().min(99) * 100 + next().min(99),
        major => major * 10_000 + next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn options(hosts: Vec<Host>) -> Options {
        Options {
            hosts,
            target: TargetSession::Any,
            user: "sluice".into(),
            database: "postgres".into(),
            password: None,
            passfile: None,
            tls: None,
            channel_binding: ChannelBinding::Prefer,
            allow_md5: false,
            allow_cleartext: false,
            tcp: TcpOptions {
                connect_timeout: Duration::from_secs(5),
                keepalive: Duration::from_secs(30),
                user_timeout: Duration::from_secs(30),
            },
            application_name: "pgsluice".into(),
            wal_sender_timeout: Duration::from_secs(15),
            decoding_memory: 64 << 20,
            extra: None,
            max_message: 1 << 30,
        }
    }

    #[test]
    fn reads_every_form_of_a_version() {
        for (text, number) in [
            ("17.10", 170_010),
            ("14.23 (Debian 14.23-1.pgdg12+1)", 140_023),
            ("18beta1", 180_000),
            ("19devel", 190_000),
            ("9.6.24", 90_624),
            ("", 0),
            ("EnterpriseDB", 0),
            ("4294967296", 0),
        ] {
            assert_eq!(version_num(text), number, "{text}");
        }
    }

    #[test]
    fn names_hosts_as_they_are_reached() {
        assert_eq!(Host::Tcp("::1".into(), 5432).to_string(), "[::1]:5432");
        assert_eq!(Host::Unix("/run/pg".into(), 5432).to_string(), "/run/pg/.s.PGSQL.5432");
    }
}
