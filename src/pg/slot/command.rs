//! Text for the replication connection, and quoting.

/// Makes a slot that PostgreSQL drops when the connection ends: for `tail`.
///
/// Waits, like every slot's creation, for the transactions that are open.
/// <https://www.postgresql.org/docs/current/protocol-replication.html>
#[must_use]
pub fn create_temporary(name: &str, version_num: u32) -> String {
    let snapshot = if version_num < 150_000 { "NOEXPORT_SNAPSHOT" } else { "(SNAPSHOT 'nothing')" };
    format!("CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput {snapshot}", quoted(name))
}

/// Makes a slot that stays, on a standby. A walsender holds no snapshot while it waits, as a function of
/// SQL does: that would hold up the WAL that it waits for, where rows are removed in it.
pub(super) fn create_on_standby(name: &str) -> String {
    format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput (SNAPSHOT 'nothing')", quoted(name))
}

/// Starts the stream from where the slot stands. A start above that position skips in silence, so
/// none is ever given; messages are always asked for, as a row's index counts them.
#[must_use]
pub fn start_replication(slot: &str, publications: &[String]) -> String {
    let names: Vec<_> = publications.iter().map(|name| quoted(name)).collect();
    format!(
        "START_REPLICATION SLOT {} LOGICAL 0/0 \
         (proto_version '1', publication_names {}, messages 'true')",
        quoted(slot),
        // The replication grammar knows no backslash: only quotes are doubled.
        format_args!("'{}'", names.join(",").replace('\'', "''")),
    )
}

/// Asks a walsender whether the slot is there: 1 or 0. A copy that a standby keeps does not count, as
/// it cannot be read.
#[must_use]
pub fn count_of(slot: &str) -> String {
    format!(
        "SELECT count(*) FROM pg_replication_slots s WHERE slot_name = {} AND NOT \
         (pg_is_in_recovery() AND coalesce(to_jsonb(s) ->> 'synced', 'false') = 'true')",
        literal(slot)
    )
}

/// An identifier in quotes, which no list of keywords can spoil.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string for SQL, as `quote_literal` writes it: right whatever `standard_conforming_strings` is.
pub(super) fn literal(text: &str) -> String {
    let escape = if text.contains('\\') { "E" } else { "" };
    format!("{escape}'{}'", text.replace('\\', r"\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publication_names_are_identifiers_inside_a_literal() {
        let names = ["a,b", "o'clock", "say \"hi\"", r"back\slash", "Größe"].map(String::from);
        assert_eq!(
            start_replication("cdc_slot", &names),
            "START_REPLICATION SLOT \"cdc_slot\" LOGICAL 0/0 (proto_version '1', publication_names \
             '\"a,b\",\"o''clock\",\"say \"\"hi\"\"\",\"back\\slash\",\"Größe\"', messages 'true')"
        );
    }

    #[test]
    fn version_14_has_its_own_word_for_no_snapshot() {
        let tail = create_temporary("1tail", 140_023);
        assert!(tail.ends_with(r#""1tail" TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT"#));
        assert!(create_temporary("tail", 150_000).ends_with("pgoutput (SNAPSHOT 'nothing')"));
    }

    #[test]
    fn literals_are_right_under_either_rule_for_backslashes() {
        assert_eq!(literal("o'clock"), "'o''clock'");
        assert_eq!(literal(r"a\'"), r"E'a\\'''");
    }
}
