//! Topics that others change, or write to, before the next process starts.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Pgsluice, Record, eventually, produce_with};
use crate::world::{ALL, BASE, End, FIRST, LIMIT, SECOND, World, both, is_each_once, kafka, ours};

#[test]
fn with_more_partitions_each_row_is_stored_once() {
    both("partitions", &["t"], |world| {
        world.first(&[]);
        kafka().topics("alter", &[&world.topic("t"), "partitions=7"]);
        let (left_out, _) = world.second(&[]);
        assert_eq!(left_out, world.unconfirmed());
        is_each_once(&world.rows(&world.topic("t")), ALL, world);
    });
}

#[test]
fn beside_a_foreign_writer_each_row_is_stored_once() {
    both("foreign", &["t"], |world| {
        let topic = world.topic("t");
        kafka().topic(&topic, 2);
        foreign(&topic, 10, &[]);
        world.first(&[]);
        foreign(&topic, 1000, &["-X", "batch.num.messages=7", "-X", "compression.type=zstd"]);
        let (left_out, _) = world.second(&[]);
        assert_eq!(left_out, world.unconfirmed());
        is_each_once(&world.rows(&topic), ALL, world);
        is_counted(world, &topic);
    });
}

/// What another one writes while we do, by how many offsets of the partitions that we write after it.
fn is_counted(world: &World, topic: &str) {
    let more = ALL.end..ALL.end + 40;
    let mut sluice = world.start(&[]);
    let foreign_offsets = |sluice: &Pgsluice| sluice.metric("pgsluice_foreign_offsets_total", &[]);
    world.write(more.clone());
    world.wait_confirmed(&mut sluice);
    assert_eq!(foreign_offsets(&sluice), 0.0, "{}", sluice.log());
    foreign(topic, 100, &[]);
    world.write(more.end..more.end + 40);
    world.wait_confirmed(&mut sluice);
    assert_eq!(foreign_offsets(&sluice), 100.0, "{}", sluice.log());
    sluice.wait_log(LIMIT, &["WARN", "somebody else writes into this topic", topic]);
    assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
}

/// Its records are read back as ours are, whatever becomes of them.
#[test]
fn beside_foreign_transactions_ended_and_open_each_row_is_stored_once() {
    both("foreign_open", &["t"], |world| {
        let topic = world.topic("t");
        kafka().topic(&topic, 2);
        let (one, other) = (format!("{topic}-one"), format!("{topic}-other"));
        foreign(&topic, 10, &["--transactional", &one, "--leave-open"]);
        world.first(&[]);
        foreign(&topic, 100, &["--transactional", &other]);
        foreign(&topic, 10, &["--transactional", &other, "--leave-open"]);
        let (left_out, _) = world.second(&[]);
        assert_eq!(left_out, world.unconfirmed());
        is_each_once(&world.rows(&topic), ALL, world);
    });
}

#[test]
fn in_a_compacted_topic_each_row_is_stored_once() {
    both("compacted", &["t"], |world| {
        let topic = world.topic("t");
        kafka().topic_with(&topic, 2, &["cleanup.policy=compact"]);
        world.first(&[]);
        let (left_out, _) = world.second(&[]);
        assert_eq!(left_out, world.unconfirmed());
        is_each_once(&world.rows(&topic), ALL, world);
    });
}

/// The cleaner takes rows that are stored and not confirmed, as a later one has the same key. What comes again is followed
/// by all that followed it, so that no key is left with an old value.
#[test]
fn where_the_cleaner_ran_each_key_is_left_with_its_last_value() {
    kafka();
    let world = World::new("cleaned", End::Killed, &["t"]);
    let topic = world.topic("t");
    let quick = ["cleanup.policy=compact", "segment.ms=100", "min.cleanable.dirty.ratio=0.0"];
    kafka().topic_with(&topic, 2, &quick);
    let sets = ["tables.\"public.t\".key=[\"k\"]"];
    world.first(&sets);
    let before = ours(&topic).len();
    eventually(LIMIT, "the cleaner has run", || {
        foreign(&topic, 10, &[]); // what is written last is not cleaned
        ours(&topic).len() < before
    });
    world.drain(&sets);
    assert_eq!(last_of_each_key(&topic), [42, 43, 41].map(Some));
}

pub fn last_of_each_key(topic: &str) -> Vec<Option<u64>> {
    let mut last = BTreeMap::new();
    for record in kafka().dump(topic).iter().filter(|record| record.header("id").is_some()) {
        last.insert(record.key.clone(), record.json()["id"].as_u64());
    }
    last.into_values().collect()
}

/// Retention takes the first of what is stored and not confirmed: it comes again, and all that followed it does.
#[test]
fn where_the_first_were_deleted_each_key_is_left_with_its_last_value() {
    beheaded("beheaded", |_, _, _| {});
}

/// What happens before the second process gets the world, its settings, and how many records are gone. Gives the log.
pub fn beheaded(name: &str, then: impl FnOnce(&World, &[&str], usize)) -> String {
    kafka();
    let world = World::new(name, End::Killed, &["t"]);
    let topic = world.topic("t");
    let sets = ["tables.\"public.t\".key=[\"k\"]", "topic.partitions=1", "batch.max_records=1"];
    world.first(&sets);
    let all = ours(&topic);
    kafka().topics("empty", &[&topic, &all[all.len() / 2].offset.to_string()]);
    let kept = ours(&topic).len();
    assert!(kept < all.len());
    then(&world, &sets, all.len() - kept - BASE.len());
    let (_, log) = world.drain(&sets);
    assert_eq!(last_of_each_key(&topic), [42, 43, 41].map(Some), "{log}");
    log
}

/// The same before a truncate, which stands behind them again.
#[test]
fn a_truncate_follows_what_was_deleted_and_comes_again() {
    truncated("truncated", |_, _, _| {});
}

/// What happens before the second process gets the world, its settings, and how many rows are gone, all before the truncate.
/// Whoever has read the topic from its beginning, or all along, has the table then. Gives the log.
pub fn truncated(name: &str, then: impl FnOnce(&World, &[&str], usize)) -> String {
    kafka();
    let world = World::new(name, End::Killed, &["t"]);
    let topic = world.topic("t");
    let sets = ["topic.partitions=1", "batch.max_records=1"];
    let mut sluice = world.start(&sets);
    world.write(BASE);
    world.wait_confirmed(&mut sluice);
    world.proxy.hold();
    // With the truncate as many records as FIRST has.
    let (gone, rest) = (FIRST.start..FIRST.start + 4, FIRST.start + 8..FIRST.end - 4);
    world.write(gone.start..rest.start);
    world.sql("truncate t");
    world.write(rest.clone());
    world.sql("insert into t values (1000), (1001), (1002)");
    world.finish(&mut sluice, BASE.len());
    let mut all = kafka().dump(&topic);
    let first = &ours(&topic)[BASE.len() + gone.len()];
    kafka().topics("empty", &[&topic, &first.offset.to_string()]);
    assert_eq!(ours(&topic).len(), all.len() - BASE.len() - gone.len());
    then(&world, &sets, gone.len());
    let (_, log) = world.drain(&sets);
    let kept = kafka().dump(&topic);
    let seen = all.last().unwrap().offset;
    let table: BTreeSet<u64> = rest.map(u64::from).chain(1000..1003).collect();
    assert_eq!(applied(&kept), table, "{log}");
    all.extend(kept.into_iter().filter(|record| record.offset > seen));
    assert_eq!(applied(&all), table, "{log}");
    log
}

/// The rows that whoever has read these has.
pub fn applied(records: &[Record]) -> BTreeSet<u64> {
    let mut rows = BTreeSet::new();
    for record in records.iter().filter(|record| record.header("id").is_some()) {
        match record.header("op") {
            Some("t") => rows.clear(),
            _ => _ = rows.insert(record.json()["id"].as_u64().unwrap()),
        }
    }
    rows
}

/// As retention would. What was not confirmed and is gone is stored again.
#[test]
fn in_an_emptied_topic_no_row_is_lost_or_stored_twice() {
    both("emptied", &["t"], |world| {
        world.first(&[]);
        kafka().topics("empty", &[&world.topic("t")]);
        what_is_gone_comes_again(world);
    });
}

#[test]
fn in_a_topic_made_anew_no_row_is_lost_or_stored_twice() {
    both("anew", &["t"], |world| {
        world.first(&[]);
        kafka().topic(&world.topic("t"), 4);
        what_is_gone_comes_again(world);
    });
}

fn what_is_gone_comes_again(world: &World) {
    let (left_out, log) = world.second(&[]);
    assert_eq!(left_out, 0, "{log}");
    is_each_once(&world.rows(&world.topic("t")), from(world)..ALL.end, world);
}

/// The first row that is in a topic of which all was deleted after the first process.
fn from(world: &World) -> u32 {
    if world.end == End::Killed { FIRST.start } else { SECOND.start }
}

/// Records of somebody else.
pub fn foreign(topic: &str, count: usize, options: &[&str]) {
    let line = |number| format!("{{\"key\":\"{number}\",\"value\":\"{{\\\"id\\\":{number}}}\"}}\n");
    let lines: String = (0..count).map(line).collect();
    produce_with(kafka().brokers(), topic, &lines, options);
}
