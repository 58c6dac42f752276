//! A server that is put back from a copy of its files: the same system identifier, the same timeline
//! and slot, and the same positions with other rows.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Ports, Postgres};
use crate::world::{LIMIT, World, kafka};

/// A copy of a stopped server's files, removed in the end.
struct Copy {
    data: PathBuf,
    copy: PathBuf,
}

impl Copy {
    fn of(pg: &Postgres, name: &str) -> Self {
        let data = Path::new(&pg.ctl("log")).parent().unwrap().to_owned();
        let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let made = Self { data, copy };
        remove(&made.copy);
        clone(&made.data, &made.copy);
        made
    }

    fn put_back(&self) {
        remove(&self.data);
        clone(&self.copy, &self.data);
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        remove(&self.copy);
    }
}

fn remove(folder: &Path) {
    assert!(Command::new("rm").arg("-rf").arg(folder).status().unwrap().success());
}

/// With owner and modes, on which PostgreSQL insists.
fn clone(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Streams 1, then of the first history 2 to 9, then of the second 102 to 109, and gives back what
/// is in the topic and the log. `unseen`: the second history is written while nobody looks.
fn restored(pg: &Postgres, name: &str, unseen: bool) -> (Vec<String>, String) {
    let world = World::published(pg, kafka(), name, "create table t(id int primary key, a text)");
    let mut process = world.spawn(&world.name, &["log.format=text"]);
    world.sql("insert into t values (1)");
    world.wait_confirmed(&world.name, &mut process);
    pg.ctl("stop-fast");
    let copy = Copy::of(pg, &world.name);
    pg.ctl("start");
    for id in 2..10 {
        world.sql(&format!("insert into t values ({id}, 'first')"));
    }
    kafka().wait(&world.topic("public.t"), 9, LIMIT);
    world.wait_confirmed(&world.name, &mut process);
    if unseen {
        process.pause();
    }
    pg.ctl("stop-fast");
    copy.put_back();
    pg.ctl("start");
    if unseen {
        insert(&world);
        // Beyond all that the first history has reached.
        world.sql("select pg_switch_wal()");
        process.resume();
    } else {
        // Only then: what is written earlier might reach the old end.
        process.wait_log(LIMIT, &["WARN", "WAL ends before a position", &world.name]);
        insert(&world);
    }
    world.wait_confirmed(&world.name, &mut process);
    assert_eq!(process.stop(LIMIT), 0, "{}", process.log());
    let records = kafka().dump(&world.topic("public.t"));
    let mut keys: Vec<String> = records.into_iter().filter_map(|record| record.key).collect();
    keys.sort();
    (keys, process.log())
}

fn insert(world: &World<'_>) {
    for id in 102..110 {
        world.sql(&format!("insert into t values ({id}, 'second')"));
    }
}

/// What was stored once and is not in the second history is nobody's loss, and comes no second time.
fn all() -> Vec<String> {
    let mut keys: Vec<String> = (1..10).chain(102..110).map(|id| id.to_string()).collect();
    keys.sort();
    keys
}

#[test]
fn a_server_that_is_put_back_to_an_earlier_state_is_noticed_by_the_end_of_its_wal() {
    let pg = Postgres::start(18, Ports::END_TO_END.postgres(5), &[]);
    let (keys, log) = restored(&pg, "put_back", false);
    assert_eq!(keys, all(), "{log}");
}

#[test]
fn a_server_that_is_put_back_and_goes_on_unseen_is_noticed_by_its_transactions() {
    let pg = Postgres::start(14, Ports::END_TO_END.postgres(6), &[]);
    let (keys, log) = restored(&pg, "put_back", true);
    assert_eq!(keys, all(), "{log}");
    assert!(log.contains("another transaction than the one that was at this position"), "{log}");
    assert!(!log.contains("WAL ends before"), "{log}");
}

/// A crash loses what the slot was told since it was last saved, and no WAL: all of it comes again,
/// is known, and is dropped.
#[test]
fn a_server_that_crashed_is_the_same_and_what_comes_again_is_dropped() {
    for (version, port) in [(14, 7), (18, 8)] {
        let pg = Postgres::start(version, Ports::END_TO_END.postgres(port), &[]);
        let table = "create table t(id int primary key, a text)";
        let world = World::published(&pg, kafka(), "crashed", table);
        let at = || {
            pg.sql("select confirmed_flush_lsn - '0/0' from pg_replication_slots")
                .parse::<u64>()
                .unwrap()
        };
        let messages = format!("message.topic={}", world.topic("messages"));
        let mut process = world.spawn(&world.name, &["log.format=text", &messages]);
        let (mut rounds, mut forgotten) = (0, 0);
        // On a slow machine the slot may just have been saved, which PostgreSQL does every 15 s.
        while forgotten < 2 {
            assert!(rounds < 12, "nothing would come again");
            for id in 0..10 {
                world.sql(&format!("insert into t values ({})", 10 * rounds + id));
            }
            world.sql("select pg_logical_emit_message(false, 'app', 'by itself')");
            world.wait_confirmed(&world.name, &mut process);
            let before = at();
            process.pause(); // so that the slot is looked at before it is moved on
            pg.ctl("kill");
            pg.ctl("start");
            forgotten += usize::from(at() < before);
            rounds += 1;
            process.resume();
        }
        world.wait_confirmed(&world.name, &mut process);
        assert_eq!(process.stop(LIMIT), 0, "{}", process.log());
        let log = process.log();
        assert!(!log.contains("put back to an earlier state"), "{log}");
        let lines = world.lines("public.t"); // which sees to it that nothing is there twice
        assert_eq!(lines.len(), 10 * rounds, "{lines:#?}");
        assert_eq!(world.lines("messages").len(), rounds);
    }
}
