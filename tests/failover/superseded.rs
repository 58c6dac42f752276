//! `slot.take_over_after`: a frozen active instance is ended before `wal_sender_timeout` does it.

use crate::bed::{Bed, LIMIT, is, said};

const SETS: [&str; 3] =
    ["postgres.wal_sender_timeout=300s", "slot.take_over_after=3s", "slot.check_interval=200ms"];

#[test]
fn a_frozen_instance_is_superseded() {
    let bed = Bed::new("superseded");
    let mut first = bed.active("a", &SETS);
    let mut second = bed.passive("b", &SETS);
    bed.sql("insert into t values (0, 'a')");
    bed.wait_confirmed();
    first.pause();
    bed.sql("insert into t values (1, 'a')");
    let line = second.wait_log(LIMIT, &["slot.take_over_after", "was told to end it"]);
    assert!(line.contains("\\\"a\\\" at 127.0.0.1 since"), "{line}");
    is(&second, "streaming");
    bed.wait_confirmed();
    first.resume();
    is(&first, "passive");
    bed.sql("insert into t values (2, 'a')");
    bed.wait_confirmed();
    assert_eq!(first.stop(LIMIT), 0, "{}", first.log());
    assert_eq!(second.stop(LIMIT), 0, "{}", second.log());
    bed.verify(3);
}

#[test]
fn without_the_right_it_is_said_once_what_to_grant() {
    let bed = Bed::new("mayend");
    let first = bed.active("a", &[&SETS[..], &["postgres.user=other_user"]].concat());
    let mut second = bed.passive("b", &SETS);
    let line = second.wait_log(LIMIT, &["slot.take_over_after has no effect"]);
    assert!(line.contains("GRANT pg_monitor TO cdc_user"), "{line}");
    bed.sql("grant pg_monitor to cdc_user");
    first.pause();
    let line = second.wait_log(LIMIT, &["slot.take_over_after has no effect", "signal"]);
    assert!(line.contains("GRANT pg_signal_backend TO cdc_user"), "{line}");
    assert_eq!(said(&second, &["has no effect"]).len(), 2, "{}", second.log());
    bed.sql("grant pg_signal_backend to cdc_user");
    is(&second, "streaming");
    bed.sql("revoke pg_monitor, pg_signal_backend from cdc_user");
}
