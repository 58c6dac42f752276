//! Why a session is over.

use super::Moved;
use crate::{
    encode,
    lsn::Lsn,
    pg::{pgoutput, relations, session, stream},
    retry::{Disposition, Exit},
    route,
    schema::Relation,
    sink::kafka,
};

/// Why a session is over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The replication connection.
    #[error(transparent)]
    Stream(#[from] stream::Error),
    /// A message of the output plugin that we do not understand: nothing after it may be confirmed.
    #[error("the message at {at} is no pgoutput that this version understands")]
    Decode {
        /// Where it stands.
        at: Lsn,
        /// What is wrong with it.
        source: pgoutput::DecodeError,
    },
    /// A message that has no meaning where it came.
    #[error("the stream makes no sense")]
    Relations(#[from] relations::Error),
    /// Ordinary SQL.
    #[error(transparent)]
    Catalog(#[from] session::Error),
    /// A row that cannot be stored.
    #[error("a row of {table} (key: {key}) committed at {lsn} cannot be stored")]
    Row {
        /// `schema.table`.
        table: String,
        /// Names of the key's columns.
        key: String,
        /// Commit LSN.
        lsn: Lsn,
        /// Why not.
        source: Box<RowError>,
    },
    /// A logical message that cannot be stored.
    #[error("the logical message at {lsn} cannot be stored: {why}")]
    Message {
        /// Commit LSN.
        lsn: Lsn,
        /// Why not.
        why: String,
    },
    /// The slot was moved by somebody else.
    #[error(transparent)]
    Moved(#[from] Moved),
    /// The server was left behind by a promotion.
    #[error(
        "PostgreSQL is on timeline {timeline}, and Kafka knows of timeline {newest}: it is a former \
         primary, and what is written there now is no part of the stream. Let it follow the new \
         primary (pg_rewind), or name that one in postgres.url. A standby is waited for until it has \
         replayed the promotion"
    )]
    OldTimeline {
        /// The server's.
        timeline: u32,
        /// The newest that was streamed from.
        newest: u32,
    },
    /// Kafka.
    #[error(transparent)]
    Sink(#[from] kafka::Error),
    /// `run.drain` is over.
    #[error(
        "run.drain was over before all was stored: what was committed from {from} on will be sent again"
    )]
    Drain {
        /// The confirmed position.
        from: Lsn,
    },
}

/// Why a row cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// By its route.
    #[error(transparent)]
    Route(#[from] route::Error),
    /// By one of its values.
    #[error(transparent)]
    Encode(#[from] encode::Error),
    /// By its size.
    #[error("its value is {bytes} bytes long, over the topic's max.message.bytes of {limit}")]
    TooLarge {
        /// Of the value.
        bytes: usize,
        /// The topic's.
        limit: usize,
    },
    /// By the batch.
    #[error("{0}")]
    Batch(String),
    /// The topic is compacted.
    #[error(
        "its topic is compacted and takes no null key; name key columns in [tables], or set \
         cleanup.policy=delete"
    )]
    NoKeyCompacted,
    /// The topic is compacted.
    #[error(
        "its topic is compacted and takes no null key, which a truncate has; set truncate = \
         \"skip\" or another topic for truncates"
    )]
    TruncateCompacted,
    /// A delete without a row.
    #[error("nothing was sent of the deleted row")]
    NoOldRow,
    /// A bug of ours.
    #[error("its table was not prepared")]
    NotCompiled,
}

impl RowError {
    const fn exit(&self) -> Exit {
        match self {
            Self::Route(error) => match error.disposition() {
                Disposition::Halt(exit) => exit,
                Disposition::Retry => Exit::Data,
            },
            Self::Encode(_)
            | Self::TooLarge { .. }
            | Self::Batch(_)
            | Self::NoKeyCompacted
            | Self::TruncateCompacted
            | Self::NoOldRow => Exit::Data,
            Self::NotCompiled => Exit::Software,
        }
    }
}

impl Error {
    pub(super) fn row(relation: &Relation, lsn: Lsn, source: RowError) -> Self {
        let names = relation.key.iter().filter_map(|at| relation.columns.get(*at));
        let key = names.map(|column| &*column.name).collect::<Vec<_>>().join(", ");
        let key = if key.is_empty() { "none".to_owned() } else { key };
        Self::Row { table: relation.qualified(), key, lsn, source: Box::new(source) }
    }

    /// No `_` arm: a new variant does not compile until someone has judged it.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Stream(error) => error.disposition(),
            Self::Decode { .. } | Self::Message { .. } => Disposition::Halt(Exit::Data),
            Self::Relations(error) => error.disposition(),
            Self::Catalog(error) => error.disposition(),
            Self::Row { source, .. } => Disposition::Halt(source.exit()),
            Self::Sink(error) => error.disposition(),
            Self::Moved(_) => Disposition::Halt(Exit::Gap),
            Self::OldTimeline { .. } => Disposition::Retry,
            Self::Drain { .. } => Disposition::Halt(Exit::Drain),
        }
    }
}
