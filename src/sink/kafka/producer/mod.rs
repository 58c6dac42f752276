//! Gets batches into Kafka: each once, in order, whatever fails.
//!
//! A task of its own owns the connections and what is on its way; the [`Producer`] is the handle to
//! it. What may be sent when is decided by plain code (`machine`, and `queue` for one partition):
//! events and the time go in, actions come out. `driver` carries them out.
//!
//! Every batch bears a producer id, its epoch and a sequence number, by which a broker knows a
//! resend from a new batch. `acks` is `all`, always. Before anything is written the topics are taken
//! ([`Producer::take`]): whoever wrote there before is shut out, and what is stored is read back.
//! Whenever an answer leaves a doubt about what is stored, nothing more is sent, and they are to be
//! taken anew.
//!
//! **Invariants.** The batches of a partition are stored in the order in which they were submitted.
//! A delivery means stored. What does not heal by itself is an [`Error`], and what only time can heal
//! is waited for.

mod ask;
mod claim;
mod driver;
mod group;
mod machine;
mod note;
mod queue;
#[cfg(test)]
mod simulation;
mod tail;
mod taking;
#[cfg(test)]
mod tests;
mod trouble;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

pub use self::{
    claim::{Claim, Read, ReadBack, Taken},
    note::{Found, Kept, Note, Unsure},
};
use self::{
    driver::{Command, Driver, Ends},
    machine::{Machine, Settings},
};
use super::{Compression, Options, error::Error, topics::Topic};
use crate::{
    batch::{Batch, Codec},
    lsn::Lsn,
    retry::Disposition,
    sim::{Bug, planted},
    sink::Delivery,
    stored::Stored,
};

/// A topic that was looked up.
#[derive(Debug)]
pub struct Met {
    /// What it is like.
    pub topic: Topic,
    /// What of ours is stored there, if the topics are ours and this one was just taken.
    pub stored: Option<Stored>,
}

/// The handle to the task that does the work.
pub struct Producer {
    commands: mpsc::UnboundedSender<Command>,
    deliveries: mpsc::UnboundedReceiver<(u64, Result<Delivery, Error>)>,
    /// Counts takings.
    generation: u64,
    in_flight: Arc<AtomicUsize>,
    trouble: watch::Receiver<Option<String>>,
    task: JoinHandle<()>,
}

impl Producer {
    /// Reaches Kafka through any of the brokers and starts the task. Nothing is sent before
    /// [`Self::take`].
    ///
    /// # Errors
    /// No broker could be reached, or they refuse us.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        let nodes = ask::bootstrap(&options).await?;
        tracing::debug!(brokers = nodes.len(), "Kafka was reached");
        let settings = Settings {
            codec: codec(options.compression),
            longest_pause: options.retry_max,
            metadata_max_age: options.metadata_max_age,
            user: options.sasl.as_ref().map(|login| login.user.clone()),
        };
        let machine = Machine::new(settings);
        let (commands, command_ends) = mpsc::unbounded_channel();
        let (delivery_ends, deliveries) = mpsc::unbounded_channel();
        let (trouble_ends, trouble) = watch::channel(None);
        let in_flight = Arc::new(AtomicUsize::new(0));
        let ends = Ends {
            commands: command_ends,
            deliveries: delivery_ends,
            in_flight: Arc::clone(&in_flight),
            trouble: trouble_ends,
        };
        let driver = Driver::new(Arc::new(options), machine, nodes, ends);
        let task = crate::sim::spawn(driver.run());
        Ok(Self { commands, deliveries, generation: 0, in_flight, trouble, task })
    }

    /// For whoever waits for its turn, and may not take the topics yet.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        Waiting { commands: self.commands.clone(), trouble: self.trouble.clone() }
    }

    /// Waits until something has happened that only a person can mend; for ever, if nothing does. What is
    /// delivered meanwhile is of no use to anybody: the topics are to be taken anew. Cancel-safe.
    pub async fn halted(&mut self) -> Error {
        while let Some((_, delivery)) = self.deliveries.recv().await {
            match delivery {
                Ok(delivery) => {
                    self.in_flight.fetch_sub(delivery.batch.bytes.len(), Ordering::Relaxed);
                }
                Err(error) if error.disposition() != Disposition::Retry => return error,
                Err(_) => {}
            }
        }
        std::future::pending().await // its error was told
    }

    /// Makes every topic that was looked up ours, and reads back what of ours they hold. Everything
    /// that was submitted and is not delivered is given up: the caller sends again what is not among
    /// [`Taken::stored`]. Waits as long as Kafka cannot do it.
    ///
    /// Only for whoever is the one that may write: it shuts out everybody else, and would shut out
    /// its own successor.
    ///
    /// # Errors
    /// The topics cannot be taken, or another process took them in the middle of it.
    pub async fn take(&mut self, claim: Claim) -> Result<Taken, Error> {
        self.generation += 1;
        let (reply, answer) = oneshot::channel();
        let generation = self.generation;
        let _ = self.commands.send(Command::Take { claim, generation, reply });
        self.answer(answer).await
    }

    /// What there is of ours, in the consumer group and at the ends of these topics, read without
    /// shutting anybody out. Waits as long as Kafka cannot tell. Without topics it is what the group has
    /// now: a transaction that a dead process left open is not waited for.
    ///
    /// # Errors
    /// It may not be asked.
    pub async fn look(&mut self, claim: Claim, topics: Vec<Arc<str>>) -> Result<Found, Error> {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Look { claim, topics, reply });
        self.answer(answer).await
    }

    /// Looks a topic up, and creates it if that is wanted. Waits as long as no broker answers.
    /// Batches for it are then cut to its `max.message.bytes` before they are sent. If the topics are
    /// ours it is taken as well.
    ///
    /// # Errors
    /// The topic cannot be used, or taken.
    pub async fn topic(&mut self, name: &str) -> Result<Met, Error> {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Topic { name: name.to_owned(), reply });
        self.answer(answer).await
    }

    async fn answer<T>(&mut self, answer: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
        match answer.await {
            Ok(result) => result,
            // The task has ended: its reason is the next delivery.
            Err(_) => match self.failed().await {
                Some(error) => Err(error),
                None => std::future::pending().await,
            },
        }
    }

    /// Notes in the consumer group that everything below `position` is stored, once the topics are
    /// ours. The answer comes when it is there: `false` if it cannot be noted at all.
    pub fn note(&self, timeline: u32, position: Lsn) -> Noting {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Note { timeline, position, reply });
        Noting(answer)
    }

    /// The same, and waits for it.
    ///
    /// # Errors
    /// The topics are to be taken anew.
    pub async fn noted(&mut self, timeline: u32, position: Lsn) -> Result<bool, Error> {
        let Noting(answer) = self.note(timeline, position);
        self.answer(answer).await
    }

    /// Takes a batch and never blocks: the caller bounds what is on its way by
    /// [`Self::in_flight`].
    pub fn submit(&mut self, batch: Batch) {
        self.in_flight.fetch_add(batch.bytes.len(), Ordering::Relaxed);
        // If the task has ended, its reason is the next delivery.
        let _ = self.commands.send(Command::Submit(batch));
    }

    /// What was submitted until now becomes visible to `read_committed` consumers together, and what is
    /// submitted next does not before it. Nothing if the topics were taken without transactions.
    pub fn commit(&mut self) {
        let _ = self.commands.send(Command::Commit); // as in [`Self::submit`]
    }

    /// The next stored batch. Cancel-safe. Waits for ever while nothing is on its way.
    ///
    /// # Errors
    /// Nothing more will be delivered: by [`Error::disposition`] until the topics are taken anew, or
    /// at all.
    pub async fn delivered(&mut self) -> Result<Delivery, Error> {
        while let Some((generation, delivery)) = self.deliveries.recv().await {
            if let Ok(delivery) = &delivery {
                self.in_flight.fetch_sub(delivery.batch.bytes.len(), Ordering::Relaxed);
            }
            let last = matches!(&delivery, Err(error) if error.disposition() != Disposition::Retry);
            if generation == self.generation || last || planted(Bug::StaleDeliveries) {
                return delivery;
            }
        }
        std::future::pending().await // its error was told
    }

    /// Bytes held: batches not yet delivered, and the copies of them in requests.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What it waits for now, in words. `None`: all is well.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }

    /// The same as it changes.
    pub(crate) fn troubles(&self) -> watch::Receiver<Option<String>> {
        self.trouble.clone()
    }

    /// Ends the task and closes the connections. What is not delivered may be stored or not.
    pub async fn close(self) {
        let Self { commands, task, .. } = self;
        drop(commands);
        let _ = task.await; // only a panic, which has said so by itself
    }

    async fn failed(&mut self) -> Option<Error> {
        while let Some((_, delivery)) = self.deliveries.recv().await {
            if let Err(error) = delivery {
                return Some(error);
            }
        }
        None
    }
}

/// What keeps the way to Kafka open for whoever waits.
#[derive(Debug)]
pub struct Waiting {
    commands: mpsc::UnboundedSender<Command>,
    trouble: watch::Receiver<Option<String>>,
}

impl Waiting {
    /// Keeps connections with all who lead partitions of topics that were looked up, until the topics
    /// are taken, and asks who that is now. To be called again and again. Gives what stands against
    /// taking them.
    pub fn prepare(&self) -> Option<String> {
        let _ = self.commands.send(Command::Prepare); // as in [`Producer::submit`]
        self.trouble.borrow().clone()
    }
}

/// A position that is being noted.
#[derive(Debug)]
pub struct Noting(oneshot::Receiver<Result<bool, Error>>);

impl Noting {
    /// Waits for it. Cancel-safe. For ever if the task has ended: its reason is the next delivery.
    ///
    /// # Errors
    /// The topics are to be taken anew.
    pub async fn done(&mut self) -> Result<bool, Error> {
        match (&mut self.0).await {
            Ok(answer) => answer,
            Err(_) => std::future::pending().await,
        }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

const fn codec(compression: Compression) -> Codec {
    match compression {
        Compression::None => Codec::None,
        Compression::Gzip => Codec::Gzip,
        Compression::Snappy => Codec::Snappy,
        Compression::Lz4 => Codec::Lz4,
    }
}
