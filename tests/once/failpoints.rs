//! Killed at every failpoint of the source, the first times that it is passed: each row is stored once.

use std::{
    collections::VecDeque,
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
};

use crate::crash::{told, transaction};
use crate::support::{Pgsluice, eventually, soak};
use crate::topics::{applied, beheaded, last_of_each_key, truncated};
use crate::world::{End, LIMIT, World, at_once, kafka, lines_of, postgres, stored_once};

/// How a process ends at one: by SIGABRT.
const STRUCK: i32 = -6;

#[test]
fn killed_at_each_failpoint_each_row_is_stored_once() {
    postgres();
    kafka();
    let all = points(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")));
    let plain = all.iter().filter(|point| !point.starts_with("tx, ")).cloned().collect();
    let (plain, in_transactions) = (Mutex::new(plain), Mutex::new(all));
    at_once(0..4, |number| {
        if number < 2 {
            killed_at_each("idempotent", number, &plain);
        } else {
            killed_at_each("transactional", number, &in_transactions);
        }
    });
}

fn killed_at_each(mode: &str, number: u32, points: &Mutex<VecDeque<String>>) {
    let turns: &[u32] = if soak() { &[1, 2, 3, 4, 5, 6, 7, 8, 16] } else { &[1, 2, 7] };
    let world = World::new(&format!("failpoint_{number}"), End::Killed, &["t"]);
    let [messages, mode] = [("message.topic", world.topic("m")), ("kafka.delivery", mode.into())]
        .map(|(key, value)| format!("{key}={value}"));
    let interval = "kafka.transaction.interval=10ms";
    let sets = [messages.as_str(), mode.as_str(), interval, "topic.partitions=1"];
    let (mut expected, mut id) = (Vec::new(), 0);
    loop {
        let next = points.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(point) = next else { break };
        for turn in turns {
            let struck = killed_at(&world, &sets, &format!("{point}:{turn}"), id);
            assert!(struck || *turn > 1, "{point} is never passed");
            expected.extend([id, id + 5].into_iter().flat_map(told));
            id += 10;
        }
        world.drain(&sets);
        let stored = lines_of(&stored_once(&world.topic("t")));
        assert_eq!(stored, expected, "after it was killed at {point}, {mode}");
        let messages = stored_once(&world.topic("m")).len();
        assert_eq!(messages * 7, expected.len(), "messages, after {point}, {mode}");
    }
}

/// Two transactions: one is there when the process starts, one is written once it streams; then it is stopped. Whether it
/// was killed in the course of that. In any case all of both is written.
fn killed_at(world: &World, sets: &[&str], failpoint: &str, id: u32) -> bool {
    transaction(world, id);
    let mut sluice = world.spawn(sets, &[("FAILPOINT", failpoint)]);
    let ready = |sluice: &Pgsluice| sluice.http("/readyz").is_ok_and(|(code, _)| code == 200);
    eventually(LIMIT, "it is ready or killed", || sluice.try_wait().is_some() || ready(&sluice));
    transaction(world, id + 5);
    let now = world.sql("select pg_current_wal_insert_lsn()");
    eventually(LIMIT, "all is confirmed, or it is killed", || {
        sluice.try_wait().is_some() || world.confirmed(&now)
    });
    if sluice.try_wait().is_none() {
        sluice.sigterm();
    }
    let code = sluice.wait(LIMIT);
    assert!(matches!(code, 0 | STRUCK), "{failpoint}: it ended with {code}:\n{}", sluice.log());
    code == STRUCK
}

/// The first are there again, behind the others, when the process is killed, and all that there is is stored.
#[test]
fn after_a_replay_that_was_broken_off_each_key_is_left_with_its_last_value() {
    let log = beheaded("broken_off", |world, sets, gone| {
        let mut sluice = world.spawn(sets, &[("FAILPOINT", &format!("delivered:{gone}"))]);
        assert_eq!(sluice.wait(LIMIT), STRUCK, "{}", sluice.log());
        let last = last_of_each_key(&world.topic("t"));
        assert_ne!(last, [42, 43, 41].map(Some), "it came to the end");
    });
    assert!(log.contains("a replay into it was broken off"), "{log}");
}

/// The same, and the truncate is there again, but not yet what followed it.
#[test]
fn after_a_replay_that_was_broken_off_behind_a_truncate_no_later_row_is_gone() {
    let log = truncated("broken_off_truncated", |world, sets, gone| {
        let mut sluice = world.spawn(sets, &[("FAILPOINT", &format!("delivered:{}", gone + 2))]);
        assert_eq!(sluice.wait(LIMIT), STRUCK, "{}", sluice.log());
        let left = applied(&kafka().dump(&world.topic("t")));
        assert!(!left.contains(&1002) && left.is_disjoint(&(4..12).collect()), "{left:?}");
    });
    assert!(log.contains("a replay into it was broken off"), "{log}");
}

/// Every name in `failpoint::hit("…")`.
fn points(folder: &Path) -> VecDeque<String> {
    let mut found = VecDeque::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(points(&path));
        } else if path.file_name().is_some_and(|name| name != "failpoint.rs") {
            let text = fs::read_to_string(&path).unwrap();
            let names = text.split("failpoint::hit(\"").skip(1);
            found.extend(names.map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
    found
}
