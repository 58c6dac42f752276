//! `kafka.delivery = "transactional"`: what is committed together is seen together, each row once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::crash::{Sweep, killed_after};
use crate::support::{Mode, Record, eventually};
use crate::world::{
    ALL, End, FIRST, LIMIT, World, at_once, both, is_each_once, kafka, lines_of, ours, postgres,
    rows_of, stored_once,
};

const ATOMIC: &str = "kafka.delivery=transactional";

/// Seven messages to three topics, seen as they are by [`told`].
fn transaction(world: &World, id: u32) {
    let [second, last] = [id + 1, id + 3];
    world.sql(&format!(
        "insert into t values ({id}, 1, 'a'); insert into u values ({id}, 1, 'a');
         insert into t values ({second}, 1, 'a'); update u set a = 'b' where id = {id};
         delete from t where id = {second}; update t set id = {last} where id = {id};
         select pg_logical_emit_message(true, 'app', 'message {id}')"
    ));
}

fn told(id: u32) -> [Vec<String>; 2] {
    let [second, last] = [id + 1, id + 3];
    let of_t = [("c", id), ("c", second), ("d", second), ("d", id), ("u", last)];
    let of_u = [("c", id), ("u", id)];
    let lines = |list: &[(&str, u32)]| list.iter().map(|(op, id)| format!("{op} {id}")).collect();
    [lines(&of_t), lines(&of_u)]
}

/// Waits until so many records are in a topic, committed or not.
#[track_caller]
fn wait_sent(topic: &str, count: usize) {
    eventually(LIMIT, "the records are sent", || ours(topic).len() == count);
}

/// How many records of each transaction, by its commit.
fn by_commit<'a>(records: impl IntoIterator<Item = &'a Record>) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for record in records {
        let commit = record.header("id").unwrap().split('-').nth(2).unwrap().to_owned();
        *all.entry(commit).or_default() += 1;
    }
    all
}

#[test]
fn killed_after_each_message_of_a_transaction_it_is_seen_whole_and_once() {
    postgres();
    kafka();
    let (sweep, aborted) = (Sweep::default(), AtomicU32::new(0));
    at_once(0..4, |number| {
        let world = World::new(&format!("atomic_{number}"), End::Killed, &["t", "u"]);
        let topics = ["t", "u", "m"].map(|table| world.topic(table));
        let messages = format!("message.topic={}", topics[2]);
        let sets =
            [messages.as_str(), "topic.partitions=1", ATOMIC, "kafka.transaction.interval=5ms"];
        let mut expected = [Vec::new(), Vec::new()];
        let mut count = 0;
        for id in (0..).step_by(10) {
            let Some(bytes) = sweep.next() else { break };
            let mut sluice = world.start(&sets);
            // So that the tables are described.
            transaction(&world, id);
            world.wait_confirmed(&mut sluice);
            let write = || transaction(&world, id + 5);
            let rows = killed_after(&world, bytes, sluice, write, |_, _| {});
            for id in [id, id + 5] {
                let [of_t, of_u] = told(id);
                expected[0].extend(of_t);
                expected[1].extend(of_u);
                count += 1;
            }
            // Whole or not at all, also now.
            let all: Vec<Record> = topics.iter().flat_map(|topic| stored_once(topic)).collect();
            let parts = by_commit(&all);
            assert!(parts.values().all(|&records| records == 8), "{}: {parts:?}", world.name);
            sweep.saw(rows);
        }
        world.drain(&sets);
        for (topic, expected) in topics.iter().zip(&expected) {
            assert_eq!(&lines_of(&stored_once(topic)), expected, "{topic}");
        }
        assert_eq!(stored_once(&topics[2]).len(), count, "{}", world.name);
        let all = kafka().dump_uncommitted(&topics[0]).len();
        aborted.fetch_add((all - expected[0].len()) as u32, Ordering::SeqCst);
    });
    sweep.check();
    assert!(aborted.into_inner() > 0, "no transaction was ever in the midst of it");
}

#[test]
fn from_one_mode_to_the_other_each_row_is_stored_once() {
    both("to_atomic", &["t", "u"], |world| changed(world, "idempotent", "transactional"));
    both("from_atomic", &["t", "u"], |world| changed(world, "transactional", "idempotent"));
}

fn changed(world: &World, before: &str, after: &str) {
    let [before, after] = [before, after].map(|mode| format!("kafka.delivery={mode}"));
    world.first(&[&before]);
    let (left_out, log) = world.second(&[&after]);
    assert_eq!(left_out, world.unconfirmed(), "{log}");
    for table in ["t", "u"] {
        is_each_once(&rows_of(&stored_once(&world.topic(table))), ALL, world);
        // Nothing was begun and given up either.
        assert_eq!(ours(&world.topic(table)).len(), ALL.len());
    }
}

/// What was open when it was killed is given up, and comes again.
#[test]
fn killed_in_the_midst_of_a_transaction_of_kafkas_each_row_is_stored_once_whatever_comes_next() {
    let modes = ["transactional", "idempotent"];
    postgres();
    kafka();
    at_once(modes, |next| {
        let world = World::new(&format!("open_{next}"), End::Killed, &["t"]);
        let mut sluice = world.start(&[ATOMIC, "kafka.transaction.interval=1m"]);
        world.write(FIRST);
        let topic = world.topic("t");
        wait_sent(&topic, FIRST.len());
        assert_eq!(stored_once(&topic), [], "{}", sluice.log());
        sluice.kill();
        world.write(FIRST.end..FIRST.end + 4);
        let (left_out, _) = world.drain(&[&format!("kafka.delivery={next}")]);
        assert_eq!(left_out, 0);
        is_each_once(&rows_of(&stored_once(&topic)), FIRST.start..FIRST.end + 4, &world);
        assert_eq!(kafka().dump_uncommitted(&topic).len(), 2 * FIRST.len() + 4);
    });
}

#[test]
fn a_transaction_over_a_limit_is_cut_counted_and_said() {
    postgres();
    kafka();
    at_once([("bytes", "max_bytes=1MiB"), ("time", "max_time=1s")], |(name, limit)| {
        let world = World::new(&format!("split_{name}"), End::Stopped, &["t"]);
        let limit = format!("kafka.transaction.{limit}");
        let mut sluice = world.start(&[ATOMIC, &limit]);
        if name == "time" {
            world.proxy.set(Mode::Slow(2_000_000));
        }
        world.sql("insert into t select i, 0, repeat('x', 1000) from generate_series(1, 5000) i");
        world.wait_confirmed(&mut sluice);
        let splits = sluice.metric("pgsluice_split_transactions_total", &[]);
        assert!(splits >= 1.0, "{name}");
        let words = "a transaction is over kafka.transaction.max_bytes or max_time";
        assert_eq!(sluice.log().matches(words).count(), 1, "{}", sluice.log());
        let ended = sluice.metric("pgsluice_kafka_transactions_total", &[]);
        assert!(ended > splits, "{name}: {ended} transactions, {splits} splits");
        assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
        is_each_once(&rows_of(&stored_once(&world.topic("t"))), 1..5001, &world);
    });
}

/// Its topic cannot be taken while a transaction is open: the transaction is begun anew. Else the marker would end it, and
/// what is for the new topic alone would begin another.
#[test]
fn a_table_that_is_met_in_the_midst_of_a_transaction_does_not_split_it() {
    postgres();
    kafka();
    at_once([("met", 100..102), ("met_alone", 100..100)], |(name, more)| {
        let world = World::new(name, End::Stopped, &["t"]);
        let mut sluice = world.start(&[ATOMIC, "kafka.transaction.interval=10s"]);
        world.write(FIRST);
        let topic = world.topic("t");
        wait_sent(&topic, FIRST.len()); // so one is open
        world.sql("create table later(id int primary key)");
        let mut rows: Vec<_> =
            more.clone().map(|row| format!("insert into t values ({row});")).collect();
        rows.insert(rows.len() / 2, "insert into later values (1);".to_owned());
        world.sql(&format!("begin; {} commit", rows.concat()));
        world.wait_confirmed(&mut sluice);
        let of_t = stored_once(&topic);
        let rows: Vec<u32> = FIRST.chain(more).collect();
        assert_eq!(rows_of(&of_t), rows, "{name}: {}", sluice.log());
        assert_eq!(rows_of(&stored_once(&world.topic("later"))), [1]);
        assert_eq!(sluice.metric("pgsluice_split_transactions_total", &[]), 0.0);
        let resets = sluice.metric("pgsluice_producer_resets_total", &[]);
        assert_eq!(resets, 1.0, "{name}: {}", sluice.log());
        assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
    });
}
