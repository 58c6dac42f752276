//! A standby that cannot be streamed from as it is: why, and what mends it.

use crate::bed::{Bed, LIMIT, is, status, warnings};
use crate::support::{Postgres, eventually, postgres::alone};

const CREATE: [&str; 1] = ["slot.create=true"];

#[test]
fn a_standby_without_room_or_whose_primarys_wal_says_too_little_is_told() {
    // Others use these ports too.
    alone(one);
}

fn one() {
    let bed = Bed::new("unmade", 18, 7);
    let primary = &bed.primary;
    let standby =
        &bed.standby(primary, 8, &["max_replication_slots=1", "sync_replication_slots=off"]);
    standby.sql("select pg_create_physical_replication_slot('taken')");
    standby.sql("alter system set primary_slot_name = ''");
    standby.sql("select pg_reload_conf()");
    bed.publish_on(standby);
    bed.grant();
    let servers = [primary, standby];

    // Its own slots are taken, however many its primary has.
    let mut sluice = bed.spawn(&servers, "standby", &CREATE);
    let words = ["WARN", "\"unmade_18\" cannot be made", "a standby, are taken", "slots there"];
    let line = sluice.wait_log(LIMIT, &words);
    assert!(line.contains("all replication slots are in use"), "{line}");
    standby.sql("select pg_drop_replication_slot('taken')");
    is(&mut sluice, "streaming");
    let confirmed = status(&sluice).unwrap()["confirmed"]["lsn"].clone();
    assert!(confirmed.is_string() && confirmed != "0/0", "{confirmed}");
    bed.insert(primary, 0..10);
    bed.wait_confirmed(standby, primary);

    // As printed, one on the primary, the others on the standby.
    let line = sluice.wait_log(LIMIT, &["WARN", "without primary_slot_name", "On the primary: "]);
    let (_, text) = line.split_once("On the primary: ").unwrap();
    let (there, here) = text.split_once(" on the standby: ").unwrap();
    run(primary, there);
    run(standby, here);
    let read = "select active from pg_replication_slots where slot_name = 'standby'";
    eventually(LIMIT, "the standby reads it", || primary.sql(read) == "t");
    sluice.kill();
    let mut sluice = bed.spawn(&servers, "standby", &CREATE);
    is(&mut sluice, "streaming");
    let said = warnings(&sluice);
    assert!(!said.iter().any(|line| line.contains("primary_slot_name")), "{said:?}");
    assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());

    // What a slot was made for is in the WAL no more.
    wal_level(&bed, standby, "alter system set wal_level = replica");
    let mut lost = bed.spawn(&servers, "standby", &CREATE);
    assert_eq!(lost.wait(LIMIT), 66, "{}", lost.log());
    let words = ["ERROR", "is lost", "wal_level_insufficient", "primary's wal_level was not"];
    lost.wait_log(LIMIT, &words);
    bed.drop_slot(standby);
    let mut level = bed.spawn(&servers, "standby", &[CREATE[0], "slot.name=other"]);
    assert_eq!(level.wait(LIMIT), 69, "{}", level.log());
    let line = level.wait_log(LIMIT, &["ERROR", "its primary's WAL does not hold"]);
    let (_, text) = line.split_once("on the primary, ").unwrap();
    wal_level(&bed, standby, text.split_inclusive(';').next().unwrap());
    let mut sluice = bed.spawn(&servers, "standby", &[CREATE[0], "slot.name=other"]);
    is(&mut sluice, "streaming");
    bed.verify(10);
}

/// One statement after the other.
#[track_caller]
fn run(on: &Postgres, text: &str) {
    for one in text.split_inclusive(';').filter(|one| one.ends_with(';')) {
        on.sql(one.trim());
    }
}

/// The primary is started again with what that sets, and the standby knows it.
fn wal_level(bed: &Bed, standby: &Postgres, sql: &str) {
    bed.primary.sql(sql);
    bed.primary.ctl("stop-fast");
    bed.primary.ctl("start");
    let now = bed.primary.sql("select pg_current_wal_insert_lsn()");
    eventually(LIMIT, "the standby has replayed it", || {
        standby.sql(&format!("select pg_last_wal_replay_lsn() >= '{now}'")) == "t"
    });
}
