//! What a slot on a standby may come to, and what is said of it.

use crate::bed::{Bed, LIMIT, host, is, status, warnings};
use crate::support::eventually;

#[test]
fn what_becomes_of_a_slot_on_a_standby_of_16_is_said() {
    ends(16);
}

#[test]
fn what_becomes_of_a_slot_on_a_standby_of_18_is_said() {
    ends(18);
}

fn ends(version: u8) {
    // Both use the same ports: one after the other.
    crate::support::postgres::alone(|| one(version));
}

fn one(version: u8) {
    let bed = Bed::new("ends", version, 7);
    let primary = &bed.primary;
    let standby = &bed.standby(primary, 8, &[]);
    let (servers, create) = ([primary, standby], ["slot.create=true", "publication.create=true"]);

    // It takes no writes.
    let mut early = bed.spawn(&servers, "standby", &create);
    assert_eq!(early.wait(LIMIT), 69, "{}", early.log());
    early.wait_log(LIMIT, &["ERROR", "run on the primary", "CREATE PUBLICATION \"p\""]);

    bed.publish();
    let mut sluice = bed.spawn(&servers, "prefer-standby", &create);
    sluice.wait_log(LIMIT, &["WARN", "GRANT EXECUTE ON FUNCTION pg_log_standby_snapshot()"]);
    bed.grant();
    is(&mut sluice, "streaming");
    bed.insert(primary, 0..10);
    bed.wait_confirmed(standby, primary);
    // Its creation may have met what the grant left to be removed, and was begun anew then.
    let said = warnings(&sluice);
    let other = |line: &&String| !line.contains("GRANT") && !line.contains("SQLSTATE 40001");
    assert_eq!(said.iter().filter(other).count(), 0, "{said:?}");

    // Away: its slot keeps everything, and no other server is a substitute.
    standby.sql("alter system set hot_standby_feedback = off");
    standby.ctl("stop-fast");
    bed.insert(primary, 10..20);
    let words = ["WARN", "does not exist on", &host(primary), "may be on", &host(standby)];
    sluice.wait_log(LIMIT, &words);
    standby.ctl("start");
    is(&mut sluice, "streaming");
    bed.insert(primary, 20..30);
    bed.wait_confirmed(standby, primary);
    bed.verify(30);
    let said = warnings(&sluice);
    let of = |word: &str| said.iter().filter(|line| line.contains(word)).count();
    assert_eq!((of("SET hot_standby_feedback = on"), of("primary_slot_name")), (1, 0), "{said:?}");

    // The primary removes catalog rows that the slot needs.
    let removed = || {
        let make = "create table gone(a int); drop table gone; vacuum full pg_class";
        make.split(';').for_each(|sql| drop(primary.sql_in(&bed.name, sql)));
        bed.insert(primary, 0..0);
        primary.sql("select pg_log_standby_snapshot()");
        let reason =
            if version < 17 { "conflicting" } else { "invalidation_reason = 'rows_removed'" };
        let of = format!("from pg_replication_slots where slot_name = '{}'", bed.name);
        standby.sql(&format!("select coalesce({reason}, false) {of}")) == "t"
    };
    eventually(LIMIT, "the slot is lost", removed);
    assert_eq!(sluice.wait(LIMIT), 66, "{}", sluice.log());
    let reason = if version < 17 { "conflict" } else { "rows_removed" };
    sluice.wait_log(LIMIT, &["ERROR", "is lost", reason, "catalog rows that it needed"]);

    // Dropped, and every server has answered: that is a gap.
    bed.drop_slot(standby);
    let mut again = bed.spawn(&servers, "prefer-standby", &create);
    assert_eq!(again.wait(LIMIT), 66, "{}", again.log());
    let words = ["ERROR", "does not exist on", &host(standby), "--accept-gap"];
    again.wait_log(LIMIT, &words);
    assert!(status(&again).is_none());
    bed.verify(30);
}
