//! From a change to records in batches: route, encode, batch, and a ticket for each.
//!
//! Called once a row, with the row still in the read buffer: nothing in here waits or allocates
//! once it is warm.
//!
//! **Invariant.** Every record that is appended is in the ledger first, so that no ack can come
//! for what is not there yet.

mod known;
mod message;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    Error, Now, RowError, Timestamp,
    counts::Counts,
    out::{Out, Record, Topic},
    pulse::Pulse,
    replay::Replay,
};
use crate::{
    batch::{Batch, Batcher},
    change::{Change, Op, Position, Transaction},
    encode::{Encoder, Headers, Image, Part, Template},
    lsn::Lsn,
    metrics::{self, Nowhere},
    progress::{Confirmed, Ledger, Ticket},
    route::{self, Outcome, Route, Routes},
    schema::Relation,
    sink::{Delivery, partition::Partitioner},
    stored::{Place, Stored},
};

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
    /// Looked up once a row; see [`Relations`](crate::pg::relations::Relations).
    tables: foldhash::HashMap<u32, Table>,
    /// Tables whose key was warned of.
    warned: HashSet<u32>,
    ticket: Option<Ticket>,
    replay: Replay,
    /// What was read back from the topics: these rows are not sent again.
    stored: Option<Stored>,
    /// Something of the open transaction may be among them.
    partly_stored: bool,
    /// What is read back from this server's topics tells of another history.
    distrusted: bool,
    key: Vec<u8>,
    old_key: Vec<u8>,
    headers: Headers,
    counts: Counts,
    pub(super) pulse: Pulse,
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
            tables: foldhash::HashMap::default(),
            warned: HashSet::new(),
            ticket: None,
            replay: Replay::default(),
            stored: None,
            partly_stored: false,
            distrusted: false,
            key: Vec::new(),
            old_key: Vec::new(),
            headers: Headers::default(),
            counts: Counts::default(),
            pulse: Pulse::default(),
        }
    }

    /// Which heartbeats are ours, and whom to tell of them.
    pub fn mind(&mut self, pulse: Pulse) {
        self.pulse = pulse;
    }

    /// What is stored, and what is owed.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
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
        let place = Place::topic(&name);
        let topic = Topic { id, place, partitions, compacted, max_message_bytes: limit };
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
                    let faulty = route.key.is_empty() || !route.unidentified.is_empty();
                    if faulty && self.warned.insert(relation.oid) {
                        warn_of_key(relation, &route, topic);
                    }
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

    pub(super) fn begin(&mut self, transaction: &Transaction) {
        let Transaction { xid, commit, committed_at, timeline } = *transaction;
        self.ticket = Some(self.ledger.begin());
        self.recognise(timeline, commit, (xid, committed_at));
    }

    pub(super) fn commit(&mut self, commit: Lsn) -> Option<Confirmed> {
        self.counts.transactions += 1;
        self.pulse.committed();
        let ticket = self.ticket.take()?;
        self.ledger.commit(ticket, commit)
    }

    /// Stores one row: one record, two with a tombstone, up to three if its key changed.
    pub(super) fn change(&mut self, change: &Change<'_>, now: Now) -> Result<(), Error> {
        let Some(ticket) = self.ticket else { return Ok(()) };
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
            stored: self.stored.as_mut(),
            partly_stored: self.partly_stored,
            already_stored: &mut counts.already_stored,
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
        let Some(ticket) = self.ticket else { return Ok(()) };
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
            stored: self.stored.as_mut(),
            partly_stored: self.partly_stored,
            already_stored: &mut self.counts.already_stored,
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

    /// Kafka has a batch: gives the new position if that moved it.
    pub fn settle(&mut self, delivery: Delivery) -> Option<Confirmed> {
        let Batch { tickets, bytes, first_committed_at, .. } = delivery.batch;
        metrics::acknowledged(super::report::since(first_committed_at));
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

/// Once a table, not at each of its descriptions.
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
