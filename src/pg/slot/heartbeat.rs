//! A heartbeat: a logical message in the WAL, of which the slot gives back every one.
//!
//! It needs no table and stands in no publication. It is transactional, as only the end of a
//! transaction moves a slot; and it is committed without waiting for a synchronous standby, as it
//! is to tell how the stream is, not the standbys.
//!
//! Source: `pg_logical_emit_message` in
//! <https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION>

use tokio_postgres::{Client, error::SqlState};

use super::command::quoted;

/// The prefix of ours, and of every other slot's.
pub const PREFIX: &str = "pgsluice";

/// What a content begins with; what else bears the prefix is somebody's own.
const WORD: &str = "heartbeat";

/// Whose it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Heartbeat<'a> {
    /// The slot that it is for.
    pub slot: &'a str,
    /// Which process of that slot's wrote it: a number by chance.
    pub process: u64,
    /// Which of that process's it is, from 1.
    pub number: u64,
}

impl Heartbeat<'_> {
    /// `heartbeat SLOT PROCESS NUMBER`.
    #[must_use]
    pub fn content(&self) -> String {
        let Self { slot, process, number } = self;
        format!("{WORD} {slot} {process:016x} {number}")
    }
}

/// What a logical message is to us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message<'a> {
    /// A heartbeat.
    Ours(Heartbeat<'a>),
    /// A heartbeat of a version that writes it otherwise.
    Unread,
    /// None: an application wrote it.
    Foreign,
}

/// Whether a logical message is a heartbeat, of whichever slot.
#[must_use]
pub fn read<'a>(prefix: &str, content: &'a [u8]) -> Message<'a> {
    if prefix != PREFIX {
        return Message::Foreign;
    }
    let Ok(text) = std::str::from_utf8(content) else { return Message::Foreign };
    let mut words = text.split(' ');
    if words.next() != Some(WORD) {
        return Message::Foreign;
    }
    let read = (|| {
        let slot = words.next()?;
        let process = u64::from_str_radix(words.next()?, 16).ok()?;
        let number = words.next()?.parse().ok()?;
        Some(Heartbeat { slot, process, number })
    })();
    read.filter(|_| words.next().is_none()).map_or(Message::Unread, Message::Ours)
}

/// What became of one that was to be written.
#[derive(Debug)]
pub enum Written {
    /// It is in the WAL.
    Yes,
    /// The role may not, and what lets it.
    MayNot(String),
    /// The server takes no writes.
    ReadOnly,
}

/// Settings of the session that writes them.
pub const SETTINGS: &str = "SET synchronous_commit = local";

/// Writes one.
///
/// # Errors
/// The connection is of no use any more, or the server has trouble.
pub async fn write(
    client: &Client,
    heartbeat: Heartbeat<'_>,
    version_num: u32,
    role: &str,
) -> Result<Written, tokio_postgres::Error> {
    const SQL: &str = "SELECT pg_logical_emit_message(true, $1::text, $2::text) IS NOT NULL";
    let content = heartbeat.content();
    let Err(error) = client.execute(SQL, &[&PREFIX, &content]).await else {
        return Ok(Written::Yes);
    };
    match error.code() {
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
            Ok(Written::MayNot(grant(version_num, role)))
        }
        Some(code) if *code == SqlState::READ_ONLY_SQL_TRANSACTION => Ok(Written::ReadOnly),
        _ => Err(error),
    }
}

/// Everybody may, unless it was taken away; since 17 it has one argument more.
fn grant(version_num: u32, role: &str) -> String {
    let flush = if version_num >= 170_000 { ", boolean" } else { "" };
    let role = quoted(role);
    format!(
        "GRANT EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text{flush}) TO {role};"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_it_is_written() {
        let one = Heartbeat { slot: "cdc_slot", process: 0xab, number: 7 };
        assert_eq!(one.content(), "heartbeat cdc_slot 00000000000000ab 7");
        assert_eq!(read(PREFIX, one.content().as_bytes()), Message::Ours(one));
    }

    #[test]
    fn what_an_application_wrote_is_its_own() {
        let content = Heartbeat { slot: "s", process: 1, number: 1 }.content();
        assert_eq!(read("pgsluice2", content.as_bytes()), Message::Foreign);
        for foreign in [&b"hello"[..], b"", b"heartbeats s 1 1", b"\xff"] {
            assert_eq!(read(PREFIX, foreign), Message::Foreign, "{foreign:?}");
        }
    }

    #[test]
    fn that_of_another_version_is_no_message_either() {
        for other in ["heartbeat", "heartbeat s", "heartbeat s x 1", "heartbeat s 1 1 more"] {
            assert_eq!(read(PREFIX, other.as_bytes()), Message::Unread, "{other:?}");
        }
    }

    #[test]
    fn the_grant_is_that_of_the_version() {
        assert!(grant(160_004, "cdc").ends_with("(boolean, text, text) TO \"cdc\";"));
        assert!(grant(170_000, "My role").ends_with("text, boolean) TO \"My role\";"));
    }
}
