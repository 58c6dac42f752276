//! What goes wrong on real servers while a load runs: killed, stopped, paused, cut off. Each test ends in an equality of the tables
//! and the topics, the order of each key checked, repeats counted by the records' ids.

#![allow(
    clippy::unwrap_used,
    reason = "clippy only sees #[test] functions as tests, not their helpers"
)]
#![allow(unreachable_pub, reason = "no crate comes after this one")]

#[path = "faults/case.rs"]
mod case;
#[path = "faults/load.rs"]
mod load;
mod support;
#[path = "faults/watch.rs"]
mod watch;

use std::sync::OnceLock;

use case::{Case, LIMIT};
use load::Chance;
use support::{Kafka, Ports, Postgres, eventually};

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

/// More in the long run.
fn rounds(short: usize, long: usize) -> usize {
    if support::soak() { long } else { short }
}

#[test]
fn killed_at_any_moment_it_loses_nothing() {
    let case = Case::new("killed", postgres(), kafka());
    let (writer, watch, mut chance) = (case.write(1), case.watch(), Chance::new(1));
    for _ in 0..rounds(3, 30) {
        let mut sluice = case.start(&[]);
        chance.pause(300, 1500);
        sluice.kill();
    }
    let sluice = case.start(&[]);
    writer.wait_more(10, LIMIT);
    case.verify(&writer.stop());
    case::wait_calm(&sluice);
    watch.stop();
}

#[test]
fn stopped_under_load_it_repeats_nothing() {
    let case = Case::new("stopped", postgres(), kafka());
    let (writer, watch, mut chance) = (case.write(2), case.watch(), Chance::new(2));
    for _ in 0..rounds(3, 30) {
        let mut sluice = case.start(&[]);
        chance.pause(300, 1500);
        assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
        assert_eq!(case::said(&sluice, "WARN", ""), Vec::<String>::new());
    }
    let sluice = case.start(&[]);
    writer.wait_more(10, LIMIT);
    assert_eq!(case.verify(&writer.stop()), 0);
    case::wait_calm(&sluice);
    watch.stop();
}

#[test]
fn stopped_amid_a_big_transaction_it_finishes_it_and_repeats_nothing() {
    let case = Case::new("amid", postgres(), kafka());
    case.postgres
        .sql_in(case.name, "insert into a select i, i, 'x' from generate_series(1, 60000) i");
    let mut sluice = case.spawn(&["run.drain=60s"]);
    eventually(LIMIT, "it is in the midst of it", || {
        sluice.http("/metrics").is_ok() && sluice.metric("pgsluice_rows_total", &["\"c\""]) > 1000.0
    });
    assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
    let topic = format!("{}.a", case.name);
    assert_eq!(kafka().count(&topic), 60_000);
    case.postgres.sql_in(case.name, "insert into a values (0, 0, 'last')");
    let _sluice = case.start(&[]);
    case.wait_confirmed();
    let mut ids: Vec<u64> =
        kafka().dump(&topic).iter().map(|record| record.json()["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..=60_000).collect::<Vec<_>>());
}
