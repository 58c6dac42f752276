//! TLS and logins on both sides at once, with a role that may replicate and nothing else.

#![allow(
    clippy::unwrap_used,
    reason = "clippy only sees #[test] functions as tests, not their helpers"
)]

mod support;

use std::{sync::OnceLock, time::Duration};

use support::{Kafka, Pgsluice, Ports, Postgres, eventually};

const LIMIT: Duration = Duration::from_secs(60);
const PORTS: Ports = Ports::SECURITY;
const PASSWORD: &str = "sluice-secret";

/// Its own TLS listener demands a client's certificate; the one with a login asks for none.
fn kafka() -> &'static Kafka {
    static SERVER: OnceLock<Kafka> = OnceLock::new();
    let demand = ["listener.name.ssl.ssl.client.auth=required"];
    SERVER.get_or_init(|| {
        Kafka::start("security", PORTS.kafka(0), 1, &demand, support::kafka::LATEST)
    })
}

fn by_password() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::start(17, PORTS.postgres(0), &["tls=only", "auth=scram"]))
}

fn by_certificate() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::start(18, PORTS.postgres(1), &["tls=only", "auth=cert"]))
}

/// A table with one row, a publication and a slot, named after the test.
fn prepare(pg: &Postgres, name: &str) {
    pg.database(name);
    pg.sql_in(name, "create table t(id int primary key, a text); create publication p for table t");
    pg.sql_in(name, &format!("select pg_create_logical_replication_slot('{name}', 'pgoutput')"));
    pg.sql_in(name, "insert into t values (1, 'before')");
}

fn config(pg: &Postgres, name: &str, admin: u16, postgres: &str, kafka: &str) -> String {
    format!(
        "[postgres]\nhost = \"127.0.0.1\"\nport = {}\nuser = \"sluice\"\ndatabase = \"{name}\"\nsslmode = \"verify-full\"\n\
         {postgres}\n[publication]\nname = \"p\"\n[slot]\nname = \"{name}\"\n[kafka]\n{kafka}\n\
         [tables]\n\"public.t\" = \"{name}\"\n[topic]\ncreate = true\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n",
        pg.port(),
    )
}

fn file(name: &str) -> String {
    format!("{}/{name}", Kafka::certificates())
}

fn scram_on_both_sides(
    pg: &Postgres,
    name: &str,
    admin: u16,
    pg_ca: &str,
    kafka_ca: &str,
) -> String {
    let postgres = format!(
        "password = \"{PASSWORD}\"\nchannel_binding = \"require\"\nsslrootcert = \"{}\"",
        file(pg_ca)
    );
    let kafka = format!(
        "brokers = \"{}\"\n[kafka.tls]\nca = \"{}\"\n[kafka.sasl]\nmechanism = \"SCRAM-SHA-512\"\nuser = \"sluice\"\npassword = \"{PASSWORD}\"",
        kafka().listener("sasl_ssl"),
        file(kafka_ca)
    );
    config(pg, name, admin, &postgres, &kafka)
}

fn certificates_on_both_sides(pg: &Postgres, name: &str, admin: u16, with_key: bool) -> String {
    let (ca, cert, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let postgres = format!("sslrootcert = \"{ca}\"\nsslcert = \"{cert}\"\nsslkey = \"{key}\"");
    let own = if with_key { format!("cert = \"{cert}\"\nkey = \"{key}\"") } else { String::new() };
    let kafka =
        format!("brokers = \"{}\"\n[kafka.tls]\nca = \"{ca}\"\n{own}", kafka().listener("ssl"));
    config(pg, name, admin, &postgres, &kafka)
}

fn streams(pg: &Postgres, name: &str, config: &str) {
    let role = "select rolsuper, rolreplication from pg_roles where rolname = 'sluice'";
    assert_eq!(pg.sql(role), "f|t");
    assert_eq!(
        pg.sql_in(
            name,
            "select has_table_privilege('sluice', 't', 'select, insert, update, delete')"
        ),
        "f"
    );
    let mut process = Pgsluice::spawn(config, &["run", "--set", "log.level=debug"]);
    process.wait_ready(LIMIT);
    let encrypted = "select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'sluice'";
    assert_eq!(pg.sql(encrypted), "t");
    pg.sql_in(name, "update t set a = 'while it runs'; delete from t");
    let records = kafka().dump_when(name, 3, LIMIT);
    assert_eq!(process.stop(LIMIT), 0, "{}", process.log());
    let told: Vec<(Option<&str>, Option<&str>)> =
        records.iter().map(|record| (record.header("op"), record.value.as_deref())).collect();
    assert_eq!(
        told,
        [
            (Some("c"), Some(r#"{"id":1,"a":"before"}"#)),
            (Some("u"), Some(r#"{"id":1,"a":"while it runs"}"#)),
            (Some("d"), Some(r#"{"id":1}"#)),
        ]
    );
    assert!(!process.log().contains(PASSWORD), "the log tells the password");
}

#[test]
fn scram_bound_to_tls_in_postgresql_and_scram_over_tls_in_kafka_stream_together() {
    let (pg, name) = (by_password(), "scram");
    prepare(pg, name);
    streams(pg, name, &scram_on_both_sides(pg, name, PORTS.admin(0), "ca.pem", "ca.pem"));
}

#[test]
fn a_client_certificate_opens_both_sides() {
    let (pg, name) = (by_certificate(), "certificate");
    prepare(pg, name);
    streams(pg, name, &certificates_on_both_sides(pg, name, PORTS.admin(1), true));
}

/// Nothing was sent to whoever it is, and nothing confirmed.
fn refuses(pg: &Postgres, name: &str, config: &str, words: &[&str]) {
    let position =
        format!("select confirmed_flush_lsn from pg_replication_slots where slot_name = '{name}'");
    let before = pg.sql(&position);
    let mut process = Pgsluice::spawn(config, &["run"]);
    assert_eq!(process.wait(LIMIT), 77, "{}", process.log());
    let log = process.log();
    assert!(words.iter().all(|word| log.contains(word)), "{words:?} in {log}");
    assert!(!log.contains(PASSWORD), "the log tells the password");
    assert_eq!(pg.sql(&position), before);
    let held = format!("select active from pg_replication_slots where slot_name = '{name}'");
    eventually(LIMIT, "the slot is free", || pg.sql(&held) == "f");
}

#[test]
fn a_postgresql_of_another_ca_is_refused() {
    let (pg, name) = (by_password(), "wrong_pg_ca");
    prepare(pg, name);
    let config = scram_on_both_sides(pg, name, PORTS.admin(2), "other-ca.pem", "ca.pem");
    refuses(pg, name, &config, &["127.0.0.1", "certificate", "sslrootcert"]);
}

#[test]
fn a_kafka_of_another_ca_is_refused() {
    let (pg, name) = (by_password(), "wrong_kafka_ca");
    prepare(pg, name);
    let config = scram_on_both_sides(pg, name, PORTS.admin(3), "ca.pem", "other-ca.pem");
    refuses(pg, name, &config, &["127.0.0.1", "certificate", "kafka.tls.ca"]);
}

#[test]
fn a_kafka_that_wants_a_certificate_refuses_who_has_none() {
    let (pg, name) = (by_certificate(), "no_certificate");
    prepare(pg, name);
    let config = certificates_on_both_sides(pg, name, PORTS.admin(4), false);
    refuses(pg, name, &config, &["client certificate", "kafka.tls.cert"]);
}
