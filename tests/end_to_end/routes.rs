//! Where rows go, and how far the slot moves while they do.

use crate::support::{Pgsluice, eventually};
use crate::world::{LIMIT, World, kafka, postgres};

const TWO: &str = "create table a(id int primary key, x int not null, y text);
    create table b(id int primary key)";

#[test]
fn an_unlisted_table_is_routed_skipped_or_refused() {
    let world = World::published(postgres(17), kafka(), "unlisted", TWO);
    for slot in ["unlisted_skip", "unlisted_refuse"] {
        world.slot(slot);
    }
    world.sql(
        "insert into a values (1, 2, 'y'); insert into b values (1); insert into a values (2, 3)",
    );
    let listed = |name: &str| format!("tables={{\"public.a\"=\"unlisted.{name}\"}}");
    world.drain(&[&listed("route"), "topic.unlisted=route"]);
    world.drain_slot("unlisted_skip", &[&listed("skip"), "topic.unlisted=skip"]);
    let all = [r#"c 1 {"id":1,"x":2,"y":"y"}"#, r#"c 2 {"id":2,"x":3,"y":null}"#];
    let lines = |topic: &str| -> Vec<String> {
        let records = crate::world::in_order(kafka().dump(topic));
        records.iter().map(crate::world::line).collect()
    };
    assert_eq!(lines("unlisted.route"), all);
    assert_eq!(lines("unlisted.skip"), all);
    assert_eq!(world.lines("public.b"), [r#"c 1 {"id":1}"#]);

    let before = confirmed(&world, "unlisted_refuse");
    let mut process = world.spawn("unlisted_refuse", &[&listed("refuse")]);
    assert_eq!(process.wait(LIMIT), 65, "{}", process.log());
    assert!(process.log().contains("public.b is not in [tables]"), "{}", process.log());
    assert_eq!(confirmed(&world, "unlisted_refuse"), before, "nothing of it was confirmed");
}

fn confirmed(world: &World<'_>, slot: &str) -> String {
    let from = "from pg_replication_slots where slot_name =";
    world.sql(&format!("select confirmed_flush_lsn {from} '{slot}'"))
}

#[test]
fn a_table_may_have_a_key_of_its_own() {
    let world = World::published(postgres(17), kafka(), "keys", TWO);
    world.sql("alter table a replica identity full");
    world.sql(
        "insert into a values (1, 2, 'y'); update a set y = 'z'; update a set x = 3; delete from a",
    );
    world.drain(&[
        r#"tables={"public.a"={topic="keys.a", key=["y", "x"]}}"#,
        "format.key=json",
        "format.numeric=number",
    ]);
    let records = crate::world::in_order(kafka().dump("keys.a"));
    let lines: Vec<String> = records.iter().map(crate::world::line).collect();
    assert_eq!(
        lines,
        [
            r#"c {"y":"y","x":2} {"id":1,"x":2,"y":"y"}"#,
            r#"d {"y":"y","x":2} {"id":1,"x":2,"y":"y"}"#,
            r#"u {"y":"z","x":2} {"id":1,"x":2,"y":"z"}"#,
            r#"d {"y":"z","x":2} {"id":1,"x":2,"y":"z"}"#,
            r#"u {"y":"z","x":3} {"id":1,"x":3,"y":"z"}"#,
            r#"d {"y":"z","x":3} {"id":1,"x":3,"y":"z"}"#,
        ]
    );
}

#[test]
fn a_topic_is_made_as_configured_and_a_truncate_reaches_each_of_its_partitions() {
    let world = World::published(postgres(17), kafka(), "made", TWO);
    world.sql("insert into a values (1, 2); insert into b values (1); truncate a, b; insert into a values (3, 4)");
    world.drain(&["topic.partitions=5", r#"topic.config={"retention.ms"="86400000"}"#]);
    let described = kafka().topics("describe", &[&world.topic("public.a")]);
    assert!(described.contains("86400000"), "{described}");
    let records = world.records("public.a");
    let truncates: Vec<_> = records.iter().filter(|r| r.header("op") == Some("t")).collect();
    let mut partitions: Vec<i32> = truncates.iter().map(|r| r.partition).collect();
    partitions.sort_unstable();
    assert_eq!(partitions, [0, 1, 2, 3, 4]);
    for record in truncates {
        let id = record.header("id").unwrap();
        assert!(id.ends_with(&format!(".{}", record.partition)), "{id}");
        assert_eq!((&record.key, &record.value), (&None, &None));
    }
    assert_eq!(world.lines("public.b").len(), 1 + 5);
}

/// Both are read by one slot, and what is in both arrives once.
#[test]
fn two_publications_on_one_slot_are_one_stream() {
    let world = World::new(postgres(17), kafka(), "two");
    world.sql(TWO);
    world.sql("create publication p for table a with (publish = 'insert'); create publication q for table a, b");
    world.slot(&world.name);
    world.sql(
        "insert into a values (1, 2); insert into b values (1); update a set x = 3; delete from b",
    );
    world.drain(&[r#"publication.name=["p", "q"]"#]);
    assert_eq!(
        world.lines("public.a"),
        [r#"c 1 {"id":1,"x":2,"y":null}"#, r#"u 1 {"id":1,"x":3,"y":null}"#]
    );
    assert_eq!(world.lines("public.b"), [r#"c 1 {"id":1}"#, r#"d 1 {"id":1}"#]);
}

/// Else a quiet publication would keep the WAL of a busy server for ever.
#[test]
fn the_slot_follows_what_others_write() {
    let world = World::new(postgres(17), kafka(), "quiet");
    world.sql(TWO);
    world.sql("create publication p for table a");
    world.slot(&world.name);
    let other = World::new(postgres(17), kafka(), "busy");
    other.sql("create table t(id int)");
    let mut process = world.spawn(&world.name, &[]);
    process.wait_ready(LIMIT);
    for _ in 0..3 {
        world.sql("insert into b select coalesce(max(id), 0) + 1 from b");
        other.sql("insert into t select generate_series(1, 1000)");
        world.wait_confirmed(&world.name, &mut process);
    }
    world.sql("insert into a values (1, 2)");
    world.wait_confirmed(&world.name, &mut process);
    assert_eq!(process.stop(LIMIT), 0, "{}", process.log());
    assert_eq!(world.lines("public.a").len(), 1);
}

#[test]
fn rows_arrive_while_it_runs_and_a_clean_restart_repeats_none() {
    let world = World::published(postgres(17), kafka(), "restart", TWO);
    let mut expected = Vec::new();
    for run in 0..3 {
        let mut process = world.spawn(&world.name, &[]);
        process.wait_ready(LIMIT);
        for i in 0..20 {
            let id = run * 20 + i;
            world.sql(&format!("insert into b values ({id})"));
            expected.push(format!(r#"c {id} {{"id":{id}}}"#));
        }
        kafka().wait(&world.topic("public.b"), expected.len(), LIMIT);
        assert_eq!(process.stop(LIMIT), 0, "{}", process.log());
    }
    assert_eq!(world.lines("public.b"), expected);
}

#[test]
fn tail_prints_one_json_a_line_and_leaves_no_slot() {
    let world = World::published(postgres(17), kafka(), "tail", TWO);
    let url = format!("postgres://cdc_user@127.0.0.1:{}/{}", world.pg.port(), world.name);
    let config = format!(
        "[postgres]\nurl = \"{url}\"\n[publication]\nname = \"p\"\n[slot]\nname = \"unused\"\n[kafka]\nbrokers = \"127.0.0.1:1\"\n"
    );
    let mut process = Pgsluice::spawn(&config, &["tail"]);
    let slots = "select count(*) from pg_replication_slots where database = current_database() and temporary and active";
    eventually(LIMIT, "tail streams", || world.sql(slots) == "1");
    world.sql("insert into a values (1, 2, 'ü'); update a set id = 2; delete from a");
    eventually(LIMIT, "three lines", || process.out().lines().count() >= 3);
    assert_eq!(process.stop(LIMIT), 0, "{}", process.log());
    let out = process.out();
    let lines: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<String> =
        lines.iter().map(|l| format!("{} {} {}", l["op"], l["key"], l["value"])).collect();
    assert_eq!(
        told,
        [
            r#""c" {"id":1} {"id":1,"x":2,"y":"ü"}"#,
            r#""u" {"id":2} {"id":2,"x":2,"y":"ü"}"#,
            r#""d" {"id":2} {"id":2}"#,
        ]
    );
    eventually(LIMIT, "its slot is gone", || world.sql(slots) == "0");
}
