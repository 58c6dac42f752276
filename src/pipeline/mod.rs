//! The loop: stop, acks, deadlines, frames; then drain. It owns all mutable state of the path.
//!
//! One turn of the loop a wake-up, not a row: `Pipeline::take` handles every whole frame that is
//! here already, in one synchronous call from decoding to the batch. When Kafka is slow the limit
//! of `batch.in_flight` is reached, and the socket to PostgreSQL is simply not read; the walsender
//! is told all the same that we live, by [`ReplicationStream::turn`].
//!
//! **Invariants.** Nothing borrowed from a frame is held across an `.await`. A position is
//! confirmed only by the ledger.

mod counts;
mod cut;
mod drain;
mod error;
mod gap;
mod notes;
mod out;
mod own;
mod pulse;
mod records;
mod replay;
mod report;
mod witnessed;

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tokio::{
    select,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

pub use cut::{Cuts, Transactions};
pub use error::{Error, RowError};
pub use gap::Moved;
pub use notes::Notes;
pub use own::Start;
use own::leave_out;
pub use pulse::{Pulse, Signs};
pub use records::Records;
pub use report::Progress;
use report::{REPORT, telling};

use crate::{
    clock, failpoint, metrics,
    pg::{
        pgoutput,
        relations::{Event, Questions, Relations},
        session::Catalog,
        stream::{Incoming, ReplicationStream},
        witness::Witness,
    },
    sink::{
        Delivery,
        kafka::{Producer, producer::Met},
    },
    stored::Stored,
};

/// Which time a record carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Timestamp {
    /// Of sending.
    Sent,
    /// Of the commit, unless that is more than an hour ago.
    Commit,
}

/// How the loop runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest wait for acks at shutdown.
    pub drain: Duration,
    /// Record timestamps.
    pub timestamp: Timestamp,
}

/// The time of one wake-up, for everything that is done in it.
#[derive(Clone, Copy, Debug)]
struct Now {
    instant: std::time::Instant,
    unix_ms: i64,
}

impl Now {
    fn read() -> Self {
        let unix_ms = i64::try_from(clock::unix().as_millis()).unwrap_or(i64::MAX);
        Self { instant: Instant::now().into_std(), unix_ms }
    }
}

/// One session: from `START_REPLICATION` to its end.
pub struct Pipeline<'a> {
    /// The socket.
    pub stream: ReplicationStream,
    /// What rows mean.
    pub relations: Relations,
    /// Ordinary SQL, for what the stream leaves open.
    pub catalog: Catalog,
    /// Of a standby: asked before anything is decoded that was read.
    pub witness: Option<Witness>,
    /// Outlives the session, as its ledger does.
    pub records: &'a mut Records,
    /// Outlives the session: what was handed to it is stored in any case.
    pub producer: &'a mut Producer,
    /// Where transactions of Kafka's end.
    pub cuts: Cuts,
    /// `batch.in_flight`.
    pub in_flight: usize,
    /// `run.drain`.
    pub drain: Duration,
    /// Called about once a second, and when the role changes.
    pub report: &'a mut dyn FnMut(Progress),
    /// Commit time of the last transaction, µs since 2000.
    pub last_commit: i64,
    /// Positions that are kept in Kafka.
    pub notes: Notes,
    /// When the slot was to be had, until the first record is stored.
    pub begun: Option<Instant>,
}

impl Pipeline<'_> {
    /// Streams until `stop`, and then to the end of the open transaction, until all is stored and
    /// PostgreSQL knows. `Ok` means that not one row will be repeated.
    ///
    /// # Errors
    /// The session is over; [`Error::disposition`] says whether to begin another.
    pub async fn run(mut self, stop: &CancellationToken) -> Result<(), Error> {
        let mut report_at = Instant::now();
        let mut give_up = None;
        loop {
            self.hand_on("full");
            self.cut_if_due(Instant::now().into_std());
            if give_up.is_some() && !self.relations.in_transaction() {
                break;
            }
            self.note_if_due();
            self.records.pulse.told(self.stream.told());
            let room = self.has_room();
            if self.stream.turn(room).now_or_never().transpose()?.is_none() {
                // The source is idle: nobody gains by waiting for company.
                self.flush_if_idle();
                let due = self.records.batcher.deadline().map(Instant::from_std);
                let note_at = self.notes.due(&self.records.ledger);
                let cut_at = self.cut_at();
                select! {
                    biased;
                    () = stop.cancelled(), if give_up.is_none() => {
                        give_up = Some(Instant::now() + self.drain);
                    }
                    () = at(give_up) => return Err(self.drain_over()),
                    delivery = self.producer.delivered() => self.settle(delivery?),
                    () = at(due) => {
                        self.records.batcher.flush_due(Instant::now().into_std());
                        self.hand_on("linger is over");
                    }
                    noted = self.notes.done() => self.noted(noted?),
                    () = at(note_at) => {}
                    () = at(cut_at) => {} // as above
                    () = sleep_until(report_at) => {}
                    turned = self.stream.turn(room) => turned?,
                }
            }
            if room {
                self.witnessed(stop, &mut give_up).await?;
            }
            if room && let Some(questions) = self.take()? {
                self.describe(questions, stop, &mut give_up).await?;
            }
            while let Some(delivery) = self.producer.delivered().now_or_never() {
                self.settle(delivery?);
            }
            if let Some(noted) = self.notes.done().now_or_never() {
                self.noted(noted?);
            }
            if Instant::now() >= report_at {
                report_at = Instant::now() + REPORT;
                self.tell(give_up.is_some());
            }
        }
        self.tell(true);
        let give_up = give_up.unwrap_or_else(Instant::now);
        self.finish(give_up).await
    }

    /// Whether another read may be taken in.
    fn has_room(&self) -> bool {
        self.records.batcher.bytes() + self.producer.in_flight() < self.in_flight
    }

    /// Finished batches go to the sink; open ones too if they alone fill what may be held.
    fn hand_on(&mut self, why: &'static str) {
        self.submit(why);
        while self.records.batcher.bytes() > self.in_flight / 2 {
            self.records.batcher.flush_largest();
            self.submit("batch.in_flight is half full");
        }
    }

    fn submit(&mut self, why: &'static str) {
        while let Some(batch) = self.records.batcher.closed() {
            tracing::debug!(
                topic = &*batch.topic,
                partition = batch.partition,
                records = batch.records,
                bytes = batch.bytes.len(),
                why,
                "batch closed"
            );
            failpoint::hit("batch closed");
            self.cuts.submitted(batch.bytes.len());
            self.producer.submit(batch);
        }
    }

    /// Between transactions, with nothing on its way, there is no reason to let a batch linger.
    fn flush_if_idle(&mut self) {
        let waiting = self.records.batcher.bytes() > 0;
        if waiting && self.producer.in_flight() == 0 && !self.relations.in_transaction() {
            self.records.batcher.flush_all();
            self.hand_on("the source is idle");
        }
    }

    /// Every frame that is here, from bytes to batches. `Some`: a table is described anew, and the
    /// catalog must be asked before the next frame.
    fn take(&mut self) -> Result<Option<Questions>, Error> {
        let now = Now::read();
        let room = self.in_flight.saturating_sub(self.producer.in_flight());
        while self.records.batcher.bytes() < room {
            let wal = match self.stream.take()? {
                None => break,
                Some(Incoming::Data(wal)) => wal,
                Some(Incoming::Keepalive(keepalive)) => {
                    if keepalive.reply {
                        self.notes.hurry();
                    }
                    if let Some(confirmed) = self.records.ledger.idle(keepalive.end) {
                        self.stream.confirm(confirmed);
                    }
                    continue;
                }
            };
            failpoint::hit("received");
            let message = pgoutput::decode(wal.body)
                .map_err(|source| Error::Decode { at: wal.start, source })?;
            match self.relations.apply(message, &wal)? {
                Event::Change(change) => {
                    self.records.change(&change, now)?;
                    failpoint::hit("batched");
                }
                Event::Begin(transaction) => {
                    self.last_commit = transaction.committed_at;
                    self.records.begin(&transaction);
                }
                Event::Commit { commit } => {
                    failpoint::hit("committed");
                    if self.records.pulse.beats() {
                        self.notes.gather();
                    }
                    if let Some(confirmed) = self.records.commit(commit) {
                        self.stream.confirm(confirmed);
                    }
                    self.cut_if_due(now.instant);
                }
                Event::Truncate { relations, first, transaction } => {
                    self.truncate(&relations, first, transaction, now)?;
                }
                Event::Message { message, position, transaction } => {
                    let moved = self.records.message(message, position, &transaction, now)?;
                    if let Some(confirmed) = moved {
                        self.stream.confirm(confirmed);
                    }
                }
                Event::Relation(questions) => {
                    self.records.count();
                    return Ok(Some(questions));
                }
                Event::Nothing => {}
            }
        }
        metrics::received(self.stream.read_bytes());
        self.records.count();
        Ok(None)
    }

    fn truncate(
        &mut self,
        relations: &[u32],
        first: crate::change::Position,
        transaction: crate::change::Transaction,
        now: Now,
    ) -> Result<(), Error> {
        for (oid, index) in relations.iter().zip(first.index..) {
            let position = crate::change::Position { index, ..first };
            match self.relations.get(*oid) {
                Some(relation) => {
                    self.records.truncate(relation, position, &transaction, now)?;
                }
                None => {
                    return Err(crate::pg::relations::Error::UnknownRelation { oid: *oid }.into());
                }
            }
        }
        Ok(())
    }

    /// Asks the catalog and Kafka what they know of a table, while the walsender is kept informed.
    async fn describe(
        &mut self,
        questions: Questions,
        stop: &CancellationToken,
        give_up: &mut Option<Instant>,
    ) -> Result<(), Error> {
        let (told, trouble) = (self.progress(give_up.is_some()), self.producer.troubles());
        let Self { stream, relations, catalog, records, producer, drain, report, .. } = self;
        let work = async {
            if !questions.none() {
                let facts = catalog.ask(&questions).await?;
                relations.learn(questions.oid, &facts);
            }
            let Some(relation) = relations.get(questions.oid) else { return Ok(()) };
            if let Some(name) = records.describe(relation) {
                let stored = look_up(records, producer, name).await?;
                if let Some(stored) = stored {
                    leave_out(stored, relations.timelines(), catalog, records).await?;
                }
            }
            records.compile(relation);
            failpoint::hit("table described");
            Ok::<(), Error>(())
        };
        let mut work = pin!(telling(work, *report, told, trouble));
        loop {
            select! {
                biased;
                () = stop.cancelled(), if give_up.is_none() => {
                    *give_up = Some(Instant::now() + *drain);
                }
                done = &mut work => return done,
                () = at(*give_up) => return Err(Error::Drain { from: stream.told() }),
                turned = stream.turn(false) => turned?,
            }
        }
    }

    /// Kafka has it.
    fn settle(&mut self, delivery: Delivery) {
        failpoint::hit("delivered");
        self.tell_first();
        if let Some(confirmed) = self.records.settle(delivery) {
            failpoint::hit("settled");
            self.stream.confirm(confirmed);
        }
    }
}

/// Looks a topic up in Kafka, and makes it known. Gives the names of our records there, if the
/// topics are ours.
///
/// # Errors
/// The topic cannot be used.
pub async fn look_up(
    records: &mut Records,
    producer: &mut Producer,
    name: Arc<str>,
) -> Result<Option<Stored>, Error> {
    let Met { topic, stored } = producer.topic(&name).await?;
    records.learn(name, topic.partitions, topic.compacted, topic.max_message_bytes);
    Ok(stored)
}

/// Waits until then; for ever if there is no such time.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}
