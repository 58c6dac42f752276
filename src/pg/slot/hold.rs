//! What keeps a slot's WAL: which transaction, which limit, and why nothing is sent.
//!
//! Of other roles' sessions a role without `pg_monitor` sees process, `backend_xid` and little else:
//! that is enough to name one. What it runs is its own business, and is not asked for.

use tokio_postgres::{Client, Row};

use crate::{
    lsn::Lsn,
    pg::catalog::{self, field},
};

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

/// Where a walsender stands, for one that sends nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Walsender {
    /// Its process.
    pub pid: Option<i32>,
    /// Whether it waits until a standby has confirmed.
    pub waits_for_standby: bool,
    /// How far it has read.
    pub sent: Option<Lsn>,
    /// Bytes of WAL from there on.
    pub behind: u64,
    /// Those of `synchronized_standby_slots` that nobody reads, or that are not there.
    pub dead: Vec<String>,
}

/// Asks for it.
///
/// # Errors
/// The server cannot be asked.
pub async fn walsender(client: &Client, slot: &str) -> Result<Walsender, catalog::Error> {
    let what = "its walsender";
    let row = client.query_opt(WALSENDER, &[&slot]).await.map_err(catalog::Error::asking(what))?;
    let Some(row) = row else { return Ok(Walsender::default()) };
    let lsn = |column| -> Result<Option<Lsn>, catalog::Error> {
        let text: Option<String> = field(&row, column, what)?;
        Ok(text.and_then(|text| text.parse().ok()))
    };
    let (sent, end) = (lsn(2)?, lsn(3)?);
    Ok(Walsender {
        pid: field(&row, 0, what)?,
        waits_for_standby: field(&row, 1, what)?,
        sent,
        behind: sent.zip(end).map_or(0, |(sent, end)| end.since(sent)),
        dead: field::<Option<Vec<String>>>(&row, 4, what)?.unwrap_or_default(),
    })
}

const WALSENDER: &str = "
SELECT s.active_pid, coalesce(a.wait_event = 'WaitForStandbyConfirmation', false), r.sent_lsn::text,
       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END::text,
       (SELECT array_agg(named.name)
        FROM (SELECT btrim(part, ' \"') AS name
              FROM unnest(string_to_array(current_setting('synchronized_standby_slots', true), ',')) part) named
        LEFT JOIN pg_replication_slots p ON p.slot_name = named.name
        WHERE named.name <> '' AND p.active IS NOT TRUE)
FROM pg_replication_slots s
LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
WHERE s.slot_name = $1::text";

impl Walsender {
    /// Why nothing comes from it, and what to look at.
    #[must_use]
    pub fn explained(&self) -> String {
        let Some(pid) = self.pid else {
            return "no walsender reads the slot now".to_owned();
        };
        if self.waits_for_standby || !self.dead.is_empty() {
            let names: Vec<_> = self.dead.iter().map(|name| format!("{name:?}")).collect();
            let which = match names.as_slice() {
                [] => "a standby of synchronized_standby_slots".to_owned(),
                [one] => format!("{one}, which synchronized_standby_slots names and nobody reads,"),
                many => format!(
                    "{}, which synchronized_standby_slots names and nobody reads,",
                    many.join(" and ")
                ),
            };
            return format!(
                "walsender {pid} sends nothing until {which} has confirmed it: start that standby, or \
                 take it out of the setting"
            );
        }
        if self.sent.is_some() && self.behind == 0 {
            return format!(
                "walsender {pid} has sent all that there is: it is on its way, or is not read here \
                 until more of what was read is stored"
            );
        }
        let at = self.sent.map(|sent| format!(" at {sent},")).unwrap_or_default();
        format!(
            "walsender {pid} is{at} {} bytes behind: it may be reading a huge transaction, of other \
             tables too (pg_stat_replication_slots, pg_stat_activity.wait_event of {pid})",
            self.behind
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_explained_by_what_is_known() {
        let of = |dead: &[&str]| Walsender {
            pid: Some(9),
            dead: dead.iter().map(|name| (*name).to_owned()).collect(),
            ..Walsender::default()
        };
        let one = of(&["sb1"]).explained();
        assert!(one.contains("until \"sb1\", which synchronized_standby_slots names"), "{one}");
        let two = of(&["sb1", "sb2"]).explained();
        assert!(two.contains("\"sb1\" and \"sb2\""), "{two}");
        let slow = Walsender { waits_for_standby: true, ..of(&[]) }.explained();
        assert!(slow.contains("until a standby of synchronized_standby_slots has"), "{slow}");
        let busy = Walsender { sent: Some(Lsn::new(0x10)), behind: 77, ..of(&[]) }.explained();
        assert!(busy.contains("walsender 9 is at 0/10, 77 bytes behind"), "{busy}");
        let done = Walsender { sent: Some(Lsn::new(0x10)), ..of(&[]) }.explained();
        assert!(done.contains("has sent all"), "{done}");
        assert_eq!(Walsender::default().explained(), "no walsender reads the slot now");
    }
}
