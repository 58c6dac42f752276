//! Why a message has no meaning where it stands.

use crate::{
    lsn::Lsn,
    retry::{Disposition, Exit},
};

/// Why a message has no meaning here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A row of a table that was never described.
    #[error("a row of relation {oid} came before its description")]
    UnknownRelation {
        /// `pg_class.oid`.
        oid: u32,
    },
    /// A row and its description disagree.
    #[error("a row of {table} has {cells} columns, where its description has {columns}")]
    ColumnCount {
        /// `schema.table`.
        table: String,
        /// In the row.
        cells: usize,
        /// In the description.
        columns: usize,
    },
    /// A message where none of its kind can be.
    #[error("{what} outside of a transaction, at {at}")]
    OutsideTransaction {
        /// What came.
        what: &'static str,
        /// Where.
        at: Lsn,
    },
    /// A transaction in a transaction, or one that ends elsewhere than it said.
    #[error("transaction {xid} was to end at {expected}, and {found} came at {at}")]
    Nesting {
        /// The open one.
        xid: u32,
        /// Its commit LSN.
        expected: Lsn,
        /// What came.
        found: &'static str,
        /// Where.
        at: Lsn,
    },
    /// Commits come in the order of their LSNs.
    #[error("the commit at {at} comes after the one at {last}")]
    Backwards {
        /// This one.
        at: Lsn,
        /// The one before.
        last: Lsn,
    },
    /// More changes than an `id` can count.
    #[error("transaction {xid} at {at} has more than 4294967295 changes")]
    TooManyChanges {
        /// The open one.
        xid: u32,
        /// Its commit LSN.
        at: Lsn,
    },
}

impl Error {
    /// All of them mean that we misunderstand the stream: nothing may be confirmed any more.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        match self {
            Self::UnknownRelation { .. }
            | Self::ColumnCount { .. }
            | Self::OutsideTransaction { .. }
            | Self::Nesting { .. }
            | Self::Backwards { .. }
            | Self::TooManyChanges { .. } => Disposition::Halt(Exit::Data),
        }
    }
}
