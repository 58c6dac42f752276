//! The only broker: away, frozen, also while pgsluice is to end.

use crate::*;

#[test]
fn kafka_may_be_away_for_long_while_the_walsender_stays() {
    let (_lock, kafka) = mortal_kafka();
    let case = Case::new("away", postgres(), kafka);
    let (writer, mut sluice) = (case.write(7), case.start(&["postgres.wal_sender_timeout=5s"]));
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
    sluice.wait_log(LIMIT, &["Kafka stores everything again"]);
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
    // One that comes as soon as this is taken for the first.
    let code = eventually_some(LIMIT, "it ends at once", || {
        sluice.sigterm();
        sluice.try_wait()
    });
    kafka.ctl("1", "resume");
    assert_eq!(code, 75, "{}", sluice.log());
    let _sluice = case.start(&[]);
    case.verify(&writer.stop());
}
