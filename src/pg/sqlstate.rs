//! What to do about each SQLSTATE: one table, every class of the manual's [appendix A] judged.
//!
//! The question is always whether the same attempt can end otherwise later. A code that comes back
//! at every attempt halts; what a restart, a failover, another client or a free disk heals is
//! waited for.
//!
//! [appendix A]: https://www.postgresql.org/docs/current/errcodes-appendix.html

use crate::retry::{Disposition, Exit};

/// What was being done: some codes mean another thing then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum During {
    /// From the startup packet to the first `ReadyForQuery`.
    Login,
    /// A statement or a replication command that is no `START_REPLICATION`.
    Sql,
    /// `START_REPLICATION` and all that is sent after it.
    Streaming,
}

/// What to do about an error with this code.
#[must_use]
pub fn disposition(code: &str, during: During) -> Disposition {
    one(code, during).or_else(|| class(code, during)).unwrap_or(Disposition::Retry)
}

const fn halt(exit: Exit) -> Option<Disposition> {
    Some(Disposition::Halt(exit))
}

/// The codes that are judged otherwise than their class.
fn one(code: &str, during: During) -> Option<Disposition> {
    use During::{Login, Sql, Streaming};
    let retry = Some(Disposition::Retry);
    match (code, during) {
        // A pooler's answer to startup options that it does not pass on.
        ("08P01", Login) => halt(Exit::Unavailable),
        // A lost race for the name of a publication or slot: the next attempt finds it made.
        ("23505", Sql) | ("42710" | "42P07", _) => retry,
        // A primary that becomes a standby, and a slot or publication in somebody else's hands.
        ("25006" | "55006" | "55P03", _) => retry,
        // Startup options that the server does not know, or not with this value.
        ("42704" | "55P02", Login) => halt(Exit::Config),
        // The slot or the publication is gone; what it held is lost.
        ("42704" | "58P01", Streaming) => halt(Exit::Gap),
        // Invalidated, or it lost its WAL. Whether `wal_level` is the cause is asked before.
        ("55000", Streaming) => halt(Exit::Gap),
        // No right: not a lack of the object, as the rest of class 42.
        ("42501", _) => halt(Exit::Permission),
        // The database was dropped under us.
        ("57P04", _) => halt(Exit::Unavailable),
        _ => None,
    }
}

/// The classes, in the manual's order.
fn class(code: &str, during: During) -> Option<Disposition> {
    let retry = Some(Disposition::Retry);
    // What the output plugin cannot decode, it cannot decode the next time either.
    let decoding = match during {
        During::Streaming => halt(Exit::Data),
        During::Login => halt(Exit::Config),
        During::Sql => halt(Exit::Unavailable),
    };
    match code.get(..2)? {
        // Success, warnings, no data, statement not yet complete: said as an error, none is one.
        "00" | "01" | "02" | "03" => retry,
        // Connection; triggered action (a login trigger may heal).
        "08" | "09" => retry,
        // Feature not supported: an older or another server.
        "0A" | "0B" => halt(Exit::Unavailable),
        // Locators, grantors, roles, handlers.
        "0F" => halt(Exit::Software),
        "0L" | "0P" => halt(Exit::Permission),
        "0Z" | "10" => halt(Exit::Unavailable),
        // Case not found, cardinality (of the user's expressions, as a row filter); data, constraints.
        "20" | "21" | "22" | "23" => decoding,
        // Cursor and transaction state: statements in the wrong order.
        "24" | "25" | "26" | "27" | "2B" | "2D" => halt(Exit::Software),
        // Login.
        "28" => halt(Exit::Permission),
        // Routines, cursor names: expressions of the user's.
        "2F" | "38" | "39" => decoding,
        "34" | "3B" => halt(Exit::Software),
        // No such database, no such schema.
        "3D" | "3F" => halt(Exit::Unavailable),
        // Serialisation, deadlock: made for trying again.
        "40" => retry,
        // Syntax or access rule: objects that are missing, or a server that is no PostgreSQL.
        "42" => match during {
            During::Streaming => halt(Exit::Gap),
            During::Login | During::Sql => halt(Exit::Unavailable),
        },
        "44" => decoding,
        // Resources: disk, memory, connections, slots, senders.
        "53" => retry,
        // Program limit: the same row exceeds it again.
        "54" => decoding,
        // Not in the state that is needed: wal_level, recovery.
        "55" => halt(Exit::Unavailable),
        // Operator intervention: restarts, terminated backends, cancelled statements.
        // The server's system: I/O; snapshot too old; its configuration file.
        "57" | "58" | "72" | "F0" => retry,
        // Foreign data; PL/pgSQL (an event trigger that refuses).
        "HV" | "P0" => halt(Exit::Unavailable),
        // Internal: an output plugin's elog, or a damaged page. A restart may help elsewhere.
        "XX" => match during {
            During::Streaming => halt(Exit::Data),
            During::Login | During::Sql => retry,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appendix A of PostgreSQL 18.
    const CLASSES: [&str; 44] = [
        "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21",
        "22", "23", "24", "25", "26", "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D",
        "3F", "40", "42", "44", "53", "54", "55", "57", "58", "72", "F0", "HV", "P0", "XX",
    ];

    #[test]
    fn judges_every_class_of_the_manual() {
        for name in CLASSES {
            for during in [During::Login, During::Sql, During::Streaming] {
                assert!(class(&format!("{name}000"), during).is_some(), "class {name}, {during:?}");
            }
        }
    }

    #[test]
    fn waits_for_what_may_heal() {
        for code in [
            "08006", "40001", "53100", "53300", "53400", "55006", "57014", "57P01", "57P02",
            "57P03", "57P05", "25006",
        ] {
            for during in [During::Login, During::Sql, During::Streaming] {
                assert_eq!(disposition(code, during), Disposition::Retry, "{code}, {during:?}");
            }
        }
    }

    #[test]
    fn halts_for_what_only_a_person_can_heal() {
        use During::{Login, Sql, Streaming};
        for (code, during, exit) in [
            ("28P01", Login, Exit::Permission),
            ("28000", Login, Exit::Permission),
            ("42501", Sql, Exit::Permission),
            ("42501", Streaming, Exit::Permission),
            ("3D000", Login, Exit::Unavailable),
            ("42704", Login, Exit::Config),
            ("22023", Login, Exit::Config),
            ("42704", Sql, Exit::Unavailable),
            ("42704", Streaming, Exit::Gap),
            ("58P01", Streaming, Exit::Gap),
            ("55000", Streaming, Exit::Gap),
            ("55000", Sql, Exit::Unavailable),
            ("22021", Streaming, Exit::Data),
            ("XX000", Streaming, Exit::Data),
            ("54000", Streaming, Exit::Data),
        ] {
            assert_eq!(disposition(code, during), Disposition::Halt(exit), "{code}, {during:?}");
        }
    }

    #[test]
    fn waits_when_the_code_is_none() {
        for code in ["", "4", "ZZ999", "é"] {
            assert_eq!(disposition(code, During::Sql), Disposition::Retry, "{code}");
        }
    }
}
