//! A database, a slot and a topic of one case, and instances that share them.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::kafka::LATEST;
use crate::support::{Kafka, Pgsluice, Ports, Postgres, Record, eventually, eventually_some};

pub const LIMIT: Duration = Duration::from_secs(90);

pub const PORTS: Ports = Ports::FAILOVER;

pub fn postgres() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    let many = ["max_connections=200", "max_replication_slots=40", "max_wal_senders=40"];
    SERVER.get_or_init(|| Postgres::start(17, PORTS.postgres(0), &many))
}

/// Its other listener leads through [`PORTS`]' first proxy.
pub fn kafka() -> &'static Kafka {
    static SERVER: OnceLock<Kafka> = OnceLock::new();
    let proxied = format!("proxied={}", PORTS.proxy(0));
    SERVER.get_or_init(|| Kafka::start("failover", PORTS.kafka(0), 1, &[&proxied], LATEST))
}

/// A free port for `admin.listen`.
fn admin() -> u16 {
    static TURN: AtomicU16 = AtomicU16::new(0);
    eventually_some(LIMIT, "a port is free for admin.listen", || {
        let turn = TURN.fetch_add(1, Ordering::Relaxed) % 25;
        let port = if turn < 10 { PORTS.admin(turn) } else { PORTS.proxy(turn - 5) };
        TcpListener::bind(("127.0.0.1", port)).ok().map(|_| port)
    })
}

/// Everything is named after the case.
pub struct Bed {
    pub name: &'static str,
    postgres: &'static Postgres,
}

impl Bed {
    /// With a table, a publication and the slot, on the shared server.
    pub fn new(name: &'static str) -> Self {
        Self::on(postgres(), name)
    }

    pub fn on(postgres: &'static Postgres, name: &'static str) -> Self {
        postgres.database(name);
        let _ = postgres.try_sql("postgres", "create role cdc_user login replication");
        let _ = postgres.try_sql("postgres", "create role other_user login replication");
        let bed = Self { name, postgres };
        bed.sql("create table t(id bigint primary key, a text)");
        bed.sql("create publication p for all tables");
        bed.sql(&format!("select pg_create_logical_replication_slot('{name}', 'pgoutput')"));
        kafka().topic(&bed.topic(), 3);
        bed
    }

    pub fn topic(&self) -> String {
        format!("{}.t", self.name)
    }

    #[track_caller]
    pub fn sql(&self, text: &str) -> String {
        self.postgres.sql_in(self.name, text)
    }

    pub fn postgres(&self) -> &'static Postgres {
        self.postgres
    }

    /// An instance that bears this application name.
    pub fn spawn(&self, application: &str, sets: &[&str]) -> Pgsluice {
        let (name, admin) = (self.name, admin());
        let config = format!(
            "[postgres]\nurl = \"postgres://cdc_user@127.0.0.1:{}/{name}\"\n\
             application_name = \"{application}\"\nwal_sender_timeout = \"6s\"\n\
             status_interval = \"1s\"\nretry_max = \"500ms\"\n\
             [publication]\nname = \"p\"\n[slot]\nname = \"{name}\"\ncheck_interval = \"1s\"\n\
             [kafka]\nbrokers = \"{}\"\nretry_max = \"500ms\"\n\
             [tables]\n\"public.t\" = \"{}\"\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n\
             [log]\nformat = \"json\"\n",
            self.postgres.port(),
            kafka().brokers(),
            self.topic(),
        );
        let mut args = vec!["run"];
        sets.iter().for_each(|set| args.extend(["--set", set]));
        Pgsluice::spawn(&config, &args)
    }

    /// Started, and streaming.
    #[track_caller]
    pub fn active(&self, application: &str, sets: &[&str]) -> Pgsluice {
        let sluice = self.spawn(application, sets);
        is(&sluice, "streaming");
        sluice
    }

    /// Started, and able to take over.
    #[track_caller]
    pub fn passive(&self, application: &str, sets: &[&str]) -> Pgsluice {
        let mut sluice = self.spawn(application, sets);
        is(&sluice, "passive");
        sluice.wait_ready(LIMIT);
        sluice
    }

    /// Waits until the slot has passed all that is written now.
    #[track_caller]
    pub fn wait_confirmed(&self) {
        let now = self.sql("select pg_current_wal_insert_lsn()");
        let of = format!("from pg_replication_slots where slot_name = '{}'", self.name);
        eventually(LIMIT, &format!("slot {} is at {now}", self.name), || {
            self.sql(&format!("select confirmed_flush_lsn >= '{now}' {of}")) == "t"
        });
    }

    /// Whether anybody reads the slot.
    pub fn is_read(&self) -> bool {
        let of = format!("from pg_replication_slots where slot_name = '{}'", self.name);
        self.sql(&format!("select active {of}")) == "t"
    }

    /// All rows below `count`, each once, and in each partition in the order in which they were committed.
    #[track_caller]
    pub fn verify(&self, count: u64) -> Vec<Record> {
        let records = kafka().dump(&self.topic());
        let mut last = BTreeMap::new();
        let mut found = vec![0_u32; usize::try_from(count).unwrap()];
        for record in &records {
            let id: u64 = record.key.as_deref().unwrap().parse().unwrap();
            found[usize::try_from(id).unwrap()] += 1;
            if let Some(before) = last.insert(record.partition, id) {
                assert!(before < id, "{}: {id} is behind {before}", self.name);
            }
        }
        let lost = found.iter().filter(|times| **times == 0).count();
        let repeated = found.iter().filter(|times| **times > 1).count();
        assert_eq!((lost, repeated), (0, 0), "lost and repeated of {count} rows of {}", self.name);
        records
    }
}

/// `/status`, if it answers.
pub fn status(sluice: &Pgsluice) -> Option<Value> {
    let (_, body) = sluice.http("/status").ok()?;
    serde_json::from_str(&body).ok()
}

#[track_caller]
pub fn is(sluice: &Pgsluice, role: &str) {
    eventually(LIMIT, &format!("it is {role}"), || {
        status(sluice).is_some_and(|status| status["role"] == role)
    });
}

/// Lines of its log with these words.
pub fn said(sluice: &Pgsluice, words: &[&str]) -> Vec<Value> {
    let log = sluice.log();
    let lines = log.lines().filter(|line| words.iter().all(|word| line.contains(word)));
    lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
}
