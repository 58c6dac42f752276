//! Where a walsender stands, for one that sends nothing; above all one that waits for a standby.
//!
//! From 17 on the walsender of a failover slot sends nothing that the standbys behind
//! `synchronized_standby_slots` have not confirmed. A name there that nobody reads, that does not exist
//! (after a promotion: the new primary's own), or that is a logical slot's stalls it for good. Seen on
//! 17.10 and 18.4: `wait_event` is `WaitForStandbyConfirmation`, which a role may see of its own
//! walsender; the slot and `sent_lsn` stand still; the walsender goes on sending keepalives, so that
//! the connection lives.

use tokio_postgres::Client;

use super::command::literal;
use crate::{
    lsn::Lsn,
    pg::catalog::{self, field},
};

/// See the module.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Walsender {
    /// Its process.
    pub pid: Option<i32>,
    /// Whether it waits until a standby has confirmed.
    pub waits_for_standby: bool,
    /// How far it has read, where the role may see that.
    pub sent: Option<Lsn>,
    /// Bytes of WAL from there on.
    pub behind: u64,
    /// `synchronized_standby_slots`, in its order.
    pub named: Vec<(String, Named)>,
}

/// What a name in `synchronized_standby_slots` is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Named {
    /// A physical slot that a standby reads.
    Read,
    /// A physical slot that nobody reads.
    Unread,
    /// No slot.
    Missing,
    /// A logical slot.
    Logical,
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
    let names = field::<Option<Vec<String>>>(&row, 4, what)?.unwrap_or_default();
    let kinds = field::<Option<Vec<String>>>(&row, 5, what)?.unwrap_or_default();
    let kind = |kind: String| match kind.as_str() {
        "read" => Named::Read,
        "unread" => Named::Unread,
        "logical" => Named::Logical,
        _ => Named::Missing,
    };
    Ok(Walsender {
        pid: field(&row, 0, what)?,
        waits_for_standby: field(&row, 1, what)?,
        sent,
        behind: sent.zip(end).map_or(0, |(sent, end)| end.since(sent)),
        named: names.into_iter().zip(kinds.into_iter().map(kind)).collect(),
    })
}

const WALSENDER: &str = "
SELECT s.active_pid, coalesce(a.wait_event = 'WaitForStandbyConfirmation', false), r.sent_lsn::text,
       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END::text,
       n.names, n.kinds
FROM pg_replication_slots s
LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
LEFT JOIN LATERAL (
    SELECT array_agg(named.name ORDER BY named.at) AS names,
           array_agg(CASE WHEN p.slot_name IS NULL THEN 'missing' WHEN p.slot_type <> 'physical' THEN 'logical'
                          WHEN p.active THEN 'read' ELSE 'unread' END ORDER BY named.at) AS kinds
    FROM (SELECT btrim(part, ' \"') AS name, at
          FROM unnest(string_to_array(current_setting('synchronized_standby_slots', true), ','))
               WITH ORDINALITY AS parts (part, at)) named
    LEFT JOIN pg_replication_slots p ON p.slot_name = named.name
    WHERE named.name <> '') n ON true
WHERE s.slot_name = $1::text";

impl Walsender {
    /// Why nothing comes from it, and what to do.
    #[must_use]
    pub fn explained(&self) -> String {
        let Some(pid) = self.pid else {
            return "no walsender reads the slot now".to_owned();
        };
        if self.waits_for_standby || self.dead().next().is_some() {
            return format!("walsender {pid} {}", self.waits());
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

    /// For which standby it waits, and the statement that ends it.
    #[must_use]
    pub fn waits(&self) -> String {
        let dead: Vec<_> = self.dead().map(|(name, kind)| said(name, *kind)).collect();
        if dead.is_empty() {
            let names: Vec<_> = self.named.iter().map(|(name, _)| format!("{name:?}")).collect();
            let which = match names.as_slice() {
                [] => "a standby of synchronized_standby_slots".to_owned(),
                names => format!("the standby that reads {}", names.join(" or ")),
            };
            return format!(
                "sends nothing until {which} has confirmed it (pg_replication_slots.restart_lsn)"
            );
        }
        let alive: Vec<_> = self
            .named
            .iter()
            .filter(|(_, kind)| *kind == Named::Read)
            .map(|(name, _)| name.as_str())
            .collect();
        format!(
            "sends nothing until {} has confirmed it: start that standby, or take it out of the \
             setting: {}",
            dead.join(" and "),
            synchronized_sql(&alive)
        )
    }

    fn dead(&self) -> impl Iterator<Item = &(String, Named)> {
        self.named.iter().filter(|(_, kind)| *kind != Named::Read)
    }
}

fn said(name: &str, kind: Named) -> String {
    let is = match kind {
        Named::Read => "which a standby reads",
        Named::Unread => "which synchronized_standby_slots names and nobody reads,",
        Named::Missing => "which synchronized_standby_slots names and which is no slot here,",
        Named::Logical => "which synchronized_standby_slots names and which is no standby's slot,",
    };
    format!("{name:?}, {is}")
}

/// What makes walsenders wait for these, and for no others.
pub(super) fn synchronized_sql(names: &[&str]) -> String {
    let list = literal(&names.join(","));
    format!("ALTER SYSTEM SET synchronized_standby_slots = {list}; SELECT pg_reload_conf();")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(named: &[(&str, Named)]) -> Walsender {
        let named = named.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
        Walsender { pid: Some(9), named, ..Walsender::default() }
    }

    #[test]
    fn a_stall_is_explained_by_what_is_known_and_names_what_ends_it() {
        let one = of(&[("sb1", Named::Unread), ("sb2", Named::Read)]).explained();
        assert!(one.contains("until \"sb1\", which synchronized_standby_slots names"), "{one}");
        let sql = "ALTER SYSTEM SET synchronized_standby_slots = 'sb2'; SELECT pg_reload_conf();";
        assert!(one.ends_with(sql), "{one}");
        let two = of(&[("sb1", Named::Missing), ("s", Named::Logical)]).explained();
        assert!(two.contains("\"sb1\"") && two.contains("no slot here, and \"s\""), "{two}");
        assert!(two.contains("synchronized_standby_slots = ''"), "{two}");
        let waits = |named| Walsender { waits_for_standby: true, ..of(named) }.explained();
        let slow = waits(&[]);
        assert!(slow.contains("until a standby of synchronized_standby_slots has"), "{slow}");
        let slow = waits(&[("sb1", Named::Read)]);
        assert!(slow.contains("until the standby that reads \"sb1\" has confirmed"), "{slow}");
    }

    #[test]
    fn one_that_waits_for_nobody_is_told_by_how_far_it_is() {
        let busy = Walsender { sent: Some(Lsn::new(0x10)), behind: 77, ..of(&[]) }.explained();
        assert!(busy.contains("walsender 9 is at 0/10, 77 bytes behind"), "{busy}");
        let done = Walsender { sent: Some(Lsn::new(0x10)), ..of(&[]) }.explained();
        assert!(done.contains("has sent all"), "{done}");
        assert_eq!(Walsender::default().explained(), "no walsender reads the slot now");
    }
}
