//! Messages to changes: the relation cache, the open transaction, and where we are in it.
//!
//! A Relation message describes every row of that table until the next one, so a change of the
//! schema takes effect at exactly the right row. What the message does not say (a primary key
//! under REPLICA IDENTITY FULL, what a user's type is made of) is asked of the catalog, which the
//! caller does: [`Event::Relation`] names the questions.
//!
//! **Invariant.** `index` counts every row, truncated relation and message that pgoutput sent in
//! the transaction, before any routing, as the record's `id` is made of it.

mod error;

use std::collections::HashMap;

pub use self::error::Error;

use super::{
    catalog::RelationFacts,
    copy_data::XLogData,
    pgoutput::{Message, OldTuple, RelationMessage, Tuple},
    timeline::Timelines,
};
use crate::{
    change::{Before, Change, LogicalMessage, Op, Position, Row, Span, Transaction},
    lsn::Lsn,
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

/// The state of the stream. One a connection.
#[derive(Debug)]
pub struct Relations {
    /// Looked up once a row, by numbers that PostgreSQL gave: no defence against chosen keys is needed.
    known: foldhash::HashMap<u32, Relation>,
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
            known: foldhash::HashMap::default(),
            types: HashMap::new(),
            timelines,
            transaction: None,
            index: 0,
            last_commit: Lsn::ZERO,
            old: Vec::new(),
            new: Vec::new(),
        }
    }

    /// The history of the server's timeline.
    #[must_use]
    pub const fn timelines(&self) -> &Timelines {
        &self.timelines
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

    /// Commit of the transaction that is being received.
    #[must_use]
    pub fn open_commit(&self) -> Option<Lsn> {
        self.transaction.as_ref().map(|transaction| transaction.commit)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{change::Cell, pg::pgoutput};

    const WAL: XLogData<'_> =
        XLogData { start: Lsn::new(5), end: Lsn::new(5), clock: 77, body: b"" };

    fn begin(commit: u64) -> Vec<u8> {
        [b"B".as_slice(), &commit.to_be_bytes(), &1i64.to_be_bytes(), &9u32.to_be_bytes()].concat()
    }

    fn commit(commit: u64) -> Vec<u8> {
        let end = commit + 48;
        [b"C\0".as_slice(), &commit.to_be_bytes(), &end.to_be_bytes(), &[0; 8]].concat()
    }

    /// A table `public.t` with these columns: flagged, name, type.
    fn relation(identity: u8, columns: &[(bool, &str, u32)]) -> Vec<u8> {
        let mut bytes = b"R\0\0\0\x07public\0t\0".to_vec();
        bytes.push(identity);
        bytes.extend(u16::try_from(columns.len()).expect("few").to_be_bytes());
        for (flagged, name, oid) in columns {
            bytes.push(u8::from(*flagged));
            bytes.extend(name.as_bytes());
            bytes.push(0);
            bytes.extend(oid.to_be_bytes());
            bytes.extend([0; 4]);
        }
        bytes
    }

    fn insert(values: &[&str]) -> Vec<u8> {
        let mut bytes = b"I\0\0\0\x07N".to_vec();
        bytes.extend(u16::try_from(values.len()).expect("few").to_be_bytes());
        for value in values {
            bytes.push(b't');
            bytes.extend(u32::try_from(value.len()).expect("short").to_be_bytes());
            bytes.extend(value.as_bytes());
        }
        bytes
    }

    fn state() -> Relations {
        Relations::new(Timelines::single(3))
    }

    fn feed<'a>(state: &'a mut Relations, body: &'a [u8]) -> Result<Event<'a>, Error> {
        state.apply(pgoutput::decode(body).expect("well formed"), &WAL)
    }

    fn position(state: &mut Relations, body: &[u8]) -> Position {
        match feed(state, body).expect("in order") {
            Event::Change(change) => change.position,
            Event::Truncate { first, .. } => first,
            Event::Message { position, .. } => position,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn counts_every_row_truncated_table_and_message() {
        let mut state = state();
        feed(&mut state, &begin(100)).expect("first");
        feed(&mut state, &relation(b'd', &[(true, "id", 23)])).expect("described");
        let truncate = b"T\0\0\0\x03\0\0\0\0\x07\0\0\0\x08\0\0\0\x09";
        let message = [b"M\x01".as_slice(), &[0; 8], b"p\0\0\0\0\0"].concat();
        let bodies = [insert(&["1"]), truncate.to_vec(), message, insert(&["2"])];
        let indexes = bodies.map(|body| position(&mut state, &body).index);
        assert_eq!(indexes, [0, 1, 4, 5]);
        feed(&mut state, &commit(100)).expect("whole");
        feed(&mut state, &begin(200)).expect("next");
        let next = position(&mut state, &insert(&["3"]));
        assert_eq!(next, Position { timeline: 3, commit: Lsn::new(200), index: 0 });
    }

    #[test]
    fn a_changed_table_takes_effect_at_exactly_the_next_row() {
        let mut state = state();
        feed(&mut state, &begin(100)).expect("first");
        feed(&mut state, &relation(b'd', &[(true, "id", 23)])).expect("described");
        assert!(feed(&mut state, &insert(&["1"])).is_ok());
        let two = insert(&["1", "x"]);
        assert!(matches!(feed(&mut state, &two), Err(Error::ColumnCount { .. })));
        feed(&mut state, &relation(b'd', &[(true, "id", 23), (false, "n", 25)])).expect("anew");
        let Ok(Event::Change(change)) = feed(&mut state, &two) else { panic!("no row") };
        assert_eq!(change.after.expect("new row").cell(1), Cell::Text(b"x"));
        assert_eq!(&*change.relation.columns[1].name, "n");
    }

    #[test]
    fn asks_for_the_key_only_where_the_message_has_none() {
        let mut state = state();
        let questions = |state: &mut Relations, body: &[u8]| match feed(state, body) {
            Ok(Event::Relation(questions)) => questions,
            other => panic!("{other:?}"),
        };
        let columns = [(true, "a", 23), (true, "b", 25)];
        assert!(questions(&mut state, &relation(b'd', &columns)).none());
        assert_eq!(*state.get(7).expect("known").key, [0, 1]);
        let full = questions(&mut state, &relation(b'f', &columns));
        assert!(full.primary_key);
        assert!(state.get(7).expect("known").key.is_empty());
        let key = |names: &[&str]| RelationFacts {
            primary_key: Some(names.iter().map(ToString::to_string).collect()),
            ..RelationFacts::default()
        };
        assert!(!state.learn(7, &key(&["b"])));
        assert_eq!(*state.get(7).expect("known").key, [1]);
        // A key whose columns the message does not have is no key of these rows.
        assert!(state.learn(7, &key(&["b", "gone"])));
        assert!(state.get(7).expect("known").key.is_empty());
    }

    #[test]
    fn knows_a_domain_by_its_base_type_and_asks_for_the_rest() {
        let mut state = state();
        feed(&mut state, b"Y\0\0\x40\0\0int4\0").expect("a domain over int4");
        feed(&mut state, b"Y\0\0\x40\x01public\0mood\0").expect("an enum");
        let body = relation(b'd', &[(true, "d", 0x4000), (false, "e", 0x4001)]);
        let Ok(Event::Relation(questions)) = feed(&mut state, &body) else { panic!("no relation") };
        assert_eq!(questions.types, [0x4001]);
        assert_eq!(state.get(7).expect("known").columns[0].kind, PgType::Integer);
    }

    #[test]
    fn a_message_of_its_own_is_named_by_a_byte_of_its_own() {
        let mut state = state();
        let body = [b"M\0".as_slice(), &100u64.to_be_bytes(), b"p\0\0\0\0\0"].concat();
        let alone = position(&mut state, &body);
        assert_eq!(alone, Position { timeline: 3, commit: Lsn::new(99), index: 0 });
        // A commit record may begin where the message's record ends.
        feed(&mut state, &begin(100)).expect("after it");
        feed(&mut state, &relation(b'd', &[(true, "id", 23)])).expect("described");
        assert!(position(&mut state, &insert(&["1"])) > alone);
    }

    #[test]
    fn refuses_what_is_out_of_order() {
        let mut state = state();
        assert!(matches!(feed(&mut state, &commit(1)), Err(Error::OutsideTransaction { .. })));
        assert!(matches!(feed(&mut state, &insert(&["1"])), Err(Error::OutsideTransaction { .. })));
        feed(&mut state, &begin(100)).expect("first");
        assert!(matches!(feed(&mut state, &begin(200)), Err(Error::Nesting { .. })));
        assert!(matches!(
            feed(&mut state, &insert(&["1"])),
            Err(Error::UnknownRelation { oid: 7 })
        ));
        assert!(matches!(feed(&mut state, &commit(101)), Err(Error::Nesting { .. })));
        feed(&mut state, &begin(100)).expect("again");
        feed(&mut state, &commit(100)).expect("whole");
        assert!(matches!(feed(&mut state, &begin(100)), Err(Error::Backwards { .. })));
    }
}
