//! A standby that follows the promotion of another one: its walsender streams on, and says nothing of it.

use crate::bed::{Bed, LIMIT, is, row, status, timeline};
use crate::support::{Postgres, eventually};

#[test]
fn a_standby_that_follows_another_promotion_is_streamed_from_on_its_new_timeline() {
    let bed = Bed::new("follows", 18, 4);
    bed.publish();
    bed.grant();
    let (old, name) = (&bed.primary, &bed.name);
    let ours = &bed.standby(old, 5, &["sync_replication_slots=off"]);
    let new = &bed.standby(old, 6, &["sync_replication_slots=off"]);
    let servers = [old, new, ours];
    let mut first = bed.spawn(&[ours, old], "standby", &["slot.create=true"]);
    is(&mut first, "streaming");
    bed.insert(old, 0..50);
    bed.wait_confirmed(ours, old);
    assert_eq!(first.stop(LIMIT), 0, "{}", first.log());
    // Both are standbys: the one that has the slot.
    let mut sluice = bed.spawn(&servers, "standby", &[]);
    is(&mut sluice, "streaming");
    bed.insert(old, 50..100);
    bed.wait_confirmed(ours, old);
    sees_the_slot(&bed, &servers);

    // Killed, so that not all that it wrote must be there; but the rows are.
    let now = old.sql("select pg_current_wal_insert_lsn()");
    eventually(LIMIT, "the other has it", || {
        new.sql(&format!("select pg_last_wal_replay_lsn() >= '{now}'")) == "t"
    });
    old.ctl("kill");
    new.ctl("promote");
    let physical = format!("standby_{}", ours.port());
    new.sql(&format!("select pg_create_physical_replication_slot('{physical}', true)"));
    bed.insert(new, 100..150);
    // Where it is, it may follow the old one: whoever comes now waits.
    let mut late = bed.spawn(&servers, "standby", &[]);
    late.wait_log(LIMIT, &["WARN", "has not replayed the promotion yet"]);
    assert_eq!(late.stop(LIMIT), 0, "{}", late.log());
    follow(ours, new);
    bed.insert(new, 150..200);
    bed.wait_confirmed(ours, new);
    sluice.wait_log(LIMIT, &["WARN", "from timeline 1 to 2", "follows a promotion"]);
    assert!(sluice.try_wait().is_none(), "{}", sluice.log());

    // And its own, for who takes any server: with the primary away.
    assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
    let mut any = bed.spawn(&servers, "prefer-standby", &[]);
    is(&mut any, "streaming");
    new.ctl("stop-fast");
    ours.ctl("promote");
    bed.insert(ours, 200..250);
    bed.wait_confirmed(ours, ours);
    for record in bed.verify(250) {
        let expected = match row(&record) {
            ..100 => 1,
            100..200 => 2,
            _ => 3,
        };
        assert_eq!(timeline(&record), expected, "{record:?} of {name}");
    }
    any.wait_log(LIMIT, &["WARN", "from timeline 2 to 3", "promoted, and is a primary now"]);
    assert_eq!(any.stop(LIMIT), 0, "{}", any.log());
}

/// Who waits for the slot looks at it where it is, and not at the first server that would do.
fn sees_the_slot(bed: &Bed, servers: &[&Postgres]) {
    let mut passive = bed.spawn(servers, "standby", &[]);
    is(&mut passive, "passive");
    eventually(LIMIT, "it sees the slot", || {
        let health = status(&passive).unwrap_or_default()["slot_health"].clone();
        health["restart_lsn"].is_string() && health["stale"] == false
    });
    assert_eq!(passive.stop(LIMIT), 0, "{}", passive.log());
}

/// From now on `standby` gets its WAL from `from`.
fn follow(standby: &Postgres, from: &Postgres) {
    let to = format!("host=127.0.0.1 port={} user=postgres", from.port());
    standby.sql(&format!("alter system set primary_conninfo = '{to}'"));
    standby.sql("select pg_reload_conf()");
}
