//! One connection to one broker.
//!
//! rskafka's messenger matches answers to requests; the socket, TLS, the login, the requests and
//! the limits are ours: its own client sets no `TCP_NODELAY`, knows no timeout, and repeats a
//! Produce that was throttled but carried out.
//!
//! **Invariant.** No request waits for ever: its time runs while nothing moves that would bring it
//! nearer to its answer. After one that was not answered in time, or not readably, the connection is
//! closed: nobody could tell what a later answer belongs to.

mod coordinator;
mod failure;
mod log;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rskafka::{
    messenger::Messenger,
    protocol::{api_key::ApiKey, api_version::ApiVersionRange, primitives::Int16},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::failure::unreached;
use super::{
    Options, TopicOptions,
    codes::{NONE, TOPIC_ALREADY_EXISTS, TOPIC_AUTHORIZATION_FAILED},
    error::{Error, Refusal, line},
    flow::Flow,
    line::Line,
    metadata::Metadata,
    sasl,
    wire::{
        self, ApiVersions, Call, CreateTopic, DescribeTopicConfigs, Malformed, MetadataOf,
        PartitionProduced, Produce, Produced,
    },
};
use crate::net;

/// Larger than any answer to what we ask: metadata of 10 000 partitions has about 1 MB, and batches,
/// which are fetched whole, are kept below 100 MB by those who raise `max.message.bytes`. Memory is
/// taken as the bytes come.
const MAX_ANSWER: usize = 128 << 20;

/// How much longer we wait for an answer than the broker was told it may take for it.
const MARGIN: Duration = Duration::from_secs(2);

/// A connection to a broker, logged in. A clone is the same connection.
#[derive(Clone)]
pub struct Broker(Arc<Inner>);

struct Inner {
    name: String,
    options: Options,
    messenger: Messenger<Line<net::Stream>>,
    cut: CancellationToken,
    flow: Arc<Flow>,
    answered: AtomicBool,
    renew_at: Option<Instant>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.cut.cancel();
    }
}

/// What limits a topic's batches, as far as it is known.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TopicConfigs {
    /// `max.message.bytes`: a batch's largest size.
    pub max_message_bytes: Option<usize>,
    /// `min.insync.replicas`.
    pub min_insync_replicas: Option<u32>,
    /// `cleanup.policy`.
    pub cleanup_policy: Option<String>,
    /// `message.timestamp.type`.
    pub timestamp_type: Option<String>,
}

impl Broker {
    /// Connects, asks for versions, and logs in if `options` say so.
    ///
    /// # Errors
    /// No connection, no trust, no common version, a refused login; each within its limit of time.
    pub async fn connect(host: &str, port: u16, options: &Options) -> Result<Self, Error> {
        let shown = line(host);
        let name = match shown.contains(':') {
            true => format!("[{shown}]:{port}"),
            false => format!("{shown}:{port}"),
        };
        let stream = net::connect(host, port, &options.tcp, options.tls.as_ref())
            .await
            .map_err(|source| unreached(&name, source))?;
        let cut = CancellationToken::new();
        let flow = Arc::new(Flow::new());
        let line = Line::new(stream, &cut, Arc::clone(&flow));
        let messenger = Messenger::new(line, MAX_ANSWER, Arc::from(options.client_id.as_str()));
        let mut inner = Inner {
            name,
            options: options.clone(),
            messenger,
            cut,
            flow,
            answered: AtomicBool::new(false),
            renew_at: None,
        };
        inner.agree().await?;
        if let Some(login) = &options.sasl {
            let begin = Instant::now();
            let lifetime = sasl::login(&inner, login).await?;
            inner.renew_at = lifetime.map(|lifetime| begin + lifetime.mul_f64(0.8));
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Host and port, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// When this connection is to be replaced: the broker ends it at the first request after
    /// `connections.max.reauth.ms`, and this is at four fifths of that.
    #[must_use]
    pub fn renew_at(&self) -> Option<Instant> {
        self.0.renew_at
    }

    /// Whether the connection has ended. Without a request under way that is no failure: a broker
    /// closes what it has not heard of for `connections.max.idle.ms`.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.cut.is_cancelled()
    }

    /// Waits until the connection has ended. Cancel-safe.
    pub async fn closed(&self) {
        self.0.cut.cancelled().await;
    }

    /// Ends the connection; requests that wait on it fail.
    pub fn close(&self) {
        self.0.cut.cancel();
    }

    /// Asks about topics; of none, only about the cluster. Never makes a topic.
    ///
    /// # Errors
    /// No or no readable answer. Codes of topics and partitions are part of the answer.
    pub async fn metadata(&self, topics: &[&str]) -> Result<Metadata, Error> {
        let topics = topics.iter().map(|&topic| topic.to_owned()).collect();
        self.0.call(MetadataOf { topics }).await
    }

    /// Sends batches and waits until all in-sync replicas have them. Requests are carried out in
    /// the order in which their futures are first polled.
    ///
    /// # Errors
    /// No or no readable answer, or one that is not about exactly the batches sent. Codes of
    /// partitions are part of the answer.
    pub async fn produce(&self, request: Produce) -> Result<Produced, Error> {
        let asked = request.batches.iter().map(|b| (Arc::clone(&b.topic), b.partition)).collect();
        let limit = request.timeout.saturating_add(MARGIN);
        let produced = self.0.call_within(request, limit).await?;
        let answered = produced.partitions.iter().map(|answer| (&answer.topic, answer.partition));
        self.complete(Produce::NAME, asked, answered)?;
        Ok(produced)
    }

    /// The settings of a topic that matter to a producer; `None`: it may not be asked (29).
    ///
    /// # Errors
    /// No or no readable answer, or another code.
    pub async fn topic_configs(&self, topic: &str) -> Result<Option<TopicConfigs>, Error> {
        const NAMES: &[&str] = &[
            "max.message.bytes",
            "min.insync.replicas",
            "cleanup.policy",
            "message.timestamp.type",
        ];
        let request = DescribeTopicConfigs { topic: topic.to_owned(), names: NAMES };
        let answer = self.0.call(request).await?;
        if answer.code == TOPIC_AUTHORIZATION_FAILED {
            return Ok(None);
        }
        self.0.judge(DescribeTopicConfigs::NAME, answer.code, Some(topic), answer.message)?;
        let mut configs = TopicConfigs::default();
        for (name, value) in answer.configs {
            let number = value.as_deref().and_then(|value| value.parse::<u32>().ok());
            match name.as_str() {
                "max.message.bytes" => {
                    configs.max_message_bytes = number.and_then(|n| n.try_into().ok());
                }
                "min.insync.replicas" => configs.min_insync_replicas = number,
                "cleanup.policy" => configs.cleanup_policy = value,
                "message.timestamp.type" => configs.timestamp_type = value,
                _ => {}
            }
        }
        Ok(Some(configs))
    }

    /// Makes a topic; one that is there already is left as it is.
    ///
    /// # Errors
    /// No or no readable answer, or a code: 41 if the request should have gone to the controller.
    pub async fn create_topic(&self, name: &str, options: &TopicOptions) -> Result<(), Error> {
        let request = CreateTopic {
            name: name.to_owned(),
            partitions: options.partitions,
            replication_factor: options.replication_factor,
            config: options.config.clone(),
            timeout: self.0.options.request_timeout,
        };
        let limit = self.0.options.request_timeout.saturating_add(MARGIN);
        let answer = self.0.call_within(request, limit).await?;
        if answer.code == TOPIC_ALREADY_EXISTS {
            return Ok(());
        }
        self.0.judge(CreateTopic::NAME, answer.code, Some(name), answer.message)
    }

    /// The error for a batch that was not stored, with what the broker says of its records.
    #[must_use]
    pub fn refused(&self, answer: &PartitionProduced) -> Error {
        let mut words = answer.message.clone().unwrap_or_default();
        for (index, why) in answer.bad_records.iter().take(3) {
            let comma = if words.is_empty() { "" } else { ", " };
            words =
                format!("{}{comma}record {index} of the batch: {why}", words.trim_end_matches('.'));
        }
        self.refuse(Produce::NAME, answer.code, &answer.topic, Some(answer.partition), Some(words))
    }

    /// What an error is made of for a code of a partition, which the caller adds with whatever else
    /// it is about.
    #[must_use]
    pub fn refusal(&self, api: &'static str, code: i16) -> Refusal {
        self.0.refusal(api, code)
    }

    /// That an answer is about exactly the partitions that were asked about. Else nobody knows what
    /// it is an answer to, so the connection is closed.
    fn complete<'a>(
        &self,
        api: &'static str,
        asked: Vec<(Arc<str>, i32)>,
        answered: impl Iterator<Item = (&'a Arc<str>, i32)>,
    ) -> Result<(), Error> {
        let mut open = BTreeSet::from_iter(asked);
        for (topic, partition) in answered {
            if !open.remove(&(Arc::clone(topic), partition)) {
                self.close();
                let what = format!("being asked about {}[{partition}]", line(topic));
                return Err(self.0.incomplete(api, what));
            }
        }
        match open.pop_first() {
            None => Ok(()),
            Some((topic, partition)) => {
                self.close();
                Err(self.0.incomplete(api, format!("{topic}[{partition}]")))
            }
        }
    }

    /// What this connection was made with.
    pub(super) fn options(&self) -> &Options {
        &self.0.options
    }

    /// An error for a code that was not about the connection.
    pub(super) fn refuse(
        &self,
        api: &'static str,
        code: i16,
        topic: &str,
        partition: Option<i32>,
        message: Option<String>,
    ) -> Error {
        let topic = Some(topic.to_owned());
        Refusal { topic, partition, message, ..self.0.refusal(api, code) }.into()
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Broker").field(&self.0.name).finish()
    }
}

/// Whoever can carry out a request: what a login needs of a connection.
impl Inner {
    /// Asks which versions the broker speaks.
    async fn agree(&mut self) -> Result<(), Error> {
        let (oldest, mut newest) = ApiVersions::VERSIONS;
        loop {
            let range = ApiVersionRange::new(wire::version(oldest), wire::version(newest));
            self.messenger.override_version_ranges([(ApiVersions::API, range)].into());
            let answer = self.call(ApiVersions).await?;
            if answer.code == wire::UNSUPPORTED_VERSION && newest > oldest {
                newest = oldest;
                continue;
            }
            self.judge(ApiVersions::NAME, answer.code, None, None)?;
            let ranges = answer.ranges.into_iter().filter(|(_, min, max)| min <= max);
            let ranges = ranges.map(|(key, min, max)| {
                let range = ApiVersionRange::new(wire::version(min), wire::version(max));
                (ApiKey::from(Int16(key)), range)
            });
            self.messenger.override_version_ranges(ranges.collect());
            // What its versions are, every broker tells everybody: that it answered says nothing.
            self.answered.store(false, Ordering::Relaxed);
            return Ok(());
        }
    }

    async fn call<C: Call>(&self, call: C) -> Result<C::Answer, Error> {
        self.call_within(call, self.options.request_timeout).await
    }

    async fn call_within<C: Call>(&self, call: C, limit: Duration) -> Result<C::Answer, Error> {
        let end = AtomicU64::new(u64::MAX);
        let queued = |bytes| end.store(self.flow.queue(bytes), Ordering::Relaxed);
        let answer = tokio::select! {
            biased; // it is put into its place in the order when it is first polled
            answer = self.messenger.request(wire::Sent(call, queued)) => answer,
            () = self.flow.stalled(&end, limit) => {
                self.cut.cancel();
                let broker = self.name.clone();
                return Err(Error::Timeout { broker, api: C::NAME, after: limit });
            }
        };
        match answer {
            Ok(wire::Received(answer)) => {
                self.answered.store(true, Ordering::Relaxed);
                Ok(answer)
            }
            Err(error) => Err(self.explain(C::NAME, error)),
        }
    }

    fn judge(
        &self,
        api: &'static str,
        code: i16,
        topic: Option<&str>,
        message: Option<String>,
    ) -> Result<(), Error> {
        if code == NONE {
            return Ok(());
        }
        let topic = topic.map(str::to_owned);
        Err(Refusal { topic, message, ..self.refusal(api, code) }.into())
    }

    fn refusal(&self, api: &'static str, code: i16) -> Refusal {
        let (broker, login) = (self.name.clone(), self.options.sasl.as_ref());
        let user = login.map(|login| login.user.clone());
        Refusal {
            broker,
            user,
            api,
            code,
            topic: None,
            partition: None,
            transactional_id: None,
            group: None,
            message: None,
        }
    }

    fn incomplete(&self, api: &'static str, what: String) -> Error {
        Error::Incomplete { broker: self.name.clone(), api, what }
    }
}

impl sasl::Ask for Inner {
    fn broker(&self) -> &str {
        &self.name
    }

    async fn ask<C: Call>(&self, call: C) -> Result<C::Answer, Error> {
        self.call(call).await
    }
}

#[cfg(test)]
mod tests;
