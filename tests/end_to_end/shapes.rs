//! What a row can be and do: every type, a changing table, large rows, large transactions.

use std::collections::HashMap;

use crate::world::{LIMIT, World, kafka, postgres};

#[test]
fn a_row_is_what_to_json_prints_of_it() {
    for version in [14, 18] {
        let world = World::published(
            postgres(version),
            kafka(),
            "types",
            r#"create type colour as enum ('red', 'a"b');
               create domain price as numeric(12,2);
               create table t(id int primary key, b bool, i2 int2, i8 int8, f4 float4, f8 float8, x text, v varchar(9),
                 c char(4), n name, y bytea, d date, tm time, tz timetz, ts timestamp, tt timestamptz, iv interval, u uuid,
                 j json, jb jsonb, ip inet, ci cidr, m macaddr, bi bit(3), vb varbit, r int4range, tr tstzrange, p point,
                 xm xml, tsv tsvector, o oid, l pg_lsn, e colour, ea colour[], ia int[], ta text[], da date[], ja jsonb[],
                 nn numeric, pr price)"#,
        );
        world.sql(
            r#"insert into t values
               (1, true, -32768, 9223372036854775807, 1.5, 1e-300, e'q"\\\t\u2028ü', 'v', 'c', 'n', '\xdeadbeef', '2026-11-25',
                 '23:59:59.999999', '01:02:03+02', '2026-11-25 10:00:00.123456', '2026-11-25 10:00:00+00', '1 mon 2 days 03:04:05',
                 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": [1, 2]}', '{"b": null}', '10.0.0.1/8', '10.0.0.0/8',
                 '08:00:2b:01:02:03', '101', '1', '[1,5)', '[2026-01-01,)', '(1,2)', '<a>b</a>', 'a b', 42, '1/2', 'a"b',
                 '{red,"a\"b",null}', '{{1,2},{3,null}}', '{"",null,"null"}', '{infinity}', '{"{\"a\": 1}"}',
                 '123456789012345678901234567890.5', 1.5)"#,
        );
        world.sql("insert into t(id, f4, f8) values (2, 'nan', '-infinity'), (3, -0.0, 1e21); insert into t(id, d, ts, tt, nn) values (4, '0044-03-15 BC', 'infinity', '-infinity', 'nan')");
        world.drain(&[]);
        let columns = world.sql(
            "select string_agg(case when atttypid in ('numeric'::regtype, 'price'::regtype) then format('%I::text', attname)
               else quote_ident(attname) end, ',' order by attnum) from pg_attribute where attrelid = 't'::regclass and attnum > 0",
        );
        // As our own walsender, which pins its styles.
        let rows = world.sql(&format!(
            "set timezone = 'UTC'; select row_to_json(whole) from (select {columns} from t order by id) whole"
        ));
        let records = world.records("public.t");
        let values: Vec<&str> = records.iter().map(|r| r.value.as_deref().unwrap()).collect();
        assert_eq!(values, rows.lines().collect::<Vec<_>>(), "PostgreSQL {version}");
    }
}

#[test]
fn an_alter_table_takes_effect_at_exactly_its_row() {
    let world = World::published(
        postgres(17),
        kafka(),
        "altered",
        "create table t(id int primary key, a int)",
    );
    world.sql(
        "insert into t values (1, 1);
         alter table t add b text default 'd'; insert into t values (2, 2, 'b');
         alter table t rename b to c; insert into t values (3, 3, 'c');
         alter table t alter a type text using 'n' || a; insert into t values (4, '4', 'd');
         alter table t drop c; insert into t values (5, '5');
         update t set a = 'u' where id = 1;
         alter table t drop constraint t_pkey, add primary key (a); delete from t where a = 'u';
         alter table t add e int",
    );
    world.sql("alter table t rename to other; insert into other values (6, 'six')");
    world.drain(&[]);
    assert_eq!(
        world.lines("public.t"),
        [
            r#"c 1 {"id":1,"a":1}"#,
            r#"c 2 {"id":2,"a":2,"b":"b"}"#,
            r#"c 3 {"id":3,"a":3,"c":"c"}"#,
            r#"c 4 {"id":4,"a":"4","c":"d"}"#,
            r#"c 5 {"id":5,"a":"5"}"#,
            r#"u 1 {"id":1,"a":"u"}"#,
            r#"d u {"a":"u"}"#,
        ]
    );
    assert_eq!(world.lines("public.other"), [r#"c six {"id":6,"a":"six","e":null}"#]);
}

#[test]
fn values_of_a_megabyte_arrive_whole() {
    let world = World::published(
        postgres(17),
        kafka(),
        "large",
        "create table t(id int primary key, a text)",
    );
    world.sql("insert into t select i, repeat(chr(64 + i), 1000000) from generate_series(1, 20) i");
    world.drain(&[]);
    let records = world.records("public.t");
    let found: Vec<(String, String)> =
        records.into_iter().map(|r| (r.key.clone().unwrap(), r.value.unwrap())).collect();
    let expected: Vec<(String, String)> = (1..=20u8)
        .map(|i| {
            let letter = char::from(64 + i).to_string().repeat(1_000_000);
            (i.to_string(), format!(r#"{{"id":{i},"a":"{letter}"}}"#))
        })
        .collect();
    assert!(found == expected, "{} rows differ", found.len());
}

/// 200 000 rows of 50 bytes are more than `batch.in_flight` holds here, many times over.
#[test]
fn a_large_transaction_arrives_whole_and_each_key_in_order() {
    let world = World::published(
        postgres(17),
        kafka(),
        "huge",
        "create table t(id int primary key, round int); alter table t replica identity full",
    );
    world
        .sql("insert into t select i, 0 from generate_series(1, 100000) i; update t set round = 1");
    world.drain(&["batch.in_flight=1MiB", "batch.max_bytes=128KiB", "topic.partitions=5"]);
    let records = world.records("public.t"); // ids ascend in each partition, none is there twice
    assert_eq!(records.len(), 200_000);
    let mut rounds: HashMap<&str, (i32, i64)> = HashMap::new();
    for record in &records {
        let key = record.key.as_deref().unwrap();
        let (partition, round) = rounds.entry(key).or_insert((record.partition, 0));
        assert_eq!(*partition, record.partition, "key {key} is in one partition");
        let value = format!(r#"{{"id":{key},"round":{round}}}"#);
        assert_eq!(record.value.as_deref(), Some(value.as_str()));
        *round += 1;
    }
    assert_eq!(rounds.len(), 100_000);
    assert!(rounds.values().all(|(_, round)| *round == 2));
}

#[test]
fn only_what_is_committed_arrives_and_rows_of_one_lsn_differ() {
    let world = World::published(
        postgres(17),
        kafka(),
        "committed",
        "create table t(id int primary key, a int)",
    );
    world.sql(
        "begin; insert into t values (1, 1); savepoint s; insert into t values (2, 2); rollback to s;
         insert into t values (3, 3); savepoint s2; insert into t values (4, 4); release s2; commit",
    );
    world.sql("begin; insert into t values (5, 5); rollback");
    world.sql("insert into t values (1, 9) on conflict (id) do update set a = excluded.a");
    world.sql("insert into t values (1, 9) on conflict do nothing");
    // COPY writes many rows in one WAL record: they have one LSN.
    world.sql(r"copy t from program 'seq 1001 2000 | sed s/$/,7/' with (format csv)");
    world.drain(&[]);
    let lines = world.lines("public.t");
    assert_eq!(
        lines[..4],
        [
            r#"c 1 {"id":1,"a":1}"#,
            r#"c 3 {"id":3,"a":3}"#,
            r#"c 4 {"id":4,"a":4}"#,
            r#"u 1 {"id":1,"a":9}"#,
        ]
    );
    let copied: Vec<String> =
        (1001..=2000).map(|i| format!(r#"c {i} {{"id":{i},"a":7}}"#)).collect();
    assert_eq!(lines[4..], copied);
}

/// Of rows without a key the partition is the position's, so that a replay chooses the same.
#[test]
fn the_same_rows_have_the_same_ids_at_every_replay_whatever_the_topics() {
    let world = World::published(
        postgres(17),
        kafka(),
        "replay",
        "create table t(id int primary key, a text); create table k(a text)",
    );
    for slot in ["replay_17_b", "replay_17_c"] {
        world.slot(slot);
    }
    world.sql("insert into t select i, 'a' from generate_series(1, 50) i; update t set id = 100 where id = 1");
    world.sql("insert into k select 'a' from generate_series(1, 50) i");
    // The same slot twice is two servers' worth of trouble; a second slot has another source, and all else alike.
    let first = ["tables={\"public.t\"=\"replay.t1\"}", "topic.unlisted=route"];
    world.drain(&first);
    let second = ["tables={\"public.t\"=\"replay.t2\", \"public.k\"=\"replay.k2\"}"];
    world.drain_slot("replay_17_b", &second);
    let third = [
        "tables={\"public.t\"={topic=\"replay.t3\", key=[\"a\"]}, \"public.k\"=\"replay.k3\"}",
        "topic.partitions=7",
        "truncate=skip",
    ];
    world.drain_slot("replay_17_c", &third);
    let records = |topic: &str| crate::world::in_order(kafka().dump(topic));
    let ids = |topic: &str| -> Vec<String> {
        let id = |r: &crate::support::Record| {
            r.header("id").unwrap().split_once('-').unwrap().1.to_owned()
        };
        records(topic).iter().map(id).collect()
    };
    assert_eq!(ids("replay.t1").len(), 52); // a key change is two
    assert_eq!(ids("replay.t1"), ids("replay.t2"));
    // With another key there is no key change: one record, by the change's own name.
    let whole = |ids: Vec<String>| -> Vec<String> {
        ids.into_iter().filter(|id| !id.contains('.')).collect()
    };
    assert_eq!(whole(ids("replay.t1")), ids("replay.t3"));
    let (k1, k2) = (world.topic("public.k"), "replay.k2");
    assert_eq!(ids(&k1), ids(k2));
    assert_eq!(ids(&k1), ids("replay.k3"));
    let places = |topic: &str| -> Vec<(i32, Option<String>)> {
        records(topic).into_iter().map(|r| (r.partition, r.key)).collect()
    };
    assert_eq!(places(&k1), places(k2));
    let used: std::collections::BTreeSet<i32> = places(&k1).into_iter().map(|p| p.0).collect();
    assert_eq!(used.len(), 3, "rows without a key are spread");
}

/// Under REPLICA IDENTITY FULL a Relation message marks every column; which are the key only the
/// catalog says, and it is asked after the table was dropped.
#[test]
fn a_dropped_table_has_the_key_of_its_configuration_or_none_and_says_so() {
    for version in [14, 18] {
        let world = World::published(
            postgres(version),
            kafka(),
            "gone",
            "create table a(id int primary key, n int); alter table a replica identity full;
             create table b(id int primary key, n int); alter table b replica identity full;
             create table c(id int primary key, n int)",
        );
        for table in ["a", "b", "c"] {
            world.sql(&format!("insert into {table} values (1, 1)"));
            world.sql(&format!("alter table {table} add m int; update {table} set n = 2, m = 3"));
            world.sql(&format!("delete from {table}"));
        }
        world.sql("drop table a, b, c");
        let b = r#"tables={"public.b" = { key = ["id"] }}"#;
        let mut process = world.spawn(&world.name, &[b, "topic.unlisted=route", "log.format=text"]);
        world.wait_confirmed(&world.name, &mut process);
        assert_eq!(process.metric("pgsluice_keyless_relations_total", &[]), 1.0);
        assert_eq!(process.stop(LIMIT), 0, "{}", process.log());
        let log = process.log();
        let warns = |line: &&str| line.contains("WARN") && line.contains("no key");
        let warned: Vec<&str> = log.lines().filter(warns).collect();
        assert!(matches!(warned[..], [line] if line.contains("public.a")), "{log}");
        let expected = |key: &str, deleted: &str| {
            [
                format!(r#"c {key} {{"id":1,"n":1}}"#),
                format!(r#"u {key} {{"id":1,"n":2,"m":3}}"#),
                format!("d {key} {deleted}"),
            ]
        };
        let whole = r#"{"id":1,"n":2,"m":3}"#;
        assert_eq!(world.lines("public.a"), expected("-", whole), "PostgreSQL {version}");
        assert_eq!(world.lines("public.b"), expected("1", whole), "PostgreSQL {version}");
        assert_eq!(world.lines("public.c"), expected("1", r#"{"id":1}"#), "PostgreSQL {version}");
    }
}
