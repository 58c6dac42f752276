//! Another configuration than that of the process before.

use std::{
    collections::BTreeSet,
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::support::{Postgres, Record};
use crate::world::{
    ALL, End, FIRST, LIMIT, PORTS, SECOND, World, at_once, both, first_of, is_each_once, kafka,
    ours, postgres, rows_of,
};

#[test]
fn with_another_key_each_row_is_stored_once() {
    both("key", &["t"], |world| {
        world.first(&[]);
        let (left_out, _) = world.second(&[r#"tables."public.t".key=["k"]"#]);
        assert_eq!(left_out, world.unconfirmed());
        is_each_once(&world.rows(&world.topic("t")), ALL, world);
    });
}

#[test]
fn with_another_partitioner_each_row_is_stored_once() {
    both("partitioner", &["t"], |world| {
        world.first(&["kafka.partitioner=fnv1a"]);
        let (left_out, _) = world.second(&["kafka.partitioner=spread"]);
        assert_eq!(left_out, world.unconfirmed());
        is_each_once(&world.rows(&world.topic("t")), ALL, world);
    });
}

#[test]
fn in_every_compression_and_with_the_commits_time_each_row_is_stored_once() {
    let codecs = ["none", "snappy", "lz4", "gzip"];
    postgres();
    kafka();
    at_once(codecs.into_iter().zip(codecs.into_iter().cycle().skip(1)), |(codec, next)| {
        let world = World::new(codec, End::Killed, &["t"]);
        let set = |codec| format!("kafka.compression={codec}");
        world.first(&[&set(codec), "kafka.timestamp=commit", "batch.linger=20ms"]);
        let (left_out, _) = world.second(&[&set(next), "kafka.timestamp=commit"]);
        assert_eq!(left_out, world.unconfirmed());
        is_each_once(&world.rows(&world.topic("t")), ALL, &world);
    });
}

/// The list is part of the names, as other publications number the rows of a transaction in another way. So what was not
/// confirmed comes again under other names, and only that.
#[test]
fn with_another_list_of_publications_what_was_not_confirmed_comes_again() {
    both("publications", &["t"], |world| {
        world.sql("create table u(id int); create publication other for table t, u");
        world.first(&[]);
        comes_again(world, &[r#"publication.name=["p", "other"]"#]);
    });
}

/// PostgreSQL's clock is three days behind, as if everybody had been away for so long. With such times retention might
/// delete records as soon as they are stored, and a broker forget who wrote them.
#[test]
fn a_backlog_that_is_days_old_is_stored_once_and_with_the_time_of_sending() {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    let behind = SERVER.get_or_init(|| Postgres::start(17, PORTS.postgres(9), &["clock=-3d"]));
    kafka();
    at_once([End::Stopped, End::Killed], |end| {
        let world = World::on(behind, "aged", end, &["t"]);
        let sets = ["kafka.timestamp=commit"];
        world.first(&sets);
        let (left_out, _) = world.second(&sets);
        assert_eq!(left_out, world.unconfirmed());
        let mut sluice = world.start(&sets);
        world.write(ALL.end..ALL.end + 4);
        world.wait_confirmed(&mut sluice);
        assert_eq!(sluice.metric("pgsluice_stale_timestamps_total", &[]), 4.0);
        assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
        let records = ours(&world.topic("t"));
        is_each_once(&rows_of(&records), 0..ALL.end + 4, &world);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        let oldest = records.iter().map(|one| now - one.timestamp).max().unwrap();
        assert!(oldest < 86_400_000, "{oldest} ms old, by its time");
    });
}

/// What is written while it is out goes nowhere, unless nobody confirmed it: never is it there twice.
#[test]
fn a_table_taken_out_and_put_back_in_has_each_row_once() {
    both("out", &["t", "u"], |world| {
        let only_t = [r#"tables."public.t".key=["id"]"#, "topic.unlisted=skip"];
        world.first(&[]);
        let half = world.unconfirmed() / 2;
        world.write(44..48);
        let (left_out, _) = world.drain(&only_t);
        assert_eq!(left_out, half, "of the table that is in");
        world.write(48..56);
        world.drain(&[]);
        is_each_once(&world.rows(&world.topic("t")), ALL, world);
        let of_u: Vec<u32> = (0..44).chain(48..56).collect();
        assert_eq!(world.rows(&world.topic("u")), of_u, "{}", world.name);
    });
}

/// The group tells of the old topic, which is read back though nothing goes there any more.
#[test]
fn of_a_table_moved_to_another_topic_each_row_is_stored_once() {
    both("moved", &["t"], |world| {
        world.first(&[]);
        let moved = world.topic("moved");
        let (left_out, _) = world.second(&[&format!(r#"tables."public.t"={moved}"#)]);
        assert_eq!(left_out, world.unconfirmed());
        let (before, after) = (world.rows(&world.topic("t")), world.rows(&moved));
        is_each_once(&before, 0..FIRST.end, world);
        is_each_once(&after, SECOND, world);
    });
}

/// Without names nothing can be left out.
#[test]
fn without_ids_no_row_is_lost() {
    both("nameless", &["t"], |world| {
        let no_id = [r#"headers=["op"]"#];
        world.first(&no_id);
        comes_again(world, &no_id);
    });
}

/// Each knows its own records by their source, and leaves out none of the other's.
#[test]
fn two_pipelines_into_one_topic_store_each_row_once_each() {
    both("two", &["t"], |world| {
        let second = world.beside();
        first_of(&[world, &second], &[]);
        let (left_out, _) = world.second(&[]);
        assert_eq!(left_out, world.unconfirmed());
        let (left_out, _) = second.drain(&[]);
        assert_eq!(left_out, world.unconfirmed());
        let records = ours(&world.topic("t"));
        let source = |record: &Record| record.header("id").unwrap()[..16].to_owned();
        let sources: BTreeSet<_> = records.iter().map(source).collect();
        assert_eq!(sources.len(), 2);
        for one in sources {
            let its = records.iter().filter(|record| source(record) == one).cloned();
            is_each_once(&rows_of(&its.collect::<Vec<_>>()), ALL, world);
        }
    });
}

/// With such settings the next process leaves nothing out: what was not confirmed is there twice, and nothing is lost.
#[track_caller]
fn comes_again(world: &World, sets: &[&str]) {
    let (left_out, log) = world.second(sets);
    assert_eq!(left_out, 0);
    let mut rows = rows_of(&kafka().dump(&world.topic("t")));
    let stored = rows.len();
    rows.dedup();
    is_each_once(&rows, ALL, world);
    assert_eq!(stored, ALL.len() + world.unconfirmed(), "{log}");
}
