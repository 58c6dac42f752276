//! Who reads a slot: for whoever waits for it, and for a person who asks.

use tokio_postgres::{Client, error::SqlState};

use crate::pg::catalog::{self, field};

/// The process that reads the slot, as far as our role may see it: of sessions of the same role all,
/// of others', without `pg_read_all_stats`, the application name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Active {
    /// Its process.
    pub pid: i32,
    /// `application_name`.
    pub application_name: Option<String>,
    /// Address of the client; `local` by a Unix socket.
    pub address: Option<String>,
    /// When it began to read, in UTC. `None`: of this session our role sees nothing but its name.
    pub since: Option<String>,
    /// When its client made the last status that came, by the client's clock: to be compared with an
    /// earlier one, never with our own clock.
    pub reply_time: Option<String>,
}

/// Asks who process `pid` is. `None`: it has ended.
pub async fn active(client: &Client, pid: i32) -> Result<Option<Active>, catalog::Error> {
    let what = "who reads the replication slot";
    let row = client.query_opt(ACTIVE, &[&pid]).await.map_err(catalog::Error::asking(what))?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Active {
        pid,
        application_name: field(&row, 0, what)?,
        address: field(&row, 1, what)?,
        since: field(&row, 2, what)?,
        reply_time: field(&row, 3, what)?,
    }))
}

// A walsender's query is the command that it carries out: the stream.
const ACTIVE: &str = r#"
SELECT a.application_name,
       coalesce(host(a.client_addr), CASE a.client_port WHEN -1 THEN 'local' END),
       to_char(coalesce(a.query_start, a.backend_start) AT TIME ZONE 'UTC',
               'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
       r.reply_time::text
FROM pg_stat_activity a LEFT JOIN pg_stat_replication r ON r.pid = a.pid
WHERE a.pid = $1::int4"#;

/// What came of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// It was told to end.
    Told,
    /// It has ended already.
    Gone,
    /// Our role may not.
    MayNot,
}

/// `pg_terminate_backend` of process `pid`, if it still reads slot `name`.
pub async fn end(client: &Client, name: &str, pid: i32) -> Result<Ended, catalog::Error> {
    let what = "the end of who reads the replication slot";
    match client.query_opt(END, &[&name, &pid]).await {
        Ok(Some(_)) => Ok(Ended::Told),
        Ok(None) => Ok(Ended::Gone),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(Ended::MayNot),
        Err(source) => Err(catalog::Error { what, source }),
    }
}

const END: &str = "
SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
WHERE slot_name = $1::text AND active_pid = $2::int4";
