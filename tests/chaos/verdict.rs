//! What Kafka holds, against what was committed: read with a consumer that is not ours, judged, counted.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::batches::Batches;
use crate::diary::Diary;
use crate::judge::{Finding, Judge, Stored, Wrong};
use crate::reference::Reference;
use crate::rows::TABLES;
use crate::support::{Kafka, script};

/// How many are shown: of each kind for each fault, and of each kind in all.
const SHOWN: (usize, usize) = (2, 8);

/// See the module.
pub struct Verdict<'a> {
    kafka: &'a Kafka,
    diary: &'a Diary,
    /// Records that are stored, repeats and all.
    pub stored: usize,
    /// Batches behind the marker of a successor.
    pub returns: usize,
    /// By kind and by what happened last when the record was made.
    counts: BTreeMap<Wrong, BTreeMap<(usize, String), usize>>,
    shown: BTreeMap<Wrong, Vec<String>>,
    /// Of each topic.
    batches: Vec<Batches>,
}

impl<'a> Verdict<'a> {
    /// Reads every topic.
    pub fn read(reference: &'a Reference, kafka: &'a Kafka, diary: &'a Diary, mode: &str) -> Self {
        let (counts, shown) = (BTreeMap::new(), BTreeMap::new());
        let mut it =
            Self { kafka, diary, stored: 0, returns: 0, counts, shown, batches: Vec::new() };
        let isolation = if mode == "transactional" { "read_committed" } else { "read_uncommitted" };
        let mut judge = Judge::new(reference);
        for at in 0..TABLES.len() {
            it.read_topic(at, isolation, &mut judge);
        }
        for finding in judge.end() {
            it.add(&finding, (usize::MAX, "in the end".to_owned()));
        }
        it
    }

    /// How many are wrong in this way.
    pub fn count(&self, wrong: Wrong) -> usize {
        self.counts.get(&wrong).into_iter().flatten().map(|(_, count)| count).sum()
    }

    /// How many are wrong in some way that is not one of these.
    pub fn count_without(&self, these: &[Wrong]) -> usize {
        let others = self.counts.keys().filter(|wrong| !these.contains(wrong));
        others.map(|&wrong| self.count(wrong)).sum()
    }

    /// The first of each kind, a line each, and how many by what happened.
    pub fn shown(&self) -> String {
        let mut lines = Vec::new();
        for (wrong, by_fault) in &self.counts {
            lines.extend(self.shown.get(wrong).into_iter().flatten().cloned());
            let each = by_fault.iter().map(|((_, fault), count)| format!("{count} {fault}"));
            let each: Vec<String> = each.collect();
            lines.push(format!("{wrong:?}: {} in all: {}", self.count(*wrong), each.join(", ")));
        }
        lines.join("\n")
    }

    fn read_topic(&mut self, at: usize, isolation: &str, judge: &mut Judge<'_>) {
        let (topic, partitions) = (TABLES[at].topic(), TABLES[at].partitions);
        let batches = Batches::read(self.kafka, &topic, partitions);
        self.returns += batches.returns();
        self.batches.push(batches);
        let mut child = Command::new(script("kafka-dump"))
            .args([self.kafka.brokers(), &topic, "--isolation", isolation, "--timeout", "60"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("kafka-dump starts");
        let lines = BufReader::new(child.stdout.take().expect("it was piped")).lines();
        for line in lines {
            let record = parse(&line.expect("kafka-dump prints UTF-8"));
            self.stored += 1;
            for finding in judge.record(at, &record) {
                self.add(&finding, self.diary.at(record.timestamp));
            }
        }
        assert!(
            child.wait().expect("it is our child").success(),
            "kafka-dump: its reason is above"
        );
    }

    fn add(&mut self, finding: &Finding, when: (usize, String)) {
        let Finding { wrong, text, places } = finding;
        let count = self.counts.entry(*wrong).or_default().entry(when.clone()).or_default();
        *count += 1;
        let shown = self.shown.entry(*wrong).or_default();
        if *count <= SHOWN.0 && shown.len() < SHOWN.1 {
            let places = places.iter().map(|&(at, partition, offset)| {
                let head = self.batches[at].find(partition, offset);
                let head = head.map_or_else(|| "no batch".to_owned(), ToString::to_string);
                format!("{} {partition}/{offset} ({head}): ", TABLES[at].topic())
            });
            let places = places.collect::<Vec<_>>().join("and ");
            shown.push(format!("{wrong:?}: {places}{text}, {}", when.1));
        }
    }
}

fn parse(line: &str) -> Stored {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    let number = |name: &str| value[name].as_i64().unwrap_or_else(|| panic!("no {name}: {line}"));
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let header = |name: &str| {
        let mut headers = value["headers"].as_array().into_iter().flatten();
        headers.find(|pair| pair[0] == name).and_then(|pair| text(&pair[1])).unwrap_or_default()
    };
    Stored {
        partition: i32::try_from(number("partition")).expect("Kafka's partitions are 32 bits"),
        offset: number("offset"),
        timestamp: number("timestamp"),
        key: text(&value["key"]),
        value: text(&value["value"]),
        op: header("op"),
        id: header("id"),
    }
}
