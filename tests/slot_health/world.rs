//! A database, a slot and a process that looks at it often.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;

use crate::support::{Kafka, Pgsluice, Ports, Postgres, eventually};

pub const LIMIT: Duration = Duration::from_secs(90);

pub const PORTS: Ports = Ports::SLOT_HEALTH;

pub const MB: u64 = 1 << 20;

pub fn kafka() -> &'static Kafka {
    Kafka::shared("slot_health", PORTS.kafka(0))
}

/// For tests that change nothing of the server, and hold no transaction open.
pub fn shared(version: u8) -> &'static Postgres {
    Postgres::shared(version, PORTS.postgres(u16::from(version) - 14))
}

/// One of the ten ports of `admin.listen`, until it is dropped.
struct Admin(u16);

static TAKEN: Mutex<[bool; 10]> = Mutex::new([false; 10]);

impl Admin {
    fn take() -> Self {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let free = taken.iter().position(|taken| !taken).expect("no more than ten at a time");
        taken[free] = true;
        Self(u16::try_from(free).unwrap())
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(self.0)] = false;
    }
}

/// Everything is named after the case.
pub struct World<'a> {
    pub pg: &'a Postgres,
    pub name: String,
    admin: Admin,
}

impl<'a> World<'a> {
    /// With a published table `t`, another one `noise`, and a slot that a standby may have.
    pub fn new(pg: &'a Postgres, name: &str) -> Self {
        let name = format!("{name}_{}", pg.version());
        pg.database(&name);
        let _ = pg.try_sql("postgres", "create role cdc_user login replication");
        let world = Self { pg, name, admin: Admin::take() };
        world.sql("create table t(id int primary key); create publication p for table t");
        world.sql("create table noise(a text); create table left_open(a text)");
        world
    }

    /// The same on another server.
    pub fn at<'b>(&self, pg: &'b Postgres) -> World<'b> {
        World { pg, name: self.name.clone(), admin: Admin::take() }
    }

    pub fn make_slot(&self) {
        let failover = if self.pg.version() < 17 { "" } else { ", failover => true" };
        let slot = &self.name;
        self.sql(&format!(
            "select pg_create_logical_replication_slot('{slot}', 'pgoutput'{failover})"
        ));
    }

    #[track_caller]
    pub fn sql(&self, text: &str) -> String {
        self.pg.sql_in(&self.name, text)
    }

    pub fn topic(&self) -> String {
        format!("{}.public.t", self.name)
    }

    /// Started, and streaming.
    #[track_caller]
    pub fn start(&self, sets: &[&str]) -> Pgsluice {
        let (name, admin) = (&self.name, PORTS.admin(self.admin.0));
        let config = format!(
            "[postgres]\nurl = \"postgres://cdc_user@127.0.0.1:{}/{name}\"\n\
             wal_sender_timeout = \"5s\"\nretry_max = \"500ms\"\n\
             [publication]\nname = \"p\"\n[slot]\nname = \"{name}\"\n\
             heartbeat = \"100ms\"\nhealth_interval = \"200ms\"\n\
             [kafka]\nbrokers = \"{}\"\nretry_max = \"500ms\"\n\
             [topic]\ntemplate = \"{name}.{{schema}}.{{table}}\"\ncreate = true\n\
             [log]\nformat = \"text\"\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n",
            self.pg.port(),
            kafka().brokers(),
        );
        let mut args = vec!["run"];
        sets.iter().for_each(|set| args.extend(["--set", set]));
        let mut sluice = Pgsluice::spawn(&config, &args);
        sluice.wait_ready(LIMIT);
        sluice
    }

    /// A row, stored and confirmed: then there is a topic.
    #[track_caller]
    pub fn first_row(&self, sluice: &Pgsluice) {
        self.sql("insert into t values (1)");
        let now = self.sql("select pg_current_wal_insert_lsn()");
        eventually(LIMIT, "the row is confirmed", || {
            self.slot(&format!("confirmed_flush_lsn >= '{now}'")) == "t"
        });
        assert_eq!(sluice.metric("pgsluice_records_total", &[]), 1.0);
    }

    /// What the server says of the slot.
    #[track_caller]
    pub fn slot(&self, what: &str) -> String {
        let slot = &self.name;
        self.pg.sql(&format!("select {what} from pg_replication_slots where slot_name = '{slot}'"))
    }

    /// WAL that the slot keeps.
    #[track_caller]
    pub fn retained(&self) -> u64 {
        let text = self.slot("pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)");
        text.parse().expect("a number of bytes")
    }

    /// About 8 MB of WAL, of which nothing is published.
    pub fn noise(&self, database: &str) {
        let rows = "select repeat(md5(i::text), 3) from generate_series(1, 50000) i";
        self.pg.sql_in(database, &format!("insert into noise {rows}; truncate noise"));
    }
}

/// How many heartbeats have come back.
#[track_caller]
pub fn beats(sluice: &Pgsluice) -> f64 {
    sluice.metric("pgsluice_heartbeats_total", &[])
}

#[track_caller]
pub fn wait_beats(sluice: &Pgsluice, more: f64) {
    let before = beats(sluice);
    eventually(LIMIT, "heartbeats come back", || beats(sluice) >= before + more);
}

/// `/status`.
#[track_caller]
pub fn status(sluice: &Pgsluice) -> Value {
    let (code, body) = sluice.http("/status").expect("/status answers");
    assert_eq!(code, 200);
    serde_json::from_str(&body).expect("it is JSON")
}

/// But for one that a cluster which has just been started is good for.
pub fn warnings(sluice: &Pgsluice) -> Vec<String> {
    let log = sluice.log();
    let is_one =
        |line: &&str| line.contains(" WARN ") && !line.contains("COORDINATOR_LOAD_IN_PROGRESS");
    log.lines().filter(is_one).map(str::to_owned).collect()
}

/// A transaction that is left open.
pub struct Open {
    psql: Child,
    input: ChildStdin,
    pub pid: String,
}

impl Open {
    /// With a row of `left_open`.
    pub fn begin(world: &World<'_>, row: &str) -> Self {
        let mut psql = world.pg.psql(&world.name);
        let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = psql.stdin.take().unwrap();
        writeln!(input, "begin; insert into left_open values ('{row}'); select pg_backend_pid();")
            .unwrap();
        let mut pid = String::new();
        BufReader::new(psql.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        Self { psql, input, pid: pid.trim().to_owned() }
    }

    pub fn commit(mut self) {
        writeln!(self.input, "commit;").unwrap();
        drop(self.input);
        assert!(self.psql.wait().unwrap().success());
    }
}
