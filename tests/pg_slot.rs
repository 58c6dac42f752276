//! Publication, slot and catalog on real servers of every version, as a role that may nothing but
//! `REPLICATION LOGIN`.

#![allow(clippy::unwrap_used, reason = "a test that fails may say where, and no more")]

mod support;

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
    time::Duration,
};

use pgsluice::{
    lsn::Lsn,
    pg::{
        catalog::{Server, relation_facts},
        slot::{
            Error, Failover, PublicationOptions, Report, SlotOptions, available, check_server,
            create_temporary, health, prepare, publication_too_young, start_replication,
        },
        timeline::Timelines,
    },
    retry::{Disposition, Exit},
    schema::PgType,
};
use support::{Ports, Postgres, eventually};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

const VERSIONS: [u8; 5] = [14, 15, 16, 17, 18];
const SOON: Duration = Duration::from_secs(30);

/// The shared server of a version, with role `cdc`.
fn server(version: u8) -> &'static Postgres {
    let server = Postgres::shared(version, Ports::POSTGRES.postgres(u16::from(version) - 14));
    make_role(server);
    server
}

fn make_role(server: &Postgres) {
    server.sql(
        "do $$ begin create role cdc replication login;
         exception when duplicate_object or unique_violation then null; end $$",
    );
}

/// As `cdc`, in a database.
async fn connect(server: &Postgres, database: &str) -> Client {
    connect_with_task(server, database).await.0
}

/// The same, with the task that drives the connection, whose end is the end of the connection.
async fn connect_with_task(server: &Postgres, database: &str) -> (Client, JoinHandle<()>) {
    let url = server.url_of(database).replace("postgres@", "cdc@");
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    let task = tokio::spawn(async move {
        let _ = connection.await;
    });
    (client, task)
}

/// An empty database on the shared server of a version, and a connection to it.
async fn database(version: u8, name: &str) -> (&'static Postgres, Client) {
    let server = server(version);
    server.database(name);
    (server, connect(server, name).await)
}

fn publication(name: &str) -> PublicationOptions {
    PublicationOptions {
        names: vec![name.to_owned()],
        create: false,
        tables: Vec::new(),
        operations: Vec::new(),
        via_partition_root: false,
    }
}

fn slot(name: &str) -> SlotOptions {
    SlotOptions { name: name.to_owned(), create: false, failover: Failover::Auto }
}

fn made(name: &str) -> SlotOptions {
    SlotOptions { create: true, ..slot(name) }
}

fn halts_with(error: &Error, exit: Exit) {
    assert_eq!(error.disposition(), Disposition::Halt(exit), "{error}");
}

/// What follows the last `: ` of a message is SQL that a person is to run as it stands.
fn run_sql_of(server: &Postgres, database: &str, sql: &str) {
    for statement in sql.split_inclusive(';') {
        server.sql_in(database, statement);
    }
}

#[tokio::test]
async fn a_predefined_publication_and_slot_are_used_as_they_are() {
    for version in VERSIONS {
        let (server, client) = database(version, "predefined").await;
        server.sql_in(
            "predefined",
            "create table b(id int primary key); create schema \"A.b\";
             create table \"A.b\".\"C d\"(id int primary key);
             create publication p for table b, \"A.b\".\"C d\"",
        );
        server
            .sql_in("predefined", "select pg_create_logical_replication_slot('predef','pgoutput')");
        let mapped = ["public.b".to_owned(), "A.b.C d".to_owned()];
        let ready = prepare(&client, &publication("p"), &slot("predef"), &mapped).await.unwrap();
        assert_eq!(ready.warnings, [""; 0]);
        assert_eq!(ready.server.major(), u32::from(version));
        let names: Vec<_> = ready.published.tables.iter().map(|table| table.sql()).collect();
        assert_eq!(names, ["\"A.b\".\"C d\"", "public.\"b\""]);
        assert!(!ready.slot_created && !ready.published.created && !ready.published.all_tables);
        let sql = "select restart_lsn || ' ' || confirmed_flush_lsn from pg_replication_slots
                   where slot_name = 'predef'";
        assert_eq!(server.sql(sql), format!("{} {}", ready.restart_lsn, ready.confirmed_flush));
        available(&client, &ready.server, "predef").await.unwrap();
    }
}

#[tokio::test]
async fn a_missing_publication_or_slot_is_named_with_the_sql_that_makes_it() {
    for version in VERSIONS {
        let (server, client) = database(version, "missing").await;
        let name = "it's \"mine\"";
        let error = prepare(&client, &publication(name), &slot("absent"), &[]).await.unwrap_err();
        halts_with(&error, Exit::Unavailable);
        let text = error.to_string();
        assert!(text.contains("CREATE PUBLICATION \"it's \"\"mine\"\"\" FOR TABLE …"), "{text}");

        server.sql_in("missing", "create table t(id int primary key)");
        server.sql_in("missing", "create publication \"it's \"\"mine\"\"\" for table t");
        let error = prepare(&client, &publication(name), &slot("absent"), &[]).await.unwrap_err();
        halts_with(&error, Exit::Gap);
        let Error::SlotMissing { sql, .. } = &error else { panic!("{error}") };
        run_sql_of(server, "missing", sql);
        prepare(&client, &publication(name), &slot("absent"), &[]).await.unwrap();

        // A publication that would be younger than the slot is not made.
        let options = PublicationOptions { create: true, ..publication("late") };
        let error = prepare(&client, &options, &slot("absent"), &[]).await.unwrap_err();
        halts_with(&error, Exit::Unavailable);
        assert!(error.to_string().contains("and then a new slot"), "{error}");
    }
}

#[tokio::test]
async fn makes_the_slot_itself_and_hands_on_the_sql_of_the_publication() {
    for version in VERSIONS {
        let (server, client) = database(version, "handed_on").await;
        server.sql_in("handed_on", "create table \"Ta.ble\"(id int primary key)");
        let mut options = PublicationOptions {
            create: true,
            tables: vec!["public.Ta.ble".to_owned()],
            operations: vec!["insert".to_owned(), "delete".to_owned()],
            via_partition_root: true,
            ..publication("p")
        };
        let slot = made("handed_on");
        let error = prepare(&client, &options, &slot, &[]).await.unwrap_err();
        halts_with(&error, Exit::Permission);
        let Error::MayNot { role, sql, .. } = &error else { panic!("{error}") };
        assert_eq!(role, "cdc");
        run_sql_of(server, "handed_on", sql);
        let mapped = ["public.Ta.ble".to_owned()];
        let ready = prepare(&client, &options, &slot, &mapped).await.unwrap();
        assert!(ready.slot_created && !ready.published.created);
        let state = health(&client, "handed_on").await.unwrap().unwrap();
        assert_eq!(state.failover, (version >= 17).then_some(true));
        let sql = "select pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot
                   from pg_publication where pubname = 'p'";
        assert_eq!(server.sql_in("handed_on", sql), "t|f|t|f|t");

        options.tables = vec!["public.none".to_owned()];
        options.names = vec!["q".to_owned()];
        let error = prepare(&client, &options, &made("handed_on_2"), &[]).await.unwrap_err();
        halts_with(&error, Exit::Config);
        options.tables.clear();
        let error = prepare(&client, &options, &made("handed_on_2"), &[]).await.unwrap_err();
        halts_with(&error, Exit::Permission);
        assert!(error.to_string().contains("CREATE PUBLICATION \"q\" FOR ALL TABLES WITH"));

        server.sql("do $$ begin create role plain login; exception when duplicate_object then null; end $$");
        let url = server.url_of("handed_on").replace("postgres@", "plain@");
        let (plain, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let error =
            prepare(&plain, &publication("p"), &made("handed_on_2"), &[]).await.unwrap_err();
        halts_with(&error, Exit::Permission);
        assert!(
            error.to_string().contains("SELECT pg_create_logical_replication_slot('handed_on_2'")
        );

        let gone = health(&client, "handed_on_2").await.unwrap();
        assert_eq!(gone, None, "the publication comes first");
    }
}

#[tokio::test]
async fn makes_both_where_it_may_and_only_once() {
    for version in [14, 18] {
        let (server, client) = database(version, "makes_both").await;
        server.sql_in(
            "makes_both",
            "grant create on database makes_both to cdc; create schema s authorization cdc",
        );
        client.batch_execute("create table s.t(id int primary key)").await.unwrap();
        let tables = vec!["s.t".to_owned()];
        let options = PublicationOptions { create: true, tables, ..publication("p") };
        let slot = SlotOptions { failover: Failover::Off, ..made("makes_both") };
        let ready = prepare(&client, &options, &slot, &["s.t".to_owned()]).await.unwrap();
        assert!(ready.slot_created && ready.published.created, "{ready:?}");
        let again = prepare(&client, &options, &slot, &["s.t".to_owned()]).await.unwrap();
        assert!(!again.slot_created && !again.published.created, "{again:?}");
        assert_eq!(again.confirmed_flush, ready.confirmed_flush);
        let state = health(&client, "makes_both").await.unwrap().unwrap();
        assert_eq!(state.failover, (version >= 17).then_some(false));
        let insist = SlotOptions { failover: Failover::On, ..made("makes_both") };
        let warned = prepare(&client, &options, &insist, &[]).await.unwrap().warnings;
        assert_eq!(warned.len(), usize::from(version >= 17), "{warned:?}");
        if version < 17 {
            let insist = SlotOptions { name: "makes_both_2".to_owned(), ..insist };
            let error = prepare(&client, &options, &insist, &[]).await.unwrap_err();
            halts_with(&error, Exit::Config);
        }
    }
}

#[tokio::test]
async fn a_slot_of_another_kind_is_left_alone() {
    for version in VERSIONS {
        let (server, client) = database(version, "kinds").await;
        server.sql_in(
            "kinds",
            "create table t(id int primary key); create publication p for table t",
        );
        server.sql_in(
            "kinds",
            "select pg_create_logical_replication_slot('kinds_text', 'test_decoding')",
        );
        server.sql(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots
             where slot_name = 'kinds_elsewhere';
             select pg_create_logical_replication_slot('kinds_elsewhere', 'pgoutput');
             select pg_drop_replication_slot(slot_name) from pg_replication_slots
             where slot_name = 'kinds_physical';
             select pg_create_physical_replication_slot('kinds_physical')",
        );
        for (name, why) in [
            ("kinds_elsewhere", "is of database \"postgres\", not \"kinds\""),
            ("kinds_physical", "is a physical one"),
            ("kinds_text", "was made for the output plugin test_decoding"),
        ] {
            let error = prepare(&client, &publication("p"), &slot(name), &[]).await.unwrap_err();
            halts_with(&error, Exit::Unavailable);
            assert!(error.to_string().contains(why), "{error}");
        }
        server.sql(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots
             where slot_name in ('kinds_elsewhere', 'kinds_physical')",
        );
        let error = prepare(&client, &publication("p"), &slot("No-Slot"), &[]).await.unwrap_err();
        halts_with(&error, Exit::Config);
    }
}

#[tokio::test]
async fn a_slot_in_use_is_waited_for_with_the_pid_that_has_it() {
    for version in [14, 18] {
        let (server, client) = database(version, "busy").await;
        server
            .sql_in("busy", "create table t(id int primary key); create publication p for table t");
        prepare(&client, &publication("p"), &made("busy"), &[]).await.unwrap();
        let mut stream = Wire::connect(server, "busy");
        stream.query(&start_replication("busy", &["p".to_owned()]));
        assert_eq!(stream.message().0, b'W');
        let error = prepare(&client, &publication("p"), &slot("busy"), &[]).await.unwrap_err();
        assert_eq!(error.disposition(), Disposition::Retry);
        let Error::Busy { pid, .. } = error else { panic!("{error}") };
        let state = health(&client, "busy").await.unwrap().unwrap();
        assert_eq!(state.active_pid, Some(pid));
        drop(stream);
        let sql = "select active from pg_replication_slots where slot_name = 'busy'";
        eventually(SOON, "the slot is free", || server.sql(sql) == "f");
        prepare(&client, &publication("p"), &slot("busy"), &[]).await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_slot_is_a_gap_and_a_full_server_is_waited_for() {
    for version in VERSIONS {
        let settings = ["max_replication_slots=1", "max_slot_wal_keep_size=1MB"];
        let server = Postgres::start(version, Ports::POSTGRES.postgres(5), &settings);
        make_role(&server);
        server.sql("create table t(id int primary key); create publication p for table t");
        let client = connect(&server, "postgres").await;
        let ready = prepare(&client, &publication("p"), &made("first"), &[]).await.unwrap();
        let error = prepare(&client, &publication("p"), &made("more"), &[]).await.unwrap_err();
        assert!(matches!(error, Error::NoFreeSlot { .. }), "{error}");
        assert_eq!(error.disposition(), Disposition::Retry);

        for round in 0..3 {
            server.sql(&format!("insert into t values ({round})"));
            server.sql("select pg_switch_wal()");
        }
        let state = health(&client, "first").await.unwrap().unwrap();
        assert!(state.retained_bytes > 32 << 20, "{state:?}");
        assert!(state.safe_wal_size.unwrap() < 0, "{state:?}");
        server.sql("checkpoint");
        let error = prepare(&client, &publication("p"), &made("first"), &[]).await.unwrap_err();
        halts_with(&error, Exit::Gap);
        let text = error.to_string();
        assert!(text.contains("max_slot_wal_keep_size"), "{text}");
        assert!(text.contains(&ready.confirmed_flush.to_string()), "{text}");
        let Error::SlotLost { sql, .. } = &error else { panic!("{text}") };
        run_sql_of(&server, "postgres", sql);
        prepare(&client, &publication("p"), &slot("first"), &[]).await.unwrap();
    }
}

/// PostgreSQL takes a consumer's word for how far it is, also beyond the end of its own WAL, and then
/// sends nothing of what comes to be there.
#[tokio::test]
async fn a_slot_beyond_the_end_of_the_wal_is_a_gap() {
    for version in VERSIONS {
        let (server, client) = database(version, "ahead").await;
        server.sql_in(
            "ahead",
            "create table t(id int primary key); create publication p for table t",
        );
        prepare(&client, &publication("p"), &made("ahead"), &[]).await.unwrap();
        let mut wire = Wire::connect(server, "ahead");
        wire.query(&start_replication("ahead", &["p".to_owned()]));
        wire.until(b'W');
        let end: Lsn = server.sql("select pg_current_wal_lsn()").parse().unwrap();
        let beyond = Lsn::new(end.get() + (64 << 20));
        wire.confirm(beyond);
        let at = "select confirmed_flush_lsn from pg_replication_slots where slot_name = 'ahead'";
        eventually(SOON, "the slot is beyond", || server.sql(at) == beyond.to_string());
        drop(wire);
        let active = "select active from pg_replication_slots where slot_name = 'ahead'";
        eventually(SOON, "the slot is free", || server.sql(active) == "f");
        let error = prepare(&client, &publication("p"), &slot("ahead"), &[]).await.unwrap_err();
        halts_with(&error, Exit::Gap);
        let Error::SlotAhead { confirmed, wal_end, sql, .. } = &error else { panic!("{error}") };
        assert_eq!(*confirmed, beyond);
        assert!(*wal_end >= end && *wal_end < beyond, "{error}");
        run_sql_of(server, "ahead", sql);
        prepare(&client, &publication("p"), &slot("ahead"), &[]).await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_keeps_too_little_wal_is_no_source() {
    for version in [14, 18] {
        let server = Postgres::start(version, Ports::POSTGRES.postgres(6), &["wal_level=replica"]);
        make_role(&server);
        let client = connect(&server, "postgres").await;
        let error = prepare(&client, &publication("p"), &made("s"), &[]).await.unwrap_err();
        halts_with(&error, Exit::Unavailable);
        assert!(error.to_string().contains("ALTER SYSTEM SET wal_level = logical"), "{error}");
    }
}

const IDENTITIES: &str = "
create table fine(id int primary key); create table full_(id int); alter table full_ replica identity full;
create table keyless(id int); create table nothing(id int primary key);
create table lazy(id int primary key deferrable);
create table indexed(id int not null); create unique index i on indexed(id);
alter table indexed replica identity using index i;
create table dangling(id int not null); create unique index d on dangling(id);
alter table dangling replica identity using index d; drop index d;
create table \"Root\"(id int) partition by range (id);
create table \"Leaf\" partition of \"Root\" for values from (0) to (9);
alter table nothing replica identity nothing;
create publication p for table fine, full_, keyless, nothing, lazy, indexed, dangling, \"Root\"
    with (publish_via_partition_root = true);
create publication inserts for table keyless with (publish = 'insert, truncate');
create publication deletes for table keyless with (publish = 'delete')";

#[tokio::test]
async fn warns_of_exactly_the_tables_of_which_postgresql_refuses_updates() {
    for version in VERSIONS {
        let (server, client) = database(version, "identity").await;
        server.sql_in("identity", IDENTITIES);
        let ready = prepare(&client, &publication("p"), &made("identity"), &[]).await.unwrap();
        let refused: Vec<_> = "fine full_ keyless nothing lazy indexed dangling \"Root\""
            .split(' ')
            .filter(|table| {
                server.try_sql("identity", &format!("update {table} set id = 0")).is_err()
            })
            .map(|table| table.replace("\"Root\"", "\"Leaf\""))
            .collect();
        // An update of no row is refused only where the table itself has rows to look for.
        assert!(refused.len() >= 4, "{refused:?}");
        for (table, warned) in [
            ("fine", false),
            ("full_", false),
            ("keyless", true),
            ("nothing", true),
            ("lazy", true),
            ("indexed", false),
            ("dangling", true),
            ("Leaf", true),
        ] {
            let sql = format!("ALTER TABLE public.\"{table}\" REPLICA IDENTITY FULL;");
            let found = ready.warnings.iter().any(|warning| warning.ends_with(&sql));
            assert_eq!(found, warned, "{table}: {:?}", ready.warnings);
            if warned {
                server.sql_in("identity", &sql);
            }
        }
        let ready = prepare(&client, &publication("p"), &slot("identity"), &[]).await.unwrap();
        assert_eq!(ready.warnings, [""; 0]);
        server.sql_in("identity", "alter table keyless replica identity default");
        let ready =
            prepare(&client, &publication("inserts"), &slot("identity"), &[]).await.unwrap();
        assert_eq!(ready.warnings, [""; 0]);
        let ready =
            prepare(&client, &publication("deletes"), &slot("identity"), &[]).await.unwrap();
        assert!(ready.warnings[0].contains("refuses deletes of table \"public.keyless\""));
    }
}

const PARTS: &str = "
create table fine(id int primary key, a text, b text);
create table keyless(id int primary key, a text, b text);
create table pair(\"I d\" int, a text, b text, primary key (a, \"I d\"));
create table full_(id int primary key, a text, b text); alter table full_ replica identity full;
create table by_index(id int primary key, a text not null, b text);
create unique index by_a on by_index(a); alter table by_index replica identity using index by_a;
create table by_key(id int primary key, a text, b text);
create table by_other(id int primary key, a text, b text);
create table by_any(id int primary key, a text, b text); alter table by_any replica identity full;
create table twice(id int primary key, a text, b text);
create table inside(id int primary key, a text, b text);
create table root(id int primary key, a text, b text) partition by range (id);
create table leaf partition of root for values from (0) to (9);
create publication p for table fine (id, b), keyless (a), pair (b, a), full_ (id, a, b), by_index (id),
    by_key where (id > 0 and id <> 5), by_other where (b <> 'x'), by_any where (b <> 'x'),
    twice (id, b) where (b <> ':varattno 2'), inside (id, a) where (id > 0), root (a)
    with (publish_via_partition_root = true);
create publication inserts for table keyless (a) with (publish = 'insert')";

#[tokio::test]
async fn warns_of_exactly_the_tables_of_which_too_little_is_published() {
    for version in VERSIONS.into_iter().filter(|version| *version >= 15) {
        let (server, client) = database(version, "parts").await;
        server.sql_in("parts", PARTS);
        let ready = prepare(&client, &publication("p"), &made("parts"), &[]).await.unwrap();
        let mut warnings = ready.warnings;
        for (table, columns) in [
            ("fine", None),
            ("keyless", Some("leaves out \"id\"")),
            ("pair", Some("leaves out \"I d\"")),
            ("full_", Some("is FULL")),
            ("by_index", Some("leaves out \"a\"")),
            ("by_key", None),
            ("by_other", Some("by \"b\"")),
            ("by_any", None),
            ("twice", Some("by \"b\"")),
            ("inside", None),
            ("leaf", Some("leaves out \"id\"")),
        ] {
            // An update of no row is refused all the same, where it is.
            let update = format!("update {table} set b = 'y'");
            let refused = server.try_sql("parts", &update).is_err();
            assert_eq!(refused, columns.is_some(), "{table} on {version}");
            let Some(columns) = columns else { continue };
            let about = |warning: &String| warning.contains(&format!("\"public.{table}\""));
            let at = warnings.iter().position(about).expect(table);
            let warning = warnings.remove(at);
            assert!(warning.contains(columns) && warning.contains("\"p\""), "{warning}");
            let (_, sql) = warning.split_once(": ").unwrap();
            run_sql_of(server, "parts", sql);
            server.sql_in("parts", &update);
        }
        assert_eq!(warnings, [""; 0], "on {version}");
        let ready = prepare(&client, &publication("p"), &slot("parts"), &[]).await.unwrap();
        assert_eq!(ready.warnings, [""; 0]);
        let rest = server.sql_in(
            "parts",
            "select string_agg(prrelid::regclass || coalesce(pg_get_expr(prqual, prrelid), ''), ' ' order by 1)
             from pg_publication_rel where prqual is not null",
        );
        assert!(rest.contains("twice(b <> ':varattno 2'::text)"), "{rest}");
        let inserts = publication("inserts");
        let ready = prepare(&client, &inserts, &slot("parts"), &[]).await.unwrap();
        assert_eq!(ready.warnings, [""; 0]);
    }
}

#[tokio::test]
async fn a_mapped_table_has_to_be_published_unless_all_are() {
    for version in VERSIONS {
        let (server, client) = database(version, "mapped").await;
        server.sql_in(
            "mapped",
            "create table t(id int primary key); create table \"U\"(id int primary key);
             create table root(id int primary key) partition by range (id);
             create table leaf partition of root for values from (0) to (9);
             create publication \"some\" for table t, root; create publication everything for all tables;
             create publication nobody",
        );
        prepare(&client, &publication("some"), &made("mapped"), &[]).await.unwrap();
        let ask = async |name: &str, tables: &[&str]| {
            let mapped: Vec<_> = tables.iter().map(|table| (*table).to_owned()).collect();
            prepare(&client, &publication(name), &slot("mapped"), &mapped).await
        };
        ask("some", &["public.t", "public.leaf"]).await.unwrap();
        let mapped = ["public.t", "public.U", "public.root", "public.none"];
        let error = ask("some", &mapped).await.unwrap_err();
        halts_with(&error, Exit::Config);
        let text = error.to_string();
        assert!(text.contains("ALTER PUBLICATION \"some\" ADD TABLE public.\"U\";"), "{text}");
        assert!(text.contains("publish_via_partition_root"), "{text}");
        assert!(text.contains("table \"public.none\" does not exist"), "{text}");
        assert!(!text.contains("public.t\""), "{text}");
        let ready = ask("everything", &["public.t", "public.none"]).await.unwrap();
        assert_eq!(ready.warnings, ["table \"public.none\" does not exist"]);
        let ready = ask("nobody", &[]).await.unwrap();
        assert!(ready.warnings[0].contains("ALTER PUBLICATION \"nobody\" ADD TABLE"), "{ready:?}");
        if version >= 15 {
            server.sql_in("mapped", "create publication schema_ for tables in schema public");
            let ready = ask("schema_", &["public.t", "public.none"]).await.unwrap();
            assert_eq!(ready.warnings, ["table \"public.none\" does not exist"]);
            halts_with(&ask("schema_", &["other.none"]).await.unwrap_err(), Exit::Config);
        }
    }
}

/// The lines that the code under test logs on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(line)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn says_what_a_slot_waits_for_and_leaves_none_behind_when_given_up() {
    for version in [14, 18] {
        let (server, client) = database(version, "waiting").await;
        server.sql_in(
            "waiting",
            "create table t(id int primary key); create publication p for table t; grant insert on t to cdc",
        );
        server.sql("alter role cdc in database waiting set statement_timeout = '1s'");
        let holder = connect(server, "waiting").await;
        holder.batch_execute("begin; insert into t values (1)").await.unwrap();
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let guard = tracing::subscriber::set_default(subscriber);
        drop(client);
        let (client, connection) = connect_with_task(server, "waiting").await;
        let (publications, options) = (publication("p"), made("waiting"));
        let prepared = prepare(&client, &publications, &options, &[]);
        let waits = tokio::time::timeout(Duration::from_secs(3), prepared).await;
        assert!(waits.is_err(), "a slot cannot be made before the transaction ends");
        drop(guard);
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("waiting for the end of 1 transaction that was open"), "{text}");
        let xid = server.sql("select backend_xid from pg_stat_activity where backend_xid is not null and datname = 'waiting'");
        assert!(text.contains(&format!("xid {xid} of process")), "{text}");

        connection.abort();
        assert!(connection.await.is_err(), "it does not end by itself while a query runs");
        let sql = "select count(*) from pg_replication_slots where slot_name = 'waiting'";
        eventually(SOON, "the half-made slot is gone", || server.sql(sql) == "0");

        let client = connect(server, "waiting").await;
        let prepared = prepare(&client, &publications, &options, &[]);
        let commit = async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            holder.batch_execute("commit").await.unwrap();
        };
        let (ready, ()) = tokio::join!(prepared, commit);
        assert!(ready.unwrap().slot_created);
    }
}

#[tokio::test]
async fn publication_names_reach_the_server_as_they_are() {
    for version in VERSIONS {
        let (server, _client) = database(version, "quoting").await;
        let names = ["a,b", "o'clock", "say \"hi\"", r"back\slash\'", "Größe", "two  words"];
        let longest = "ä".repeat(31);
        for (index, name) in names.into_iter().chain([longest.as_str()]).enumerate() {
            let quoted = name.replace('"', "\"\"");
            server.sql_in(
                "quoting",
                &format!(
                    "create table t{index}(id int primary key);
                     create publication \"{quoted}\" for table t{index}"
                ),
            );
        }
        let mut wire = Wire::connect(server, "quoting");
        let version_num = u32::from(version) * 10_000;
        wire.query(&create_temporary("1quoting", version_num));
        wire.until(b'Z');
        for index in 0..7 {
            server.sql_in("quoting", &format!("insert into t{index} values (1)"));
        }
        let names: Vec<_> = names.into_iter().map(String::from).chain([longest]).collect();
        wire.query(&start_replication("1quoting", &names));
        for index in 0..7 {
            let wanted = format!("public\0t{index}\0");
            loop {
                let (tag, body) = wire.message();
                assert!(b"Wd".contains(&tag), "{}", fields(&body)[&b'M']);
                if body.windows(wanted.len()).any(|part| part == wanted.as_bytes()) {
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_publication_made_or_remade_after_the_slot_is_known_by_what_the_server_says() {
    for version in VERSIONS {
        let (server, client) = database(version, "young").await;
        server.sql_in(
            "young",
            "create table t(id int primary key); create publication remade for table t",
        );
        prepare(&client, &publication("remade"), &made("young"), &[]).await.unwrap();
        server.sql_in("young", "drop publication remade");
        server.sql_in("young", "insert into t values (1)");
        server.sql_in(
            "young",
            "create publication remade for table t; create publication late for table t",
        );
        server.sql_in("young", "insert into t values (2)");
        for name in ["remade", "late"] {
            let names = [name.to_owned()];
            // At start all looks well.
            prepare(&client, &publication(name), &slot("young"), &[]).await.unwrap();
            let mut wire = Wire::connect(server, "young");
            wire.query(&start_replication("young", &names));
            let (tag, body) = wire.until_any(b"EN");
            assert_eq!(tag, if version == 18 { b'N' } else { b'E' });
            let said = fields(&body);
            let (message, code) = if version == 18 {
                (format!("skipped loading publication \"{name}\""), "55000")
            } else {
                (format!("publication \"{name}\" does not exist"), "42704")
            };
            let routine = if version == 18 { "LoadPublications" } else { "get_publication_oid" };
            assert_eq!((said[&b'M'].as_str(), said[&b'C'].as_str()), (message.as_str(), code));
            assert_eq!(said[&b'R'], routine);
            let report = Report { code, message: &message, routine: Some(routine) };
            let error = publication_too_young(&report, &names).unwrap();
            halts_with(&error, Exit::Gap);
            assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
            drop(wire);
            let sql = "select active from pg_replication_slots where slot_name = 'young'";
            eventually(SOON, "the slot is free", || server.sql(sql) == "f");
        }
        let missing = start_replication("no_such_slot", &["late".to_owned()]);
        let mut wire = Wire::connect(server, "young");
        wire.query(&missing);
        let said = fields(&wire.until_any(b"E").1);
        let report =
            Report { code: &said[&b'C'], message: &said[&b'M'], routine: Some(&said[&b'R']) };
        assert!(publication_too_young(&report, &["late".to_owned()]).is_none(), "{said:?}");
    }
}

const TYPES: &str = "
create domain positive as int check (value > 0); create domain digits as positive;
create domain list as int[]; create domain lists as list;
create type mood as enum ('sad', 'ok'); create type pair as (a int, b text);
create domain pair_ as pair; create type span as range (subtype = int);
create domain doc as jsonb; create domain boxes as box[]; create domain lone_box as box;
create table t(
    id int, a positive, b digits, c list, d lists, e mood, f pair, g pair_, h span, i doc, j boxes,
    k positive[], l list[], m mood[], n pair[], o lone_box[], p doc[], q information_schema.cardinal_number,
    r numeric(5,2)[], s name, \"T t\" text, primary key (\"T t\", id) include (a));
create table bare()";

#[tokio::test]
async fn types_are_what_to_json_takes_them_for() {
    let array = |element, delimiter| PgType::Array { element: Arc::new(element), delimiter };
    let list = || array(PgType::Integer, b',');
    let expected = [
        ("id", PgType::Integer),
        ("a", PgType::Integer),
        ("b", PgType::Integer),
        ("c", list()),
        ("d", list()),
        ("e", PgType::Text),
        ("f", PgType::Text),
        ("g", PgType::Text),
        ("h", PgType::Text),
        ("i", PgType::Json),
        ("j", array(PgType::Text, b';')),
        ("k", list()),
        ("l", array(list(), b',')),
        ("m", array(PgType::Text, b',')),
        ("n", array(PgType::Text, b',')),
        ("o", array(PgType::Text, b';')), // a domain has its base's delimiter
        ("p", array(PgType::Json, b',')),
        ("q", PgType::Integer),
        ("r", array(PgType::Numeric, b',')),
        ("s", PgType::Text),
        ("T t", PgType::Text),
    ];
    for version in VERSIONS {
        let (server, client) = database(version, "types").await;
        server.sql_in("types", TYPES);
        let sql = "select attname::text, atttypid from pg_attribute
                   where attrelid = 't'::regclass and attnum > 0 order by attnum";
        let columns: Vec<(String, u32)> = client
            .query(sql, &[])
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        let oids: Vec<u32> = columns.iter().map(|(_, oid)| *oid).collect();
        let oid = async |name: &str| -> u32 {
            client.query_one("select $1::text::regclass::oid", &[&name]).await.unwrap().get(0)
        };
        let t = oid("t").await;
        let facts = relation_facts(&client, t, &oids).await.unwrap();
        for ((name, kind), (column, oid)) in expected.iter().zip(&columns) {
            assert_eq!((name, &facts.types[oid]), (&column.as_str(), kind));
        }
        assert_eq!(columns.len(), expected.len());
        assert_eq!(facts.primary_key.unwrap(), ["T t", "id"]);
        assert_eq!(facts.gone, [0; 0]);
        let output = server.sql_in("types", "select array['(1,2),(0,0)'::lone_box, '(3,4),(0,0)']");
        assert_eq!(output, "{(1,2),(0,0);(3,4),(0,0)}");

        let bare = oid("bare").await;
        assert_eq!(relation_facts(&client, bare, &[]).await.unwrap().primary_key.unwrap(), [""; 0]);
        server.sql_in("types", "drop table t; drop domain digits");
        let facts = relation_facts(&client, t, &oids).await.unwrap();
        assert_eq!(facts.primary_key, None);
        assert_eq!(facts.gone, [oids[2]]);
        assert_eq!(facts.types[&oids[2]], PgType::Text);
    }
}

#[tokio::test]
async fn a_server_describes_itself_to_a_role_without_rights() {
    for version in VERSIONS {
        let (server, client) = database(version, "itself").await;
        let found = Server::read(&client).await.unwrap();
        let control = server.sql("select system_identifier from pg_control_system()");
        assert_eq!(found.system_identifier.to_string(), control);
        assert_eq!(found.version_num.to_string(), server.sql("show server_version_num"));
        assert_eq!((found.in_recovery, found.timeline), (false, 1));
        assert_eq!(found.wal_sender_timeout, Duration::from_secs(60));
        assert_eq!((found.database.as_str(), found.role.as_str()), ("itself", "cdc"));
        assert_eq!(found.wal_level, "logical");
    }
}

#[tokio::test]
async fn a_standby_is_waited_for_and_its_promotion_is_in_its_history() {
    for version in [14, 17] {
        let ports = Ports::POSTGRES;
        let primary = Postgres::start(version, ports.postgres(7), &[]);
        make_role(&primary);
        primary.sql("create table t(id int primary key); create publication p for table t");
        let client = connect(&primary, "postgres").await;
        prepare(&client, &publication("p"), &made("s"), &[]).await.unwrap();
        let standby = Postgres::standby(&primary, ports.postgres(8), &[]);
        let client = connect(&standby, "postgres").await;
        if version >= 17 {
            eventually(SOON, "the slot is copied", || {
                standby.sql("select count(*) from pg_replication_slots where slot_name = 's'")
                    == "1"
            });
        }
        let error = prepare(&client, &publication("p"), &made("s"), &[]).await.unwrap_err();
        assert_eq!(error.disposition(), Disposition::Retry);
        match (version, &error) {
            (14, Error::Standby { .. }) | (17, Error::Synced { .. }) => {}
            _ => panic!("{error}"),
        }
        if version >= 17 {
            let on_standby = made("on_standby");
            let logged = async {
                tokio::time::sleep(Duration::from_millis(500)).await;
                primary.sql("select pg_log_standby_snapshot()");
            };
            let publication = publication("p");
            let prepared = prepare(&client, &publication, &on_standby, &[]);
            let (ready, ()) = tokio::join!(prepared, logged);
            assert!(ready.unwrap().slot_created);
            let insist = SlotOptions { failover: Failover::On, ..made("on_standby_2") };
            let error = prepare(&client, &publication, &insist, &[]).await.unwrap_err();
            halts_with(&error, Exit::Config);
        }
        let before: Lsn = standby.sql("select pg_last_wal_replay_lsn()").parse().unwrap();
        drop(primary);
        standby.ctl("promote");
        let (server, _) = check_server(&client).await.unwrap();
        assert_eq!((server.in_recovery, server.timeline), (false, 2));
        let mut wire = Wire::connect(&standby, "postgres");
        wire.query("TIMELINE_HISTORY 2");
        let row = wire.until_any(b"DE").1;
        let at = row.windows(2).position(|pair| pair == b"1\t").unwrap();
        let timelines = Timelines::parse(2, &row[at..]).unwrap();
        assert_eq!(timelines.of(Lsn::new(before.get() - 1)), 1, "{timelines:?}");
        let after: Lsn = standby.sql("select pg_current_wal_lsn()").parse().unwrap();
        assert_eq!(timelines.of(after), 2, "{timelines:?}");
    }
}

/// A replication connection without a login, just enough to see what the server answers.
struct Wire(TcpStream);

impl Wire {
    fn connect(server: &Postgres, database: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut wire = Self(stream);
        let mut body = 196_608u32.to_be_bytes().to_vec();
        let words = ["user", "cdc", "database", database, "replication", "database"];
        for word in words.into_iter().chain(["client_min_messages", "warning", ""]) {
            body.extend(word.bytes().chain([0]));
        }
        wire.0.write_all(&(body.len() as u32 + 4).to_be_bytes()).unwrap();
        wire.0.write_all(&body).unwrap();
        wire.until(b'Z');
        wire
    }

    fn query(&mut self, text: &str) {
        self.0.write_all(b"Q").unwrap();
        self.0.write_all(&(text.len() as u32 + 5).to_be_bytes()).unwrap();
        self.0.write_all(text.as_bytes()).unwrap();
        self.0.write_all(&[0]).unwrap();
    }

    /// A standby status update: all before `lsn` is stored.
    fn confirm(&mut self, lsn: Lsn) {
        let lsn = lsn.get().to_be_bytes();
        let body = [b"r".as_slice(), &lsn, &lsn, &lsn, &[0; 9]].concat();
        self.0.write_all(b"d").unwrap();
        self.0.write_all(&(body.len() as u32 + 4).to_be_bytes()).unwrap();
        self.0.write_all(&body).unwrap();
    }

    fn message(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 5];
        self.0.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; length as usize - 4];
        self.0.read_exact(&mut body).unwrap();
        (head[0], body)
    }

    /// Reads up to the message with this tag; an error on the way fails the test.
    fn until(&mut self, tag: u8) {
        let (found, body) = self.until_any(&[tag, b'E']);
        assert_eq!(found, tag, "{:?}", (found == b'E').then(|| fields(&body)));
    }

    fn until_any(&mut self, tags: &[u8]) -> (u8, Vec<u8>) {
        loop {
            let (tag, body) = self.message();
            if tags.contains(&tag) {
                return (tag, body);
            }
        }
    }
}

/// The fields of an ErrorResponse or a NoticeResponse.
fn fields(body: &[u8]) -> HashMap<u8, String> {
    body.split(|byte| *byte == 0)
        .filter_map(|field| field.split_first())
        .map(|(code, text)| (*code, String::from_utf8_lossy(text).into_owned()))
        .collect()
}
