//! One slot: what the server says of it, and making it.

use std::{collections::HashMap, pin::pin, time::Duration};

use tokio::time::{Instant, sleep_until};
use tokio_postgres::{Client, error::SqlState};

use super::{
    Error, Failover, SlotOptions,
    command::{self, literal, quoted},
    standby,
};
use crate::{
    lsn::Lsn,
    pg::{
        catalog::{self, Server, field},
        connect::{self, Connection},
    },
};

/// What metrics and people want to know of a slot.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Health {
    /// `reserved`, `extended`, `unreserved` or `lost`; `None`: it has never been reserved.
    pub wal_status: Option<String>,
    /// Bytes of WAL that may still be written before the slot may be lost; `None`: no limit is set.
    pub safe_wal_size: Option<i64>,
    /// Bytes of WAL from `restart_lsn` to the server's position, which the slot keeps.
    pub retained_bytes: u64,
    /// Bytes of WAL from `confirmed_flush` to the server's position.
    pub unconfirmed_bytes: u64,
    /// Below it nothing is sent again.
    pub confirmed_flush: Option<Lsn>,
    /// From here on WAL is kept.
    pub restart_lsn: Option<Lsn>,
    /// Why it can be read no more; before 17, `lost`, or on a standby `conflict`.
    pub invalidation_reason: Option<String>,
    /// The process that reads it.
    pub active_pid: Option<i32>,
    /// Whether it is synchronised to standbys; `None`: before 17.
    pub failover: Option<bool>,
}

/// Asks for the health of slot `name`; `None`: there is no such slot.
pub async fn health(client: &Client, name: &str) -> Result<Option<Health>, catalog::Error> {
    Ok(find(client, name).await?.map(|slot| slot.health))
}

/// A row of `pg_replication_slots`.
pub(super) struct Slot {
    pub(super) health: Health,
    plugin: Option<String>,
    database: Option<String>,
    pub(super) synced: bool,
    pub(super) temporary: bool,
    /// Where the server's WAL ended when the slot was looked at.
    wal_end: Lsn,
    pub(super) two_phase: bool,
}

pub(super) async fn find(client: &Client, name: &str) -> Result<Option<Slot>, catalog::Error> {
    let what = "its replication slots";
    let row = client.query_opt(SLOT, &[&name]).await.map_err(catalog::Error::asking(what))?;
    let Some(row) = row else { return Ok(None) };
    // Each version has columns of its own: as pairs, what is not there is just absent.
    let names: Vec<String> = field(&row, 0, what)?;
    let values: Vec<Option<String>> = field(&row, 1, what)?;
    let mut slot: HashMap<String, Option<String>> = names.into_iter().zip(values).collect();
    let now = parse::<Lsn>(field(&row, 2, what)?).unwrap_or_default();
    let mut text = |name: &str| slot.remove(name).flatten();
    let restart_lsn = parse(text("restart_lsn"));
    let confirmed_flush = parse(text("confirmed_flush_lsn"));
    let wal_status = text("wal_status");
    let conflicting = text("conflicting").as_deref() == Some("true");
    let in_recovery: bool = field(&row, 3, what)?;
    // Before 17 there is no reason: a standby's slot may be lost in two ways, a primary's in one.
    let invalidation_reason = text("invalidation_reason").or_else(|| {
        let lost = conflicting || wal_status.as_deref() == Some("lost");
        lost.then(|| if in_recovery { "conflict" } else { "lost" }.to_owned())
    });
    let health = Health {
        wal_status,
        safe_wal_size: parse(text("safe_wal_size")),
        retained_bytes: restart_lsn.map_or(0, |from| now.since(from)),
        unconfirmed_bytes: confirmed_flush.map_or(0, |from| now.since(from)),
        confirmed_flush,
        restart_lsn,
        invalidation_reason,
        active_pid: parse(text("active_pid")),
        failover: text("failover").map(|failover| failover == "true"),
    };
    Ok(Some(Slot {
        health,
        plugin: text("plugin"),
        database: text("database"),
        synced: text("synced").as_deref() == Some("true"),
        temporary: text("temporary").as_deref() == Some("true"),
        wal_end: now,
        two_phase: text("two_phase").as_deref() == Some("true"),
    }))
}

fn parse<T: std::str::FromStr>(text: Option<String>) -> Option<T> {
    text?.parse().ok()
}

const SLOT: &str = "
SELECT array_agg(pair.key), array_agg(pair.value),
       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text,
       pg_is_in_recovery()
FROM pg_replication_slots s, jsonb_each_text(to_jsonb(s)) pair
WHERE s.slot_name = $1::text
GROUP BY s.slot_name";

impl Slot {
    /// Whether the stream can be started on it.
    pub(super) fn check(&self, name: &str, server: &Server) -> Result<(), Error> {
        self.check_idle_or_not(name, server)?;
        let name = name.to_owned();
        self.health.active_pid.map_or(Ok(()), |pid| Err(Error::Busy { name, pid }))
    }

    /// Whether it can, as soon as nobody reads it.
    pub(super) fn check_idle_or_not(&self, name: &str, server: &Server) -> Result<(), Error> {
        let wrong = |why: String| Err(Error::WrongSlot { name: name.to_owned(), why });
        let name = name.to_owned();
        match (&self.plugin, &self.database) {
            (None, _) | (_, None) => return wrong("is a physical one, for a standby".to_owned()),
            (Some(plugin), _) if plugin != "pgoutput" => {
                return wrong(format!("was made for the output plugin {plugin}, not pgoutput"));
            }
            (_, Some(database)) if *database != server.database => {
                return wrong(format!("is of database {database:?}, not {:?}", server.database));
            }
            _ => {}
        }
        if let Some(reason) = &self.health.invalidation_reason {
            let confirmed = self.health.confirmed_flush.unwrap_or_default().to_string();
            let sql = remake_sql(&name);
            return Err(Error::SlotLost { name, reason: explained(reason), confirmed, sql });
        }
        if self.synced && server.in_recovery {
            return Err(Error::Synced { name });
        }
        let Some(confirmed) = self.health.confirmed_flush else {
            return Err(Error::Unfinished { name });
        };
        // A standby's end is what it has replayed: not the end of the WAL that is written.
        if confirmed > self.wal_end && !server.in_recovery {
            let sql = remake_sql(&name);
            return Err(Error::SlotAhead { name, confirmed, wal_end: self.wal_end, sql });
        }
        Ok(())
    }

    /// What a person should know.
    pub(super) fn warnings(&self, options: &SlotOptions) -> Vec<String> {
        let mut warnings = Vec::new();
        let name = &options.name;
        if self.health.wal_status.as_deref() == Some("unreserved") {
            warnings.push(format!(
                "replication slot {name:?} is about to be lost: it is further behind than \
                 max_slot_wal_keep_size, which may be raised"
            ));
        }
        if self.two_phase {
            warnings.push(format!(
                "replication slot {name:?} was made with two_phase: PREPARE TRANSACTION on a \
                 published table will stop the stream"
            ));
        }
        if options.failover == Failover::On && self.health.failover == Some(false) {
            warnings.push(format!(
                "slot.failover is on, but replication slot {name:?} was made without it: {}",
                failover_sql(name)
            ));
        }
        warnings
    }
}

/// PostgreSQL's word, and what it means.
fn explained(reason: &str) -> String {
    let meaning = match reason {
        "wal_removed" | "lost" => "it was further behind than max_slot_wal_keep_size",
        "rows_removed" => "the primary removed catalog rows that it needed",
        "conflict" => "the primary removed WAL or catalog rows that it needed",
        "wal_level_insufficient" => "the primary's wal_level was not logical",
        "idle_timeout" => "nobody read it for idle_replication_slot_timeout",
        _ => return reason.to_owned(),
    };
    format!("{reason}: {meaning}")
}

/// What a person runs to make the slot.
pub(super) fn create_sql(name: &str) -> String {
    format!("SELECT pg_create_logical_replication_slot({}, 'pgoutput');", literal(name))
}

/// How a person lets standbys have the slot. A name that begins with a digit has to be in quotes.
pub(super) fn failover_sql(name: &str) -> String {
    format!(
        "while no instance runs, on a replication connection (psql 'replication=database …'): \
         ALTER_REPLICATION_SLOT {} (FAILOVER true);",
        quoted(name)
    )
}

/// What a person runs to go on after a gap.
fn remake_sql(name: &str) -> String {
    format!("SELECT pg_drop_replication_slot({}); {}", literal(name), create_sql(name))
}

/// Makes the slot. PostgreSQL first waits for the end of every transaction that is open, which may
/// take any time: that is said, again and again.
pub(super) async fn create(
    client: &Client,
    server: &Server,
    options: &SlotOptions,
) -> Result<(), Error> {
    let sql = creation(server, options)?;
    // A role's timeout must not end the wait. And should we go away meanwhile, PostgreSQL is to
    // notice, or there would be a slot in the end that nobody reads and that keeps all WAL.
    for patience in [
        "SET statement_timeout = 0",
        "SET lock_timeout = 0",
        "SET client_connection_check_interval = '1s'",
    ] {
        if let Err(error) = client.batch_execute(patience).await {
            tracing::debug!(%error, patience, "a setting of the session stays as it is");
        }
    }
    let waits = Waits::read(client, server).await?;
    let made = watched(client.batch_execute(&sql), &options.name, &waits).await;
    // A lost connection says so at its next use.
    let _ = client.batch_execute("RESET statement_timeout; SET lock_timeout = '10s'").await;
    let Err(source) = made else {
        tracing::info!(slot = options.name, sql, "made the replication slot");
        return Ok(());
    };
    let name = options.name.clone();
    match source.code() {
        // Somebody else was quicker; what they made is used as it is.
        Some(code) if *code == SqlState::DUPLICATE_OBJECT => Ok(()),
        Some(code) if *code == SqlState::CONFIGURATION_LIMIT_EXCEEDED => {
            let standby = false;
            Err(Error::NoFreeSlot { name, standby, source: Box::new(source) })
        }
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
            let what = format!("replication slot {name:?}");
            Err(Error::may_not(&server.role, what, &sql, &source))
        }
        _ => Err(catalog::Error { what: "a new replication slot", source }.into()),
    }
}

/// The same on a standby, by a walsender of it. What it waits for is asked for at its primary.
pub async fn create_on_standby(
    replication: &mut Connection,
    postgres: &connect::Options,
    server: &Server,
    options: &SlotOptions,
) -> Result<(), Error> {
    creation(server, options)?;
    let sql = command::create_on_standby(&options.name);
    let waits = Waits { standby: true, open: Vec::new() };
    let made = watched(replication.simple_query(&sql), &options.name, &waits);
    let Err(error) = standby::with_snapshots(postgres, made).await else {
        tracing::info!(slot = options.name, sql, "made the replication slot");
        return Ok(());
    };
    let name = options.name.clone();
    let Some(refusal) = error.server() else { return Err(error.into()) };
    let said = refusal.message.clone();
    match SqlState::from_code(&refusal.sqlstate) {
        SqlState::DUPLICATE_OBJECT => Ok(()),
        SqlState::CONFIGURATION_LIMIT_EXCEEDED => {
            let standby = true;
            Err(Error::NoFreeSlot { name, standby, source: Box::new(error) })
        }
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE => Err(Error::PrimaryWalLevel { said }),
        SqlState::INSUFFICIENT_PRIVILEGE => {
            let (role, what) = (server.role.clone(), format!("replication slot {name:?}"));
            Err(Error::MayNot { role, what, said, sql: create_sql(&name) })
        }
        _ => Err(error.into()),
    }
}

/// Runs `creation` and says now and then what it waits for.
async fn watched<T>(creation: impl Future<Output = T>, name: &str, waits: &Waits) -> T {
    let mut creation = pin!(creation);
    let begun = Instant::now();
    let mut next = begun + FIRST_WORD;
    loop {
        // Cancel-safe: the creation stays pinned, and a sleep loses nothing.
        tokio::select! {
            biased;
            made = &mut creation => return made,
            () = sleep_until(next) => {
                next += NEXT_WORD;
                tracing::info!(slot = name, "{}", waits.line(begun.elapsed()));
            }
        }
    }
}

/// Soon enough for somebody who looks on, then not more than the log can bear.
const FIRST_WORD: Duration = Duration::from_secs(2);
const NEXT_WORD: Duration = Duration::from_secs(10);

fn creation(server: &Server, options: &SlotOptions) -> Result<String, Error> {
    let why_not = match (server.major(), server.in_recovery) {
        (..17, _) => Some(format!("PostgreSQL {} has no failover slots", server.major())),
        (_, true) => Some("a standby cannot make failover slots".to_owned()),
        _ => None,
    };
    match (options.failover, why_not) {
        (Failover::On, Some(why)) => Err(Error::NoFailover { why }),
        (Failover::On | Failover::Auto, None) => Ok(format!(
            "SELECT pg_create_logical_replication_slot({}, 'pgoutput', failover => true);",
            literal(&options.name),
        )),
        (Failover::Auto, Some(_)) | (Failover::Off, _) => Ok(create_sql(&options.name)),
    }
}

/// What a slot's creation waits for, as of its start: while it waits the session cannot be asked.
struct Waits {
    standby: bool,
    /// Oldest first: `xid 740 of process 4711`.
    open: Vec<String>,
}

impl Waits {
    async fn read(client: &Client, server: &Server) -> Result<Self, Error> {
        let what = "its open transactions";
        let rows = client.query(OPEN, &[]).await.map_err(catalog::Error::asking(what))?;
        let open = rows.iter().map(|row| field(row, 0, what)).collect::<Result<_, _>>()?;
        Ok(Self { standby: server.in_recovery, open })
    }

    fn line(&self, since: Duration) -> String {
        let seconds = since.as_secs();
        let what = match (self.standby, self.open.as_slice()) {
            (true, _) => {
                "a standby waits until its primary logs which transactions are open, at once by \
                 SELECT pg_log_standby_snapshot() there"
                    .to_owned()
            }
            (_, []) => "waiting for the end of transactions that are open".to_owned(),
            (_, [one]) => {
                format!("waiting for the end of 1 transaction that was open: {one}")
            }
            (_, [oldest, ..]) => format!(
                "waiting for the end of {} transactions that were open, the oldest {oldest}, and of \
                 those that began meanwhile",
                self.open.len(),
            ),
        };
        format!("the replication slot is being made for {seconds} s: {what}")
    }
}

// These columns of other roles' sessions anybody may see.
const OPEN: &str = "
SELECT 'xid ' || xid || coalesce(' of process ' || pid, ', prepared as ' || quote_literal(gid))
FROM (SELECT backend_xid AS xid, pid, NULL AS gid FROM pg_stat_activity
      WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
      UNION ALL SELECT transaction, NULL, gid FROM pg_prepared_xacts) open
ORDER BY age(xid) DESC";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_says_what_it_is_for() {
        let line = |standby, open: &[&str]| {
            let open = open.iter().map(|xid| (*xid).to_owned()).collect();
            Waits { standby, open }.line(Duration::from_secs(12))
        };
        let two = line(false, &["xid 740 of process 9", "xid 752, prepared as 'x'"]);
        assert!(two.contains("12 s: waiting for the end of 2 transactions"), "{two}");
        assert!(two.contains("the oldest xid 740 of process 9, and"), "{two}");
        assert!(line(false, &["xid 740 of process 9"]).ends_with("open: xid 740 of process 9"));
        assert!(line(false, &[]).ends_with("transactions that are open"));
        assert!(line(true, &[]).contains("pg_log_standby_snapshot"));
    }
}
