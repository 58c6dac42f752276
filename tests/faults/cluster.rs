//! Three brokers: one killed or paused, all restarted, leaders that move.

use crate::*;

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

/// Something happens to the cluster under load: nothing is lost and nothing repeated.
fn cluster_fault(name: &'static str, seed: u64, fault: impl Fn(&Case<'_>, &Writer)) {
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
    case.verify(&writer.stop());
    case::wait_calm(&sluice);
    let seen = watch.stop();
    sluice.wait_log(LIMIT, &["Kafka stores everything again"]);
    // What an answer left in doubt is read back, in a session of its own.
    let doubts = sluice.metric("pgsluice_producer_resets_total", &[]);
    assert_eq!(seen.walsenders.len() as f64, 1.0 + doubts, "{}", sluice.log());
    if doubts == 0.0 {
        case::assert_said_once(&sluice);
    }
    assert_eq!(sluice.stop(LIMIT), 0);
}

#[test]
fn a_killed_broker_loses_and_repeats_nothing() {
    cluster_fault("brokerkill", 10, |case, writer| {
        case.kafka.ctl("2", "kill");
        writer.wait_more(100, LIMIT);
        case.kafka.ctl("2", "start");
    });
}

#[test]
fn a_paused_broker_loses_and_repeats_nothing() {
    cluster_fault("brokerpause", 11, |case, writer| {
        case.kafka.ctl("1", "pause");
        writer.wait_more(150, LIMIT);
        case.kafka.ctl("1", "resume");
    });
}

/// A batch whose answer was lost with one broker may be sent to the next before that one knows of it: then the topics are taken
/// anew.
#[test]
fn a_rolling_restart_of_the_brokers_loses_and_repeats_nothing() {
    cluster_fault("rolling", 12, |case, writer| {
        for id in ["1", "2", "3"] {
            case.kafka.ctl(id, "stop");
            writer.wait_more(10, LIMIT);
            case.kafka.ctl(id, "start");
            wait_in_sync(case.kafka, &case.topic(0));
        }
    });
}

#[test]
fn leaders_that_move_lose_and_repeat_nothing() {
    cluster_fault("leaders", 19, |case, writer| {
        for leader in ["1", "2", "3"] {
            for at in 0..3 {
                case.kafka.topics("lead", &[&case.topic(at), leader]);
            }
            writer.wait_more(20, LIMIT);
        }
    });
}
