//! What a slot on a standby may come to, and what is said of it.

use crate::bed::{Bed, LIMIT, host, is, warnings};
use crate::support::{Pgsluice, Postgres, eventually};

const CREATE: [&str; 2] = ["slot.create=true", "publication.create=true"];

const FEEDBACK: &str = "SET hot_standby_feedback = on";

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
    let servers = [primary, standby];

    // It takes no writes.
    let mut early = bed.spawn(&servers, "standby", &CREATE);
    assert_eq!(early.wait(LIMIT), 69, "{}", early.log());
    early.wait_log(LIMIT, &["ERROR", "run on the primary", "CREATE PUBLICATION \"p\""]);

    bed.publish_on(standby);
    let mut sluice = bed.spawn(&servers, "prefer-standby", &CREATE);
    sluice.wait_log(LIMIT, &["WARN", "GRANT EXECUTE ON FUNCTION pg_log_standby_snapshot()"]);
    bed.grant();
    is(&mut sluice, "streaming");
    bed.insert(primary, 0..10);
    bed.wait_confirmed(standby, primary);
    let of = |sluice: &Pgsluice, word| {
        warnings(sluice).iter().filter(|line| line.contains(word)).count()
    };
    assert_eq!((of(&sluice, "GRANT"), of(&sluice, FEEDBACK)), (1, 0), "{:?}", warnings(&sluice));

    // The same with both versions, but for its end.
    if version == 18 {
        sluice = away(&bed, standby, sluice);
    }
    // Said at the next start.
    standby.sql("alter system set hot_standby_feedback = off");
    standby.sql("select pg_reload_conf()");
    sluice.kill();
    let mut sluice = bed.spawn(&servers, "prefer-standby", &CREATE);
    is(&mut sluice, "streaming");
    let said = (of(&sluice, FEEDBACK), of(&sluice, "primary_slot_name"));
    assert_eq!(said, (1, 0), "{:?}", warnings(&sluice));

    // The primary removes catalog rows that the slot needs.
    let removed = || {
        let make = "create table gone(a int); drop table gone; vacuum full pg_class";
        make.split(';').for_each(|sql| drop(primary.sql_in(&bed.name, sql)));
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
    let mut again = bed.spawn(&servers, "prefer-standby", &CREATE);
    assert_eq!(again.wait(LIMIT), 66, "{}", again.log());
    let words = ["ERROR", "does not exist on", &host(standby), "--accept-gap"];
    again.wait_log(LIMIT, &words);
    bed.verify(if version == 18 { 50 } else { 10 });
}

/// It stops twice, and the primary has a slot of the same name then.
fn away(bed: &Bed, standby: &Postgres, mut sluice: Pgsluice) -> Pgsluice {
    let primary = &bed.primary;
    let servers = [primary, standby];
    let make_slot = || {
        let slot = format!("select pg_create_logical_replication_slot('{}', 'pgoutput')", bed.name);
        primary.sql_in(&bed.name, &slot);
    };
    // Its slot keeps everything, and no other server is a substitute.
    standby.ctl("stop-fast");
    bed.insert(primary, 10..20);
    let words = ["WARN", "does not exist on", &host(primary), "may be on", &host(standby)];
    sluice.wait_log(LIMIT, &words);
    // Nor is one that begins later than the other ended.
    make_slot();
    assert_eq!(sluice.wait(LIMIT), 66, "{}", sluice.log());
    sluice.wait_log(LIMIT, &["ERROR", "somebody else has moved it"]);
    bed.drop_slot(primary);
    standby.ctl("start");
    let mut sluice = bed.spawn(&servers, "prefer-standby", &CREATE);
    is(&mut sluice, "streaming");

    // One that begins earlier is, and what is stored is not stored again.
    make_slot();
    bed.insert(primary, 20..30);
    bed.wait_confirmed(standby, primary);
    standby.ctl("stop-fast");
    bed.insert(primary, 30..40);
    bed.wait_confirmed(primary, primary);
    standby.ctl("start");
    sluice.kill();
    let mut sluice = bed.spawn(&servers, "prefer-standby", &CREATE);
    is(&mut sluice, "streaming");
    bed.insert(primary, 40..50);
    bed.wait_confirmed(standby, primary);
    bed.drop_slot(primary);
    bed.verify(50);
    sluice
}
