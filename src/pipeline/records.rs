//! From a change to records in batches: route, encode, batch, and a ticket for each.
//!
//! Called once a row, with the row still in the read buffer: nothing in here waits or allocates
//! once it is warm.
//!
//! **Invariant.** Every record that is appended is in the ledger first, so that no ack can come
//! for what is not there yet.

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use super::{Error, Now, RowError, Timestamp};
use crate::{
    batch::{self, Batch, Batcher, RecordWriter, TopicId},
    change::{Change, LogicalMessage, Op, Position, Transaction},
    encode::{Encoder, Headers, Image, Part, Stamp, Template},
    lsn::Lsn,
    metrics::{self, Nowhere},
    progress::{Confirmed, Ledger, Ticket},
    route::{self, Outcome, Route, Routes},
    schema::Relation,
    sink::{Delivery, partition::Partitioner},
};

/// A topic that was looked up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Topic {
    pub(super) id: TopicId,
    pub(super) partitions: u32,
    /// Whether it takes no null keys.
    pub(super) compacted: bool,
    pub(super) max_message_bytes: usize,
}

/// What was compiled for one relation.
#[derive(Debug)]
enum Table {
    Routed {
        route: Route,
        template: Template,
        topic: Topic,
    },
    Skipped,
    /// Until a row comes nothing is wrong.
    Refused(Option<route::Error>),
}

/// One of the records that a change makes.
struct Record<'a> {
    op: Op,
    part: Part,
    position: Position,
    transaction: &'a Transaction,
    value: Option<Image<'a>>,
}

/// Changes by op, and those that went nowhere, since they were last told.
#[derive(Debug, Default)]
struct Counts {
    rows: [u64; 6],
    nowhere: [[u64; 3]; 6],
    transactions: u64,
    stale_timestamps: u64,
}

/// Everything between a change and a batch.
#[derive(Debug)]
pub struct Records {
    pub(super) batcher: Batcher,
    pub(super) ledger: Ledger,
    routes: Routes,
    encoder: Encoder,
    partitioner: Partitioner,
    timestamp: Timestamp,
    topics: HashMap<Arc<str>, Topic>,
    tables: HashMap<u32, Table>,
    ticket: Option<Ticket>,
    /// Transactions below it are stored already: an earlier connection of this process saw to it.
    stored_below: Lsn,
    skipping: bool,
    key: Vec<u8>,
    old_key: Vec<u8>,
    headers: Headers,
    counts: Counts,
}

impl Records {
    /// Without topics and tables.
    #[must_use]
    pub fn new(
        batcher: Batcher,
        routes: Routes,
        encoder: Encoder,
        partitioner: Partitioner,
        timestamp: Timestamp,
    ) -> Self {
        Self {
            batcher,
            ledger: Ledger::new(Lsn::ZERO),
            routes,
            encoder,
            partitioner,
            timestamp,
            topics: HashMap::new(),
            tables: HashMap::new(),
            ticket: None,
            stored_below: Lsn::ZERO,
            skipping: false,
            key: Vec::new(),
            old_key: Vec::new(),
            headers: Headers::default(),
            counts: Counts::default(),
        }
    }

    /// What is stored, and what is owed.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// A new connection begins at `confirmed`; what is below `stored_below` is not stored again.
    pub fn restart(&mut self, confirmed: Lsn, stored_below: Lsn) {
        self.batcher.flush_all();
        while self.batcher.closed().is_some() {} // It comes again.
        self.ledger.restart(confirmed);
        self.tables.clear();
        self.ticket = None;
        self.stored_below = stored_below;
        self.skipping = false;
    }

    /// Where the rows of `relation` go; `Some`: a topic that [`Self::learn`] is to be told of first.
    pub(super) fn describe(&self, relation: &Relation) -> Option<Arc<str>> {
        match self.routes.compile(relation) {
            Ok(Outcome::Topic(route)) if !self.topics.contains_key(&route.topic) => {
                Some(route.topic)
            }
            Ok(_) | Err(_) => None,
        }
    }

    /// A topic was looked up.
    pub(super) fn learn(&mut self, name: Arc<str>, partitions: u32, compacted: bool, limit: usize) {
        let id = self.batcher.topic(Arc::clone(&name), partitions, limit);
        let topic = Topic { id, partitions, compacted, max_message_bytes: limit };
        self.topics.insert(name, topic);
    }

    /// Says of each topic that is known by now whether it could not take a truncate.
    pub fn warn_of_truncates(&self) {
        for (name, _) in self.topics.iter().filter(|(_, topic)| topic.compacted) {
            if self.routes.may_truncate(name) {
                tracing::warn!(
                    topic = %name,
                    "the topic is compacted and takes no null key, which a truncate has: one would \
                     end this process; set truncate = \"skip\" or another topic for truncates, or \
                     publish without truncate"
                );
            }
        }
    }

    /// Compiles what is needed for each row of `relation`, whose topic is known.
    pub(super) fn compile(&mut self, relation: &Relation) {
        let table = match self.routes.compile(relation) {
            Ok(Outcome::Topic(route)) => match self.topics.get(&route.topic) {
                Some(topic) => {
                    warn_of_key(relation, &route, topic);
                    let template = self.encoder.template(relation, &route.key);
                    Table::Routed { template, topic: *topic, route }
                }
                None => Table::Refused(None),
            },
            Ok(Outcome::Skip) => Table::Skipped,
            Err(error) => Table::Refused(Some(error)),
        };
        self.tables.insert(relation.oid, table);
    }

    pub(super) fn begin(&mut self, commit: Lsn) {
        self.ticket = Some(self.ledger.begin());
        self.skipping = commit < self.stored_below;
    }

    pub(super) fn commit(&mut self, commit: Lsn) -> Option<Confirmed> {
        self.counts.transactions += 1;
        let ticket = self.ticket.take()?;
        self.ledger.commit(ticket, commit)
    }

    /// Stores one row: one record, two with a tombstone, up to three if its key changed.
    pub(super) fn change(&mut self, change: &Change<'_>, now: Now) -> Result<(), Error> {
        let Some(ticket) = self.ticket.filter(|_| !self.skipping) else { return Ok(()) };
        match self.rows(change, ticket, now) {
            Ok(()) => Ok(()),
            Err(source) => Err(Error::row(change.relation, change.transaction.commit, source)),
        }
    }

    fn rows(&mut self, change: &Change<'_>, ticket: Ticket, now: Now) -> Result<(), RowError> {
        let Self { tables, counts, .. } = self;
        let (template, topic) = match tables.get_mut(&change.relation.oid) {
            Some(Table::Routed { template, topic, .. }) => (template, topic),
            Some(Table::Skipped) => {
                counts.nowhere(change.op, Nowhere::Unlisted, 1);
                return Ok(());
            }
            Some(Table::Refused(error)) => {
                return Err(error.take().map_or(RowError::NotCompiled, RowError::Route));
            }
            None => return Err(RowError::NotCompiled),
        };
        counts.rows(change.op, 1);
        let mut out = Out {
            batcher: &mut self.batcher,
            ledger: &mut self.ledger,
            encoder: &self.encoder,
            partitioner: self.partitioner,
            timestamp: self.timestamp,
            headers: &mut self.headers,
            stale: &mut counts.stale_timestamps,
            template,
            topic: *topic,
            ticket,
            now,
        };
        let Change { op, before, after, transaction, position, .. } = *change;
        let Some(new) = after.map(|row| Image::new(row, before)) else {
            let Some(old) = Image::old(before) else { return Err(RowError::NoOldRow) };
            let record = Record { op, part: Part::Whole, position, transaction, value: Some(old) };
            return out.deleted(&mut self.key, old, &record);
        };
        let (mut part, rekeyed) =
            (Part::Whole, after.is_some_and(|row| out.template.rekeyed(before, row)));
        if let Some(old) = Image::old(before).filter(|_| rekeyed) {
            let op = Op::Delete;
            let record = Record { op, part, position, transaction, value: Some(old) };
            out.deleted(&mut self.old_key, old, &record)?;
            part = Part::NewRow;
        }
        let has_key = out.key(&mut self.key, new)?;
        let record = Record { op, part, position, transaction, value: Some(new) };
        out.append(has_key.then_some(self.key.as_slice()), &record)
    }

    /// A truncated table: a null to every partition of its topic.
    pub(super) fn truncate(
        &mut self,
        relation: &Relation,
        position: Position,
        transaction: &Transaction,
        now: Now,
    ) -> Result<(), Error> {
        let Some(ticket) = self.ticket.filter(|_| !self.skipping) else { return Ok(()) };
        self.truncated(relation, position, transaction, ticket, now)
            .map_err(|source| Error::row(relation, transaction.commit, source))
    }

    fn truncated(
        &mut self,
        relation: &Relation,
        position: Position,
        transaction: &Transaction,
        ticket: Ticket,
        now: Now,
    ) -> Result<(), RowError> {
        let op = Op::Truncate;
        let (route, template) = match self.tables.get_mut(&relation.oid) {
            Some(Table::Routed { route, template, .. }) => (route, template),
            Some(Table::Skipped) => {
                self.counts.nowhere(op, Nowhere::Unlisted, 1);
                return Ok(());
            }
            Some(Table::Refused(error)) => {
                return Err(error.take().map_or(RowError::NotCompiled, RowError::Route));
            }
            None => return Err(RowError::NotCompiled),
        };
        let Some(topic) = self.routes.truncate(route).and_then(|name| self.topics.get(name)) else {
            self.counts.nowhere(op, Nowhere::Truncate, 1);
            return Ok(());
        };
        if topic.compacted {
            return Err(RowError::TruncateCompacted);
        }
        self.counts.rows(op, 1);
        let mut out = Out {
            batcher: &mut self.batcher,
            ledger: &mut self.ledger,
            encoder: &self.encoder,
            partitioner: self.partitioner,
            timestamp: self.timestamp,
            headers: &mut self.headers,
            stale: &mut self.counts.stale_timestamps,
            template,
            topic: *topic,
            ticket,
            now,
        };
        for partition in 0..topic.partitions {
            let part = Part::Partition(i32::try_from(partition).unwrap_or(i32::MAX));
            let record = Record { op, part, position, transaction, value: None };
            out.append_to(partition, None, &record)?;
        }
        Ok(())
    }

    /// A logical message: its content, without a key. One that is not part of a transaction is its
    /// own, and may move the position by itself.
    pub(super) fn message(
        &mut self,
        message: LogicalMessage<'_>,
        position: Position,
        transaction: &Transaction,
        now: Now,
    ) -> Result<Option<Confirmed>, Error> {
        let alone = !message.transactional;
        let skipped = if alone { transaction.commit < self.stored_below } else { self.skipping };
        let topic = self.routes.message(message.prefix).and_then(|name| self.topics.get(name));
        let Some(topic) = topic.copied().filter(|_| !skipped) else {
            self.counts.nowhere(Op::Message, Nowhere::Message, u64::from(!skipped));
            return Ok(None);
        };
        self.counts.rows(Op::Message, 1);
        let ticket = if alone { Some(self.ledger.begin()) } else { self.ticket };
        let Some(ticket) = ticket else { return Ok(None) };
        let stamp = Stamp {
            op: Op::Message,
            position,
            part: Part::Whole,
            transaction,
            table: None,
            left_out: None,
            prefix: Some(message.prefix),
        };
        self.encoder.headers(&stamp, &mut self.headers);
        let partition = self.partitioner.partition(None, hash(position), topic.partitions);
        let times = times(self.timestamp, transaction, now, &mut self.counts.stale_timestamps);
        let headers = &self.headers;
        self.ledger.add(ticket, 1);
        self.batcher
            .append(topic.id, partition, times, ticket, |record| {
                record.key(None);
                record.value_with(|out| {
                    out.extend_from_slice(message.content);
                    Ok::<(), Infallible>(())
                })?;
                write_headers(record, headers);
                Ok(())
            })
            .map_err(|error: batch::Error<Infallible>| Error::Message {
                lsn: transaction.commit,
                why: error.to_string(),
            })?;
        Ok(if alone { self.ledger.commit(ticket, transaction.commit) } else { None })
    }

    /// Kafka has a batch: gives the new position if that moved it.
    pub fn settle(&mut self, delivery: Delivery) -> Option<Confirmed> {
        let Batch { tickets, bytes, first_committed_at, .. } = delivery.batch;
        metrics::acknowledged(super::since(first_committed_at));
        let mut moved = None;
        for (ticket, records) in &tickets {
            moved = self.ledger.ack(*ticket, u64::from(*records)).or(moved);
        }
        self.batcher.recycle(bytes, tickets);
        moved
    }

    /// Tells the counters, once a wake-up.
    pub(super) fn count(&mut self) {
        self.counts.tell();
    }
}

/// What one table's records need, borrowed for one change.
struct Out<'a> {
    batcher: &'a mut Batcher,
    ledger: &'a mut Ledger,
    encoder: &'a Encoder,
    partitioner: Partitioner,
    timestamp: Timestamp,
    headers: &'a mut Headers,
    stale: &'a mut u64,
    template: &'a Template,
    topic: Topic,
    ticket: Ticket,
    now: Now,
}

impl Out<'_> {
    /// A deleted row, and a tombstone if they are on.
    fn deleted(
        &mut self,
        buffer: &mut Vec<u8>,
        old: Image<'_>,
        record: &Record<'_>,
    ) -> Result<(), RowError> {
        let has_key = self.key(buffer, old)?;
        let key = has_key.then_some(buffer.as_slice());
        self.append(key, record)?;
        if key.is_some() && self.encoder.tombstones() {
            let tombstone = Record { part: Part::Tombstone, value: None, ..*record };
            self.append(key, &tombstone)?;
        }
        Ok(())
    }

    fn key(&self, buffer: &mut Vec<u8>, image: Image<'_>) -> Result<bool, RowError> {
        buffer.clear();
        let has_key = self.encoder.key(self.template, image, buffer)?;
        if !has_key && self.topic.compacted {
            return Err(RowError::NoKeyCompacted);
        }
        Ok(has_key)
    }

    fn append(&mut self, key: Option<&[u8]>, record: &Record<'_>) -> Result<(), RowError> {
        let position = hash(record.position);
        let partition = self.partitioner.partition(key, position, self.topic.partitions);
        self.append_to(partition, key, record)
    }

    fn append_to(
        &mut self,
        partition: u32,
        key: Option<&[u8]>,
        record: &Record<'_>,
    ) -> Result<(), RowError> {
        let Self { encoder, template, headers, .. } = self;
        let times = times(self.timestamp, record.transaction, self.now, self.stale);
        let limit = self.topic.max_message_bytes;
        self.ledger.add(self.ticket, 1);
        let appended = self.batcher.append(self.topic.id, partition, times, self.ticket, |to| {
            to.key(key);
            let mut left_out = None;
            match record.value {
                None => to.null_value(),
                Some(image) => to.value_with(|out| {
                    let before = out.len();
                    if !encoder.value(template, image, out)? {
                        left_out = Some(image);
                    }
                    let bytes = out.len() - before;
                    if bytes > limit { Err(RowError::TooLarge { bytes, limit }) } else { Ok(()) }
                })?,
            }
            let stamp = Stamp {
                op: record.op,
                position: record.position,
                part: record.part,
                transaction: record.transaction,
                table: Some(template),
                left_out,
                prefix: None,
            };
            encoder.headers(&stamp, headers);
            write_headers(to, headers);
            Ok(())
        });
        appended.map_err(|error| match error {
            batch::Error::Write(error) => error,
            other => RowError::Batch(other.to_string()),
        })
    }
}

#[inline]
fn write_headers(record: &mut RecordWriter<'_>, headers: &Headers) {
    record.headers(headers.len());
    for (name, value) in headers.iter() {
        record.header_with(name, |out| out.extend_from_slice(value));
    }
}

/// A number for the row's place, the same at every replay.
fn hash(position: Position) -> u64 {
    // The golden ratio spreads commits apart, so that their indexes do not meet.
    position.commit.get().wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(position.index)
}

/// Milliseconds from 1970 to 2000.
const EPOCH_MS: i64 = 946_684_800_000;

/// A broker refuses what is an hour ahead, ages producers by the records' time, and retention may
/// delete what is old as soon as it is stored.
const STALE_MS: i64 = 3_600_000;

fn times(which: Timestamp, transaction: &Transaction, now: Now, stale: &mut u64) -> batch::Stamp {
    let committed_ms = transaction.committed_at.div_euclid(1000).saturating_add(EPOCH_MS);
    let timestamp_ms = match which {
        Timestamp::Sent => now.unix_ms,
        Timestamp::Commit if (committed_ms - now.unix_ms).abs() <= STALE_MS => committed_ms,
        Timestamp::Commit => {
            *stale += 1;
            now.unix_ms
        }
    };
    batch::Stamp { timestamp_ms, committed_at: transaction.committed_at, now: now.instant }
}

/// Once a relation, not once a row.
fn warn_of_key(relation: &Relation, route: &Route, topic: &Topic) {
    let table = relation.qualified();
    if route.key.is_empty() {
        metrics::keyless_relation();
        tracing::warn!(
            table,
            compacted = topic.compacted,
            "no key: the records of this table have a null key and are spread by position; give it \
             a primary key, a replica identity, or a key in [tables]"
        );
    }
    if !route.unidentified.is_empty() {
        tracing::warn!(
            table,
            "the key in [tables] is not in the replica identity: a delete cannot be stored; \
             ALTER TABLE {} REPLICA IDENTITY FULL",
            relation.quoted()
        );
    }
}

impl Counts {
    const OPS: [Op; 6] = [Op::Insert, Op::Update, Op::Delete, Op::Read, Op::Truncate, Op::Message];
    const CAUSES: [Nowhere; 3] = [Nowhere::Unlisted, Nowhere::Truncate, Nowhere::Message];

    #[inline]
    fn rows(&mut self, op: Op, count: u64) {
        if let Some(rows) = self.rows.get_mut(op as usize) {
            *rows += count;
        }
    }

    fn nowhere(&mut self, op: Op, cause: Nowhere, count: u64) {
        if let Some(sum) =
            self.nowhere.get_mut(op as usize).and_then(|causes| causes.get_mut(cause as usize))
        {
            *sum += count;
        }
    }

    fn tell(&mut self) {
        let told = std::mem::take(self);
        for (op, (rows, nowhere)) in Self::OPS.iter().zip(told.rows.iter().zip(told.nowhere)) {
            if *rows > 0 {
                metrics::rows(op.letter(), *rows);
            }
            for (cause, count) in Self::CAUSES.iter().zip(nowhere).filter(|(_, n)| *n > 0) {
                metrics::nowhere(op.letter(), *cause, count);
            }
        }
        if told.transactions > 0 {
            metrics::transactions(told.transactions);
        }
        if told.stale_timestamps > 0 {
            metrics::stale_timestamps(told.stale_timestamps);
        }
    }
}
