//! What goes wrong on real servers while a load runs: killed, stopped, paused, cut off. Each test ends in an equality of the tables
//! and the topics, the order of each key checked, repeats counted by the records' ids.

#![allow(
    clippy::unwrap_used,
    reason = "clippy only sees #[test] functions as tests, not their helpers"
)]
#![allow(unreachable_pub, reason = "no crate comes after this one")]

#[path = "faults/broker.rs"]
mod broker;
#[path = "faults/case.rs"]
mod case;
#[path = "faults/cluster.rs"]
mod cluster;
#[path = "faults/load.rs"]
mod load;
#[path = "faults/network.rs"]
mod network;
#[path = "faults/postgresql.rs"]
mod postgresql;
#[path = "faults/process.rs"]
mod process;
mod support;
#[path = "faults/systemd.rs"]
mod systemd;
#[path = "faults/topics.rs"]
mod topics;
#[path = "faults/watch.rs"]
mod watch;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use case::{Case, LIMIT};
use load::{Chance, Writer};
use serde_json::Value;
use support::{Kafka, Mode, Pgsluice, Ports, Postgres, Proxy, eventually, eventually_some};

const PORTS: Ports = Ports::FAULTS;

/// PostgreSQL that no test hurts.
fn postgres() -> &'static Postgres {
    Postgres::shared(17, PORTS.postgres(0))
}

/// Kafka that no test hurts. The three brokers of [`cluster`] have the first ports.
fn kafka() -> &'static Kafka {
    static SERVER: OnceLock<Kafka> = OnceLock::new();
    SERVER.get_or_init(|| {
        let proxied = format!("proxied={}", PORTS.proxy(0));
        Kafka::start("faults", PORTS.kafka(1), 1, &[&proxied], support::kafka::LATEST)
    })
}

/// PostgreSQL that tests stop and kill, one after the other.
fn mortal() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::start(17, PORTS.postgres(1), &[]))
}

/// Kafka that tests stop, one after the other; the lock is theirs.
fn mortal_kafka() -> (MutexGuard<'static, ()>, &'static Kafka) {
    static LOCK: Mutex<()> = Mutex::new(());
    static SERVER: OnceLock<Kafka> = OnceLock::new();
    let lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let port = PORTS.kafka(1) + 10;
    let start = || Kafka::start("faults-mortal", port, 1, &[], support::kafka::LATEST);
    let kafka = SERVER.get_or_init(start);
    kafka.ctl("1", "start"); // after a test that failed
    (lock, kafka)
}

/// More in the long run.
fn rounds(short: usize, long: usize) -> usize {
    if support::soak() { long } else { short }
}

/// The most that a process ever had in memory.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
