//! A database, its slot and its topics for one test, on servers that the tests share.

use std::{
    collections::HashMap,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use crate::support::{Kafka, Pgsluice, Ports, Postgres, Record, eventually, eventually_some};

pub const LIMIT: Duration = Duration::from_secs(60);

/// The newest that the registries serve.
pub const NEWEST: &str = "4.4.0";

const PORTS: Ports = Ports::END_TO_END;

/// The one that the tests share.
pub fn kafka() -> &'static Kafka {
    static SERVER: OnceLock<Kafka> = OnceLock::new();
    SERVER.get_or_init(|| Kafka::start("end-to-end", PORTS.kafka(0), 1, &[], NEWEST))
}

/// One of each version.
pub fn postgres(version: u8) -> &'static Postgres {
    Postgres::shared(version, PORTS.postgres(u16::from(version - 14)))
}

/// Everything is named after the test: its database, its slot, its topics' first part.
pub struct World<'a> {
    pub pg: &'a Postgres,
    pub kafka: &'a Kafka,
    pub name: String,
    admin: u16,
}

impl<'a> World<'a> {
    pub fn new(pg: &'a Postgres, kafka: &'a Kafka, name: &str) -> Self {
        let name = format!("{name}_{}", pg.version());
        pg.database(&name);
        // The tutorial's role. Two tests may want it at once.
        let _ = pg.try_sql("postgres", "create role cdc_user login replication");
        Self { pg, kafka, name, admin: take_admin() }
    }

    /// With one publication of all tables, and the slot.
    pub fn published(pg: &'a Postgres, kafka: &'a Kafka, name: &str, tables: &str) -> Self {
        let world = Self::new(pg, kafka, name);
        world.sql(tables);
        world.sql("create publication p for all tables");
        world.slot(&world.name);
        world
    }

    #[track_caller]
    pub fn sql(&self, text: &str) -> String {
        self.pg.sql_in(&self.name, text)
    }

    #[track_caller]
    pub fn slot(&self, name: &str) {
        self.sql(&format!("select pg_create_logical_replication_slot('{name}', 'pgoutput')"));
    }

    pub fn topic(&self, table: &str) -> String {
        format!("{}.{table}", self.name)
    }

    fn config(&self, slot: &str) -> String {
        let Self { name, admin, .. } = self;
        format!(
            "[postgres]\nurl = \"postgres://cdc_user@127.0.0.1:{}/{name}\"\n\
             [publication]\nname = \"p\"\n[slot]\nname = \"{slot}\"\n\
             [kafka]\nbrokers = \"{}\"\n\
             [topic]\ntemplate = \"{name}.{{schema}}.{{table}}\"\ncreate = true\npartitions = 3\n\
             [admin]\nlisten = \"127.0.0.1:{admin}\"\n",
            self.pg.port(),
            self.kafka.brokers(),
        )
    }

    /// Started, without waiting for anything.
    pub fn spawn(&self, slot: &str, sets: &[&str]) -> Pgsluice {
        let mut args = vec!["run"];
        for set in sets {
            args.extend(["--set", set]);
        }
        Pgsluice::spawn(&self.config(slot), &args)
    }

    /// Streams until all that is committed now is confirmed, then stops. Gives back the log.
    #[track_caller]
    pub fn drain(&self, sets: &[&str]) -> String {
        self.drain_slot(&self.name, sets)
    }

    #[track_caller]
    pub fn drain_slot(&self, slot: &str, sets: &[&str]) -> String {
        let mut process = self.spawn(slot, sets);
        self.wait_confirmed(slot, &mut process);
        assert_eq!(process.stop(LIMIT), 0, "{}", process.log());
        process.log()
    }

    /// Waits until the slot has passed all that is written now.
    #[track_caller]
    pub fn wait_confirmed(&self, slot: &str, process: &mut Pgsluice) {
        let now = self.sql("select pg_current_wal_insert_lsn()");
        let sql = format!(
            "select confirmed_flush_lsn >= '{now}' from pg_replication_slots \
             where slot_name = '{slot}'"
        );
        eventually(LIMIT, &format!("slot {slot} is at {now}"), || {
            if let Some(code) = process.try_wait() {
                panic!("it ended with {code}:\n{}", process.log());
            }
            self.sql(&sql) == "t"
        });
    }

    /// All records of a table's topic as they were committed, checked: see [`in_order`].
    #[track_caller]
    pub fn records(&self, table: &str) -> Vec<Record> {
        in_order(self.kafka.dump(&self.topic(table)))
    }

    /// The same in short: see [`line`].
    #[track_caller]
    pub fn lines(&self, table: &str) -> Vec<String> {
        self.records(table).iter().map(line).collect()
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        free().push(self.admin);
    }
}

fn free() -> std::sync::MutexGuard<'static, Vec<u16>> {
    static FREE: OnceLock<Mutex<Vec<u16>>> = OnceLock::new();
    let free = FREE.get_or_init(|| Mutex::new((0..10).map(|i| PORTS.admin(i)).collect()));
    free.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take_admin() -> u16 {
    eventually_some(Duration::from_secs(600), "a port is free for admin.listen", || free().pop())
}

/// Checks what holds for every topic of one slot: no `id` twice, and in each partition they ascend. Gives the records back as
/// they were committed.
#[track_caller]
pub fn in_order(mut records: Vec<Record>) -> Vec<Record> {
    let mut last: HashMap<i32, String> = HashMap::new();
    for record in &records {
        let id = record.header("id").expect("it has an id").to_owned();
        if let Some(before) = last.insert(record.partition, id) {
            let id = &last[&record.partition];
            assert!(before < *id, "partition {}: {before} before {id}", record.partition);
        }
    }
    records.sort_by(|a, b| a.header("id").cmp(&b.header("id")));
    for pair in records.windows(2) {
        assert_ne!(pair[0].header("id"), pair[1].header("id"), "a record was stored twice");
    }
    records
}

/// Operation, key, value, and what was left out: `u 1 {"id":1} ["big"]`, with `-` for a null.
pub fn line(record: &Record) -> String {
    let text = |part: &Option<String>| part.as_deref().unwrap_or("-").to_owned();
    let mut line = format!(
        "{} {} {}",
        record.header("op").unwrap_or("?"),
        text(&record.key),
        text(&record.value)
    );
    if let Some(names) = record.header("unchanged") {
        line.push(' ');
        line.push_str(names);
    }
    line
}
