//! What the catalogue answers to exactly the questions that we ask.

use super::{SYSTEM, State, TABLES, bytes::texts};

/// Types of the columns, and rows.
pub type Answer = (Vec<u32>, Vec<Vec<Option<Vec<u8>>>>);

const BOOL: u32 = 16;
const INT8: u32 = 20;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const TEXTS: u32 = 1009;
const OID: u32 = 26;

fn text(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

fn number(number: u64) -> Option<Vec<u8>> {
    Some(number.to_be_bytes().to_vec())
}

fn bool(value: bool) -> Option<Vec<u8>> {
    Some(vec![u8::from(value)])
}

pub fn lsn(at: u64) -> String {
    format!("{:X}/{:X}", at >> 32, at & 0xffff_ffff)
}

/// Types of the parameters.
pub fn parameters(sql: &str) -> Vec<u32> {
    if !sql.contains("$1") {
        Vec::new()
    } else if sql.contains("ANY ($1::text[])") {
        vec![TEXTS]
    } else if sql.contains("$1::text") {
        vec![TEXT]
    } else if sql.contains("$1::int4") {
        vec![INT4]
    } else {
        vec![OID]
    }
}

/// `None`: nobody has told this model of such a question.
pub(super) fn answer(state: &State, sql: &str) -> Option<Answer> {
    let has = |part: &str| sql.contains(part);
    if has("server_version_num") {
        let row = vec![
            number(170_010),
            text("logical"),
            number(SYSTEM),
            bool(false),
            number(state.timeline.into()),
            number(10_000),
            text("cdc"),
            text("cdc"),
        ];
        return Some((vec![INT8, TEXT, INT8, BOOL, INT8, INT8, TEXT, TEXT], vec![row]));
    }
    if has("FROM pg_stat_activity a") {
        let row = vec![text("pgsluice"), text("local"), text("2027-01-15T08:00:00Z"), text("now")];
        let there = state.active.map(|_| row);
        return Some((vec![TEXT; 4], there.into_iter().collect()));
    }
    if has("FROM pg_replication_slots") {
        return Some(slot(state));
    }
    if has("puballtables, pubtruncate") {
        let row = vec![text("cdc"), bool(false), bool(true)];
        return Some((vec![TEXT, BOOL, BOOL], vec![row]));
    }
    if has("to_regclass") {
        return Some((vec![BOOL], vec![vec![bool(true)]]));
    }
    if has("SELECT DISTINCT s.nspname::text") {
        return Some((vec![TEXT], Vec::new()));
    }
    if has("SELECT DISTINCT schemaname::text") {
        let rows = TABLES.map(|name| vec![text("public"), text(name)]).to_vec();
        return Some((vec![TEXT, TEXT], rows));
    }
    if has("c.relreplident::text") {
        return Some((vec![TEXT, TEXT, TEXT, BOOL, BOOL], Vec::new()));
    }
    if has("pr.prattrs") {
        let types = [TEXT, TEXT, BOOL, TEXT, BOOL, BOOL, TEXT, TEXT, TEXTS, TEXTS, TEXTS, TEXT];
        return Some((types.to_vec(), Vec::new()));
    }
    if has("pg_current_wal_flush_lsn") {
        return Some((vec![TEXT], vec![vec![text(&lsn(state.end))]]));
    }
    if has("SELECT a.attname::text") {
        return Some((vec![TEXT], vec![vec![text("id")]]));
    }
    None
}

fn slot(state: &State) -> Answer {
    let (pid, confirmed) = (state.active.map(|pid| pid.to_string()), lsn(state.confirmed));
    let slot = [
        ("plugin", Some("pgoutput")),
        ("database", Some("cdc")),
        ("restart_lsn", Some(confirmed.as_str())),
        ("confirmed_flush_lsn", Some(confirmed.as_str())),
        ("wal_status", Some("reserved")),
        ("active_pid", pid.as_deref()),
        ("two_phase", Some("false")),
    ];
    let names: Vec<_> = slot.iter().map(|(name, _)| Some(*name)).collect();
    let values: Vec<_> = slot.iter().map(|(_, value)| *value).collect();
    let row = vec![Some(texts(&names)), Some(texts(&values)), text(&lsn(state.end)), bool(false)];
    let rows = if state.missing { Vec::new() } else { vec![row] };
    (vec![TEXTS, TEXTS, TEXT, BOOL], rows)
}
