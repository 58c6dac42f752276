//! A standby's copy of our slot: whether the stream could go on there after a promotion, and if not,
//! why not, with the statement that mends it.
//!
//! Seen on 17.10 and 18.4:
//! * A copy is good when it is `synced` and not `temporary`. A temporary one waits until the primary's
//!   slot has moved past what the standby still has, and vanishes with a promotion.
//! * A former primary that follows the new one still has its own slot (`failover`, not `synced`). The
//!   worker that synchronises ends at it ("exiting from slot synchronization because same name slot …
//!   already exists on the standby"), with **every** slot of that server, and begins again for ever. A slot
//!   that was `synced` before its server was promoted stays so, and is taken over without a word.
//! * `hot_standby_feedback` off, no `primary_slot_name`, no dbname in `primary_conninfo`: the worker says so
//!   in the server's log and does not run; what was copied stays, and gets older.
//! * Of the settings anybody may read all but `primary_conninfo`, which is never asked for: only
//!   whether there is a dbname in it.
//!
//! Before 17 whoever keeps slots on standbys makes them ordinary ones, and all that can be said is
//! whether it is there and not further on than ours.

use tokio_postgres::{Client, Row};

use super::{
    command::literal,
    state::{self, Slot, failover_sql},
    walsender::synchronized_sql,
};
use crate::{
    lsn::Lsn,
    pg::catalog::{self, field},
};

/// One look at a server: the one that is streamed from, or another of the hosts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Sight {
    /// Of the cluster.
    pub system_identifier: u64,
    /// Whether it takes no writes, being a standby.
    pub in_recovery: bool,
    /// Whether the slot is there.
    pub present: bool,
    /// Whether it is a copy that is kept up to date.
    pub synced: bool,
    /// Whether it vanishes with a promotion.
    pub temporary: bool,
    /// Why it can be read no more.
    pub invalidation_reason: Option<String>,
    /// Below it nothing would be sent again.
    pub confirmed_flush: Option<Lsn>,
    /// From here on it keeps WAL.
    pub restart_lsn: Option<Lsn>,
    /// `synchronized_standby_slots`.
    pub synchronized: Vec<String>,
    /// The slot by which it follows its primary; empty: none.
    pub primary_slot_name: String,
    version_num: i64,
    /// By which one server is told from another.
    started: String,
    active_pid: Option<i32>,
    failover: bool,
    /// Logical slots that are synchronised to standbys; those that are no copies; physical ones; those of
    /// them that nobody reads.
    failover_slots: Vec<String>,
    own: Vec<String>,
    physical: Vec<String>,
    unread: Vec<String>,
    sync_replication_slots: bool,
    hot_standby_feedback: bool,
    /// `None`: our role may not see it.
    dbname: Option<bool>,
}

/// Why the stream could not go on there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unready {
    /// What it is, in a word: the same trouble is said once, whatever the text.
    pub kind: &'static str,
    /// For a person, with the statement.
    pub why: String,
    /// Whether it is mostly over in a moment, by itself.
    pub passing: bool,
}

/// Looks at it.
///
/// # Errors
/// The server cannot be asked.
pub async fn look(client: &Client, name: &str) -> Result<Sight, catalog::Error> {
    let what = "its copy of the replication slot";
    let slot = state::find(client, name).await?;
    let row = client.query_one(SIGHT, &[]).await.map_err(catalog::Error::asking(what))?;
    read(&row, slot, what)
}

fn read(row: &Row, slot: Option<Slot>, what: &'static str) -> Result<Sight, catalog::Error> {
    let list = |column| -> Result<Vec<String>, catalog::Error> {
        Ok(field::<Option<Vec<String>>>(row, column, what)?.unwrap_or_default())
    };
    let mut sight = Sight {
        in_recovery: field(row, 0, what)?,
        system_identifier: field::<i64>(row, 1, what)?.cast_unsigned(),
        started: field(row, 2, what)?,
        version_num: field(row, 3, what)?,
        failover_slots: list(4)?,
        own: list(5)?,
        physical: list(6)?,
        synchronized: list(7)?,
        sync_replication_slots: field(row, 8, what)?,
        hot_standby_feedback: field(row, 9, what)?,
        primary_slot_name: field(row, 10, what)?,
        dbname: field(row, 11, what)?,
        unread: list(12)?,
        ..Sight::default()
    };
    if let Some(slot) = slot {
        sight.present = true;
        (sight.synced, sight.temporary) = (slot.synced, slot.temporary);
        sight.failover = slot.health.failover == Some(true);
        sight.active_pid = slot.health.active_pid;
        sight.confirmed_flush = slot.health.confirmed_flush;
        sight.restart_lsn = slot.health.restart_lsn;
        sight.invalidation_reason = slot.health.invalidation_reason;
    }
    Ok(sight)
}

// Each version has columns and settings of its own: by way of jsonb, what is not there is null.
const SIGHT: &str = r#"
SELECT pg_is_in_recovery(),
       (SELECT system_identifier FROM pg_control_system()),
       pg_postmaster_start_time()::text,
       current_setting('server_version_num')::bigint,
       s.failover, s.own, s.physical,
       (SELECT array_agg(btrim(part, ' "')) FROM
        unnest(string_to_array(current_setting('synchronized_standby_slots', true), ',')) part
        WHERE btrim(part, ' "') <> ''),
       coalesce(current_setting('sync_replication_slots', true) = 'on', false),
       current_setting('hot_standby_feedback') = 'on',
       coalesce(current_setting('primary_slot_name'), ''),
       (SELECT setting ~ '(^|[[:space:]?&])dbname[[:space:]]*=|^postgres(ql)?://[^/]*/[^?]' FROM pg_settings
        WHERE name = 'primary_conninfo'),
       s.unread
FROM (SELECT array_agg(slot_name::text) FILTER (WHERE logical AND fails_over) AS failover,
             array_agg(slot_name::text) FILTER (WHERE logical AND NOT copied) AS own,
             array_agg(slot_name::text) FILTER (WHERE NOT logical) AS physical,
             array_agg(slot_name::text) FILTER (WHERE NOT logical AND NOT active) AS unread
      FROM (SELECT slot_name, active, slot_type = 'logical' AS logical,
                   coalesce(to_jsonb(r) ->> 'failover' = 'true', false) AS fails_over,
                   coalesce(to_jsonb(r) ->> 'synced' = 'true', false) AS copied
            FROM pg_replication_slots r) one) s"#;

/// Failover slots.
const SYNCHRONISES: i64 = 17_00_00;

impl Sight {
    /// Whether the two are one server, by two names.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.system_identifier == other.system_identifier && self.started == other.started
    }

    /// Bytes of WAL by which this copy lies behind.
    #[must_use]
    pub fn behind(&self, primary: &Self) -> Option<u64> {
        Some(primary.confirmed_flush?.since(self.confirmed_flush?))
    }

    /// Why the stream could not go on here, were it promoted now. `stuck`: the copy has not moved for
    /// long, though it lies behind.
    #[must_use]
    pub fn unready(&self, primary: &Self, name: &str, stuck: bool) -> Option<Unready> {
        let unready = |kind, why: String, passing| Some(Unready { kind, why, passing });
        if self.system_identifier != primary.system_identifier {
            return unready("cluster", "it is of another cluster".to_owned(), false);
        }
        if !self.in_recovery {
            let why = "it takes writes itself, and is no standby".to_owned();
            return unready("writes", why, true); // a switchover may be on its way
        }
        let by_server = self.version_num >= SYNCHRONISES && primary.failover;
        if by_server && let Some(blocked) = self.blocked(primary, name) {
            return Some(blocked);
        }
        if let Some(reason) = &self.invalidation_reason {
            let again = if by_server { "; it is made anew by itself" } else { "" };
            let why = format!("its copy is lost ({reason}){again}");
            return unready("invalid", why, by_server);
        }
        if by_server && let Some(unready) = self.set_wrong(primary) {
            return Some(unready);
        }
        let off = by_server && !self.sync_replication_slots;
        if !self.present && !by_server {
            let why = match primary.version_num {
                SYNCHRONISES.. => {
                    format!("it was made without failover: {}", failover_sql(name))
                }
                _ => "it is not there: before PostgreSQL 17 Patroni or pg_failover_slots may keep \
                      it there"
                    .to_owned(),
            };
            return unready("absent", why, false);
        }
        if off && (stuck || !self.present || self.temporary) {
            return unready("sync_replication_slots", setting("sync_replication_slots"), false);
        }
        if !self.present {
            let why = "it is not there yet; should it stay so, the standby's log says why (above all, \
                       primary_conninfo needs a dbname)";
            return unready("absent", why.to_owned(), true);
        }
        if self.temporary {
            let why = "its copy is temporary still, and would vanish: it becomes good when the slot \
                       has moved past what the standby keeps, for which transactions that are open \
                       must end. On the primary: SELECT pg_log_standby_snapshot();";
            return unready("temporary", why.to_owned(), true);
        }
        if stuck {
            let at = self.confirmed_flush.unwrap_or_default();
            let why = format!("its copy stays at {at} while the slot moves: its log says why");
            return unready("stuck", why, false);
        }
        if self.confirmed_flush > primary.confirmed_flush {
            let why = "its copy is further on than the slot itself: rows would be passed over";
            return unready("ahead", why.to_owned(), true); // it was looked at later, too
        }
        None
    }

    /// By slots of its own, of which any ends the worker for all.
    fn blocked(&self, primary: &Self, name: &str) -> Option<Unready> {
        let both = |own: &&String| primary.failover_slots.contains(own);
        let mut names: Vec<_> = self.own.iter().filter(both).collect();
        names.sort_by_key(|own| (*own != name, own.as_str()));
        if names.is_empty() {
            return None;
        }
        let drop = |name: &&String| format!("SELECT pg_drop_replication_slot({});", literal(name));
        let sql: Vec<_> = names.iter().map(drop).collect();
        let quoted: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
        let read = match self.active_pid {
            Some(pid) if self.own.iter().any(|own| own == name) => {
                format!(" (process {pid} reads it)")
            }
            _ => String::new(),
        };
        let why = format!(
            "it has {} of its own{read}, as a former primary does, and so PostgreSQL copies no slot \
             there. On that server: {}",
            quoted.join(" and "),
            sql.join(" ")
        );
        Some(Unready { kind: "blocked", why, passing: false })
    }

    fn set_wrong(&self, primary: &Self) -> Option<Unready> {
        let unready = |kind, why| Some(Unready { kind, why, passing: false });
        if !self.hot_standby_feedback {
            return unready("hot_standby_feedback", setting("hot_standby_feedback"));
        }
        if self.primary_slot_name.is_empty() {
            return unready("primary_slot_name", primary.slot_for_standby());
        }
        if self.dbname == Some(false) {
            return unready("dbname", DBNAME.to_owned());
        }
        None
    }

    /// Of a primary: by which slot a standby may follow it that follows by none.
    fn slot_for_standby(&self) -> String {
        let begin = "primary_slot_name is not set there";
        let set = |name: &str| {
            let name = literal(name);
            format!("ALTER SYSTEM SET primary_slot_name = {name}; SELECT pg_reload_conf();")
        };
        if let [one] = self.unread.as_slice() {
            return format!("{begin}, and nobody reads {one:?} of the primary: {}", set(one));
        }
        let taken: Vec<_> =
            [&self.physical, &self.own, &self.failover_slots].into_iter().flatten().collect();
        let mut names = (1..).map(|number: u32| format!("standby_{number}"));
        let name = names.find(|name| !taken.contains(&name)).unwrap_or_default();
        let make = format!("pg_create_physical_replication_slot({}, true)", literal(&name));
        format!("{begin}. On the primary: SELECT {make}; on that server: {}", set(&name))
    }

    /// What makes walsenders wait for this standby too; `None`: they do, or it does not follow this
    /// primary by a slot.
    #[must_use]
    pub fn unsynchronized(&self, primary: &Self) -> Option<String> {
        let name = &self.primary_slot_name;
        let known = primary.failover && self.in_recovery && primary.physical.contains(name);
        if !known || primary.synchronized.contains(name) {
            return None;
        }
        let mut names: Vec<_> = primary.synchronized.iter().map(String::as_str).collect();
        names.push(name);
        Some(synchronized_sql(&names))
    }
}

// What it is set to is nobody's business: there may be a password in it.
const DBNAME: &str = "primary_conninfo has no dbname there. On that server, run what this gives (it is for \
    one that is no URI): SELECT format('ALTER SYSTEM SET primary_conninfo = %L;', \
    current_setting('primary_conninfo') || ' dbname=postgres'); and then: SELECT pg_reload_conf();";

fn setting(name: &str) -> String {
    format!("{name} is off there: ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary() -> Sight {
        Sight {
            system_identifier: 7,
            started: "then".into(),
            version_num: 17_00_10,
            present: true,
            failover: true,
            confirmed_flush: Some(Lsn::new(100)),
            failover_slots: vec!["s".into(), "t".into()],
            physical: vec!["sb1".into(), "sb2".into()],
            ..Sight::default()
        }
    }

    fn standby() -> Sight {
        Sight {
            in_recovery: true,
            synced: true,
            started: "later".into(),
            confirmed_flush: Some(Lsn::new(90)),
            sync_replication_slots: true,
            hot_standby_feedback: true,
            primary_slot_name: "sb1".into(),
            ..primary()
        }
    }

    #[track_caller]
    fn kind(sight: &Sight) -> &'static str {
        sight.unready(&primary(), "s", false).map_or("", |unready| unready.kind)
    }

    #[test]
    fn a_copy_that_is_kept_is_good_and_lies_behind() {
        assert_eq!(standby().unready(&primary(), "s", false), None);
        assert_eq!(standby().behind(&primary()), Some(10));
        assert!(!standby().is(&primary()) && primary().is(&primary()));
        assert_eq!(standby().unready(&primary(), "s", true).unwrap().kind, "stuck");
    }

    #[test]
    fn each_reason_is_named_with_what_mends_it() {
        let absent = Sight { present: false, synced: false, confirmed_flush: None, ..standby() };
        assert_eq!(kind(&absent), "absent");
        assert!(absent.unready(&primary(), "s", false).unwrap().passing);
        assert_eq!(kind(&Sight { temporary: true, ..standby() }), "temporary");
        let lost = Some("wal_removed".to_owned());
        assert_eq!(kind(&Sight { invalidation_reason: lost, ..standby() }), "invalid");
        assert_eq!(kind(&Sight { system_identifier: 8, ..standby() }), "cluster");
        assert_eq!(kind(&Sight { in_recovery: false, ..standby() }), "writes");
        let feedback = Sight { hot_standby_feedback: false, ..standby() };
        assert_eq!(kind(&feedback), "hot_standby_feedback");
        let slotless = Sight { primary_slot_name: String::new(), ..standby() };
        assert_eq!(kind(&slotless), "primary_slot_name");
        let why = |unread: &[&str]| {
            let unread = unread.iter().map(|name| (*name).to_owned()).collect();
            let physical = vec!["standby_1".to_owned()];
            slotless.unready(&Sight { unread, physical, ..primary() }, "s", false).unwrap().why
        };
        assert!(why(&["sb2"]).contains(": ALTER SYSTEM SET primary_slot_name = 'sb2';"));
        let made = "pg_create_physical_replication_slot('standby_2', true); on that server: ALTER \
                    SYSTEM SET primary_slot_name = 'standby_2';";
        for unread in [&[][..], &["sb1", "sb2"]] {
            assert!(why(unread).contains(made), "{}", why(unread));
        }
        assert_eq!(kind(&Sight { dbname: Some(false), ..standby() }), "dbname");
        let ahead = Sight { confirmed_flush: Some(Lsn::new(101)), ..standby() };
        assert_eq!(kind(&ahead), "ahead");
    }

    #[test]
    fn synchronisation_may_be_off_where_somebody_calls_it_now_and_then() {
        let off = Sight { sync_replication_slots: false, ..standby() };
        assert_eq!(kind(&off), "");
        let stuck = off.unready(&primary(), "s", true).unwrap();
        assert_eq!(stuck.kind, "sync_replication_slots");
        assert!(stuck.why.contains("ALTER SYSTEM SET sync_replication_slots = on;"));
        assert_eq!(kind(&Sight { present: false, ..off }), "sync_replication_slots");
    }

    #[test]
    fn a_former_primarys_own_slot_is_named_and_any_other_that_blocks_it_too() {
        let own = |names: &[&str]| Sight {
            synced: false,
            own: names.iter().map(|name| (*name).to_owned()).collect(),
            ..standby()
        };
        let blocked = own(&["s"]).unready(&primary(), "s", false).unwrap();
        assert_eq!(blocked.kind, "blocked");
        assert!(blocked.why.ends_with("SELECT pg_drop_replication_slot('s');"), "{}", blocked.why);
        let other = own(&["free", "t"]).unready(&primary(), "s", false).unwrap();
        assert!(other.why.ends_with("server: SELECT pg_drop_replication_slot('t');"));
        assert_eq!(kind(&own(&["free"])), "");
    }

    #[test]
    fn without_failover_a_slot_that_somebody_else_keeps_there_is_as_good() {
        for version_num in [16_00_04, 17_00_10] {
            let primary =
                Sight { failover: false, failover_slots: vec![], version_num, ..primary() };
            let kept = Sight { synced: false, own: vec!["s".into()], version_num, ..standby() };
            assert_eq!(kept.unready(&primary, "s", false), None);
            let none = Sight { present: false, confirmed_flush: None, ..kept };
            let why = none.unready(&primary, "s", false).unwrap().why;
            let word = if version_num < SYNCHRONISES { "Patroni" } else { "(FAILOVER true);" };
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn walsenders_are_to_wait_for_a_standby_that_has_the_slot() {
        let sql = standby().unsynchronized(&primary()).unwrap();
        assert!(sql.contains("synchronized_standby_slots = 'sb1';"), "{sql}");
        let other = Sight { synchronized: vec!["sb2".into()], ..primary() };
        assert!(standby().unsynchronized(&other).unwrap().contains("'sb2,sb1'"));
        let both = Sight { synchronized: vec!["sb1".into()], ..primary() };
        assert_eq!(standby().unsynchronized(&both), None);
        let cascaded = Sight { primary_slot_name: "elsewhere".into(), ..standby() };
        assert_eq!(cascaded.unsynchronized(&primary()), None);
    }
}
