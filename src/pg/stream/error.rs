//! Why a replication stream is over.

use std::{io, time::Duration};

use crate::{
    lsn::Lsn,
    pg::{
        connect::ServerError,
        frame::BadLength,
        pgoutput::DecodeError,
        slot,
        sqlstate::{self, During},
    },
    retry::{Disposition, Exit},
};

/// Why the stream is over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket broke.
    #[error("the replication connection broke")]
    Io(#[from] io::Error),
    /// PostgreSQL ended the stream: it stops, or somebody terminated the walsender.
    #[error("PostgreSQL ended the replication stream")]
    Ended,
    /// Nothing came although it was asked for.
    #[error("PostgreSQL said nothing for {}s, not even when asked", .after.as_secs())]
    Silent {
        /// The limit.
        after: Duration,
    },
    /// An error message.
    #[error("PostgreSQL ended it near {near}: {error}{}", cure(.error))]
    Server {
        /// The last position that was received.
        near: Lsn,
        /// What it said.
        error: Box<ServerError>,
    },
    /// An error, or on 18 a mere warning, after which rows would be missing.
    #[error(transparent)]
    Slot(#[from] slot::Error),
    /// Not the protocol.
    #[error("the next message is over postgres.max_message, or this is no PostgreSQL")]
    Length(#[from] BadLength),
    /// A message that we cannot read: nothing after it can be confirmed.
    #[error("a message of the replication stream near {near} cannot be understood")]
    Decode {
        /// The last position that was received.
        near: Lsn,
        /// What is wrong with it.
        source: DecodeError,
    },
}

impl Error {
    /// No `_` arm: a new variant does not compile until someone has judged it.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Io(_) | Self::Ended | Self::Silent { .. } => Disposition::Retry,
            Self::Server { error, .. } => sqlstate::disposition(&error.sqlstate, During::Streaming),
            Self::Slot(error) => error.disposition(),
            // A row over the limit comes back at every attempt.
            Self::Length(_) | Self::Decode { .. } => Disposition::Halt(Exit::Data),
        }
    }
}

/// What helps against an error that comes back at every attempt.
fn cure(error: &ServerError) -> &'static str {
    match sqlstate::disposition(&error.sqlstate, During::Streaming) {
        Disposition::Halt(Exit::Data) => {
            "; it comes back at every attempt, as the WAL does not change. To go on without what \
             cannot be decoded: take the table out of the publication, or move the slot past it \
             with pg_replication_slot_advance(); both lose rows"
        }
        Disposition::Halt(_) | Disposition::Retry => "",
    }
}
