//! One take-over after the other under load, and how long each took.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::bed::{Bed, LIMIT, is, said};
use crate::load::Load;
use crate::support::{Pgsluice, eventually, soak};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Kill,
    Term,
}

#[test]
fn a_killed_instance_is_followed_at_once() {
    rounds(&Bed::new("killed"), End::Kill, if soak() { 50 } else { 3 }, &[]);
}

#[test]
fn an_instance_that_is_told_to_stop_hands_over_without_a_row_sent_again() {
    rounds(&Bed::new("told"), End::Term, if soak() { 20 } else { 2 }, &[]);
}

#[test]
fn transactions_are_handed_over_whole() {
    let sets = ["kafka.delivery=transactional"];
    rounds(&Bed::new("whole"), End::Kill, if soak() { 10 } else { 2 }, &sets);
}

#[track_caller]
fn rounds(bed: &Bed, end: End, count: usize, sets: &[&str]) {
    let mut active = bed.active("a0", sets);
    let load = Load::start(bed);
    let mut all: Vec<Times> = Vec::new();
    for round in 1..=count {
        let mut passive = bed.passive(&format!("a{round}"), sets);
        holds_the_lock(bed);
        let begin = now();
        match end {
            End::Kill => active.kill(),
            End::Term => active.sigterm(),
        }
        passive.wait_log(LIMIT, &["the first records are stored"]);
        is(&passive, "streaming");
        if end == End::Term {
            assert_eq!(active.wait(LIMIT), 0, "{}", active.log());
            let again = passive.metric("pgsluice_already_stored_total", &[]);
            assert_eq!(again, 0.0, "all was confirmed before the slot was let go");
        }
        assert_eq!(passive.metric("pgsluice_take_overs_total", &[]), 1.0);
        all.push(Times::of(&passive, begin));
        println!("{end:?} {round}: {:?}", all.last().unwrap());
        active = passive;
    }
    assert!(all.iter().any(|one| one.by_lock), "the lock shortens the wait");
    let rows = load.stop();
    bed.wait_confirmed();
    assert_eq!(active.stop(LIMIT), 0, "{}", active.log());
    bed.verify(rows);
    for (what, time) in [
        ("slot ours", Times::slot as fn(&Times) -> Duration),
        ("topics ours", Times::topics),
        ("first record stored", Times::stored),
    ] {
        let mut sorted: Vec<_> = all.iter().map(time).collect();
        sorted.sort_unstable();
        let at = |percent: usize| sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)];
        let (half, most, max) = (at(50), at(99), sorted[sorted.len() - 1]);
        println!(
            "{end:?} × {count} under {rows} rows, until {what}: p50 {half:?}, p99 {most:?}, max {max:?}"
        );
    }
}

/// Of a take-over, from the signal on.
#[derive(Debug)]
struct Times {
    /// Noticed by the lock, and not by polling.
    by_lock: bool,
    slot: Duration,
    topics: Duration,
    stored: Duration,
}

impl Times {
    fn of(sluice: &Pgsluice, begin: Duration) -> Self {
        let at = |words: &str| {
            let line = said(sluice, &[words]).pop().unwrap_or_else(|| panic!("no {words:?}"));
            time(line["timestamp"].as_str().unwrap()).saturating_sub(begin)
        };
        let by_lock = said(sluice, &["the slot is ours"])[0]["by"] == "Lock";
        Self {
            by_lock,
            slot: at("the slot is ours"),
            topics: at("the topics are ours"),
            stored: at("the first records are stored"),
        }
    }

    const fn slot(&self) -> Duration {
        self.slot
    }

    const fn topics(&self) -> Duration {
        self.topics
    }

    const fn stored(&self) -> Duration {
        self.stored
    }
}

/// Since the day began, as the log has it.
fn time(stamp: &str) -> Duration {
    let clock = stamp.split_once('T').unwrap().1.trim_end_matches('Z');
    let parts: Vec<f64> = clock.split(':').map(|part| part.parse().unwrap()).collect();
    Duration::from_secs_f64(parts[0] * 3600.0 + parts[1] * 60.0 + parts[2])
}

fn now() -> Duration {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    unix - Duration::from_secs(unix.as_secs() / 86_400 * 86_400)
}

/// The active instance has it, and another one waits for it.
#[track_caller]
fn holds_the_lock(bed: &Bed) {
    let key = pgsluice::pg::lock::key(bed.name).cast_unsigned();
    let (high, low) = (key >> 32, key & 0xffff_ffff);
    let sql = format!(
        "select string_agg(l.granted::text, ',' order by l.granted) from pg_locks l
         join pg_database d on d.oid = l.database
         where l.locktype = 'advisory' and d.datname = '{}' and l.classid = {high} and l.objid = {low}",
        bed.name
    );
    eventually(LIMIT, "one has the lock, another waits", || bed.sql(&sql) == "false,true");
}
