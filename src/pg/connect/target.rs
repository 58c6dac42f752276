//! Which of several hosts: libpq's `target_session_attrs`.

use std::{fmt, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, timeout_at};

use super::{Connection, Error, Host, Kind, Options, TargetSession};
use crate::retry::Disposition;

/// How long the others may take once one that will do has answered. A host that is away does not
/// hold up the rest for its whole timeout.
const GRACE: Duration = Duration::from_secs(1);

/// Those of the hosts that will do, in their order, and why the others will not.
#[derive(Debug, Default)]
pub struct Candidates {
    /// Logged in.
    pub fit: Vec<Connection>,
    /// Logged in too, and of another role than the one wanted.
    pub others: Vec<Connection>,
    /// Passed over.
    pub passed: Vec<(Host, Error)>,
}

impl Candidates {
    /// Logs in at all of the hosts at once.
    pub(super) async fn find(options: &Options, kind: Kind, wanted: TargetSession) -> Self {
        let attempts = options.hosts.iter().enumerate();
        let attempt = async |(at, host)| (at, login(options, host, kind, wanted).await);
        let mut attempts: FuturesUnordered<_> = attempts.map(attempt).collect();
        let (mut all, mut over) = (Vec::new(), None);
        loop {
            let next = match over {
                None => attempts.next().await,
                Some(over) => match timeout_at(over, attempts.next()).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            let Some((at, result)) = next else { break };
            if matches!(result, Ok((_, true))) {
                over.get_or_insert_with(|| Instant::now() + GRACE);
            }
            all.push((at, result));
        }
        all.sort_by_key(|(at, _)| *at);
        let mut found = Self::default();
        for (at, result) in all {
            match (result, options.hosts.get(at)) {
                (Ok((connection, true)), _) => found.fit.push(connection),
                (Ok((connection, false)), _) => found.others.push(connection),
                (Err(error), Some(host)) => found.passed.push((host.clone(), error)),
                (Err(_), None) => {}
            }
        }
        found
    }

    /// Those of another role are passed over as well.
    pub(in crate::pg) async fn pass_others(&mut self, wanted: TargetSession) {
        for other in self.others.drain(..) {
            let host = other.host().clone();
            let error = Error::Role { to: host.to_string(), wanted };
            self.passed.push((host, error));
            other.close().await;
        }
    }

    /// Why there is none.
    #[must_use]
    pub fn error(mut self) -> Error {
        // What only a person can heal is not hidden behind a host that is away.
        let halts = |(_, error): &(_, Error)| error.disposition() != Disposition::Retry;
        if let Some(at) = self.passed.iter().position(halts) {
            return self.passed.swap_remove(at).1;
        }
        match (self.passed.pop(), self.passed.is_empty()) {
            (None, _) => Error::Setting { what: "the list of hosts", why: "it is empty" },
            (Some((_, only)), true) => only,
            (Some(last), false) => {
                self.passed.push(last);
                Error::Hosts(self.passed)
            }
        }
    }
}

/// As it reads after "is not".
impl fmt::Display for TargetSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any server",
            Self::ReadWrite => "a server that takes writes",
            Self::ReadOnly => "a server that takes no writes",
            Self::Primary => "a primary",
            Self::Standby => "a standby",
            Self::PreferStandby => "a standby or any server",
        })
    }
}

pub(super) async fn open(options: &Options, kind: Kind) -> Result<Connection, Error> {
    if options.target == TargetSession::PreferStandby {
        match first(options, kind, TargetSession::Standby).await {
            Err(error) if error.disposition() == Disposition::Retry => {}
            done => return done,
        }
        return first(options, kind, TargetSession::Any).await;
    }
    first(options, kind, options.target).await
}

async fn first(options: &Options, kind: Kind, wanted: TargetSession) -> Result<Connection, Error> {
    let mut found = Candidates::default();
    for host in &options.hosts {
        match attempt(options, host, kind, wanted).await {
            Ok(connection) => return Ok(connection),
            Err(error) if error.disposition() != Disposition::Retry => return Err(error),
            Err(error) => {
                tracing::debug!(%host, %error, "passing over a host");
                found.passed.push((host.clone(), error));
            }
        }
    }
    Err(found.error())
}

async fn attempt(
    options: &Options,
    host: &Host,
    kind: Kind,
    wanted: TargetSession,
) -> Result<Connection, Error> {
    let (connection, fits) = login(options, host, kind, wanted).await?;
    if fits {
        return Ok(connection);
    }
    connection.close().await;
    Err(Error::Role { to: host.to_string(), wanted })
}

/// And whether it is of the role that is wanted.
async fn login(
    options: &Options,
    host: &Host,
    kind: Kind,
    wanted: TargetSession,
) -> Result<(Connection, bool), Error> {
    let mut connection = Connection::open_at(options, host, kind).await?;
    let fits = fits(&mut connection, wanted).await?;
    Ok((connection, fits))
}

/// PostgreSQL 14 and later report both settings at login, and again when they change; a pooler may
/// not, so then they are asked for.
async fn fits(connection: &mut Connection, wanted: TargetSession) -> Result<bool, Error> {
    Ok(match wanted {
        TargetSession::Any | TargetSession::PreferStandby => true,
        TargetSession::Primary => !in_recovery(connection).await?,
        TargetSession::Standby => in_recovery(connection).await?,
        TargetSession::ReadWrite => !read_only(connection).await?,
        TargetSession::ReadOnly => read_only(connection).await?,
    })
}

async fn in_recovery(connection: &mut Connection) -> Result<bool, Error> {
    if let Some(value) = connection.parameter("in_hot_standby") {
        return Ok(value == "on");
    }
    is(connection, "SELECT pg_catalog.pg_is_in_recovery()", "t").await
}

async fn read_only(connection: &mut Connection) -> Result<bool, Error> {
    if let (Some(default), Some(standby)) = (
        connection.parameter("default_transaction_read_only"),
        connection.parameter("in_hot_standby"),
    ) {
        return Ok(default == "on" || standby == "on");
    }
    is(connection, "SHOW transaction_read_only", "on").await
}

async fn is(connection: &mut Connection, sql: &str, yes: &str) -> Result<bool, Error> {
    let rows = connection.simple_query(sql).await?;
    let value = rows.first().and_then(|row| row.first()).and_then(|cell| cell.as_deref());
    Ok(value == Some(yes))
}
