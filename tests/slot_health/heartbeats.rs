//! What moves when nothing does.

use std::process::Command;

use crate::support::{Postgres, eventually};
use crate::world::{LIMIT, PORTS, World, beats, kafka, shared, status, wait_beats, warnings};

/// An hour of idle, compressed: many times every limit in time that the stream has.
fn idle(version: u8, port: u16) {
    let pg = Postgres::start(version, PORTS.postgres(port), &[]);
    let world = World::new(&pg, "idle");
    world.make_slot();
    let mut sluice = world.start(&["postgres.wal_sender_timeout=3s"]);
    world.first_row(&sluice);
    for _ in 0..5 {
        let before = world.slot("confirmed_flush_lsn");
        wait_beats(&sluice, 3.0);
        let moved = world.slot(&format!("confirmed_flush_lsn > '{before}'"));
        assert_eq!(moved, "t", "the slot stands at {before}");
    }
    assert_eq!(warnings(&sluice), Vec::<String>::new());
    assert_eq!(sluice.metric("pgsluice_reconnects_total", &[]), 0.0);
    assert_eq!(sluice.metric("pgsluice_records_total", &[]), 1.0);
    let nowhere =
        sluice.metric("pgsluice_rows_nowhere_total", &["op=\"m\"", "cause=\"heartbeat\""]);
    assert!(nowhere >= beats(&sluice), "{nowhere}");
    assert!(sluice.metric("pgsluice_heartbeat_seconds_count", &[]) >= 15.0);
    let shown = status(&sluice);
    assert!(shown["heartbeat"]["lag_seconds"].as_f64().unwrap() > 0.0, "{shown}");
    assert_eq!(shown["slot_health"]["stale"], false, "{shown}");
    assert_eq!(shown["slot_health"]["wal_status"], "reserved", "{shown}");
    assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
    // What one costs: a note, and not one more for the few bytes behind it.
    let sets = ["slot.heartbeat=3s", "log.level=info,pgsluice::sink=debug"];
    let mut sluice = world.start(&sets);
    let notes = |log: &str| log.lines().filter(|line| line.contains(" noted")).count();
    wait_beats(&sluice, 1.0);
    let before = notes(&sluice.log());
    wait_beats(&sluice, 4.0);
    let count = notes(&sluice.log()) - before;
    println!("{count} notes for 4 heartbeats");
    assert!((3..=5).contains(&count), "{count} notes for 4 heartbeats: {}", sluice.log());
    assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
    assert_eq!(kafka().dump(&world.topic()).len(), 1);
}

#[test]
fn an_idle_slot_moves_and_nothing_is_taken_for_dead_on_14() {
    idle(14, 5);
}

#[test]
fn an_idle_slot_moves_and_nothing_is_taken_for_dead_on_18() {
    idle(18, 6);
}

#[test]
fn a_heartbeat_is_in_no_topic_whatever_is_asked_for() {
    let world = World::new(shared(17), "messages");
    world.make_slot();
    let topic = format!("{}.messages", world.name);
    let sluice = world.start(&[&format!("message.topic={topic}"), "kafka.delivery=transactional"]);
    wait_beats(&sluice, 3.0);
    for (prefix, content) in [
        ("pgsluice", "heartbeat another_slot 00000000000000ff 1"),
        ("pgsluice", "heartbeat of a later version"),
        ("pgsluice", "an application's"),
        ("app", "heartbeat s 00000000000000ff 1"),
    ] {
        let content = content.replace('\'', "''");
        world.sql(&format!("select pg_logical_emit_message(true, '{prefix}', '{content}')"));
    }
    wait_beats(&sluice, 3.0);
    kafka().wait(&topic, 2, LIMIT);
    let records = kafka().dump(&topic);
    let mut found: Vec<_> = records.iter().map(|one| one.value.clone().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, ["an application's", "heartbeat s 00000000000000ff 1"]);
}

/// The SQL that is said does mend it.
fn without_the_right(version: u8) {
    let world = World::new(shared(version), "no_right");
    world.make_slot();
    let flush = if version < 17 { "" } else { ", boolean" };
    let function = format!("pg_logical_emit_message(boolean, text, text{flush})");
    world.sql(&format!("revoke execute on function {function} from public"));
    let mut sluice = world.start(&[]);
    let line = sluice.wait_log(LIMIT, &["cdc_user", "may not call pg_logical_emit_message"]);
    world.first_row(&sluice);
    let reconnects = || sluice.metric("pgsluice_reconnects_total", &["postgres"]);
    let terminate = |count: f64| {
        world.slot("pg_terminate_backend(active_pid)");
        eventually(LIMIT, "it streams again", || {
            reconnects() >= count && status(&sluice)["role"] == "streaming"
        });
    };
    terminate(1.0);
    world.sql("insert into t values (2)");
    kafka().wait(&world.topic(), 2, LIMIT);
    assert_eq!(sluice.log().matches("may not call").count(), 1, "{}", sluice.log());
    assert_eq!(beats(&sluice), 0.0);
    let at = line.find("GRANT EXECUTE").expect("it is said how");
    let grant = &line[at..=at + line[at..].find(';').expect("it ends")];
    world.sql(grant);
    terminate(2.0);
    wait_beats(&sluice, 2.0);
}

#[test]
fn a_role_that_may_not_is_told_what_lets_it_and_streams_on_14() {
    without_the_right(14);
}

#[test]
fn a_role_that_may_not_is_told_what_lets_it_and_streams_on_18() {
    without_the_right(18);
}

#[test]
fn a_stall_by_a_standby_that_is_not_there_is_named_and_borne() {
    let pg = Postgres::start(17, PORTS.postgres(9), &[]);
    let world = World::new(&pg, "stall");
    world.make_slot();
    let mut sluice = world.start(&["postgres.wal_sender_timeout=2s"]);
    world.first_row(&sluice);
    wait_beats(&sluice, 1.0);
    pg.sql("select pg_create_physical_replication_slot('sb1')");
    pg.sql("alter system set synchronized_standby_slots = 'sb1'");
    pg.sql("select pg_reload_conf()");
    sluice
        .wait_log(LIMIT, &["heartbeat", "not come back", "\"sb1\"", "synchronized_standby_slots"]);
    assert!(sluice.metric("pgsluice_heartbeat_pending_seconds", &[]) > 0.0);
    world.sql("insert into t values (2)");
    // Twice as long as the stream bears silence.
    eventually(LIMIT, "it is late for long", || {
        sluice.metric("pgsluice_heartbeat_pending_seconds", &[]) > 6.0
    });
    let line = sluice.wait_log(LIMIT, &["WARN", "stands still", "\"sb1\"", "nobody reads"]);
    assert!(line.contains("ALTER SYSTEM SET synchronized_standby_slots = '';"), "{line}");
    let shown = status(&sluice)["slot_health"]["waits"].clone();
    assert!(shown.as_str().is_some_and(|waits| waits.contains("sb1")), "{shown}");
    assert_eq!(sluice.metric("pgsluice_slot_waits_for_standby", &[]), 1.0);
    // As after a promotion, when it was the slot of who is the primary now.
    pg.sql("select pg_drop_replication_slot('sb1')");
    sluice.wait_log(LIMIT, &["WARN", "stands still", "\"sb1\"", "is no slot here"]);
    assert_eq!(sluice.metric("pgsluice_records_total", &[]), 1.0);
    assert_eq!(sluice.log().matches("not come back").count(), 1, "{}", sluice.log());
    pg.sql("alter system reset synchronized_standby_slots");
    pg.sql("select pg_reload_conf()");
    sluice.wait_log(LIMIT, &["late heartbeat has come back"]);
    wait_beats(&sluice, 2.0);
    kafka().wait(&world.topic(), 2, LIMIT);
    assert_eq!(sluice.metric("pgsluice_reconnects_total", &[]), 0.0);
    sluice.wait_log(LIMIT, &["INFO", "moves again"]);
    eventually(LIMIT, "nothing is waited for", || {
        status(&sluice)["slot_health"]["waits"].is_null()
            && sluice.metric("pgsluice_slot_waits_for_standby", &[]) == 0.0
    });
    let log = sluice.log();
    assert_eq!(log.matches("stands still").count(), 2, "{log}");
    // PostgreSQL's own words, for each kind of trouble, are said once too.
    let ours = ["stands still", "not come back"];
    let others = warnings(&sluice);
    let others = others.iter().filter(|line| !ours.iter().any(|word| line.contains(word)));
    assert!(others.clone().all(|line| line.contains("PostgreSQL: replication slot")), "{log}");
    assert!(others.count() <= 2, "{log}");
}

#[test]
fn its_connection_may_be_blocked_or_broken_and_the_stream_goes_on() {
    let world = World::new(shared(17), "beside");
    world.make_slot();
    let sluice = world.start(&[]);
    world.first_row(&sluice);
    wait_beats(&sluice, 1.0);
    let pid = || {
        let of = format!("usename = 'cdc_user' and datname = '{}'", world.name);
        let ours = "(query like '%inactive_since%' or query like '%to_jsonb(s)%' or query like '%emit_message%')";
        let youngest = "order by backend_start desc limit 1";
        world.sql(&format!("select pid from pg_stat_activity where {of} and {ours} {youngest}"))
    };
    let signal = |name: &str, pid: &str| {
        let done = Command::new("kill").args(["-s", name, pid]).status();
        assert!(done.unwrap().success(), "no signal {name} to {pid}");
    };
    let blocked = pid();
    signal("STOP", &blocked);
    world.sql("insert into t values (2)");
    kafka().wait(&world.topic(), 2, LIMIT);
    // One that was under way may come back before.
    eventually(LIMIT, "it is given up", || pid() != blocked);
    wait_beats(&sluice, 1.0);
    signal("CONT", &blocked);
    let broken = pid();
    world.pg.sql(&format!("select pg_terminate_backend({broken})"));
    eventually(LIMIT, "it is made anew", || ![broken.as_str(), ""].contains(&pid().as_str()));
    wait_beats(&sluice, 2.0);
    eventually(LIMIT, "the slot is looked at", || status(&sluice)["slot_health"]["stale"] == false);
    assert_eq!(warnings(&sluice), Vec::<String>::new());
    assert_eq!(sluice.metric("pgsluice_reconnects_total", &[]), 0.0);
}

#[test]
fn a_passive_instance_looks_at_the_slot_and_writes_none() {
    let world = World::new(shared(18), "passive");
    world.make_slot();
    let mut active = world.start(&[]);
    world.first_row(&active);
    let passive = world.at(shared(18)).start(&[]);
    eventually(LIMIT, "it looks at the slot", || {
        let health = &status(&passive)["slot_health"];
        health["stale"] == false && health["inactive_seconds"].is_null()
    });
    wait_beats(&active, 3.0);
    assert_eq!(beats(&passive), 0.0);
    active.kill();
    wait_beats(&passive, 2.0);
    assert_eq!(status(&passive)["slot_health"]["stale"], false);
    assert_eq!(warnings(&passive), Vec::<String>::new());
}

#[test]
fn on_a_standby_there_is_none() {
    let primary = Postgres::start(17, PORTS.postgres(1), &[]);
    let world = World::new(&primary, "standby");
    let quick = ["wal_retrieve_retry_interval=200ms"];
    let standby = Postgres::standby(&primary, PORTS.postgres(2), &quick);
    let on_standby = world.at(&standby);
    std::thread::scope(|scope| {
        // It waits until its primary logs which transactions are open.
        let made = scope.spawn(|| {
            let slot = format!("'{}', 'pgoutput'", world.name);
            let make = format!("select pg_create_logical_replication_slot({slot})");
            standby.sql_in(&world.name, &make);
        });
        eventually(LIMIT, "the standby has a slot", || {
            primary.sql("select pg_log_standby_snapshot()");
            made.is_finished()
        });
    });
    let sluice = on_standby.start(&[]);
    world.sql("insert into t values (1)");
    kafka().wait(&on_standby.topic(), 1, LIMIT);
    eventually(LIMIT, "the slot is looked at", || {
        let health = &status(&sluice)["slot_health"];
        health["stale"] == false && health["unconfirmed_bytes"] == 0
    });
    assert_eq!(beats(&sluice), 0.0);
    assert!(!standby.log().contains("pg_logical_emit_message"), "none was tried");
    assert_eq!(warnings(&sluice), Vec::<String>::new());
}
