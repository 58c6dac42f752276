//! What travels through the house: one change, borrowed from the frame it came in.

use std::fmt;

use crate::{lsn::Lsn, schema::Relation};

/// What was done. The letters are Debezium's.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Op {
    /// `c`: INSERT.
    Insert,
    /// `u`: UPDATE.
    Update,
    /// `d`: DELETE.
    Delete,
    /// `r`: read by a snapshot.
    Read,
    /// `t`: TRUNCATE of one table.
    Truncate,
    /// `m`: a logical message.
    Message,
}

impl Op {
    /// The letter of the header `op`.
    #[must_use]
    pub const fn letter(self) -> &'static str {
        match self {
            Self::Insert => "c",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Read => "r",
            Self::Truncate => "t",
            Self::Message => "m",
        }
    }
}

/// One value as PostgreSQL sent it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cell<'a> {
    /// SQL `NULL`; in an old key also: not part of the key.
    Null,
    /// A TOASTed value that the update did not touch, and so was not sent.
    Unchanged,
    /// The type's text output, in UTF-8.
    Text(&'a [u8]),
}

/// Where a cell's text lies in its message. Holds no borrow, so that a list of them is used again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Span {
    /// [`Cell::Null`].
    Null,
    /// [`Cell::Unchanged`].
    Unchanged,
    /// [`Cell::Text`], by offset and length in bytes.
    Text(u32, u32),
}

/// One row: as many cells as its relation has columns.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    data: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Row<'a> {
    /// A row whose cells `spans` finds in `data`.
    #[must_use]
    pub const fn new(data: &'a [u8], spans: &'a [Span]) -> Self {
        Self { data, spans }
    }

    /// Number of cells.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether it has no cells: a table without columns.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The cell of column `index`; NULL if there is none.
    #[inline]
    #[must_use]
    pub fn cell(&self, index: usize) -> Cell<'a> {
        self.spans.get(index).map_or(Cell::Null, |span| self.resolve(*span))
    }

    /// Every cell, in order of the columns.
    #[inline]
    pub fn cells(&self) -> impl Iterator<Item = Cell<'a>> + use<'a> {
        let row = *self;
        row.spans.iter().map(move |span| row.resolve(*span))
    }

    #[inline]
    fn resolve(&self, span: Span) -> Cell<'a> {
        match span {
            Span::Null => Cell::Null,
            Span::Unchanged => Cell::Unchanged,
            Span::Text(at, len) => {
                let (at, len) = (at as usize, len as usize);
                self.data.get(at..at + len).map_or(Cell::Null, Cell::Text)
            }
        }
    }
}

impl fmt::Debug for Row<'_> {
    /// The number of cells: values belong in no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Row({} cells)", self.spans.len())
    }
}

/// What PostgreSQL sent of the row as it was.
#[derive(Clone, Copy, Debug)]
pub enum Before<'a> {
    /// Nothing: an insert, or an update that left the key alone.
    Nothing,
    /// `K`: the columns of the replica identity, the others NULL.
    Key(Row<'a>),
    /// `O`: the whole row (REPLICA IDENTITY FULL).
    Row(Row<'a>),
}

impl<'a> Before<'a> {
    /// The row, whatever it holds.
    #[must_use]
    pub const fn row(&self) -> Option<Row<'a>> {
        match self {
            Self::Nothing => None,
            Self::Key(row) | Self::Row(row) => Some(*row),
        }
    }
}

/// The transaction that a change belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transaction {
    /// Transaction id; 0 for what belongs to none.
    pub xid: u32,
    /// Where its commit record begins.
    pub commit: Lsn,
    /// Microseconds since 2000-01-01 00:00 UTC, PostgreSQL's epoch.
    pub committed_at: i64,
    /// The timeline on which the commit was written.
    pub timeline: u32,
}

/// A change's place in the history of its source: ordered as committed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Position {
    /// Timeline of the commit.
    pub timeline: u32,
    /// Commit LSN.
    pub commit: Lsn,
    /// Counts all that pgoutput sent in the transaction, from 0.
    pub index: u32,
}

/// One row that was inserted, updated or deleted.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Insert, update, delete or read.
    pub op: Op,
    /// Its table.
    pub relation: &'a Relation,
    /// The row as it was.
    pub before: Before<'a>,
    /// The row as it is; `None` for a delete.
    pub after: Option<Row<'a>>,
    /// Its transaction.
    pub transaction: &'a Transaction,
    /// Its place.
    pub position: Position,
}

/// A message by `pg_logical_emit_message`.
#[derive(Clone, Copy)]
pub struct LogicalMessage<'a> {
    /// Whether it belongs to the transaction, or stands for itself.
    pub transactional: bool,
    /// What it is about.
    pub prefix: &'a str,
    /// Any bytes.
    pub content: &'a [u8],
}

impl fmt::Debug for LogicalMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogicalMessage({:?}, {} bytes)", self.prefix, self.content.len())
    }
}
