//! From a slot that is made on a standby to that standby's promotion.

use crate::bed::{Bed, LIMIT, host, is, row, timeline, warnings};
use crate::support::eventually;

#[test]
fn a_standby_of_16_is_streamed_from_and_promoted() {
    life(16, 0);
}

#[test]
fn a_standby_of_18_is_streamed_from_and_promoted() {
    life(18, 2);
}

fn life(version: u8, port: u16) {
    let bed = Bed::new("life", version, port);
    bed.publish();
    bed.grant();
    let primary = &bed.primary;
    let standby = &bed.standby(primary, port + 1, &[]);

    // The slot is made: nobody else has the primary log what that waits for.
    let servers = [primary, standby];
    let mut first = bed.spawn(&servers, "standby", &["slot.create=true"]);
    is(&mut first, "streaming");
    first.wait_log(LIMIT, &["INFO", "asked to log which transactions are open"]);
    let count = "select count(*) from pg_replication_slots where slot_type = 'logical'";
    assert_eq!((primary.sql(count).as_str(), standby.sql(count).as_str()), ("0", "1"));
    bed.insert(primary, 0..100);
    bed.wait_confirmed(standby, primary);
    let said: Vec<_> = warnings(&first).into_iter().filter(|it| it.contains("standby")).collect();
    assert_eq!(said, Vec::<String>::new());

    // Another one takes over, and back, as on a primary.
    let mut second = bed.spawn(&servers, "standby", &[]);
    is(&mut second, "passive");
    bed.insert(primary, 100..200);
    first.kill();
    second.wait_log(LIMIT, &["the slot is ours", "by=Lock"]);
    is(&mut second, "streaming");
    bed.insert(primary, 200..300);
    bed.wait_confirmed(standby, primary);
    let mut third = bed.spawn(&servers, "standby", &[]);
    is(&mut third, "passive");
    bed.insert(primary, 300..400);
    assert_eq!(second.stop(LIMIT), 0, "{}", second.log());
    is(&mut third, "streaming");
    bed.wait_confirmed(standby, primary);
    bed.verify(400);

    // Promoted under the stream, which ends it: records of then bear the new timeline.
    bed.insert(primary, 400..500);
    primary.ctl("stop-fast");
    standby.ctl("promote");
    bed.insert(standby, 500..600);
    third.wait_log(LIMIT, &["WARN", "from timeline 1 to 2", "promoted, and is a primary now"]);
    let words = ["WARN", "is not a standby, but a primary", "prefer-standby"];
    assert!(third.wait_log(LIMIT, &words).contains(&host(standby)));
    assert_eq!(third.http("/readyz").unwrap().0, 503);
    assert_eq!(standby.sql(&format!("{count} and active")), "0");
    third.kill();

    // Who would rather have a standby goes on from it.
    let mut fourth = bed.spawn(&servers, "prefer-standby", &["slot.health_interval=200ms"]);
    is(&mut fourth, "streaming");
    bed.insert(standby, 600..700);
    bed.wait_confirmed(standby, standby);
    eventually(LIMIT, "a heartbeat comes back", || {
        fourth.metric("pgsluice_heartbeats_total", &[]) > 0.0
    });
    for record in bed.verify(700) {
        assert_eq!(timeline(&record), if row(&record) < 500 { 1 } else { 2 }, "{record:?}");
    }
    assert!(!standby.log().contains("pg_logical_emit_message"), "none was tried on a standby");
    assert_eq!(fourth.stop(LIMIT), 0, "{}", fourth.log());
}
