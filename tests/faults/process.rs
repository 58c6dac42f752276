//! pgsluice itself: killed, stopped, a second one beside it.

use crate::*;

#[test]
fn killed_at_any_moment_it_loses_and_repeats_nothing() {
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
    case.verify(&writer.stop());
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

#[test]
fn a_second_instance_waits_and_takes_over() {
    let case = Case::new("second", postgres(), kafka());
    let (writer, mut first) = (case.write(15), case.start(&[]));
    let watch = case.watch();
    let (mut second, _admin) = case.spawn_second(&["slot.check_interval=200ms", "log.level=debug"]);
    second.wait_log(LIMIT, &["passive: "]);
    let (status, body) = second.http("/readyz").unwrap();
    assert_eq!(status, 200);
    assert!(body.starts_with("passive: "), "{body}");
    eventually(LIMIT, "it looks often", || case::said(&second, "DEBUG", "still: ").len() > 5);
    assert_eq!(case::said(&second, "INFO", "passive: ").len(), 1, "{}", second.log());
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
