//! What can go wrong between us and Kafka.

mod refusal;

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use rskafka::messenger::RequestError;

pub use self::refusal::{Doubt, Refusal};
use super::{codes::Named, wire::Malformed};
use crate::{
    batch::log,
    net,
    retry::{Disposition, Exit},
};

/// Why something did not reach Kafka.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error("could not connect to broker {broker}{}", .hint.unwrap_or_default())]
    Connect {
        /// Host and port.
        broker: String,
        /// What the cause may be, where that is known.
        hint: Option<&'static str>,
        /// Why.
        source: net::Error,
    },
    /// The broker said nothing for too long. The connection is closed: its answers would be late.
    #[error("broker {broker} did not answer {api} within {}", Seconds(*.after))]
    Timeout {
        /// Host and port.
        broker: String,
        /// Request.
        api: &'static str,
        /// The limit.
        after: Duration,
    },
    /// The connection ended.
    #[error("the connection to broker {broker} ended{}", .hint.unwrap_or_default())]
    Closed {
        /// Host and port.
        broker: String,
        /// What the cause may be, where that is known.
        hint: Option<&'static str>,
        /// The messenger's reason.
        source: Box<RequestError>,
    },
    /// TLS was refused after the handshake, as a missing client certificate is with TLS 1.3.
    #[error(
        "broker {broker} ended TLS: does it want a client certificate (kafka.tls.cert and key), or \
         another one?"
    )]
    Tls {
        /// Host and port.
        broker: String,
        /// The alert.
        source: net::Error,
    },
    /// The answer is none.
    #[error("broker {broker} answered {api} with something that cannot be read")]
    Malformed {
        /// Host and port.
        broker: String,
        /// Request.
        api: &'static str,
        /// What is wrong with it.
        source: Malformed,
    },
    /// The answer leaves out what was asked, or tells of something else.
    #[error("broker {broker} answered {api} without {what}")]
    Incomplete {
        /// Host and port.
        broker: String,
        /// Request.
        api: &'static str,
        /// What is missing.
        what: String,
    },
    /// It cannot be sent.
    #[error("{api} cannot be written for broker {broker}")]
    Unsendable {
        /// Host and port.
        broker: String,
        /// Request.
        api: &'static str,
        /// The messenger's reason.
        source: Box<RequestError>,
    },
    /// The broker is too old, or too new.
    #[error("broker {broker} has no version of {api} that this program speaks")]
    Version {
        /// Host and port.
        broker: String,
        /// Request.
        api: &'static str,
    },
    /// The password's file cannot be read; it could be at start.
    #[error("kafka.sasl.password_file {} cannot be read", .path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The listener has no such mechanism.
    #[error("broker {broker} offers no {wanted}, only {offered}")]
    Mechanism {
        /// Host and port.
        broker: String,
        /// As configured.
        wanted: &'static str,
        /// What it has.
        offered: String,
    },
    /// User or password are wrong.
    #[error("broker {broker} refused the login of {user} by {mechanism}: {message}")]
    Login {
        /// Host and port.
        broker: String,
        /// Whose.
        user: String,
        /// How.
        mechanism: &'static str,
        /// In the broker's words.
        message: String,
    },
    /// The broker does not prove that it knows the password, or breaks off the proof.
    #[error("broker {broker} does not follow {mechanism}: {why}")]
    Scram {
        /// Host and port.
        broker: String,
        /// How.
        mechanism: &'static str,
        /// What it did.
        why: &'static str,
    },
    /// An error code.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// A right that two transactional ids need.
    #[error("{refusal} --transactional-id {other}")]
    NotAllowed {
        /// Of the one.
        refusal: Box<Refusal>,
        /// The other one.
        other: String,
    },
    /// There is no such topic.
    #[error(
        "topic {topic} does not exist: make it with kafka-topics.sh --bootstrap-server {broker} \
         --create --topic {topic} --partitions {partitions}, or set topic.create = true"
    )]
    TopicMissing {
        /// Its name.
        topic: String,
        /// Host and port.
        broker: String,
        /// As many as would be made.
        partitions: i32,
    },
    /// Kafka takes no such name.
    #[error("\"{}\" cannot be the name of a topic: {why}", .topic.escape_debug())]
    TopicName {
        /// As configured.
        topic: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A topic was made, but some partition has no leader yet.
    #[error("topic {topic} has no leader for every partition yet")]
    TopicNotReady {
        /// Its name.
        topic: String,
    },
    /// Only reading the topics can tell what is stored.
    #[error("{topic}[{partition}]: {why}; nothing is lost: what is stored is read back")]
    Doubt {
        /// Topic.
        topic: Arc<str>,
        /// Partition.
        partition: i32,
        /// What left the doubt.
        why: Doubt,
    },
    /// Another process writes under our transactional id.
    #[error("broker {broker} answered {api} with {}: another process took the topics over", Named(*.code))]
    Fenced {
        /// Host and port.
        broker: String,
        /// Request.
        api: &'static str,
        /// 47 or 90.
        code: i16,
    },
    /// Metadata names a leader that is not among its brokers.
    #[error("broker {id} is not among those that the cluster names")]
    NoSuchBroker {
        /// Its `node.id`.
        id: i32,
    },
    /// What shuts others out is not where it was put.
    #[error("the marker of a new epoch has not come to {topic}[{partition}]")]
    NoMarker {
        /// Topic.
        topic: Arc<str>,
        /// Partition.
        partition: i32,
    },
    /// It was committed, and yet it is not there.
    #[error("the group's note on {topic} was committed, and is not there")]
    NotKept {
        /// Topic.
        topic: Arc<str>,
    },
    /// What a partition holds cannot be read back.
    #[error("{topic}[{partition}] cannot be read back")]
    Log {
        /// Topic.
        topic: Arc<str>,
        /// Partition.
        partition: i32,
        /// Why not.
        source: log::Error,
    },
    /// A bug of ours.
    #[error("the producer's task has ended")]
    Ended,
    /// A record does not fit.
    #[error(
        "a record makes a batch of {bytes} bytes, over topic {topic}'s max.message.bytes{}: raise \
         that, or leave the large column out", .limit.map(|n| format!(" of {n}")).unwrap_or_default()
    )]
    TooLarge {
        /// Topic.
        topic: Arc<str>,
        /// Partition, if it got one.
        partition: Option<i32>,
        /// Its size, in a batch of its own.
        bytes: usize,
        /// The topic's limit, where it is known.
        limit: Option<usize>,
    },
}

impl Error {
    /// No `_` arm: a new variant does not compile until someone has judged it.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Connect { source, .. } => source.disposition(),
            Self::Timeout { .. }
            | Self::Closed { .. }
            | Self::Malformed { .. }
            | Self::Incomplete { .. }
            | Self::NoSuchBroker { .. }
            | Self::NoMarker { .. }
            | Self::NotKept { .. }
            | Self::Doubt { .. }
            | Self::Fenced { .. }
            | Self::TopicNotReady { .. } => Disposition::Retry,
            Self::Unsendable { .. } | Self::Password { .. } | Self::TopicName { .. } => {
                Disposition::Halt(Exit::Config)
            }
            Self::Version { .. } | Self::TopicMissing { .. } => {
                Disposition::Halt(Exit::Unavailable)
            }
            Self::Tls { .. } | Self::Mechanism { .. } | Self::Login { .. } | Self::Scram { .. } => {
                Disposition::Halt(Exit::Permission)
            }
            Self::Refused(refusal) | Self::NotAllowed { refusal, .. } => {
                refusal.verdict().disposition()
            }
            Self::Log { source, .. } => source.disposition(),
            Self::TooLarge { .. } => Disposition::Halt(Exit::Data),
            Self::Ended => Disposition::Halt(Exit::Software),
        }
    }

    /// The broker's error code, if it is one.
    #[must_use]
    pub fn code(&self) -> Option<i16> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            _ => None,
        }
    }
}

/// A broker's words, which we do not choose, as part of one line.
pub(super) fn line(text: &str) -> String {
    text.chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(api: &'static str, code: i16) -> Error {
        let (topic, partition) = (Some("users".to_owned()), Some(3));
        Refusal { topic, partition, ..of_nothing(api, code) }.into()
    }

    fn of_nothing(api: &'static str, code: i16) -> Refusal {
        Refusal {
            broker: "kafka:9092".to_owned(),
            user: Some("sluice".to_owned()),
            api,
            code,
            topic: None,
            partition: None,
            transactional_id: None,
            group: None,
            message: None,
        }
    }

    #[test]
    fn a_missing_right_is_named_with_the_command_that_grants_it() {
        let error = refusal("Produce", 29);
        assert_eq!(
            error.to_string(),
            "broker kafka:9092 answered Produce for users[3] with TOPIC_AUTHORIZATION_FAILED (29); \
             allow it: kafka-acls.sh --add --allow-principal User:sluice --operation Write --topic users"
        );
        assert_eq!(error.disposition(), Disposition::Halt(Exit::Permission));
    }

    #[test]
    fn an_old_brokers_refusal_of_idempotence_names_the_right_for_it() {
        let told = refusal("Produce", 31).to_string();
        assert!(told.ends_with("User:sluice --operation IdempotentWrite --cluster"), "{told}");
    }

    #[test]
    fn a_right_on_a_transactional_id_or_a_group_is_named_with_its_command() {
        let (transactional_id, group) = (Some("T".to_owned()), Some("g".to_owned()));
        let refusal = |api, code| {
            let (transactional_id, group) = (transactional_id.clone(), group.clone());
            Error::from(Refusal { transactional_id, group, ..of_nothing(api, code) })
        };
        let error = refusal("AddOffsetsToTxn", 53);
        assert_eq!(
            error.to_string(),
            "broker kafka:9092 answered AddOffsetsToTxn for transactional id T, group g with \
             TRANSACTIONAL_ID_AUTHORIZATION_FAILED (53); allow it: kafka-acls.sh --add \
             --allow-principal User:sluice --operation Write --transactional-id T"
        );
        assert_eq!(error.disposition(), Disposition::Halt(Exit::Permission));
        let error = refusal("OffsetFetch", 30);
        let told = error.to_string();
        assert!(told.ends_with("User:sluice --operation Read --group g"), "{told}");
        assert_eq!(error.disposition(), Disposition::Halt(Exit::Permission));
    }

    #[test]
    fn each_request_needs_its_own_right_on_a_topic() {
        for (api, right) in [
            ("AddPartitionsToTxn", "Write"),
            ("Fetch", "Read"),
            ("ListOffsets", "Describe"),
            ("TxnOffsetCommit", "Read"),
        ] {
            let told = refusal(api, 29).to_string();
            assert!(told.ends_with(&format!("--operation {right} --topic users")), "{told}");
        }
    }

    #[test]
    fn a_brokers_words_stay_on_one_line() {
        let words = format!("one\ntwo\x1b[31m{}", "x".repeat(1000));
        assert!(line(&words).starts_with("one two [31mxxx"));
        assert_eq!(line(&words).chars().count(), 500);
    }

    #[test]
    fn a_code_may_mean_another_thing_to_another_request() {
        assert_eq!(refusal("Produce", 37).disposition(), Disposition::Retry);
        assert_eq!(refusal("CreateTopics", 37).disposition(), Disposition::Halt(Exit::Config));
    }

    #[test]
    fn a_row_that_does_not_fit_halts_with_65() {
        let (topic, limit) = (Arc::from("users"), Some(1_048_588));
        let error = Error::TooLarge { topic, partition: Some(0), bytes: 2_000_000, limit };
        assert_eq!(error.disposition(), Disposition::Halt(Exit::Data));
    }
}
