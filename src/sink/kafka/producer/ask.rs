//! Questions that any broker can answer, put to one after the other until one does.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::{
    net,
    retry::{Backoff, Disposition},
    sink::kafka::{
        Options,
        broker::Broker,
        error::Error,
        metadata::{Metadata, Node},
        topics::{self, Topic},
        wire::InitProducerId,
    },
};

/// How long one broker is waited for before the next is asked as well: a frozen one would be found
/// out only after the request's timeout.
const PATIENCE: Duration = Duration::from_secs(1);

/// The first pause before all are asked again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Who may answer.
#[derive(Clone)]
pub(super) enum Candidate {
    /// Over this connection.
    Live(Broker),
    /// Over a new one.
    Dial(String, u16),
}

impl Candidate {
    async fn broker(self, options: &Options) -> Result<Broker, Error> {
        match self {
            Self::Live(broker) => Ok(broker),
            Self::Dial(host, port) => Broker::connect(&host, port, options).await,
        }
    }
}

/// The first answer. What no broker would take halts at once; else the last failure is told.
pub(super) async fn any<T, F: Future<Output = Result<T, Error>>>(
    candidates: Vec<Candidate>,
    options: &Options,
    question: impl Fn(Broker) -> F,
) -> Result<T, Error> {
    let ask = async |candidate: Candidate| question(candidate.broker(options).await?).await;
    let mut waiting = candidates.into_iter().peekable();
    let mut asked = FuturesUnordered::new();
    loop {
        asked.extend(waiting.next().map(&ask));
        let more = waiting.peek().is_some();
        tokio::select! {
            biased;
            Some(answer) = asked.next() => match answer {
                Err(error) if error.disposition() == Disposition::Retry => {
                    if asked.is_empty() && !more {
                        return Err(error);
                    }
                }
                answer => return answer,
            },
            () = sleep(PATIENCE), if more => {}
            else => return Err(nobody()),
        }
    }
}

fn nobody() -> Error {
    let source = io::Error::new(io::ErrorKind::NotFound, "no broker is configured");
    let source = net::Error::Resolve { host: String::new(), source };
    Error::Connect { broker: "(none)".to_owned(), hint: None, source }
}

/// The cluster's brokers, from whoever of the bootstrap brokers answers.
pub(super) async fn bootstrap(options: &Options) -> Result<Vec<Node>, Error> {
    let dial = |(host, port): &(String, u16)| Candidate::Dial(host.clone(), *port);
    let candidates = options.brokers.iter().map(dial).collect();
    let question = async |broker: Broker| Ok(broker.metadata(&[]).await?.brokers);
    any(candidates, options, question).await
}

/// A new producer id.
pub(super) async fn producer_id(broker: Broker) -> Result<(i64, i16), Error> {
    broker.init_producer_id(InitProducerId::PLAIN).await
}

/// Who leads the partitions of these topics.
pub(super) async fn metadata(broker: Broker, topics: &[Arc<str>]) -> Result<Metadata, Error> {
    let names: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
    broker.metadata(&names).await
}

/// Looks a topic up, for as long as it takes to find a broker.
pub(super) async fn topic(
    candidates: Vec<Candidate>,
    options: &Options,
    name: &str,
) -> Result<Topic, Error> {
    let mut backoff = Backoff::new(FIRST_PAUSE, options.retry_max);
    let mut random = Random::new();
    loop {
        let check = async |broker: Broker| topics::check(&broker, name, &options.topic).await;
        match any(candidates.clone(), options, check).await {
            Err(error) if error.disposition() == Disposition::Retry => {
                if backoff.attempts() == 0 {
                    warn!(topic = name, "cannot be looked up yet, trying on: {}", chain(&error));
                }
                sleep(backoff.next(random.next())).await;
            }
            result => {
                if backoff.attempts() > 0 {
                    info!(topic = name, "was looked up after {} attempts", backoff.attempts() + 1);
                }
                return result;
            }
        }
    }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Xorshift: only to spread pauses.
pub(super) struct Random(u32);

impl Random {
    pub(super) fn new() -> Self {
        let seed = RandomState::new().build_hasher().finish();
        Self(u32::try_from(seed >> 33).unwrap_or(1) | 1)
    }

    pub(super) const fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    pub(super) fn rotate<T>(&mut self, list: &mut [T]) {
        if let Some(by) = (self.next() as usize).checked_rem(list.len()) {
            list.rotate_left(by);
        }
    }
}
