//! One test's database, topics and slot, and the equality that it ends in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::load::{Change, Model, Pace, TABLES, Writer};
use crate::support::{Kafka, Pgsluice, Ports, Postgres, Record, eventually};
use crate::watch::Watch;

/// Long, as the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A port for `admin.listen`, given back when dropped.
struct Admin(u16);

static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

impl Admin {
    fn take() -> Self {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (0..10).find(|i| !taken.contains(i)).expect("at most ten processes at a time");
        taken.insert(free);
        Self(free)
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// See the module.
pub struct Case<'a> {
    /// Of the database, the slot and, with `.a`, of a topic.
    pub name: &'static str,
    /// Where it writes.
    pub postgres: &'a Postgres,
    /// Where it reads.
    pub kafka: &'a Kafka,
    admin: Admin,
    /// Of the database, for the writer.
    pub url: String,
    /// As our process goes there, perhaps through a proxy.
    pub source: String,
    /// As our process goes there, perhaps through a proxy.
    pub brokers: String,
}

impl<'a> Case<'a> {
    /// Database, tables, publication, slot, topics.
    pub fn new(name: &'static str, postgres: &'a Postgres, kafka: &'a Kafka) -> Self {
        let url = postgres.database(name);
        let table = |table: &&str| {
            format!("create table {table}(id int primary key, seq bigint not null, pad text);")
        };
        let tables: String = TABLES.iter().map(table).collect();
        postgres.sql_in(
            name,
            &format!(
                "{tables} alter table c replica identity full;
                 create table marker(number bigint); insert into marker values (0);
                 create publication p for table a, b, c"
            ),
        );
        postgres.sql_in(
            name,
            &format!("select pg_create_logical_replication_slot('{name}', 'pgoutput')"),
        );
        for table in TABLES {
            kafka.topic(&format!("{name}.{table}"), 3);
        }
        let (source, brokers) = (url.clone(), kafka.brokers().to_owned());
        Self { name, postgres, kafka, admin: Admin::take(), url, source, brokers }
    }

    /// Lets our process go to this port of 127.0.0.1 for PostgreSQL.
    pub fn through(&mut self, port: u16) {
        let own = format!(":{}/", self.postgres.port());
        assert!(self.url.contains(&own), "the URL names its port");
        self.source = self.url.replace(&own, &format!(":{port}/"));
    }

    /// Starts our process, by these values over the usual ones.
    pub fn spawn(&self, set: &[&str]) -> Pgsluice {
        self.spawn_at(self.admin.0, set, &[])
    }

    /// The same with more environment.
    pub fn spawn_with(&self, set: &[&str], env: &[(&str, &str)]) -> Pgsluice {
        self.spawn_at(self.admin.0, set, env)
    }

    /// A second one, beside it; its own `admin.listen` is given back when the guard is dropped.
    pub fn spawn_second(&self, set: &[&str]) -> (Pgsluice, impl Drop + use<>) {
        let admin = Admin::take();
        (self.spawn_at(admin.0, set, &[]), admin)
    }

    fn spawn_at(&self, admin: u16, set: &[&str], env: &[(&str, &str)]) -> Pgsluice {
        let Self { name, source, brokers, .. } = self;
        let tables: String = TABLES
            .iter()
            .map(|table| format!("\"public.{table}\" = \"{name}.{table}\"\n"))
            .collect();
        let port = Ports::FAULTS.admin(admin);
        let config = format!(
            "[postgres]\nurl = \"{source}\"\nretry_max = \"1s\"\n\
             [publication]\nname = \"p\"\n[slot]\nname = \"{name}\"\n\
             [kafka]\nbrokers = \"{brokers}\"\nretry_max = \"500ms\"\n[tables]\n{tables}\
             [admin]\nlisten = \"127.0.0.1:{port}\"\n"
        );
        let mut args = vec!["run"];
        set.iter().for_each(|set| args.extend(["-s", set]));
        Pgsluice::spawn_with(&config, &args, env)
    }

    /// The same, and waits until it streams.
    #[track_caller]
    pub fn start(&self, set: &[&str]) -> Pgsluice {
        let mut sluice = self.spawn(set);
        sluice.wait_ready(LIMIT);
        sluice
    }

    /// The load of this database.
    pub fn write(&self, seed: u64) -> Writer {
        Writer::start(&self.url, seed, Pace::Steady)
    }

    /// The same without pauses.
    pub fn write_hard(&self, seed: u64) -> Writer {
        Writer::start(&self.url, seed, Pace::Flat)
    }

    /// Looks all the time.
    pub fn watch(&self) -> Watch {
        Watch::start(&self.url, self.name, Ports::FAULTS.admin(self.admin.0))
    }

    /// A word of the slot's row.
    #[track_caller]
    pub fn slot(&self, column: &str) -> String {
        let name = self.name;
        self.postgres
            .sql(&format!("select {column} from pg_replication_slots where slot_name = '{name}'"))
    }

    /// Waits until PostgreSQL knows that all is stored.
    #[track_caller]
    pub fn wait_confirmed(&self) {
        let end = self.postgres.sql("select pg_current_wal_lsn()");
        eventually(LIMIT, "all is confirmed", || {
            self.slot(&format!("confirmed_flush_lsn >= '{end}'")) == "t"
        });
    }

    /// Waits for the end, and compares: every committed change of every key is in its topic once, in the order of commits, and
    /// the last record of a key is its row.
    #[track_caller]
    pub fn verify(&self, model: &Model) {
        self.wait_confirmed();
        for at in 0..TABLES.len() {
            self.verify_table(model, at);
        }
        eprintln!("{}: {} changes", self.name, model.len());
    }

    /// The same for one table.
    #[track_caller]
    pub fn verify_table(&self, model: &Model, at: usize) {
        let table = TABLES[at];
        let stored = self.postgres.sql_in(self.name, &format!("select id, seq from {table}"));
        assert_eq!(rows_of(&stored), model.rows(at), "the model of {table} is wrong");
        let records = self.kafka.dump(&self.topic(at));
        assert_eq!(last_rows(&records), model.rows(at), "rows and last records of {table}");
        let found = changes_of(&records);
        let wanted = model.changes(at);
        for (id, changes) in &wanted {
            assert_eq!(found.get(id), Some(changes), "the changes of {table} {id}");
        }
        assert_eq!(found.len(), wanted.len(), "keys that were never written");
    }

    /// A topic that lost what it had: of each key the last changes are there, if any.
    #[track_caller]
    pub fn verify_rest(&self, model: &Model, at: usize) -> usize {
        let found = changes_of(&self.kafka.dump(&self.topic(at)));
        let wanted = model.changes(at);
        for (id, changes) in &found {
            let all = wanted.get(id).expect("no key that was never written");
            assert!(all.ends_with(changes), "{id}: {changes:?} is no end of {all:?}");
        }
        found.values().map(Vec::len).sum()
    }

    /// A table's topic.
    pub fn topic(&self, at: usize) -> String {
        format!("{}.{}", self.name, TABLES[at])
    }
}

impl Drop for Case<'_> {
    /// A server has only so many slots, and keeps the WAL of each.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.postgres.drop_slots(self.name);
        }
    }
}

fn rows_of(printed: &str) -> BTreeMap<u64, u64> {
    let rows = printed.lines().filter_map(|line| line.split_once('|'));
    rows.map(|(id, seq)| (id.parse().unwrap(), seq.parse().unwrap())).collect()
}

/// The rows that the last record of each key leaves.
fn last_rows(records: &[Record]) -> BTreeMap<u64, u64> {
    let mut rows = BTreeMap::new();
    for record in records {
        let id = id_of(record);
        match record.header("op") {
            Some("d") => rows.remove(&id),
            _ => rows.insert(id, record.json()["seq"].as_u64().expect("seq is a number")),
        };
    }
    rows
}

/// The changes of each id. Fails where a name comes twice, or names do not ascend.
#[track_caller]
fn changes_of(records: &[Record]) -> BTreeMap<u64, Vec<Change>> {
    let mut changes: BTreeMap<u64, Vec<Change>> = BTreeMap::new();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    let mut last: BTreeMap<u64, &str> = BTreeMap::new();
    for record in records {
        let (id, name) = (id_of(record), record.header("id").expect("each record has its id"));
        assert!(known.insert(name), "{name} is there twice");
        if let Some(before) = last.insert(id, name) {
            assert!(before < name, "key {id}: {name} came after {before}");
        }
        let op = record.header("op").and_then(|op| op.chars().next()).expect("op");
        let value = record.json();
        let seq = if op == 'd' { 0 } else { value["seq"].as_u64().expect("seq is a number") };
        if op != 'd' {
            assert_eq!(value["pad"], Model::pad(seq));
        }
        changes.entry(id).or_default().push(Change { op, seq });
    }
    changes
}

fn id_of(record: &Record) -> u64 {
    record.key.as_deref().and_then(|key| key.parse().ok()).expect("the key is the row's id")
}

/// Messages of the log at this level that hold these words.
pub fn said(sluice: &Pgsluice, level: &str, words: &str) -> Vec<String> {
    let lines = messages(sluice).into_iter();
    let lines = lines.filter(|(at, message)| at == level && message.contains(words));
    lines.map(|(_, message)| message).collect()
}

/// Levels and messages of the log.
fn messages(sluice: &Pgsluice) -> Vec<(String, String)> {
    let log = sluice.log();
    let lines = log.lines().filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        Some((line["level"].as_str()?.to_owned(), line["message"].as_str()?.to_owned()))
    });
    lines.collect()
}

/// From one trouble to its end no warning is in the log twice; and something was said.
#[track_caller]
pub fn assert_said_once(sluice: &Pgsluice) {
    let (mut episode, mut count) = (BTreeSet::new(), 0);
    for (level, message) in messages(sluice) {
        if level == "WARN" || level == "ERROR" {
            count += 1;
            assert!(episode.insert(message), "said twice:\n{}", sluice.log());
        } else if message.starts_with("connected again") || message.starts_with("Kafka stores") {
            episode.clear();
        }
    }
    assert!(count > 0, "nothing was said of it");
}

/// Waits until nothing lags and nothing is in trouble.
#[track_caller]
pub fn wait_calm(sluice: &Pgsluice) {
    eventually(LIMIT, "no lag, no trouble", || {
        sluice.metric("pgsluice_lag_seconds", &[]) == 0.0
            && sluice.metric("pgsluice_lag_bytes", &["stored"]) == 0.0
            && sluice.metric("pgsluice_lag_bytes", &["confirmed"]) == 0.0
            && sluice.http("/readyz").is_ok_and(|(status, _)| status == 200)
    });
}
