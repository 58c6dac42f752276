//! Whether a topic is there and fit for what is to be sent, and making it if that is wanted.

use std::{collections::BTreeSet, sync::Mutex, time::Duration};

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{
    TopicOptions,
    broker::Broker,
    codes::{NONE, NOT_CONTROLLER, UNKNOWN_TOPIC_OR_PARTITION},
    error::Error,
    metadata::{Metadata, TopicMetadata},
    wire::{Call, MetadataOf},
};

/// What `max.message.bytes` is unless somebody changed it, and a little less than that.
pub const ASSUMED_MAX_MESSAGE_BYTES: usize = 1 << 20;

/// A topic that records can be sent to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Topic {
    /// How many partitions it has.
    pub partitions: u32,
    /// Largest record batch.
    pub max_message_bytes: usize,
    /// `min.insync.replicas`; `None`: we may not ask.
    pub min_insync_replicas: Option<u32>,
    /// Whether it takes no record without a key.
    pub compacted: bool,
    /// Another one after the topic was deleted and made again; `None`: the broker is older than 2.8.
    pub id: Option<[u8; 16]>,
}

/// Looks a topic up, and makes it if it is missing and `options` say so.
///
/// # Errors
/// There is none and none is to be made, it may not be seen or made, or the broker cannot be asked.
pub async fn check(broker: &Broker, name: &str, options: &TopicOptions) -> Result<Topic, Error> {
    valid_name(name).map_err(|why| Error::TopicName { topic: name.to_owned(), why })?;
    let mut metadata = broker.metadata(&[name]).await?;
    if found(broker, &metadata, name)?.code == UNKNOWN_TOPIC_OR_PARTITION {
        if !options.create {
            return Err(Error::TopicMissing {
                topic: name.to_owned(),
                broker: broker.name().to_owned(),
                partitions: options.partitions.max(1),
            });
        }
        create(broker, &metadata, name, options).await?;
        metadata = until_led(broker, name).await?;
        info!(topic = name, "topic made");
    }
    let topic = found(broker, &metadata, name)?;
    if topic.code != NONE {
        return Err(broker.refuse(MetadataOf::NAME, topic.code, name, None, None));
    }
    let Some(partitions) = topic.count().filter(|&count| count > 0) else {
        return Err(Error::Incomplete {
            broker: broker.name().to_owned(),
            api: MetadataOf::NAME,
            what: format!("every partition of {name}"),
        });
    };
    describe(broker, name, partitions, topic.id, metadata.brokers.len()).await
}

/// Kafka's rules for the name of a topic.
///
/// # Errors
/// Which of them it breaks.
pub fn valid_name(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("it is empty"),
        "." | ".." => Err("Kafka keeps it for itself"),
        _ if name.len() > 249 => Err("it is longer than 249 characters"),
        _ if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) => Ok(()),
        _ => Err("only a-z, A-Z, 0-9, '.', '_' and '-' may be in it"),
    }
}

fn found<'a>(
    broker: &Broker,
    metadata: &'a Metadata,
    name: &str,
) -> Result<&'a TopicMetadata, Error> {
    metadata.topic(name).ok_or_else(|| Error::Incomplete {
        broker: broker.name().to_owned(),
        api: MetadataOf::NAME,
        what: format!("topic {name}"),
    })
}

/// By the broker that was asked, which hands it on with KRaft, or else by the controller itself.
async fn create(
    broker: &Broker,
    metadata: &Metadata,
    name: &str,
    options: &TopicOptions,
) -> Result<(), Error> {
    match broker.create_topic(name, options).await {
        Err(error) if error.code() == Some(NOT_CONTROLLER) => {
            let Some(node) = metadata.controller.and_then(|id| metadata.node(id)) else {
                return Err(error);
            };
            let controller = Broker::connect(&node.host, node.port, broker.options()).await?;
            controller.create_topic(name, options).await
        }
        done => done,
    }
}

/// A topic that was just made is known to one broker after the other, and led a little later.
async fn until_led(broker: &Broker, name: &str) -> Result<Metadata, Error> {
    let end = Instant::now() + broker.options().request_timeout;
    let mut pause = Duration::from_millis(20);
    loop {
        let metadata = broker.metadata(&[name]).await?;
        let led = metadata.topic(name).is_some_and(|topic| {
            topic.code == NONE
                && topic.count().is_some_and(|count| count > 0)
                && topic.partitions.iter().all(|p| p.code == NONE && p.leader.is_some())
        });
        if led {
            return Ok(metadata);
        }
        if Instant::now() >= end {
            return Err(Error::TopicNotReady { topic: name.to_owned() });
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

async fn describe(
    broker: &Broker,
    name: &str,
    partitions: u32,
    id: Option<[u8; 16]>,
    brokers: usize,
) -> Result<Topic, Error> {
    let configs = broker.topic_configs(name).await?;
    if configs.is_none() && first_time("DescribeConfigs", "") {
        warn!(
            topic = name,
            "no right to DescribeConfigs: max.message.bytes is taken to be 1 MiB; allow it for \
             the topics: kafka-acls.sh --add --allow-principal User:… --operation DescribeConfigs"
        );
    }
    let configs = configs.unwrap_or_default();
    let min_insync_replicas = configs.min_insync_replicas;
    if brokers > 1 && min_insync_replicas == Some(1) && first_time("min.insync.replicas", name) {
        warn!(
            topic = name,
            "min.insync.replicas is 1: a row may be confirmed while a single broker has it; set \
             it to 2"
        );
    }
    Ok(Topic {
        partitions,
        max_message_bytes: configs.max_message_bytes.unwrap_or(ASSUMED_MAX_MESSAGE_BYTES),
        min_insync_replicas,
        compacted: configs.cleanup_policy.is_some_and(|policy| policy.contains("compact")),
        id,
    })
}

/// Topics are checked again after every reconnect; what is wrong with one is said once.
fn first_time(what: &'static str, topic: &str) -> bool {
    static SAID: Mutex<BTreeSet<(&str, String)>> = Mutex::new(BTreeSet::new());
    SAID.lock().is_ok_and(|mut said| said.insert((what, topic.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_kafka_takes() {
        for good in ["users", "a.b_c-D9", "...", &"x".repeat(249)] {
            assert_eq!(valid_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a b", "größe", "a/b", "a\n", &"x".repeat(250)] {
            assert!(valid_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_topic_is_said_once() {
        assert!(first_time("test", "a"));
        assert!(first_time("test", "b"));
        assert!(!first_time("test", "a"));
    }
}
