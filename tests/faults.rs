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

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

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
    let before = sluice.metric("pgsluice_rows_total", &["\"c\""]);
    assert!(before < 60_000.0, "it was received whole before the signal");
    assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
    let topic = case.topic(0);
    assert_eq!(kafka().count(&topic), 60_000);
    case.postgres.sql_in(case.name, "insert into a values (0, 0, 'last')");
    let _sluice = case.start(&[]);
    case.wait_confirmed();
    let mut ids: Vec<u64> =
        kafka().dump(&topic).iter().map(|record| record.json()["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..=60_000).collect::<Vec<_>>());
}

/// PostgreSQL that tests stop and kill, one after the other.
fn mortal() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::start(17, PORTS.postgres(1), &[]))
}

/// Something happens to PostgreSQL under load. Each text is said once, and that it is over.
fn postgres_fault(name: &'static str, seed: u64, fault: impl FnOnce(&Case<'_>)) {
    support::postgres::alone(|| {
        let case = Case::new(name, mortal(), kafka());
        let (writer, watch, mut sluice) = (case.write(seed), case.watch(), case.start(&[]));
        writer.wait_more(20, LIMIT);
        fault(&case);
        sluice.wait_log(LIMIT, &["connected again"]);
        writer.wait_more(20, LIMIT);
        sluice.wait_ready(LIMIT);
        case.verify(&writer.stop());
        case::wait_calm(&sluice);
        watch.stop();
        case::assert_said_once(&sluice);
        assert_eq!(case::said(&sluice, "INFO", "connected again").len(), 1, "{}", sluice.log());
        assert!(sluice.metric("pgsluice_reconnects_total", &["postgres"]) >= 1.0);
        assert_eq!(sluice.stop(LIMIT), 0);
    });
}

#[test]
fn postgresql_restarted_fast_is_not_held_up_and_loses_nothing() {
    postgres_fault("fast", 3, |case| {
        let begin = Instant::now();
        case.postgres.ctl("stop-fast");
        assert!(begin.elapsed() < Duration::from_secs(5), "it took {:?}", begin.elapsed());
        case.postgres.ctl("start");
    });
}

#[test]
fn postgresql_stopped_immediately_loses_nothing() {
    postgres_fault("immediate", 4, |case| {
        case.postgres.ctl("stop-immediate");
        case.postgres.ctl("start");
    });
}

#[test]
fn postgresql_killed_loses_nothing() {
    postgres_fault("pgkill", 5, |case| {
        case.postgres.ctl("kill");
        case.postgres.ctl("start");
    });
}

#[test]
fn a_terminated_walsender_loses_nothing() {
    postgres_fault("walsender", 6, |case| {
        let pid = case.slot("active_pid");
        case.postgres.sql(&format!("select pg_terminate_backend({pid})"));
    });
}

#[test]
fn an_idle_postgresql_stops_fast() {
    support::postgres::alone(|| {
        let case = Case::new("idle", mortal(), kafka());
        let mut sluice = case.start(&[]);
        // WAL that is not ours: it has to be confirmed before the walsender ends.
        case.postgres.sql_in(case.name, "update marker set number = 1");
        let begin = Instant::now();
        case.postgres.ctl("stop-fast");
        assert!(begin.elapsed() < Duration::from_secs(5), "it took {:?}", begin.elapsed());
        case.postgres.ctl("start");
        sluice.wait_log(LIMIT, &["connected again"]);
        case.postgres.sql_in(case.name, "insert into a values (1, 1, 'x')");
        let records = kafka().dump_when(&case.topic(0), 1, LIMIT);
        assert_eq!(records.len(), 1);
        assert_eq!(sluice.stop(LIMIT), 0);
    });
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

#[test]
fn kafka_may_be_away_for_long_while_the_walsender_stays() {
    let (_lock, kafka) = mortal_kafka();
    let case = Case::new("away", postgres(), kafka);
    let (writer, sluice) = (case.write(7), case.start(&["postgres.wal_sender_timeout=5s"]));
    writer.wait_more(20, LIMIT);
    let watch = case.watch();
    kafka.ctl("1", "stop");
    eventually(LIMIT, "it is not ready", || {
        sluice.http("/readyz").is_ok_and(|(status, body)| status == 503 && body.contains("kafka"))
    });
    // As long as the fault lasts.
    std::thread::sleep(Duration::from_secs(if support::soak() { 90 } else { 20 }));
    kafka.ctl("1", "start");
    writer.wait_more(20, LIMIT);
    case.verify(&writer.stop());
    case::wait_calm(&sluice);
    let seen = watch.stop();
    assert_eq!(seen.walsenders.len(), 1, "{}", sluice.log());
    assert!(peak_memory(sluice.pid()) < 64 << 20, "{} bytes", peak_memory(sluice.pid()));
    case::assert_said_once(&sluice);
    assert_eq!(case::said(&sluice, "INFO", "Kafka stores everything again").len(), 1);
}

#[test]
fn a_drain_that_is_too_short_ends_with_75_and_says_what_comes_again() {
    let (_lock, kafka) = mortal_kafka();
    let case = Case::new("drain", postgres(), kafka);
    let (writer, mut sluice) = (case.write(8), case.start(&["run.drain=1s"]));
    writer.wait_more(20, LIMIT);
    kafka.ctl("1", "pause");
    writer.wait_more(20, LIMIT);
    let code = sluice.stop(LIMIT);
    let told = case.slot("confirmed_flush_lsn");
    kafka.ctl("1", "resume");
    assert_eq!(code, 75, "{}", sluice.log());
    let errors = case::said(&sluice, "ERROR", "will be sent again");
    assert_eq!(errors.len(), 1, "{}", sluice.log());
    assert!(errors[0].contains(&told), "{errors:?} does not name {told}");
    let mut sluice = case.start(&[]);
    case.verify(&writer.stop());
    assert_eq!(sluice.stop(LIMIT), 0);
}

#[test]
fn a_second_sigterm_ends_at_once_with_75() {
    let (_lock, kafka) = mortal_kafka();
    let case = Case::new("twice", postgres(), kafka);
    let (writer, mut sluice) = (case.write(9), case.start(&["run.drain=10m"]));
    kafka.ctl("1", "pause");
    writer.wait_more(20, LIMIT);
    sluice.sigterm();
    sluice.wait_log(LIMIT, &["asked to stop"]);
    let code = sluice.stop(Duration::from_secs(5));
    kafka.ctl("1", "resume");
    assert_eq!(code, 75, "{}", sluice.log());
    let _sluice = case.start(&[]);
    case.verify(&writer.stop());
}

/// The most that a process ever had in memory.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
