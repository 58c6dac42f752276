//! WAL that a slot keeps: how much of it, because of whom, and what is said in time.

use crate::support::{Pgsluice, Postgres, eventually, soak};
use crate::world::{LIMIT, MB, Open, PORTS, World, shared, status, warnings};

/// Nobody may keep more than this of what others write.
const MOST: u64 = 64 * MB;

/// Writes 8 MB so often, in turns in our database and in another. Looks all along at what the slot keeps, while `after` each turn what the cluster does goes on.
fn quiet_in_a_busy_cluster(world: &World<'_>, turns: u64, mut after: impl FnMut(u64)) {
    let other = World::new(world.pg, "other");
    let begin = world.pg.sql("select pg_current_wal_lsn()");
    let mut most = 0;
    for turn in 0..turns {
        let of = if turn % 2 == 0 { world } else { &other };
        of.noise(&of.name);
        most = most.max(world.retained());
        after(turn);
        most = most.max(world.retained());
    }
    let written = world.pg.sql(&format!("select pg_current_wal_lsn() - '{begin}'::pg_lsn"));
    let written: u64 = written.parse().unwrap();
    println!("{}: {} MB written, {} MB kept at most", world.name, written / MB, most / MB);
    assert!(written > turns * 6 * MB, "{written} bytes are too little");
    assert!(most < MOST, "it kept {most} bytes");
}

/// PostgreSQL lets go past a record that it writes every 15 s and at each checkpoint: a busy cluster has some.
fn by_checkpoints(version: u8, turns: u64) {
    let world = World::new(shared(version), "quiet");
    world.make_slot();
    let sluice = world.start(&["slot.heartbeat=1s"]);
    world.first_row(&sluice);
    quiet_in_a_busy_cluster(&world, if soak() { 60 } else { turns }, |turn| {
        if turn % 3 == 2 {
            world.pg.sql("checkpoint");
            eventually(LIMIT, "the slot has moved", || world.retained() < 16 * MB);
        }
    });
    assert_eq!(warnings(&sluice), Vec::<String>::new());
    assert_eq!(sluice.metric("pgsluice_records_total", &[]), 1.0);
}

#[test]
fn a_quiet_publication_keeps_little_of_a_busy_clusters_wal_on_14() {
    by_checkpoints(14, 10);
}

#[test]
fn a_quiet_publication_keeps_little_of_a_busy_clusters_wal_on_18() {
    by_checkpoints(18, 12);
}

/// Where the role may ask for that record, there is no need to wait for it.
#[test]
fn a_role_that_may_have_the_running_transactions_logged_need_not_wait() {
    let world = World::new(shared(17), "asked");
    world.sql("grant execute on function pg_log_standby_snapshot() to cdc_user");
    world.make_slot();
    let sluice = world.start(&["log.level=info,pgsluice::app=debug"]);
    world.first_row(&sluice);
    quiet_in_a_busy_cluster(&world, if soak() { 60 } else { 12 }, |turn| {
        if turn % 3 == 2 {
            eventually(LIMIT, "the slot has moved", || world.retained() < 20 * MB);
        }
    });
    assert!(sluice.log().contains("had the running transactions logged"), "{}", sluice.log());
}

/// What a transaction did is nobody's business.
const SECRET: &str = "what_it_wrote";

fn nothing_is_given_away(sluice: &Pgsluice) {
    for text in
        [sluice.log(), sluice.http("/status").unwrap().1, sluice.http("/metrics").unwrap().1]
    {
        assert!(!text.contains(SECRET), "{text}");
    }
}

/// A transaction that is left open, one that is left prepared, and a limit that comes near.
fn held(version: u8, port: u16) {
    let pg = Postgres::start(version, PORTS.postgres(port), &["max_prepared_transactions=5"]);
    let world = World::new(&pg, "held");
    world.make_slot();
    let mut sluice = world.start(&["slot.warn_retained=18MiB"]);
    world.first_row(&sluice);
    let open = Open::begin(&world, SECRET);
    named(&world, &mut sluice, &[&format!("process {}", open.pid), "transactions old"]);
    let shown = status(&sluice)["slot_health"].clone();
    assert_eq!(shown["oldest_transaction"]["pid"].to_string(), open.pid, "{shown}");
    assert!(shown["oldest_transaction"]["seconds"].is_null(), "the role may not see it: {shown}");
    assert!(shown["retained_bytes"].as_u64().unwrap() > 18 * MB, "{shown}");
    assert!(sluice.metric("pgsluice_slot_retained_bytes", &[]) > 18.0 * MB as f64);
    assert!(sluice.metric("pgsluice_slot_oldest_transaction_age", &[]) > 0.0);
    pg.sql("grant pg_monitor to cdc_user");
    eventually(LIMIT, "it sees since when", || {
        status(&sluice)["slot_health"]["oldest_transaction"]["seconds"].is_u64()
    });
    nothing_is_given_away(&sluice);
    open.commit();
    over(&world, &mut sluice, 1);

    world.sql(&format!(
        "begin; insert into left_open values ('{SECRET}'); prepare transaction 'left_there'"
    ));
    named(&world, &mut sluice, &["prepared as \"left_there\"", "ROLLBACK PREPARED"]);
    nothing_is_given_away(&sluice);
    assert_eq!(status(&sluice)["slot_health"]["oldest_transaction"]["gid"], "left_there");
    world.sql("rollback prepared 'left_there'");
    over(&world, &mut sluice, 2);
    assert_eq!(warnings(&sluice).len(), 2, "{}", sluice.log());
    assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
    nearly_lost(&world);
}

/// Writes until it is said what holds the slot: never so much at once that it would be the stream that is behind.
#[track_caller]
fn named(world: &World<'_>, sluice: &mut Pgsluice, words: &[&str]) {
    for _ in 0..3 {
        world.noise(&world.name);
        eventually(LIMIT, "all is confirmed", || {
            world.slot("pg_current_wal_lsn() - confirmed_flush_lsn < 1000000") == "t"
        });
        world.pg.sql("checkpoint"); // as far as it may, the slot moves
    }
    sluice.wait_log(LIMIT, &[&["slot.warn_retained"], words].concat());
}

#[track_caller]
fn over(world: &World<'_>, sluice: &mut Pgsluice, count: usize) {
    eventually(LIMIT, "it is said that it is over", || {
        world.pg.sql("checkpoint");
        sluice.log().matches("bytes of WAL, no more").count() == count
    });
}

fn nearly_lost(world: &World<'_>) {
    let pg = world.pg;
    pg.sql("alter system set max_slot_wal_keep_size = '64MB'");
    pg.sql("select pg_reload_conf()");
    let mut sluice = world.start(&[]);
    let _open = Open::begin(world, SECRET);
    let said = |sluice: &Pgsluice| sluice.log().contains("may be lost after");
    for _ in 0..20 {
        if said(&sluice) {
            break;
        }
        world.noise(&world.name);
        let at = status(&sluice)["slot_health"]["at_ms"].as_i64();
        eventually(LIMIT, "the slot is looked at", || {
            status(&sluice)["slot_health"]["at_ms"].as_i64() > at
        });
    }
    let lines = warnings(&sluice);
    assert!(lines.iter().any(|line| line.contains("max_slot_wal_keep_size")), "{}", sluice.log());
    assert_eq!(world.slot("wal_status in ('reserved', 'extended')"), "t", "it is said in time");
    assert_eq!(sluice.try_wait(), None);
    assert!(sluice.metric("pgsluice_slot_safe_wal_bytes", &[]) < 16.0 * MB as f64);
    let mut code = None;
    eventually(LIMIT, "the slot is lost", || {
        world.noise(&world.name);
        pg.sql("checkpoint");
        code = sluice.try_wait();
        code.is_some()
    });
    assert_eq!(code, Some(66), "{}", sluice.log());
    assert!(!sluice.log().contains(SECRET), "{}", sluice.log());
}

#[test]
fn who_holds_a_slot_is_named_and_a_limit_is_said_before_it_is_reached_on_14() {
    held(14, 7);
}

#[test]
fn who_holds_a_slot_is_named_and_a_limit_is_said_before_it_is_reached_on_18() {
    held(18, 8);
}
