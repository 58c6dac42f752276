//! A throwaway Apache Kafka.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::{eventually, guard, run, try_run};

/// The newest Kafka that every feature of the tests is measured on.
pub const LATEST: &str = "4.2.0";

/// A running cluster of one or three brokers; dropped, it is killed and deleted.
pub struct Kafka {
    name: String,
    listeners: HashMap<String, String>,
}

/// A record as it is in a topic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// From 0.
    pub partition: i32,
    /// Its place in the partition.
    pub offset: i64,
    /// In milliseconds.
    pub timestamp: i64,
    /// As text; bytes that are no UTF-8 as `{"base64":"…"}`.
    pub key: Option<String>,
    /// In the same way.
    pub value: Option<String>,
    /// In their order.
    pub headers: Vec<(String, Option<String>)>,
}

impl Record {
    /// The value of its first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.as_deref())
    }

    /// The value as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        let value = self.value.as_deref().expect("the record has a value");
        serde_json::from_str(value).unwrap_or_else(|error| panic!("{value}: {error}"))
    }
}

impl Kafka {
    /// Starts `brokers` (1 or 3) brokers of this version from `port` on. Properties go to `server.properties`; `proxied=PORT`
    /// adds a listener that names, as its brokers, a [`super::Proxy`] on PORT, PORT + 1, PORT + 2 (see `kafka-up`).
    pub fn start(name: &str, port: u16, brokers: u8, properties: &[&str], version: &str) -> Self {
        let name = &format!("{name}-{port}"); // else a run on other ports would take it away
        guard::at_the_end(&format!("kafka-down {name}"));
        run("kafka-down", &[name], &[]);
        let (port, brokers) = (port.to_string(), format!("brokers={brokers}"));
        let args = [&[name.as_str(), port.as_str(), brokers.as_str()], properties].concat();
        let printed = run("kafka-up", &args, &[("KAFKA", version)]);
        let listeners = printed.lines().filter_map(|line| line.split_once('='));
        let listeners = listeners.map(|(kind, list)| (kind.to_owned(), list.to_owned())).collect();
        Self { name: name.to_owned(), listeners }
    }

    /// The one-broker cluster of the latest version that the tests of one binary share. Each test has topics of its own.
    pub fn shared(name: &str, port: u16) -> &'static Self {
        static SERVER: OnceLock<Kafka> = OnceLock::new();
        SERVER.get_or_init(|| Self::start(name, port, 1, &[], LATEST))
    }

    /// `host:port,…` of the plain listener.
    pub fn brokers(&self) -> &str {
        self.listener("plaintext")
    }

    /// `host:port,…` of `plaintext`, `ssl`, `sasl_plaintext`, `sasl_ssl`, or `proxied`.
    #[track_caller]
    pub fn listener(&self, kind: &str) -> &str {
        self.listeners.get(kind).unwrap_or_else(|| panic!("kafka-up printed no {kind}"))
    }

    /// The folder of `ca.pem`, `client.pem`, `client.key` and `other-ca.pem`, which signed nothing.
    pub fn certificates() -> String {
        run("certificates", &[], &[]).trim_end().to_owned()
    }

    /// Makes an empty topic, and deletes one of that name that was there before.
    #[track_caller]
    pub fn topic(&self, name: &str, partitions: u32) {
        self.topic_with(name, partitions, &[]);
    }

    /// The same with settings, such as `cleanup.policy=compact`.
    #[track_caller]
    pub fn topic_with(&self, name: &str, partitions: u32, settings: &[&str]) {
        if self.topics("list", &[]).lines().any(|topic| topic == name) {
            self.topics("delete", &[name]);
        }
        let partitions = format!("partitions={partitions}");
        let args = [&[self.brokers(), "create", name, partitions.as_str()], settings].concat();
        // A deleted topic is gone from the list a moment before its name is free.
        eventually(Duration::from_secs(30), &format!("topic {name} is made"), || {
            try_run("kafka-topics", &args, &[]).status.success()
        });
    }

    /// `kafka-topics`: list, describe, alter, delete.
    #[track_caller]
    pub fn topics(&self, verb: &str, words: &[&str]) -> String {
        run("kafka-topics", &[&[self.brokers(), verb], words].concat(), &[])
    }

    /// Every committed record of a topic: partitions one after the other, offsets ascending.
    #[track_caller]
    pub fn dump(&self, topic: &str) -> Vec<Record> {
        self.dump_as(topic, "read_committed")
    }

    /// The same with those of transactions that are open or were aborted, and of whatever stands behind an open one.
    #[track_caller]
    pub fn dump_uncommitted(&self, topic: &str) -> Vec<Record> {
        self.dump_as(topic, "read_uncommitted")
    }

    fn dump_as(&self, topic: &str, isolation: &str) -> Vec<Record> {
        let printed = run("kafka-dump", &[self.brokers(), topic, "--isolation", isolation], &[]);
        let mut records: Vec<Record> = printed.lines().map(record).collect();
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    /// Waits until a topic holds `count` records, and returns them all: they may be more.
    #[track_caller]
    pub fn dump_when(&self, topic: &str, count: usize, deadline: Duration) -> Vec<Record> {
        self.wait(topic, count, deadline);
        self.dump(topic)
    }

    /// Waits until a topic holds at least `count` records.
    #[track_caller]
    pub fn wait(&self, topic: &str, count: usize, deadline: Duration) {
        let (count, seconds) = (count.to_string(), deadline.as_secs_f64().to_string());
        run("kafka-count", &[self.brokers(), topic, "--wait", &count, "--timeout", &seconds], &[]);
    }

    /// End minus begin of all partitions.
    #[track_caller]
    pub fn count(&self, topic: &str) -> usize {
        run("kafka-count", &[self.brokers(), topic], &[])
            .trim_end()
            .parse()
            .expect("kafka-count prints a number")
    }

    /// `stop`, `start`, `kill`, `pause`, `resume`, `pid`, `log` of broker 1, 2, 3 or `all` (see `kafka-ctl`).
    #[track_caller]
    pub fn ctl(&self, id: &str, verb: &str) -> String {
        run("kafka-ctl", &[&self.name, id, verb], &[]).trim_end().to_owned()
    }

    /// The same where it may fail: whether it was done.
    pub fn try_ctl(&self, id: &str, verb: &str) -> bool {
        try_run("kafka-ctl", &[&self.name, id, verb], &[]).status.success()
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let _ = try_run("kafka-down", &[&self.name], &[]);
    }
}

/// A line of `kafka-dump`.
fn record(line: &str) -> Record {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    let number = |name: &str| {
        value.get(name).and_then(Value::as_i64).unwrap_or_else(|| panic!("no {name}: {line}"))
    };
    let headers =
        value.get("headers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Record {
        partition: i32::try_from(number("partition")).expect("Kafka's partitions are 32 bits"),
        offset: number("offset"),
        timestamp: number("timestamp"),
        key: value.get("key").and_then(text),
        value: value.get("value").and_then(text),
        headers: headers.iter().map(header).collect(),
    }
}

fn header(pair: &Value) -> (String, Option<String>) {
    let name = pair.get(0).and_then(Value::as_str).expect("a header has a name");
    (name.to_owned(), pair.get(1).and_then(text))
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Clusters of other versions take the memory of one, so that two cores and 4 GiB are enough: one at a time.
pub fn one_at_a_time<T>(body: impl FnOnce() -> T) -> T {
    static LOCK: Mutex<()> = Mutex::new(());
    let _lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    body()
}
