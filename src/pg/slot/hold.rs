//! What keeps a slot's WAL: which transaction, and which limit.
//!
//! Of other roles' sessions a role without `pg_monitor` sees process, `backend_xid` and little else:
//! that is enough to name one. What it runs is its own business, and is not asked for.

use tokio_postgres::{Client, Row};

use crate::pg::catalog::{self, field};

/// The oldest transaction that has written anything, in whichever database.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Oldest {
    /// Its id, as the server shows it.
    pub xid: String,
    /// The process, if it is not a prepared one.
    pub pid: Option<i32>,
    /// The name under which it was prepared.
    pub gid: Option<String>,
    /// How many transactions have begun since.
    pub age: u64,
    /// For how many seconds it is open, or prepared, where the role may see that.
    pub seconds: Option<u64>,
}

/// What is around a slot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hold {
    /// For how many seconds nobody has read the slot; `None`: somebody does, or before 17.
    pub inactive: Option<u64>,
    /// `max_slot_wal_keep_size` in bytes; `None`: there is no limit.
    pub keep: Option<u64>,
    /// Whether the server takes no writes, being a standby.
    pub in_recovery: bool,
    /// Whether the role may have the running transactions logged (16+), past which alone a slot moves.
    pub may_log_running: bool,
    /// A slot cannot move past its beginning.
    pub oldest: Option<Oldest>,
}

/// Asks for it.
///
/// # Errors
/// The server cannot be asked.
pub async fn hold(client: &Client, slot: &str) -> Result<Hold, catalog::Error> {
    let what = "what its replication slots keep";
    let row = client.query_one(HOLD, &[&slot]).await.map_err(catalog::Error::asking(what))?;
    let keep: i64 = field(&row, 1, what)?;
    Ok(Hold {
        inactive: seconds(&row, 0, what)?,
        keep: u64::try_from(keep).ok(),
        in_recovery: field(&row, 2, what)?,
        may_log_running: field(&row, 8, what)?,
        oldest: oldest(&row, what)?,
    })
}

/// Has the running transactions logged now, as the server does by itself every 15 s.
///
/// # Errors
/// The server cannot be asked, or refuses.
pub async fn log_running(client: &Client) -> Result<(), catalog::Error> {
    let what = "a record of its running transactions";
    let sql = "SELECT pg_log_standby_snapshot() IS NOT NULL";
    client.execute(sql, &[]).await.map_err(catalog::Error::asking(what))?;
    Ok(())
}

fn oldest(row: &Row, what: &'static str) -> Result<Option<Oldest>, catalog::Error> {
    let Some(xid) = field(row, 5, what)? else { return Ok(None) };
    let age: i64 = field(row, 6, what)?;
    Ok(Some(Oldest {
        xid,
        pid: field(row, 3, what)?,
        gid: field(row, 4, what)?,
        age: u64::try_from(age).unwrap_or(0),
        seconds: seconds(row, 7, what)?,
    }))
}

/// A clock that was set back makes less than nothing.
fn seconds(row: &Row, column: usize, what: &'static str) -> Result<Option<u64>, catalog::Error> {
    let seconds: Option<i64> = field(row, column, what)?;
    Ok(seconds.map(|seconds| u64::try_from(seconds).unwrap_or(0)))
}

// A column that a version does not have is null by way of jsonb.
const HOLD: &str = "
SELECT (SELECT extract(epoch FROM clock_timestamp() - (to_jsonb(s) ->> 'inactive_since')::timestamptz)::bigint
        FROM pg_replication_slots s WHERE s.slot_name = $1::text),
       pg_size_bytes(current_setting('max_slot_wal_keep_size')),
       pg_is_in_recovery(),
       o.pid, o.gid, o.xid, o.age, o.seconds,
       coalesce(has_function_privilege(to_regprocedure('pg_log_standby_snapshot()')::oid, 'EXECUTE'), false)
FROM (SELECT) AS one
LEFT JOIN LATERAL (
    SELECT * FROM (
        SELECT pid, NULL::text AS gid, backend_xid::text AS xid, age(backend_xid)::bigint AS age,
               extract(epoch FROM clock_timestamp() - xact_start)::bigint AS seconds
        FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
        UNION ALL
        SELECT NULL, gid, transaction::text, age(transaction)::bigint,
               extract(epoch FROM clock_timestamp() - prepared)::bigint
        FROM pg_prepared_xacts) AS open
    ORDER BY age DESC LIMIT 1) AS o ON true";
