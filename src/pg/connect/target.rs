//! Which of several hosts: libpq's `target_session_attrs`.

use std::fmt;

use super::{Connection, Error, Kind, Options, TargetSession};
use crate::retry::Disposition;

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
    let mut failed = Vec::new();
    for host in &options.hosts {
        let error = match Connection::open_at(options, host, kind).await {
            Ok(mut connection) => match fits(&mut connection, wanted).await {
                Ok(true) => return Ok(connection),
                Ok(false) => {
                    connection.close().await;
                    Error::Role { to: host.to_string(), wanted }
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        if error.disposition() != Disposition::Retry {
            return Err(error);
        }
        tracing::debug!(%host, %error, "passing over a host");
        failed.push((host.clone(), error));
    }
    match (failed.pop(), failed.is_empty()) {
        (None, _) => Err(Error::Setting { what: "the list of hosts", why: "it is empty" }),
        (Some((_, only)), true) => Err(only),
        (Some(last), false) => {
            failed.push(last);
            Err(Error::Hosts(failed))
        }
    }
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
