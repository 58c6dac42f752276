//! A primary, its standby, and a process that knows both.

use std::{
    io::Write as _,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use serde_json::Value;

use crate::support::{Kafka, Pgsluice, Ports, Postgres, eventually};

pub const LIMIT: Duration = Duration::from_secs(90);

const PORTS: Ports = Ports::SWITCHOVER;

pub fn kafka() -> &'static Kafka {
    Kafka::shared("switchover", PORTS.kafka(0))
}

/// Everything is named after the case.
pub struct Pair {
    pub name: &'static str,
    /// The primary at first.
    pub a: Postgres,
    /// Its standby.
    pub b: Postgres,
    admin: u16,
}

impl Pair {
    /// The `at`th pair, with a published table `t`; `before` is run before there is a standby.
    pub fn new(
        name: &'static str,
        version: u8,
        at: u16,
        standby: &[&str],
        before: impl FnOnce(&Postgres),
    ) -> Self {
        let a = Postgres::start(version, PORTS.postgres(2 * at), &[]);
        a.database(name);
        a.sql("create role cdc_user login replication");
        a.sql_in(name, "create table t(id int primary key); create publication p for table t");
        before(&a);
        let options = [&["wal_retrieve_retry_interval=200ms"], standby].concat();
        let b = Postgres::standby(&a, PORTS.postgres(2 * at + 1), &options);
        Self { name, a, b, admin: PORTS.admin(at) }
    }

    pub fn topic(&self) -> String {
        format!("{}.public.t", self.name)
    }

    pub fn spawn(&self, sets: &[&str]) -> Pgsluice {
        let Self { name, a, b, admin } = self;
        let config = format!(
            "[postgres]\nurl = \"postgres://cdc_user@{},{}/{name}\"\n\
             wal_sender_timeout = \"5s\"\nretry_max = \"500ms\"\n\
             [publication]\nname = \"p\"\n[slot]\nname = \"{name}\"\ncreate = true\n\
             check_interval = \"100ms\"\nstandby_interval = \"300ms\"\n\
             [kafka]\nbrokers = \"{}\"\nretry_max = \"500ms\"\n\
             [topic]\ntemplate = \"{name}.{{schema}}.{{table}}\"\ncreate = true\npartitions = 1\n\
             [log]\nformat = \"text\"\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n",
            host(a),
            host(b),
            kafka().brokers(),
        );
        let mut args = vec!["run"];
        sets.iter().for_each(|set| args.extend(["--set", set]));
        Pgsluice::spawn(&config, &args)
    }

    /// Started, and streaming.
    #[track_caller]
    pub fn start(&self, sets: &[&str]) -> Pgsluice {
        let mut sluice = self.spawn(sets);
        sluice.wait_ready(LIMIT);
        sluice
    }

    /// Waits until the stream could go on at `standby`, were it promoted, as `/status` and the metric have it.
    #[track_caller]
    pub fn wait_could_go_on(&self, sluice: &Pgsluice, primary: &Postgres, standby: &Postgres) {
        eventually(LIMIT, "the standby has the slot", || {
            primary.sql("select pg_log_standby_snapshot()");
            standby.sql("select pg_reload_conf()"); // which wakes its worker
            shown(sluice, standby)["ready"] == true
        });
        assert_eq!(sluice.metric("pgsluice_standby_slot_ready", &[&host(standby)]), 1.0);
        let of = format!("from pg_replication_slots where slot_name = '{}'", self.name);
        assert_eq!(standby.sql(&format!("select synced and not temporary {of}")), "t");
    }

    pub fn insert(&self, on: &Postgres, from: u32, count: u32) {
        let one = |id| format!("begin; insert into t values ({id}); commit;");
        on.sql_in(self.name, &(from..from + count).map(one).collect::<String>());
    }

    /// Waits until the slot there has passed all that is written there.
    #[track_caller]
    pub fn wait_confirmed(&self, on: &Postgres) {
        let now = on.sql("select pg_current_wal_insert_lsn()");
        let of = format!("from pg_replication_slots where slot_name = '{}'", self.name);
        let sql = format!("select confirmed_flush_lsn >= '{now}' {of}");
        eventually(LIMIT, "all is confirmed", || on.sql(&sql) == "t");
    }

    /// The rows of the topic, in its order.
    pub fn rows(&self) -> Vec<u32> {
        let records = kafka().dump(&self.topic());
        let row = |key: Option<String>| key.unwrap().parse().unwrap();
        records.into_iter().map(|record| row(record.key)).collect()
    }
}

/// As `postgres.url` names it.
pub fn host(server: &Postgres) -> String {
    format!("127.0.0.1:{}", server.port())
}

/// `/status`.
#[track_caller]
pub fn status(sluice: &Pgsluice) -> Value {
    let (_, body) = sluice.http("/status").expect("/status answers");
    serde_json::from_str(&body).expect("it is JSON")
}

/// What `/status` shows of a standby.
#[track_caller]
pub fn shown(sluice: &Pgsluice, standby: &Postgres) -> Value {
    let status = status(sluice);
    let all = status["standbys"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|one| one["host"] == host(standby).as_str()).unwrap_or_default()
}

/// What a line of the log says to run, from this word on to its end.
#[track_caller]
pub fn printed<'a>(line: &'a str, from: &str) -> &'a str {
    let at = line.find(from).expect("the line has a statement");
    let end = line.rfind(';').expect("which ends");
    &line[at..=end]
}

/// Runs it as a person would, one statement after the other.
#[track_caller]
pub fn paste(on: &Postgres, text: &str) {
    for one in text.split_inclusive(';') {
        on.sql(one.trim());
    }
}

/// One row a transaction, as fast as they are committed, until it is stopped or the server goes.
pub struct Writer {
    over: Arc<AtomicBool>,
    thread: JoinHandle<u32>,
    psql: Child,
}

impl Writer {
    /// With the ids from there on.
    pub fn start(pair: &Pair, on: &Postgres, from: u32) -> Self {
        let mut psql = on.psql(pair.name);
        let mut psql = psql.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut input = psql.stdin.take().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut id = from;
            while !stop.load(Ordering::Relaxed)
                && writeln!(input, "insert into t values ({id});").is_ok()
            {
                id += 1;
                std::thread::sleep(Duration::from_millis(2)); // the load, and no wait
            }
            id
        });
        Self { over, thread, psql }
    }

    /// Where the next one may begin. Which of its rows are committed the server tells.
    pub fn stop(mut self) -> u32 {
        self.over.store(true, Ordering::Relaxed);
        let next = self.thread.join().unwrap();
        let _ = self.psql.wait();
        next
    }
}
