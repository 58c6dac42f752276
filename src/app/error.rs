//! Why the process ends, and an error in words.

use std::{fmt, time::Duration};

use super::missing::{LastSeen, Unasked};
use crate::{
    lsn::Lsn,
    pg::{session, stream},
    pipeline,
    retry::{Disposition, Exit},
    route,
    sink::kafka,
};

/// Why the process ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No session.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// A session ended.
    #[error("the stream of slot {slot} ended")]
    Stream {
        /// The slot.
        slot: String,
        /// Why.
        source: Box<pipeline::Error>,
    },
    /// There is no slot, and there was one: whoever keeps slots on standbys may bring it yet.
    #[error(
        "replication slot {slot:?} does not exist on {server}, and {} for slot.missing_timeout ({}) it is \
         waited for, as it may be brought there yet",
        Before(.seen, .unasked), Span(*.wait)
    )]
    Missing {
        /// Its name.
        slot: String,
        /// Who answered.
        server: String,
        /// Where it was last.
        seen: Option<LastSeen>,
        /// Kafka could not be asked whether it was ever there.
        unasked: Option<Box<Unasked>>,
        /// `slot.missing_timeout`.
        wait: Duration,
    },
    /// There is no slot, and there was one.
    #[error(
        "replication slot {slot:?} does not exist on {server}, and Kafka holds what was committed up \
         to {last}{}: what was committed since then is lost to the stream. To begin with what is \
         committed from now on, accepting that gap, once: pgsluice run --accept-gap {slot}{}",
        Seen(.seen),
        if *.create { String::new() } else { format!(", after {sql}") }
    )]
    Gone {
        /// Its name.
        slot: String,
        /// Who answered.
        server: String,
        /// Where it was last.
        seen: Option<LastSeen>,
        /// Our last position.
        last: Lsn,
        /// `slot.create`.
        create: bool,
        /// What makes it.
        sql: String,
    },
    /// There is no slot, and nothing tells whether there was one.
    #[error(
        "replication slot {slot:?} does not exist on {server}, and slot.create makes one only where Kafka holds \
         nothing of it: {}. Grant Read on that group; or, if this is the first start, make it: {}",
        .unasked.why, .unasked.sql
    )]
    Untold {
        /// Its name.
        slot: String,
        /// Who answered.
        server: String,
        /// Why not, and what makes a first one.
        unasked: Box<Unasked>,
    },
    /// Another server has the slot, or may have it.
    #[error(
        "replication slot {slot:?} does not exist on {host}; {elsewhere}. If it is lost for good, begin with \
         what is committed from now on, accepting that gap: {sql} and then, once: pgsluice run \
         --accept-gap {slot}"
    )]
    Elsewhere {
        /// Its name.
        slot: String,
        /// Where it is not.
        host: String,
        /// Where it is or may be.
        elsewhere: String,
        /// What makes it.
        sql: String,
    },
    /// A topic that cannot be used.
    #[error(transparent)]
    Topic(#[from] pipeline::Error),
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The configuration's routes.
    #[error(transparent)]
    Route(#[from] route::Error),
    /// Stopped while there was no connection to confirm by.
    #[error(
        "stopped without a connection to PostgreSQL: what was committed from {from} on will be \
         sent again"
    )]
    Unconfirmed {
        /// The position that PostgreSQL knows.
        from: Lsn,
    },
}

impl Error {
    /// No `_` arm: a new variant does not compile until someone has judged it.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Session(error) => error.disposition(),
            Self::Stream { source, .. } => source.disposition(),
            Self::Topic(error) => error.disposition(),
            Self::Kafka(error) => error.disposition(),
            Self::Route(error) => error.disposition(),
            Self::Missing { .. } => Disposition::Retry,
            Self::Gone { .. } => Disposition::Halt(Exit::Gap),
            Self::Elsewhere { .. } => Disposition::Retry,
            Self::Untold { .. } => Disposition::Halt(Exit::Permission),
            Self::Unconfirmed { .. } => Disposition::Halt(Exit::Drain),
        }
    }

    /// Whether PostgreSQL said nothing for too long.
    pub(super) fn silent(&self) -> bool {
        let Self::Stream { source, .. } = self else { return false };
        matches!(**source, pipeline::Error::Stream(stream::Error::Silent { .. }))
    }

    /// The timeline that another server was on if this one was left behind, or that it went to itself;
    /// else 0.
    pub(super) fn newest_timeline(&self) -> u32 {
        let switched = |error: &session::Error| match error {
            session::Error::Switched { to, .. } => *to,
            _ => 0,
        };
        match self {
            Self::Session(error) => switched(error),
            Self::Stream { source, .. } => match &**source {
                pipeline::Error::OldTimeline { newest, .. } => *newest,
                pipeline::Error::Catalog(error) => switched(error),
                _ => 0,
            },
            _ => 0,
        }
    }
}

/// Whether it was there before, as a clause.
struct Before<'a>(&'a Option<LastSeen>, &'a Option<Box<Unasked>>);

impl fmt::Display for Before<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(None, Some(unasked)) => write!(
                f,
                "whether it was there before is not known, as Kafka does not say: {}. If this is the first \
                 start, make it: {}. Else",
                unasked.why, unasked.sql
            ),
            Self(seen, _) => write!(f, "it was there before{}:", Seen(seen)),
        }
    }
}

/// As the end of a clause.
struct Seen<'a>(&'a Option<LastSeen>);

impl fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(LastSeen { server, confirmed }) = self.0 else { return Ok(()) };
        write!(f, " (seen last on {server}, where {confirmed} was confirmed)")
    }
}

/// As a configuration has it.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.subsec_millis() {
            0 => write!(f, "{}s", self.0.as_secs()),
            _ => write!(f, "{}ms", self.0.as_millis()),
        }
    }
}

/// An error and its causes in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // A transparent error and its cause say the same.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_a_slot_was_there_is_said_only_where_it_is_known() {
        let sql = "SELECT pg_create_logical_replication_slot('s', 'pgoutput')";
        let why = "broker kafka1:9092 does not answer".to_owned();
        let unasked = Some(Box::new(Unasked { why, sql: sql.to_owned() }));
        let server = "pg1 (timeline 2)".to_owned();
        let confirmed = "0/10".parse().unwrap();
        let text = |seen: Option<LastSeen>, unasked| {
            let wait = Duration::from_secs(30);
            let (slot, server) = ("s".to_owned(), server.clone());
            Error::Missing { slot, server, seen, unasked, wait }.to_string()
        };
        let seen = Some(LastSeen { server: "pg0 (timeline 1)".to_owned(), confirmed });
        let here = "replication slot \"s\" does not exist on pg1 (timeline 2), and ";
        let wait =
            "for slot.missing_timeout (30s) it is waited for, as it may be brought there yet";
        for (seen, unasked, between) in [
            (None, None, "it was there before: ".to_owned()),
            (
                seen,
                unasked.clone(),
                "it was there before (seen last on pg0 (timeline 1), where 0/10 was confirmed): "
                    .to_owned(),
            ),
            (
                None,
                unasked,
                format!(
                    "whether it was there before is not known, as Kafka does not say: broker \
                     kafka1:9092 does not answer. If this is the first start, make it: {sql}. Else "
                ),
            ),
        ] {
            assert_eq!(text(seen, unasked), format!("{here}{between}{wait}"));
        }
    }
}
