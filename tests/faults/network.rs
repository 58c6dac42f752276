//! The network: cut, silent, slow.

use crate::*;

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

/// One at a time: brokers name one proxy.
fn proxied() -> (MutexGuard<'static, ()>, Proxy) {
    static LOCK: Mutex<()> = Mutex::new(());
    let lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let target = format!("127.0.0.1:{}", PORTS.kafka(1) + 5);
    kafka(); // it must not find the proxy's port taken
    (lock, Proxy::start(PORTS.proxy(0), &target))
}

/// A bad network before Kafka, under load.
fn network_of_kafka(name: &'static str, seed: u64, proxy: &Proxy, listener: &str, set: &[&str]) {
    let mut case = Case::new(name, postgres(), kafka());
    kafka().listener(listener).clone_into(&mut case.brokers);
    let (writer, watch) = (case.write(seed), case.watch());
    let quick = ["kafka.request_timeout=2s", "kafka.connect_timeout=2s"];
    let mut sluice = case.start(&[&quick, set].concat());
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
    case.verify(&writer.stop());
    case::wait_calm(&sluice);
    assert_eq!(watch.stop().walsenders.len(), 1);
    assert_eq!(sluice.stop(LIMIT), 0);
}

#[test]
fn a_reset_or_silent_connection_to_kafka_loses_and_repeats_nothing() {
    let (_lock, proxy) = proxied();
    network_of_kafka("kafkanet", 14, &proxy, "proxied", &[]);
}

#[test]
fn a_reset_or_silent_connection_with_tls_and_a_login_loses_and_repeats_nothing() {
    kafka(); // it must not find the proxy's port taken
    let target = format!("127.0.0.1:{}", PORTS.kafka(1) + 6);
    let proxy = Proxy::start(PORTS.proxy(10), &target);
    let ca = format!("kafka.tls.ca={}/ca.pem", Kafka::certificates());
    let login = ["mechanism=SCRAM-SHA-512", "user=sluice", "password=sluice-secret"];
    let mut set = login.map(|key| format!("kafka.sasl.{key}")).to_vec();
    set.push(ca);
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    network_of_kafka("kafkatls", 20, &proxy, "proxied_sasl_ssl", &set);
}

/// Bytes a second.
const SLOW: u32 = 300_000;

/// More is there already, and comes, than a slow link carries, until it has carried all: as slow as it is, nothing is given up
/// that moves. `carried` is the metric of what went over it.
fn slow(case: &Case<'_>, proxy: &Proxy, seed: u64, carried: &str, set: &[&str]) {
    let writer = case.write_hard(seed);
    writer.wait_more(1000, LIMIT);
    proxy.set(Mode::Slow(SLOW));
    let begin = Instant::now();
    let mut sluice = case.start(&[&["postgres.wal_sender_timeout=5s"], set].concat());
    let watch = case.watch();
    writer.wait_more(rounds(300, 3000) as u64, LIMIT * 2);
    let model = writer.stop();
    let end = case.postgres.sql("select pg_current_wal_lsn()");
    eventually(LIMIT * 4, "all went over the slow link", || {
        case.slot(&format!("confirmed_flush_lsn >= '{end}'")) == "t"
    });
    // Was it the slow link? Some megabytes, and not faster than it carries them.
    let (took, carried) = (begin.elapsed(), sluice.metric(carried, &[]));
    assert!(carried > 3e6, "{carried} bytes");
    assert!(took.as_secs_f64() > carried / f64::from(SLOW), "{carried} bytes within {took:?}");
    case.verify(&model);
    case::wait_calm(&sluice);
    let warnings = case::said(&sluice, "WARN", "");
    assert_eq!(warnings, Vec::<String>::new(), "{}", sluice.log());
    assert_eq!(sluice.metric("pgsluice_reconnects_total", &[]), 0.0, "{}", sluice.log());
    assert_eq!(watch.stop().walsenders.len(), 1, "{}", sluice.log());
    let peak = peak_memory(sluice.pid());
    eprintln!("{}: {carried} bytes in {took:?}, at most {peak} bytes of memory", case.name);
    assert!(peak < 64 << 20, "{peak} bytes");
    assert_eq!(sluice.stop(LIMIT), 0);
}

#[test]
fn a_slow_link_to_postgresql_is_waited_for() {
    let mut case = Case::new("slowpg", postgres(), kafka());
    let proxy = Proxy::start(0, &format!("127.0.0.1:{}", case.postgres.port()));
    case.through(proxy.port());
    slow(&case, &proxy, 21, "pgsluice_received_bytes_total", &[]);
}

#[test]
fn a_slow_link_to_kafka_is_waited_for() {
    let (_lock, proxy) = proxied();
    let mut case = Case::new("slowkafka", postgres(), kafka());
    kafka().listener("proxied").clone_into(&mut case.brokers);
    // With large batches what is on its way at once takes longer than that.
    let set = ["kafka.request_timeout=1s", "batch.linger=500ms"];
    slow(&case, &proxy, 22, "pgsluice_stored_bytes_total", &set);
}
