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
#[path = "faults/systemd.rs"]
mod systemd;
#[path = "faults/watch.rs"]
mod watch;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use case::{Case, LIMIT};
use load::{Chance, Writer};
use serde_json::Value;
use support::{Kafka, Mode, Pgsluice, Ports, Postgres, Proxy, eventually};

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
fn postgres_fault(name: &'static str, seed: u64, fault: impl Fn(&Case<'_>)) {
    support::postgres::alone(|| {
        let case = Case::new(name, mortal(), kafka());
        let (writer, watch, mut sluice) = (case.write(seed), case.watch(), case.start(&[]));
        let times = rounds(1, 10);
        for time in 1..=times {
            writer.wait_more(20, LIMIT);
            fault(&case);
            eventually(LIMIT, "it is connected again", || {
                case::said(&sluice, "INFO", "connected again").len() == time
            });
        }
        writer.wait_more(20, LIMIT);
        sluice.wait_ready(LIMIT);
        case.verify(&writer.stop());
        case::wait_calm(&sluice);
        watch.stop();
        case::assert_said_once(&sluice);
        assert_eq!(case::said(&sluice, "INFO", "connected again").len(), times);
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
fn stopped_while_postgresql_is_away_it_says_whether_something_comes_again() {
    support::postgres::alone(|| {
        let case = Case::new("gone", mortal(), kafka());
        let writer = case.write(17);
        let mut sluice = case.start(&[]);
        writer.wait_more(20, LIMIT);
        case.postgres.ctl("stop-immediate");
        sluice.wait_log(LIMIT, &["trying again"]);
        let code = sluice.stop(LIMIT);
        case.postgres.ctl("start");
        let said = case::said(&sluice, "ERROR", "will be sent again").len();
        assert!(matches!((code, said), (0, 0) | (75, 1)), "{code}: {}", sluice.log());
        let _sluice = case.start(&[]);
        writer.wait_more(20, LIMIT);
        let repeats = case.verify(&writer.stop());
        assert!(repeats == 0 || code == 75, "{repeats} records were repeated");
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
    let full = peak_memory(sluice.pid());
    kafka.ctl("1", "start");
    writer.wait_more(20, LIMIT);
    case.verify(&writer.stop());
    case::wait_calm(&sluice);
    let seen = watch.stop();
    assert_eq!(seen.walsenders.len(), 1, "{}", sluice.log());
    let peak = peak_memory(sluice.pid());
    eprintln!("away: at most {full} bytes of memory while Kafka was away, {peak} in all");
    assert!(peak < 64 << 20, "{full} bytes while Kafka was away, {peak} in all");
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
fn killed_while_kafka_stalls_it_loses_nothing() {
    let (_lock, kafka) = mortal_kafka();
    let case = Case::new("stalled", postgres(), kafka);
    let (writer, watch) = (case.write(18), case.watch());
    for _ in 0..rounds(1, 10) {
        let mut sluice = case.start(&[]);
        writer.wait_more(10, LIMIT);
        kafka.ctl("1", "pause");
        // Time enough to confirm what must not be.
        writer.wait_more(60, LIMIT);
        sluice.kill();
        kafka.ctl("1", "resume");
    }
    let sluice = case.start(&[]);
    case.verify(&writer.stop());
    case::wait_calm(&sluice);
    watch.stop();
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

/// Three brokers, for one test at a time.
fn cluster() -> (MutexGuard<'static, ()>, &'static Kafka) {
    static LOCK: Mutex<()> = Mutex::new(());
    static SERVER: OnceLock<Kafka> = OnceLock::new();
    let lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let quick = ["broker.session.timeout.ms=3000"];
    let start = || Kafka::start("faults-3", PORTS.kafka(0), 3, &quick, support::kafka::LATEST);
    let kafka = SERVER.get_or_init(start);
    kafka.ctl("all", "start"); // after a test that failed
    (lock, kafka)
}

/// Waits until every replica of a topic is in sync.
fn wait_in_sync(kafka: &Kafka, topic: &str) {
    eventually(LIMIT, "three replicas are in sync", || {
        let output = support::try_run("kafka-topics", &[kafka.brokers(), "describe", topic], &[]);
        let text = String::from_utf8_lossy(&output.stdout);
        let described: Value = serde_json::from_str(&text).unwrap_or_default();
        let partitions = described["partitions"].as_array().cloned().unwrap_or_default();
        !partitions.is_empty()
            && partitions.iter().all(|p| p["isr"].as_array().is_some_and(|isr| isr.len() == 3))
    });
}

/// Something happens to the cluster under load. Returns how many records were repeated.
fn cluster_fault(name: &'static str, seed: u64, fault: impl Fn(&Case<'_>, &Writer)) -> usize {
    let (_lock, kafka) = cluster();
    let case = Case::new(name, postgres(), kafka);
    let (writer, watch) = (case.write(seed), case.watch());
    let mut sluice = case.start(&["kafka.request_timeout=2s", "kafka.connect_timeout=2s"]);
    for _ in 0..rounds(1, 4) {
        writer.wait_more(20, LIMIT);
        fault(&case, &writer);
        wait_in_sync(kafka, &case.topic(0));
    }
    writer.wait_more(20, LIMIT);
    let repeats = case.verify(&writer.stop());
    case::wait_calm(&sluice);
    let seen = watch.stop();
    assert_eq!(seen.walsenders.len(), 1, "{}", sluice.log());
    case::assert_said_once(&sluice);
    assert_ne!(case::said(&sluice, "INFO", "Kafka stores everything again").len(), 0);
    assert_eq!(sluice.stop(LIMIT), 0);
    repeats
}

#[test]
fn a_killed_broker_loses_and_repeats_nothing() {
    let repeats = cluster_fault("brokerkill", 10, |case, writer| {
        case.kafka.ctl("2", "kill");
        writer.wait_more(100, LIMIT);
        case.kafka.ctl("2", "start");
    });
    assert_eq!(repeats, 0);
}

#[test]
fn a_paused_broker_loses_and_repeats_nothing() {
    let repeats = cluster_fault("brokerpause", 11, |case, writer| {
        case.kafka.ctl("1", "pause");
        writer.wait_more(150, LIMIT);
        case.kafka.ctl("1", "resume");
    });
    assert_eq!(repeats, 0);
}

#[test]
fn a_rolling_restart_of_the_brokers_loses_nothing() {
    cluster_fault("rolling", 12, |case, writer| {
        for id in ["1", "2", "3"] {
            case.kafka.ctl(id, "stop");
            writer.wait_more(10, LIMIT);
            case.kafka.ctl(id, "start");
            wait_in_sync(case.kafka, &case.topic(0));
        }
    });
}

/// A bad network before PostgreSQL, under load.
fn network_of_postgres(
    name: &'static str,
    set: &[&str],
    fault: impl FnOnce(&Proxy, &mut Pgsluice),
) {
    let mut case = Case::new(name, postgres(), kafka());
    let proxy = Proxy::start(0, &format!("127.0.0.1:{}", case.postgres.port()));
    case.through(proxy.port());
    let (writer, watch, mut sluice) = (case.write(13), case.watch(), case.start(set));
    writer.wait_more(20, LIMIT);
    fault(&proxy, &mut sluice);
    proxy.set(Mode::Pass);
    sluice.wait_log(LIMIT, &["connected again"]);
    writer.wait_more(20, LIMIT);
    case.verify(&writer.stop());
    case::wait_calm(&sluice);
    watch.stop();
    case::assert_said_once(&sluice);
    assert_eq!(sluice.stop(LIMIT), 0);
}

#[test]
fn a_reset_connection_to_postgresql_loses_nothing() {
    network_of_postgres("pgcut", &[], |proxy, sluice| {
        proxy.cut_once();
        sluice.wait_log(LIMIT, &["connected again"]);
        proxy.set(Mode::Cut);
        eventually(LIMIT, "it tries again and again", || {
            sluice.metric("pgsluice_reconnects_total", &["postgres"]) >= 4.0
        });
    });
}

#[test]
fn a_postgresql_that_is_cut_off_in_silence_is_noticed_within_the_deadline() {
    let set = ["postgres.wal_sender_timeout=4s", "postgres.connect_timeout=2s"];
    network_of_postgres("pghole", &set, |proxy, sluice| {
        proxy.set(Mode::BlackHole);
        let begin = Instant::now();
        sluice.wait_log(LIMIT, &["said nothing for 4s"]);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(8), "noticed after {took:?}");
        let (status, _) = sluice.http("/readyz").unwrap();
        assert_eq!(status, 503);
    });
}

#[test]
#[ignore = "a minute of silence: tests/soak.sh has it"]
fn without_a_wal_sender_timeout_silence_is_noticed_all_the_same() {
    let set = ["postgres.wal_sender_timeout=0s", "postgres.connect_timeout=2s"];
    network_of_postgres("silence", &set, |proxy, sluice| {
        proxy.set(Mode::BlackHole);
        sluice.wait_log(Duration::from_secs(90), &["said nothing for 60s"]);
    });
}

#[test]
fn a_reset_or_silent_connection_to_kafka_loses_and_repeats_nothing() {
    let mut case = Case::new("kafkanet", postgres(), kafka());
    let proxy = Proxy::start(PORTS.proxy(0), &format!("127.0.0.1:{}", PORTS.kafka(1) + 5));
    kafka().listener("proxied").clone_into(&mut case.brokers);
    let (writer, watch) = (case.write(14), case.watch());
    let mut sluice = case.start(&["kafka.request_timeout=2s", "kafka.connect_timeout=2s"]);
    writer.wait_more(20, LIMIT);
    for fault in [Mode::Cut, Mode::BlackHole, Mode::CutAfter(100), Mode::CutAfterSent(30_000)] {
        sluice.wait_ready(LIMIT);
        let before = sluice.metric("pgsluice_reconnects_total", &["kafka"]);
        let over = case::said(&sluice, "INFO", "Kafka stores everything again").len();
        proxy.set(fault);
        eventually(LIMIT, "Kafka is out of reach", || {
            sluice.http("/readyz").is_ok_and(|(status, _)| status == 503)
        });
        writer.wait_more(40, LIMIT);
        proxy.set(Mode::Pass);
        eventually(LIMIT, "it is said that it is over", || {
            case::said(&sluice, "INFO", "Kafka stores everything again").len() == over + 1
        });
        assert!(sluice.metric("pgsluice_reconnects_total", &["kafka"]) > before, "{fault:?}");
    }
    writer.wait_more(20, LIMIT);
    assert_eq!(case.verify(&writer.stop()), 0);
    case::wait_calm(&sluice);
    assert_eq!(watch.stop().walsenders.len(), 1);
    assert_eq!(sluice.stop(LIMIT), 0);
}

#[test]
fn a_second_instance_waits_and_takes_over() {
    let case = Case::new("second", postgres(), kafka());
    let (writer, mut first) = (case.write(15), case.start(&[]));
    let watch = case.watch();
    let (mut second, _admin) = case.spawn_second(&["slot.check_interval=200ms", "log.level=debug"]);
    second.wait_log(LIMIT, &["waiting: "]);
    let (status, body) = second.http("/readyz").unwrap();
    assert_eq!((status, body.trim()), (200, "waiting"));
    eventually(LIMIT, "it looks often", || case::said(&second, "DEBUG", "still: ").len() > 5);
    assert_eq!(case::said(&second, "INFO", "waiting: ").len(), 1, "{}", second.log());
    assert_eq!(second.http("/livez").unwrap().0, 200);
    first.kill();
    second.wait_log(LIMIT, &["streaming"]);
    writer.wait_more(20, LIMIT);
    case.verify(&writer.stop());
    watch.stop();
    let warnings = case::said(&second, "WARN", "");
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(second.stop(LIMIT), 0);
}

#[test]
fn a_slot_that_is_dropped_ends_it_with_66_and_is_not_made_again() {
    let case = Case::new("slotdrop", postgres(), kafka());
    let mut sluice = case.start(&["slot.create=true"]);
    // In one go: it is back within a fraction of a second.
    case.postgres.sql(
        "do $$ begin
             perform pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = 'slotdrop';
             loop
                 begin
                     perform pg_drop_replication_slot('slotdrop');
                     exit;
                 exception when object_in_use then
                     perform pg_sleep(0.001);
                 end;
             end loop;
         end $$",
    );
    assert_eq!(sluice.wait(LIMIT), 66, "{}", sluice.log());
    let errors = case::said(&sluice, "ERROR", "\"slotdrop\" does not exist");
    assert_eq!(errors.len(), 1, "{}", sluice.log());
    assert_eq!(case.slot("1"), "");
}

/// A publication that PostgreSQL cannot see at the slot's position. Nothing else may write to this server.
fn dropped_publication(postgres: &Postgres) {
    let version = postgres.version();
    let case = Case::new("pubdrop", postgres, kafka());
    let mut sluice = case.start(&[]);
    postgres.sql_in(case.name, "insert into a values (1, 1, 'before')");
    kafka().wait(&case.topic(0), 1, LIMIT);
    postgres.sql_in(case.name, "drop publication p");
    let commit = postgres.sql_in(
        case.name,
        "insert into a values (2, 2, 'between') returning pg_current_wal_insert_lsn()",
    );
    postgres.sql_in(case.name, "create publication p for table a, b, c");
    postgres.sql_in(case.name, "insert into a values (3, 3, 'after')");
    assert_eq!(sluice.wait(LIMIT), 66, "{version}: {}", sluice.log());
    let errors = case::said(&sluice, "ERROR", "publication \"p\" does not exist at the WAL");
    assert_eq!(errors.len(), 1, "{version}: {}", sluice.log());
    // And again, as long as nobody does what the message says.
    let mut sluice = case.spawn(&[]);
    assert_eq!(sluice.wait(LIMIT), 66, "{version}: {}", sluice.log());
    assert_eq!(case.slot(&format!("confirmed_flush_lsn <= '{commit}'")), "t", "{version}");
    assert_eq!(kafka().count(&case.topic(0)), 1, "{version}");
}

#[test]
fn a_publication_that_was_dropped_and_made_again_ends_it_with_66_on_14_17_and_18() {
    dropped_publication(Postgres::shared(14, PORTS.postgres(2)));
    dropped_publication(Postgres::shared(18, PORTS.postgres(3)));
    support::postgres::alone(|| dropped_publication(mortal()));
}

#[test]
fn a_deleted_topic_is_waited_for_and_the_others_lose_nothing() {
    let case = Case::new("topicdrop", postgres(), kafka());
    let (writer, watch, sluice) = (case.write(16), case.watch(), case.start(&[]));
    writer.wait_more(20, LIMIT);
    kafka().topics("delete", &[&case.topic(1)]);
    eventually(LIMIT, "it is not ready", || {
        sluice
            .http("/readyz")
            .is_ok_and(|(status, body)| status == 503 && body.contains("topicdrop.b"))
    });
    writer.wait_more(20, LIMIT);
    kafka().topic(&case.topic(1), 3);
    writer.wait_more(20, LIMIT);
    let model = writer.stop();
    case.wait_confirmed();
    case.verify_table(&model, 0);
    case.verify_table(&model, 2);
    assert_ne!(case.verify_rest(&model, 1), 0);
    case::wait_calm(&sluice);
    watch.stop();
    case::assert_said_once(&sluice);
}

/// The most that a process ever had in memory.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
