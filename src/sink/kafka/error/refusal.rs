//! What a broker refuses, and what its answer leaves open.

use std::fmt;

use super::{Error, line};
use crate::sink::kafka::codes::{self, Named, Verdict};

/// Why nobody can tell from answers alone what is stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Doubt {
    /// The broker does not go on with our sequence, or with us.
    Refused(i16),
    /// The topic was deleted and made anew.
    MadeAnew,
    /// The partition was not there when the others were taken.
    NotTaken,
    /// Nobody said whether a transaction was committed.
    Unanswered,
    /// This process stood still for so long that another one may have the right to write.
    Lease,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(code @ (47 | 90)) => {
                write!(
                    f,
                    "{}: another process may have taken over, or, with kafka.delivery = \
                     \"transactional\", Kafka has aborted a transaction that took too long",
                    Named(*code)
                )
            }
            Self::Refused(code) => write!(f, "{}", Named(*code)),
            Self::Unanswered => f.write_str("nobody answered whether a transaction was committed"),
            Self::MadeAnew => f.write_str("the topic was deleted and made anew"),
            Self::NotTaken => f.write_str("it was not there before"),
            Self::Lease => f.write_str(
                "this process stood still for so long that another one may have its place by now",
            ),
        }
    }
}

/// An error code of a broker, with what it is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// Host and port.
    pub broker: String,
    /// Who was refused, if we logged in by a name.
    pub user: Option<String>,
    /// Request.
    pub api: &'static str,
    /// Kafka's number.
    pub code: i16,
    /// Topic, if it is about one.
    pub topic: Option<String>,
    /// Partition, if it is about one.
    pub partition: Option<i32>,
    /// Transactional id, if it is about one.
    pub transactional_id: Option<String>,
    /// Group, if it is about one.
    pub group: Option<String>,
    /// In the broker's words.
    pub message: Option<String>,
}

impl Refusal {
    /// What to do about it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.api == "Produce" { codes::produce(self.code) } else { codes::request(self.code) }
    }

    /// The ACL operation that the request needs.
    fn operation(&self) -> &'static str {
        match self.api {
            // A broker before 2.8 asks for this right for every idempotent producer.
            "Produce" if self.code == codes::CLUSTER_AUTHORIZATION_FAILED => "IdempotentWrite",
            "Produce" => "Write",
            "CreateTopics" => "Create",
            "DescribeConfigs" => "DescribeConfigs",
            "InitProducerId" => "IdempotentWrite",
            "AddPartitionsToTxn" => "Write",
            "Fetch" | "TxnOffsetCommit" => "Read",
            _ => "Describe",
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broker {} answered {}", self.broker, self.api)?;
        let mut before = " for";
        if let Some(topic) = &self.topic {
            write!(f, "{before} {topic}")?;
            before = ",";
        }
        if let Some(partition) = self.partition {
            write!(f, "[{partition}]")?;
        }
        if let Some(id) = &self.transactional_id {
            write!(f, "{before} transactional id {id}")?;
            before = ",";
        }
        if let Some(group) = &self.group {
            write!(f, "{before} group {group}")?;
        }
        write!(f, " with {}", Named(self.code))?;
        if let Some(message) = self.message.as_deref().filter(|text| !text.is_empty()) {
            write!(f, ": {}", line(message.trim_end_matches('.')))?;
        }
        if let Verdict::Halt(_, advice) = self.verdict() {
            let mut advice = advice.replace("{operation}", self.operation());
            for (place, name) in [
                ("{user}", &self.user),
                ("{topic}", &self.topic),
                ("{transactional_id}", &self.transactional_id),
                ("{group}", &self.group),
            ] {
                advice = advice.replace(place, name.as_deref().unwrap_or("…"));
            }
            write!(f, "; {advice}")?;
        }
        Ok(())
    }
}
