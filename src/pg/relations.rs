//! Messages to changes: the relation cache, the open transaction, and where we are in it.
//!
//! A Relation message describes every row of that table until the next one, so a change of the
//! schema takes effect at exactly the right row. What the message does not say (a primary key
//! under REPLICA IDENTITY FULL, what a user's type is made of) is asked of the catalog, which the
//! caller does: [`Event::Relation`] names the questions.
//!
//! **Invariant.** `index` counts every row, truncated relation and message that pgoutput sent in
//! the transaction, before any routing, as the record's `id` is made of it.

use std::collections::HashMap;

use super::{
    catalog::RelationFacts,
    copy_data::XLogData,
    pgoutput::{Message, OldTuple, RelationMessage, Tuple},
    timeline::Timelines,
};
use crate::{
    change::{Before, Change, LogicalMessage, Op, Position, Row, Span, Transaction},
    lsn::Lsn,
    retry::{Disposition, Exit},
    schema::{Column, FIRST_USER_OID, PgType, Relation, ReplicaIdentity},
};

/// What one message means.
#[derive(Debug)]
pub enum Event<'a> {
    /// A transaction begins.
    Begin(Transaction),
    /// A row.
    Change(Change<'a>),
    /// Tables were emptied; `first` is the position of the first, the others follow it.
    Truncate {
        /// `pg_class.oid` of each.
        relations: Vec<u32>,
        /// The first one's.
        first: Position,
        /// Their transaction.
        transaction: Transaction,
    },
    /// A logical message.
    Message {
        /// It.
        message: LogicalMessage<'a>,
        /// Its place.
        position: Position,
        /// Its transaction; one of its own if it is not transactional.
        transaction: Transaction,
    },
    /// The transaction is whole.
    Commit {
        /// Where its commit record begins.
        commit: Lsn,
    },
    /// A table is described anew: whatever was compiled for it is stale.
    Relation(Questions),
    /// Nothing to do.
    Nothing,
}

/// What the catalog is to be asked about a table before its first row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Questions {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Whether its primary key is wanted.
    pub primary_key: bool,
    /// Types that we do not know.
    pub types: Vec<u32>,
}

impl Questions {
    /// Whether there is anything to ask.
    #[must_use]
    pub const fn none(&self) -> bool {
        !self.primary_key && self.types.is_empty()
    }
}

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

/// The state of the stream. One a connection.
#[derive(Debug)]
pub struct Relations {
    known: HashMap<u32, Relation>,
    /// Types by the last Type message about them.
    types: HashMap<u32, PgType>,
    timelines: Timelines,
    transaction: Option<Transaction>,
    /// Of the next change.
    index: u32,
    last_commit: Lsn,
    old: Vec<Span>,
    new: Vec<Span>,
}

impl Relations {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(timelines: Timelines) -> Self {
        Self {
            known: HashMap::new(),
            types: HashMap::new(),
            timelines,
            transaction: None,
            index: 0,
            last_commit: Lsn::ZERO,
            old: Vec::new(),
            new: Vec::new(),
        }
    }

    /// The table by its oid.
    #[must_use]
    pub fn get(&self, oid: u32) -> Option<&Relation> {
        self.known.get(&oid)
    }

    /// Whether a transaction is being received.
    #[must_use]
    pub const fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Says what a message means here.
    ///
    /// # Errors
    /// See [`Error`]; nothing that follows can be trusted.
    #[inline]
    pub fn apply<'a>(
        &'a mut self,
        message: Message<'a>,
        wal: &XLogData<'_>,
    ) -> Result<Event<'a>, Error> {
        match message {
            Message::Insert { relation, new } => {
                self.row(Op::Insert, relation, None, Some(new), wal)
            }
            Message::Update { relation, old, new } => {
                self.row(Op::Update, relation, old, Some(new), wal)
            }
            Message::Delete { relation, old } => {
                self.row(Op::Delete, relation, Some(old), None, wal)
            }
            Message::Begin { final_lsn, committed_at, xid } => {
                self.begin(final_lsn, committed_at, xid)
            }
            Message::Commit { commit_lsn, .. } => self.commit(commit_lsn),
            Message::Relation(relation) => Ok(Event::Relation(self.describe(&relation))),
            Message::Type { oid, namespace, name } => {
                // For a domain this is the base type; other types are asked for in the catalog.
                match namespace.is_empty().then(|| PgType::by_name(name)).flatten() {
                    Some(kind) => self.types.insert(oid, kind),
                    None => self.types.remove(&oid),
                };
                Ok(Event::Nothing)
            }
            Message::Truncate { relations } => self.truncate(relations, wal),
            Message::Logical { transactional, lsn, prefix, content } => {
                let message = LogicalMessage { transactional, prefix, content };
                self.logical(message, lsn, wal)
            }
            Message::Origin { .. } | Message::StreamAbort => Ok(Event::Nothing),
        }
    }

    /// Takes the catalog's answer. True if a key was wanted and none can be used.
    pub fn learn(&mut self, oid: u32, facts: &RelationFacts) -> bool {
        let Some(relation) = self.known.get_mut(&oid) else { return false };
        for column in &mut relation.columns {
            if let Some(kind) = facts.types.get(&column.type_oid) {
                column.kind = kind.clone();
            }
        }
        if matches!(relation.identity, ReplicaIdentity::Full | ReplicaIdentity::Nothing) {
            let at = |name: &String| relation.columns.iter().position(|c| *c.name == **name);
            let key: Option<Vec<usize>> =
                facts.primary_key.as_ref().and_then(|names| names.iter().map(at).collect());
            let mut key = key.unwrap_or_default();
            key.sort_unstable();
            relation.key = key.into();
        }
        relation.key.is_empty()
    }

    fn begin(&mut self, commit: Lsn, committed_at: i64, xid: u32) -> Result<Event<'_>, Error> {
        if let Some(open) = &self.transaction {
            return Err(nesting(open, "a BEGIN", commit));
        }
        if commit <= self.last_commit {
            return Err(Error::Backwards { at: commit, last: self.last_commit });
        }
        let timeline = self.timelines.of(commit);
        let transaction = Transaction { xid, commit, committed_at, timeline };
        self.transaction = Some(transaction);
        self.index = 0;
        Ok(Event::Begin(transaction))
    }

    fn commit(&mut self, commit: Lsn) -> Result<Event<'_>, Error> {
        match self.transaction.take() {
            Some(open) if open.commit == commit => {
                self.last_commit = commit;
                Ok(Event::Commit { commit })
            }
            Some(open) => Err(nesting(&open, "a COMMIT", commit)),
            None => Err(Error::OutsideTransaction { what: "a COMMIT", at: commit }),
        }
    }

    #[inline]
    fn row<'a>(
        &'a mut self,
        op: Op,
        oid: u32,
        old: Option<OldTuple<'a>>,
        new: Option<Tuple<'a>>,
        wal: &XLogData<'_>,
    ) -> Result<Event<'a>, Error> {
        let position = self.next_position(1, "a row", wal.start)?;
        let Some(transaction) = &self.transaction else {
            return Err(Error::OutsideTransaction { what: "a row", at: wal.start });
        };
        let relation = self.known.get(&oid).ok_or(Error::UnknownRelation { oid })?;
        let before = match old {
            None => Before::Nothing,
            Some(OldTuple::Key(tuple)) => Before::Key(row(relation, tuple, &mut self.old)?),
            Some(OldTuple::Row(tuple)) => Before::Row(row(relation, tuple, &mut self.old)?),
        };
        let after = match new {
            None => None,
            Some(tuple) => Some(row(relation, tuple, &mut self.new)?),
        };
        Ok(Event::Change(Change { op, relation, before, after, transaction, position }))
    }

    fn truncate(&mut self, relations: Vec<u32>, wal: &XLogData<'_>) -> Result<Event<'_>, Error> {
        let first = self.next_position(relations.len(), "a TRUNCATE", wal.start)?;
        let Some(transaction) = self.transaction else {
            return Err(Error::OutsideTransaction { what: "a TRUNCATE", at: wal.start });
        };
        Ok(Event::Truncate { relations, first, transaction })
    }

    fn logical<'a>(
        &mut self,
        message: LogicalMessage<'a>,
        lsn: Lsn,
        wal: &XLogData<'_>,
    ) -> Result<Event<'a>, Error> {
        if message.transactional {
            let position = self.next_position(1, "a transactional message", wal.start)?;
            let Some(transaction) = self.transaction else {
                return Err(Error::OutsideTransaction { what: "a message", at: wal.start });
            };
            return Ok(Event::Message { message, position, transaction });
        }
        // Its LSN is the end of its record, where a commit record may begin: the byte before it is
        // the message's own, and so names it alone, and in order.
        let commit = Lsn::new(lsn.get().saturating_sub(1));
        let timeline = self.timelines.of(commit);
        let transaction = Transaction { xid: 0, commit, committed_at: wal.clock, timeline };
        let position = Position { timeline, commit, index: 0 };
        Ok(Event::Message { message, position, transaction })
    }

    /// The position of the next change, and `count` are counted.
    #[inline]
    fn next_position(
        &mut self,
        count: usize,
        what: &'static str,
        at: Lsn,
    ) -> Result<Position, Error> {
        let Some(Transaction { timeline, commit, xid, .. }) = self.transaction else {
            return Err(Error::OutsideTransaction { what, at });
        };
        let index = self.index;
        let next = u32::try_from(count).ok().and_then(|count| index.checked_add(count));
        self.index = next.ok_or(Error::TooManyChanges { xid, at: commit })?;
        Ok(Position { timeline, commit, index })
    }

    fn describe(&mut self, message: &RelationMessage<'_>) -> Questions {
        let mut types = Vec::new();
        let mut columns = Vec::with_capacity(message.columns.len());
        for column in &message.columns {
            let oid = column.type_oid;
            let kind = PgType::builtin(oid).or_else(|| self.types.get(&oid).cloned());
            if kind.is_none() && oid >= FIRST_USER_OID && !types.contains(&oid) {
                types.push(oid);
            }
            columns.push(Column {
                name: column.name.into(),
                type_oid: oid,
                identity: column.identity,
                kind: kind.unwrap_or(PgType::Text),
            });
        }
        let flagged = matches!(message.identity, ReplicaIdentity::Default | ReplicaIdentity::Index);
        let key = columns.iter().enumerate().filter(|(_, c)| flagged && c.identity);
        let key = key.map(|(i, _)| i).collect();
        let namespace = if message.namespace.is_empty() { "pg_catalog" } else { message.namespace };
        let relation = Relation {
            oid: message.oid,
            namespace: namespace.into(),
            name: message.name.into(),
            identity: message.identity,
            columns: columns.into(),
            key,
        };
        self.known.insert(message.oid, relation);
        Questions { oid: message.oid, primary_key: !flagged, types }
    }
}

#[inline]
fn row<'a>(
    relation: &Relation,
    tuple: Tuple<'a>,
    spans: &'a mut Vec<Span>,
) -> Result<Row<'a>, Error> {
    if tuple.columns() != relation.columns.len() {
        return Err(Error::ColumnCount {
            table: relation.qualified(),
            cells: tuple.columns(),
            columns: relation.columns.len(),
        });
    }
    tuple.spans(spans);
    Ok(Row::new(tuple.data(), spans))
}

fn nesting(open: &Transaction, found: &'static str, at: Lsn) -> Error {
    Error::Nesting { xid: open.xid, expected: open.commit, found, at }
}
