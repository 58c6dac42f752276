//! A primary with its standbys, a topic, and instances that stream from them.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Kafka, Pgsluice, Ports, Postgres, Record, eventually, eventually_some};

pub const LIMIT: Duration = Duration::from_secs(60);

pub const PORTS: Ports = Ports::STANDBY;

/// Of a standby: it is quick to try again.
pub const QUICK: &str = "wal_retrieve_retry_interval=200ms";

pub fn kafka() -> &'static Kafka {
    Kafka::shared("standby", PORTS.kafka(0))
}

/// A free port for `admin.listen`.
fn admin() -> u16 {
    static TURN: AtomicU16 = AtomicU16::new(0);
    eventually_some(LIMIT, "a port is free for admin.listen", || {
        let port = PORTS.admin(TURN.fetch_add(1, Ordering::Relaxed) % 10);
        TcpListener::bind(("127.0.0.1", port)).ok().map(|_| port)
    })
}

/// Everything is named after the case.
pub struct Bed {
    pub name: String,
    pub primary: Postgres,
}

impl Bed {
    /// A primary with a table and a topic, without a publication.
    pub fn new(case: &str, version: u8, port: u16) -> Self {
        let name = format!("{case}_{version}");
        let primary = Postgres::start(version, PORTS.postgres(port), &[]);
        primary.database(&name);
        primary.sql("create role cdc_user login replication");
        primary.sql_in(&name, "create table t(id int primary key)");
        kafka().topic(&name, 3);
        Self { name, primary }
    }

    pub fn publish(&self) {
        self.primary.sql_in(&self.name, "create publication p for table t");
    }

    /// And waits until a standby has it.
    pub fn publish_on(&self, standby: &Postgres) {
        self.publish();
        let there = || standby.sql_in(&self.name, "select count(*) from pg_publication") == "1";
        eventually(LIMIT, "the standby has the publication", there);
    }

    /// May the role of ours ask for a record of the running transactions?
    pub fn grant(&self) {
        let function = "function pg_log_standby_snapshot()";
        self.primary.sql_in(&self.name, &format!("grant execute on {function} to cdc_user"));
    }

    /// A standby of `of`, on which nothing waits for another.
    pub fn standby(&self, of: &Postgres, port: u16, options: &[&str]) -> Postgres {
        let options = [&[QUICK], options].concat();
        let standby = Postgres::standby(of, PORTS.postgres(port), &options);
        if of.version() >= 17 {
            of.sql("alter system set synchronized_standby_slots = ''");
            of.sql("select pg_reload_conf()");
        }
        standby
    }

    /// An instance that has these servers to choose from.
    pub fn spawn(&self, servers: &[&Postgres], target: &str, sets: &[&str]) -> Pgsluice {
        let hosts: Vec<_> = servers.iter().map(|one| host(one)).collect();
        let (name, admin) = (&self.name, admin());
        let config = format!(
            "[postgres]\nurl = \"postgres://cdc_user@{}/{name}\"\n\
             target_session_attrs = \"{target}\"\nwal_sender_timeout = \"6s\"\n\
             status_interval = \"1s\"\nretry_max = \"500ms\"\n\
             [publication]\nname = \"p\"\n[slot]\nname = \"{name}\"\nheartbeat = \"100ms\"\n\
             health_interval = \"200ms\"\n\
             [kafka]\nbrokers = \"{}\"\nretry_max = \"500ms\"\n\
             [tables]\n\"public.t\" = \"{name}\"\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n\
             [log]\nformat = \"text\"\n",
            hosts.join(","),
            kafka().brokers(),
        );
        let mut args = vec!["run"];
        sets.iter().for_each(|set| args.extend(["--set", set]));
        Pgsluice::spawn(&config, &args)
    }

    /// One transaction a row.
    #[track_caller]
    pub fn insert(&self, on: &Postgres, rows: Range<u32>) {
        let one = |id| format!("begin; insert into t values ({id}); commit;");
        on.sql_in(&self.name, &rows.map(one).collect::<String>());
    }

    /// Waits until the slot of `on` has passed all that `written` has.
    #[track_caller]
    pub fn wait_confirmed(&self, on: &Postgres, written: &Postgres) {
        let now = written.sql("select pg_current_wal_insert_lsn()");
        let of = format!("from pg_replication_slots where slot_name = '{}'", self.name);
        eventually(LIMIT, &format!("slot {} is at {now}", self.name), || {
            if written.port() != on.port() {
                // Else the last of it may stay in a buffer of the primary's for a while.
                written.sql("select pg_log_standby_snapshot()");
            }
            on.sql(&format!("select confirmed_flush_lsn >= '{now}' {of}")) == "t"
        });
    }

    #[track_caller]
    pub fn drop_slot(&self, on: &Postgres) {
        eventually(LIMIT, "the slot is dropped", || {
            on.try_sql("postgres", &format!("select pg_drop_replication_slot('{}')", self.name))
                .is_ok()
        });
    }

    /// All rows below `count`, each once, and in each partition in the order in which they were committed.
    #[track_caller]
    pub fn verify(&self, count: u32) -> Vec<Record> {
        let records = kafka().dump(&self.name);
        let mut last = BTreeMap::new();
        let mut found = vec![0_u32; count as usize];
        for record in &records {
            let id = row(record);
            found[id as usize] += 1;
            if let Some(before) = last.insert(record.partition, id) {
                assert!(before < id, "{}: {id} is behind {before}", self.name);
            }
        }
        let of = |times: fn(u32) -> bool| {
            (0..count).filter(|id| times(found[*id as usize])).collect::<Vec<_>>()
        };
        let (lost, repeated) = (of(|times| times == 0), of(|times| times > 1));
        let none = Vec::<u32>::new();
        assert_eq!((lost, repeated), (none.clone(), none), "lost and repeated of {}", self.name);
        records
    }
}

pub fn host(of: &Postgres) -> String {
    format!("127.0.0.1:{}", of.port())
}

pub fn row(record: &Record) -> u32 {
    record.key.as_deref().unwrap().parse().unwrap()
}

/// The timeline in a record's name.
pub fn timeline(record: &Record) -> u32 {
    record.header("id").unwrap().split('-').nth(1).unwrap().parse().unwrap()
}

/// `/status`, if it answers.
pub fn status(sluice: &Pgsluice) -> Option<Value> {
    let (_, body) = sluice.http("/status").ok()?;
    serde_json::from_str(&body).ok()
}

#[track_caller]
pub fn is(sluice: &mut Pgsluice, role: &str) {
    eventually(LIMIT, &format!("it is {role}"), || {
        if let Some(code) = sluice.try_wait() {
            panic!("it ended with {code}:\n{}", sluice.log());
        }
        status(sluice).is_some_and(|status| status["role"] == role)
    });
}

pub fn warnings(sluice: &Pgsluice) -> Vec<String> {
    let log = sluice.log();
    log.lines().filter(|line| line.contains(" WARN ")).map(str::to_owned).collect()
}
