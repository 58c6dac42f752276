//! What Kafka holds, against what was committed.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::batches::Batches;
use crate::diary::Diary;
use crate::reference::{Name, Reference};
use crate::rows::TABLES;
use crate::support::{Kafka, script};

/// How many of each kind are shown.
const SHOWN: usize = 5;

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Wrong {
    /// Committed, and not there.
    Lost,
    /// There more than once.
    Repeated,
    /// For the first time there, behind one that was committed later.
    Disordered,
    /// The last record of its key, and not the key's last change.
    Stale,
    /// Another key, value or operation than was committed.
    Altered,
    /// Not committed.
    Foreign,
    /// Its key has been in another partition.
    Strayed,
}

/// See the module.
pub struct Verdict<'a> {
    reference: &'a Reference,
    kafka: &'a Kafka,
    diary: &'a Diary,
    /// Records that are stored, repeats and all.
    pub stored: usize,
    counts: BTreeMap<Wrong, usize>,
    shown: Vec<String>,
    /// Where each of the reference was found first: partition and offset.
    found: Vec<Option<(i32, i64)>>,
    /// The last record of each key, by the place of its table and its row's number; and where.
    last: HashMap<(u8, u64), (usize, i32, i64)>,
    source: Option<String>,
    /// Of each topic.
    batches: Vec<Batches>,
}

/// A record of a topic.
struct Stored {
    partition: i32,
    offset: i64,
    timestamp: i64,
    key: Option<String>,
    value: Option<String>,
    op: String,
    id: String,
}

impl<'a> Verdict<'a> {
    /// Reads every topic.
    pub fn read(reference: &'a Reference, kafka: &'a Kafka, diary: &'a Diary, mode: &str) -> Self {
        let mut it = Self {
            reference,
            kafka,
            diary,
            stored: 0,
            counts: BTreeMap::new(),
            shown: Vec::new(),
            found: vec![None; reference.records.len()],
            last: HashMap::new(),
            source: None,
            batches: Vec::new(),
        };
        let isolation = if mode == "transactional" { "read_committed" } else { "read_uncommitted" };
        for (at, table) in TABLES.iter().enumerate() {
            it.batches.push(Batches::read(kafka, &table.topic(), table.partitions));
            it.read_topic(at, isolation);
        }
        it.look_for_lost();
        it.look_for_stale();
        it
    }

    /// How many are wrong in this way.
    pub fn count(&self, wrong: Wrong) -> usize {
        self.counts.get(&wrong).copied().unwrap_or(0)
    }

    /// How many batches came from one who had a successor by then.
    pub fn late(&self) -> usize {
        self.batches.iter().map(Batches::late).sum()
    }

    /// All kinds that were met.
    pub fn counts(&self) -> &BTreeMap<Wrong, usize> {
        &self.counts
    }

    /// The first of each kind, a line each.
    pub fn shown(&self) -> String {
        self.shown.join("\n")
    }

    fn read_topic(&mut self, at: usize, isolation: &str) {
        let topic = TABLES[at].topic();
        let mut child = Command::new(script("kafka-dump"))
            .args([self.kafka.brokers(), &topic, "--isolation", isolation, "--timeout", "60"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("kafka-dump starts");
        let lines = BufReader::new(child.stdout.take().expect("it was piped")).lines();
        let mut highest: HashMap<i32, Name> = HashMap::new();
        for line in lines {
            let record = parse(&line.expect("kafka-dump prints UTF-8"));
            self.record(at, &record, &mut highest);
        }
        assert!(
            child.wait().expect("it is our child").success(),
            "kafka-dump: its reason is above"
        );
    }

    fn record(&mut self, at: usize, record: &Stored, highest: &mut HashMap<i32, Name>) {
        self.stored += 1;
        let Some(place) = self.named(&record.id).and_then(|name| self.reference.find(name)) else {
            return self.add(Wrong::Foreign, at, record, "");
        };
        let (expected, table) = (self.reference.records[place], &TABLES[at]);
        let key = table.key(expected.n);
        let value = table.value(expected.n, expected.seq);
        if usize::from(expected.table) != at
            || record.op.as_bytes() != [expected.op]
            || record.key.as_ref() != Some(&key)
            || record.value.as_ref() != Some(&value)
        {
            let (key, value) = (&record.key, &record.value);
            self.add(Wrong::Altered, at, record, &format!("{key:?} {value:?} for {expected:?}"));
        }
        let row = (expected.table, expected.n);
        let before = self.last.insert(row, (place, record.partition, record.offset));
        if let Some((_, partition, offset)) = before
            && partition != record.partition
        {
            self.add(Wrong::Strayed, at, record, &format!("before at {partition}/{offset}"));
        }
        if let Some((partition, offset)) = self.found[place] {
            let first = self.stored_by(at, partition, offset);
            let text = format!("first at {partition}/{offset} ({first})");
            return self.add(Wrong::Repeated, at, record, &text);
        }
        self.found[place] = Some((record.partition, record.offset));
        let highest = highest.entry(record.partition).or_insert(expected.name);
        if expected.name < *highest {
            let text = format!("behind {highest:x?}");
            self.add(Wrong::Disordered, at, record, &text);
        } else {
            *highest = expected.name;
        }
    }

    /// `source-timeline-commit-index[.part]`: the source is always the same.
    fn named(&mut self, id: &str) -> Option<Name> {
        let (id, part) = id.split_once('.').unwrap_or((id, "0"));
        let words: Vec<&str> = id.split('-').collect();
        let [source, "00000001", commit, index] = words.as_slice() else { return None };
        if self.source.get_or_insert_with(|| (*source).to_owned()) != source {
            return None;
        }
        Some(Name {
            commit: u64::from_str_radix(commit, 16).ok()?,
            index: u32::from_str_radix(index, 16).ok()?,
            part: part.parse().ok()?,
        })
    }

    fn stored_by(&self, at: usize, partition: i32, offset: i64) -> String {
        let head = self.batches[at].find(partition, offset);
        head.map_or_else(|| "in no batch".to_owned(), ToString::to_string)
    }

    fn look_for_lost(&mut self) {
        for (place, record) in self.reference.records.iter().enumerate() {
            if self.found[place].is_none() {
                let count = self.counts.entry(Wrong::Lost).or_default();
                *count += 1;
                if *count <= SHOWN {
                    self.shown.push(format!("Lost: {record:x?}"));
                }
            }
        }
    }

    fn look_for_stale(&mut self) {
        let mut true_last = HashMap::new();
        for (place, record) in self.reference.records.iter().enumerate() {
            true_last.insert((record.table, record.n), place);
        }
        for (row, place) in true_last {
            let last = self.last.get(&row);
            if last.is_none_or(|&(last, ..)| last != place) {
                let count = self.counts.entry(Wrong::Stale).or_default();
                *count += 1;
                if *count <= SHOWN {
                    let last = last.map(|&(_, partition, offset)| (partition, offset));
                    let should = self.reference.records[place];
                    self.shown.push(format!("Stale: {last:?} is last, and should be {should:x?}"));
                }
            }
        }
    }

    fn add(&mut self, wrong: Wrong, at: usize, record: &Stored, text: &str) {
        let count = self.counts.entry(wrong).or_default();
        *count += 1;
        if *count > SHOWN {
            return;
        }
        let (topic, Stored { partition, offset, timestamp, id, .. }) = (TABLES[at].topic(), record);
        let producer = self.stored_by(at, *partition, *offset);
        let under_way = self.diary.at(*timestamp);
        self.shown.push(format!(
            "{wrong:?}: {topic} {partition}/{offset}, {id}, {text}; here {producer}; {under_way}"
        ));
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
