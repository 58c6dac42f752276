//! The same day in the life of a database, on every PostgreSQL and every Kafka.

use crate::support::{Kafka, Postgres, kafka::one_at_a_time};
use crate::world::{World, kafka, line, postgres};

/// More than a page holds in line; `external` is not compressed.
const TABLES: &str = r#"
    create table by_key(id int primary key, a text, n numeric);
    create table by_row(id int primary key, a text, big text);
    alter table by_row replica identity full, alter big set storage external;
    create table by_index(id int primary key, u int not null, a text, big text);
    create unique index by_index_u on by_index(u);
    alter table by_index replica identity using index by_index_u, alter big set storage external;
    create table by_nothing(id int primary key, a text);
    alter table by_nothing replica identity nothing;
    create table toasted(id int primary key, a text, big text);
    alter table toasted alter big set storage external;
    create table no_key(a text);
    alter table no_key replica identity full;
    create table pair(a int, b text, c text, primary key (b, a));
    create schema "Größe";
    create table "Größe"."Tab ""le"("Ключ" int primary key, "a""b" text);
    create table leaves(id int primary key, a text) partition by range (id);
    create table leaf_1 partition of leaves for values from (0) to (10);
    create table leaf_2 partition of leaves for values from (10) to (20);
    create table root(id int primary key, a text) partition by range (id);
    create table root_1 partition of root for values from (0) to (10);
    create table root_2 partition of root for values from (10) to (20);
    create table computed(id int primary key, g int generated always as (id * 2) stored);
    create table dropped(id int primary key, x int, y int, z int);
    alter table dropped drop column y;
    create type mood as enum ('sad', 'so "so"');
    create domain whole as int;
    create table own_types(id whole primary key, m mood, ms mood[], ws whole[]);
    create table gone(id int primary key, a text);
"#;

const PUBLICATIONS: &str = r#"
    create publication p for table by_key, by_row, by_index, by_nothing, toasted, no_key, pair, "Größe"."Tab ""le", leaves,
        computed, dropped, own_types, gone;
    create publication via_root for table root with (publish_via_partition_root = true);
"#;

/// A transaction each.
const DAY: &[&str] = &[
    "insert into by_key values (1, 'one', 1.50), (2, null, null)",
    "update by_key set a = 'x' where id = 1; update by_key set id = 3 where id = 2",
    "delete from by_key where id = 1; truncate by_key",
    "insert into by_row values (1, 'a', repeat('x', 3000)), (2, 'a', null)",
    "update by_row set a = 'b' where id = 1",
    "update by_row set id = 3 where id = 1; delete from by_row where id = 3",
    "insert into by_index values (1, 10, 'a', repeat('x', 3000))",
    "update by_index set a = 'b'; update by_index set u = 11; delete from by_index",
    "insert into by_nothing values (1, 'a')",
    "insert into toasted values (1, 'a', repeat('x', 3000))",
    "update toasted set a = 'b'; update toasted set big = repeat('y', 3000)",
    "insert into no_key values ('a'), (null); update no_key set a = 'b' where a = 'a'; delete from no_key",
    r#"insert into pair values (1, 'x"y', 'c'); update pair set a = 2; delete from pair"#,
    // The key's bytes, and so the partition, stay the same under another identity.
    "alter table pair replica identity full; insert into pair values (3, 'x', 'c')",
    r#"insert into "Größe"."Tab ""le" values (1, 'ü'); update "Größe"."Tab ""le" set "a""b" = e'\\'"#,
    "insert into leaves values (1, 'a'), (11, 'b'); update leaves set id = 12 where id = 1",
    "insert into root values (1, 'a'), (11, 'b'); update root set id = 12 where id = 1",
    "insert into computed values (4)",
    "insert into dropped values (1, 2, 3); alter table dropped drop column x; insert into dropped values (2, 3)",
    r#"insert into own_types values (1, 'so "so"', '{sad,"so \"so\"",null}', '{1,null}')"#,
    "select pg_logical_emit_message(true, 'app', 'in a transaction')",
    "select pg_logical_emit_message(false, 'app', 'by itself')",
    "insert into gone values (1, 'a'); update gone set id = 2",
    "drop table gone",
];

/// What each topic holds after [`DAY`], as [`line`] shows it; X3 and Y3 are 3000 letters.
const TOLD: &[(&str, &[&str])] = &[
    (
        "public.by_key",
        &[
            r#"c 1 {"id":1,"a":"one","n":"1.50"}"#,
            r#"c 2 {"id":2,"a":null,"n":null}"#,
            r#"u 1 {"id":1,"a":"x","n":"1.50"}"#,
            r#"d 2 {"id":2}"#,
            "d 2 -",
            r#"u 3 {"id":3,"a":null,"n":null}"#,
            r#"d 1 {"id":1}"#,
            "d 1 -",
            "t - -",
            "t - -",
            "t - -",
        ],
    ),
    (
        "public.by_row",
        &[
            r#"c 1 {"id":1,"a":"a","big":"X3"}"#,
            r#"c 2 {"id":2,"a":"a","big":null}"#,
            r#"u 1 {"id":1,"a":"b","big":"X3"}"#,
            r#"d 1 {"id":1,"a":"b","big":"X3"}"#,
            "d 1 -",
            r#"u 3 {"id":3,"a":"b","big":"X3"}"#,
            r#"d 3 {"id":3,"a":"b","big":"X3"}"#,
            "d 3 -",
        ],
    ),
    (
        "public.by_index",
        &[
            r#"c 10 {"id":1,"u":10,"a":"a","big":"X3"}"#,
            r#"u 10 {"id":1,"u":10,"a":"b"} ["big"]"#,
            r#"d 10 {"u":10}"#,
            "d 10 -",
            r#"u 11 {"id":1,"u":11,"a":"b"} ["big"]"#,
            r#"d 11 {"u":11}"#,
            "d 11 -",
        ],
    ),
    ("public.by_nothing", &[r#"c 1 {"id":1,"a":"a"}"#]),
    (
        "public.toasted",
        &[
            r#"c 1 {"id":1,"a":"a","big":"X3"}"#,
            r#"u 1 {"id":1,"a":"b"} ["big"]"#,
            r#"u 1 {"id":1,"a":"b","big":"Y3"}"#,
        ],
    ),
    (
        "public.no_key",
        &[
            r#"c - {"a":"a"}"#,
            r#"c - {"a":null}"#,
            r#"u - {"a":"b"}"#,
            r#"d - {"a":null}"#,
            r#"d - {"a":"b"}"#,
        ],
    ),
    (
        "public.pair",
        &[
            r#"c {"a":1,"b":"x\"y"} {"a":1,"b":"x\"y","c":"c"}"#,
            r#"d {"a":1,"b":"x\"y"} {"a":1,"b":"x\"y"}"#,
            r#"d {"a":1,"b":"x\"y"} -"#,
            r#"u {"a":2,"b":"x\"y"} {"a":2,"b":"x\"y","c":"c"}"#,
            r#"d {"a":2,"b":"x\"y"} {"a":2,"b":"x\"y"}"#,
            r#"d {"a":2,"b":"x\"y"} -"#,
            r#"c {"a":3,"b":"x"} {"a":3,"b":"x","c":"c"}"#,
        ],
    ),
    ("quoted", &[r#"c 1 {"Ключ":1,"a\"b":"ü"}"#, r#"u 1 {"Ключ":1,"a\"b":"\\"}"#]),
    // A row that moves to another partition is a delete and an insert of the leaves.
    ("public.leaf_1", &[r#"c 1 {"id":1,"a":"a"}"#, r#"d 1 {"id":1}"#, "d 1 -"]),
    ("public.leaf_2", &[r#"c 11 {"id":11,"a":"b"}"#, r#"c 12 {"id":12,"a":"a"}"#]),
    (
        "public.root",
        &[
            r#"c 1 {"id":1,"a":"a"}"#,
            r#"c 11 {"id":11,"a":"b"}"#,
            r#"d 1 {"id":1}"#,
            "d 1 -",
            r#"c 12 {"id":12,"a":"a"}"#,
        ],
    ),
    ("public.computed", &[r#"c 4 {"id":4}"#]),
    ("public.dropped", &[r#"c 1 {"id":1,"x":2,"z":3}"#, r#"c 2 {"id":2,"z":3}"#]),
    (
        "public.own_types",
        &[r#"c 1 {"id":1,"m":"so \"so\"","ms":["sad","so \"so\"",null],"ws":[1,null]}"#],
    ),
    ("messages", &["m - in a transaction", "m - by itself"]),
    (
        "public.gone",
        &[r#"c 1 {"id":1,"a":"a"}"#, r#"d 1 {"id":1}"#, "d 1 -", r#"u 2 {"id":2,"a":"a"}"#],
    ),
];

fn expect(world: &World<'_>, table: &str, expected: &[&str]) {
    let big = |text: &&str| text.replace("X3", &"x".repeat(3000)).replace("Y3", &"y".repeat(3000));
    let expected: Vec<String> = expected.iter().map(big).collect();
    let found = world.lines(table);
    let short = |lines: &[String]| -> Vec<String> {
        let short =
            |line: &String| line.replace(&"x".repeat(3000), "X3").replace(&"y".repeat(3000), "Y3");
        lines.iter().map(short).collect()
    };
    assert_eq!(short(&found), short(&expected), "{table} on PostgreSQL {}", world.pg.version());
}

fn a_day(pg: &Postgres, kafka: &Kafka, name: &str) {
    let world = World::new(pg, kafka, name);
    world.sql(TABLES);
    world.sql(PUBLICATIONS);
    world.slot(&world.name);
    for transaction in DAY {
        world.sql(transaction);
    }
    let quoted = format!(r#"tables={{ '"Größe"."Tab ""le"' = "{}" }}"#, world.topic("quoted"));
    let messages = format!("message.topic={}", world.topic("messages"));
    world.drain(&[
        r#"publication.name=["p", "via_root"]"#,
        "topic.unlisted=route",
        "format.tombstones=true",
        r#"headers=["op", "id", "table", "lsn", "xid", "ts"]"#,
        &quoted,
        &messages,
    ]);
    for (table, expected) in TOLD {
        expect(&world, table, expected);
    }
    names_are_quoted_as_sql_wants_them(&world);
}

fn names_are_quoted_as_sql_wants_them(world: &World<'_>) {
    let records = world.records("quoted");
    let names: Vec<&str> = records[0].headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["op", "id", "table", "lsn", "xid", "ts"], "{}", line(&records[0]));
    assert_eq!(records[0].header("table"), Some(r#""Größe"."Tab ""le""#));
    let now = world.sql("select pg_current_wal_lsn()");
    let lsn = records[0].header("lsn").unwrap();
    assert_eq!(world.sql(&format!("select '{lsn}'::pg_lsn < '{now}'")), "t");
    let xid = records[0].header("xid").unwrap();
    assert_eq!(world.sql(&format!("select pg_xact_status('{xid}')")), "committed");
    let ts = records[0].header("ts").unwrap();
    let fresh =
        format!("select now() - '{ts}' between '0' and interval '1 hour', '{ts}' like '%.______Z'");
    assert_eq!(world.sql(&fresh), "t|t", "{ts}");
    let messages = world.records("messages");
    assert!(messages.iter().all(|record| record.header("prefix") == Some("app")));
}

#[test]
fn a_day_on_postgresql_14() {
    a_day(postgres(14), kafka(), "day");
}

#[test]
fn a_day_on_postgresql_15() {
    a_day(postgres(15), kafka(), "day");
}

#[test]
fn a_day_on_postgresql_16() {
    a_day(postgres(16), kafka(), "day");
}

#[test]
fn a_day_on_postgresql_17() {
    a_day(postgres(17), kafka(), "day");
}

#[test]
fn a_day_on_postgresql_18() {
    a_day(postgres(18), kafka(), "day");
}

/// The last with ZooKeeper's successor beside it, and the first without.
#[test]
fn a_day_on_the_oldest_kafkas() {
    for version in ["3.9.2", "4.0.0"] {
        one_at_a_time(|| {
            let port = crate::support::Ports::END_TO_END.kafka(1);
            let kafka = Kafka::start("end-to-end-old", port, 1, &[], version);
            a_day(postgres(17), &kafka, "day_old");
        });
    }
}
