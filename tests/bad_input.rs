//! What a person is told when something is wrong, by the real binary at real servers: the exit code,
//! the words to act on, and never a secret. What may heal is waited for and said once.

#![allow(
    clippy::unwrap_used,
    reason = "clippy only sees #[test] functions as tests, not their helpers"
)]

mod support;

use std::{
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use support::{Kafka, Pgsluice, Ports, Postgres, Proxy, eventually, kafka::LATEST};

const PORTS: Ports = Ports::BAD_INPUT;
const LIMIT: Duration = Duration::from_secs(60);

/// The server's password, and one that it does not take.
const SECRETS: [&str; 2] = ["sluice-secret", "wr0ng-pa55word"];

/// Everybody is superuser.
fn postgres() -> &'static Postgres {
    Postgres::shared(17, PORTS.postgres(0))
}

/// Role `sluice` has REPLICATION LOGIN and nothing else, and logs in by SCRAM, or by TLS if it likes;
/// `by_md5` and `by_cleartext` by what their names say.
fn guarded() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = Postgres::start(17, PORTS.postgres(1), &["auth=scram", "tls=1"]);
        server.sql(
            "set password_encryption = md5;
             create role by_md5 login replication password 'sluice-secret';
             create role by_cleartext login replication password 'sluice-secret';
             do $$ begin execute format($q$copy (values
               ('local all,replication all trust'),
               ('host all,replication by_md5 all md5'),
               ('host all,replication by_cleartext all password'),
               ('host all,replication all all scram-sha-256')) to %L$q$,
               current_setting('hba_file')); end $$;
             select pg_reload_conf()",
        );
        eventually(LIMIT, "pg_hba.conf is read", || server.log().contains("received SIGHUP"));
        server
    })
}

/// `User:sluice` may nothing, whoever comes without a login everything.
fn kafka() -> &'static Kafka {
    static CLUSTER: OnceLock<Kafka> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let settings = [
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:ANONYMOUS",
        ];
        Kafka::start("bad-input", PORTS.kafka(0), 1, &settings, LATEST)
    })
}

const TABLE: &str =
    "create table t(id int primary key, note text); create publication p for table t";

/// Everything is in place: a database, a slot and a topic of this name, table `public.t` in
/// publication `p`.
fn ready(name: &str) -> String {
    ready_with(name, &[], TABLE)
}

fn ready_with(name: &str, topic: &[&str], sql: &str) -> String {
    let url = postgres().database(name);
    postgres().sql_in(name, sql);
    postgres()
        .sql_in(name, &format!("select pg_create_logical_replication_slot('{name}', 'pgoutput')"));
    kafka().topic_with(name, 1, topic);
    config(&url, name)
}

fn config(url: &str, name: &str) -> String {
    let brokers = kafka().brokers();
    format!(
        r#"
        [postgres]
        url = "{url}"
        [publication]
        name = "p"
        [slot]
        name = "{name}"
        check_interval = "200ms"
        [kafka]
        brokers = "{brokers}"
        [tables]
        "public.t" = "{name}"
        [admin]
        listen = ""
        [log]
        format = "text"
        "#
    )
}

fn spawn(config: &str, set: &[&str]) -> Pgsluice {
    let mut args = vec!["run"];
    args.extend(set.iter().flat_map(|pair| ["--set", pair]));
    Pgsluice::spawn(config, &args)
}

/// It ends with this code, and its last words hold all of these. Returns them.
#[track_caller]
fn halts(config: &str, set: &[&str], code: i32, words: &[&str]) -> String {
    ended(&mut spawn(config, set), code, words)
}

#[track_caller]
fn ended(it: &mut Pgsluice, code: i32, words: &[&str]) -> String {
    let got = it.wait(LIMIT);
    let log = it.log();
    assert_eq!(got, code, "{log}");
    hides_secrets(it);
    let at =
        log.find("Z ERROR ").or_else(|| log.find("pgsluice: ")).unwrap_or_else(|| panic!("{log}"));
    let said = log.get(at..).unwrap();
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert!(!said.contains(";:"), "SQL does not stand last: {said}");
    assert_eq!(log.matches("Z ERROR ").count() + log.matches("pgsluice: ").count(), 1, "{log}");
    said.to_owned()
}

/// It waits, has said so once in these words however often it tried, and ends at a SIGTERM.
#[track_caller]
fn waits(config: &str, set: &[&str], words: &[&str]) {
    let mut it = spawn(config, &[&["log.level=debug"], set].concat());
    waiting(&mut it, words);
    stops(&mut it);
}

#[track_caller]
fn waiting(it: &mut Pgsluice, words: &[&str]) {
    it.wait_log(LIMIT, words);
    it.wait_log(LIMIT, &[&["still: "], words].concat());
    let log = it.log();
    let says = |line: &&str| words.iter().all(|word| line.contains(word));
    let said: Vec<_> = log.lines().filter(says).filter(|line| !line.contains("DEBUG")).collect();
    assert_eq!(said.len(), 1, "{said:#?}");
    assert_eq!(it.try_wait(), None, "{log}");
}

/// It warns once in these words, and streams all the same.
#[track_caller]
fn warns(config: &str, set: &[&str], words: &[&str]) -> Pgsluice {
    let mut it = spawn(config, set);
    streams(&mut it);
    let log = it.log();
    let warns = |line: &&str| line.contains("WARN") && words.iter().all(|word| line.contains(word));
    assert_eq!(log.lines().filter(warns).count(), 1, "{words:?} in {log}");
    it
}

#[track_caller]
fn streams(it: &mut Pgsluice) {
    eventually(LIMIT, "it streams", || {
        let log = it.log();
        assert_eq!(it.try_wait(), None, "{log}");
        log.contains("INFO streaming")
    });
}

/// It ends at a SIGTERM, with all it was given stored.
#[track_caller]
fn stops(it: &mut Pgsluice) {
    assert_eq!(it.stop(LIMIT), 0, "{}", it.log());
    hides_secrets(it);
}

#[track_caller]
fn hides_secrets(it: &Pgsluice) {
    let all = it.log() + &it.out();
    for secret in SECRETS {
        assert!(!all.contains(secret), "{secret} is in {all}");
    }
}

/// Where the slot is confirmed to be.
fn confirmed(slot: &str) -> String {
    postgres().sql(&format!(
        "select confirmed_flush_lsn from pg_replication_slots where slot_name = '{slot}'"
    ))
}

/// Whether nothing after the commit that `said` names has been confirmed.
#[track_caller]
fn confirmed_up_to(slot: &str, said: &str) -> bool {
    let lsn = said.split("committed at ").nth(1).and_then(|rest| rest.split(' ').next());
    let lsn = lsn.unwrap_or_else(|| panic!("no LSN in {said}"));
    let confirmed = confirmed(slot);
    postgres().sql(&format!("select '{confirmed}'::pg_lsn <= '{lsn}'::pg_lsn")) == "t"
}

/// The keys in a topic, in order.
fn keys(topic: &str) -> Vec<String> {
    kafka().dump(topic).into_iter().filter_map(|record| record.key).collect()
}

#[test]
fn a_wrong_password_for_postgresql_ends_with_77() {
    let url = guarded().url().replace("sluice-secret", "wr0ng-pa55word");
    let words = ["password authentication failed for user \"sluice\"", "127.0.0.1"];
    halts(&config(&url, "wrong_password"), &[], 77, &words);
}

#[test]
fn a_login_that_gives_the_password_away_ends_with_77_and_names_its_key() {
    let url = guarded().url();
    for (user, key) in
        [("by_md5", "postgres.allow_md5"), ("by_cleartext", "postgres.allow_cleartext")]
    {
        let config = config(&url.replace("sluice:", &format!("{user}:")), user);
        halts(&config, &[], 77, &[key, "asks for a login"]);
        // Then it comes as far as the publication, which is not there.
        halts(&config, &[&format!("{key}=true")], 69, &["publication \"p\" does not exist"]);
    }
}

#[test]
fn a_certificate_of_another_authority_ends_with_77_and_names_the_key_of_the_right_one() {
    let ca = format!("{}/other-ca.pem", Kafka::certificates());
    let config = config(guarded().url(), "wrong_ca");
    let set = ["postgres.sslmode=verify-full", &format!("postgres.sslrootcert={ca}")];
    halts(&config, &set, 77, &["TLS with 127.0.0.1", "certificate", "postgres.sslrootcert"]);
    let config = ready("wrong_ca_kafka");
    let brokers = format!("kafka.brokers={}", kafka().listener("ssl"));
    let set = [brokers.as_str(), &format!("kafka.tls.ca={ca}")];
    halts(&config, &set, 77, &["TLS with 127.0.0.1", "certificate", "kafka.tls.ca"]);
}

#[test]
fn a_password_file_that_cannot_be_read_ends_with_78() {
    let config = config(&guarded().url().replace(":sluice-secret", ""), "no_file");
    for path in ["/no/such/file", env!("CARGO_MANIFEST_DIR")] {
        let set = format!("postgres.password_file={path}");
        halts(&config, &[&set], 78, &["postgres.password_file", path, "cannot be read"]);
    }
}

#[test]
fn a_host_that_is_not_there_yet_is_waited_for() {
    let config = config("postgres://postgres@no-such-host.invalid/x?sslmode=disable", "no_host");
    waits(&config, &[], &["no-such-host.invalid"]);
    // Nobody listens there.
    let port = PORTS.postgres(9);
    let url = format!("postgres.url=postgres://postgres@127.0.0.1:{port}/x");
    waits(&config, &[&url], &[&format!("127.0.0.1:{port}"), "refused"]);
    let config = ready("no_host_kafka");
    waits(&config, &["kafka.brokers=no-such-host.invalid:9092"], &["no-such-host.invalid"]);
}

#[test]
fn a_slot_in_use_is_waited_for_with_the_process_that_has_it_and_taken_over() {
    let config = ready("in_use");
    let mut first = spawn(&config, &[]);
    streams(&mut first);
    let pid =
        postgres().sql("select active_pid from pg_replication_slots where slot_name = 'in_use'");
    let mut second = spawn(&config, &["log.level=debug"]);
    waiting(&mut second, &["\"in_use\" is in use", &format!("process {pid}")]);
    postgres().sql_in("in_use", "insert into t values (1)");
    kafka().wait("in_use", 1, LIMIT);
    stops(&mut first);
    streams(&mut second);
    postgres().sql_in("in_use", "insert into t values (2)");
    kafka().wait("in_use", 2, LIMIT);
    stops(&mut second);
    assert_eq!(keys("in_use"), ["1", "2"]);
}

/// A replication connection that does nothing until it is dropped.
struct Walsender(Child);

impl Walsender {
    fn of(server: &Postgres) -> Self {
        let url = format!("{}?replication=database&application_name=holder", server.url());
        let child = Command::new("psql").args(["-Xq", "-d", &url]).stdin(Stdio::piped()).spawn();
        let held = "select count(*) from pg_stat_activity where application_name = 'holder'";
        eventually(LIMIT, "the walsender is taken", || server.sql(held) == "1");
        Self(child.expect("psql starts"))
    }
}

impl Drop for Walsender {
    fn drop(&mut self) {
        drop(self.0.stdin.take()); // psql ends with its input
        let _ = self.0.wait();
    }
}

#[test]
fn a_free_walsender_is_waited_for_and_a_wal_level_that_is_too_low_ends_with_69() {
    let settings = ["wal_level=replica", "max_wal_senders=1"];
    let server = Postgres::start(17, PORTS.postgres(2), &settings);
    server.sql("create publication p for all tables");
    let holder = Walsender::of(&server);
    let config = config(server.url(), "no_walsender");
    let mut it = spawn(&config, &["log.level=debug"]);
    waiting(&mut it, &["max_wal_senders"]);
    drop(holder);
    ended(
        &mut it,
        69,
        &["wal_level is replica", "ALTER SYSTEM SET wal_level = logical", "restart"],
    );
}

/// A PostgreSQL that claims to be another version: on the wire at login, and when asked by SQL.
struct Disguised {
    server: Postgres,
    proxy: Proxy,
}

impl Disguised {
    fn start(version: u8, as_: u8, postgres: u16, proxy: u16) -> Self {
        let server = Postgres::start(version, PORTS.postgres(postgres), &[]);
        let number: i64 = server.sql("show server_version_num").parse().unwrap();
        let other = number + (i64::from(as_) - i64::from(version)) * 10_000;
        let reported = |version| format!("server_version\0{version}.").into_bytes();
        // A column of 8 bytes.
        let asked = |number: i64| [8i32.to_be_bytes().as_slice(), &number.to_be_bytes()].concat();
        let target = format!("127.0.0.1:{}", server.port());
        let rewrites = [(reported(version), reported(as_)), (asked(number), asked(other))];
        let rewrites = rewrites.each_ref().map(|(from, to)| (from.as_slice(), to.as_slice()));
        let proxy = Proxy::rewriting(PORTS.proxy(proxy), &target, &rewrites);
        server.sql(TABLE);
        Self { server, proxy }
    }

    fn config(&self, name: &str) -> String {
        self.server
            .sql(&format!("select pg_create_logical_replication_slot('{name}', 'pgoutput')"));
        kafka().topic(name, 1);
        let port = |port: u16| format!(":{port}/");
        let url = self.server.url().replace(&port(self.server.port()), &port(self.proxy.port()));
        config(&url, name)
    }
}

#[test]
fn a_postgresql_that_is_too_old_ends_with_69() {
    // It refuses the login, as it does not know all that we set there.
    let old = Postgres::start(13, PORTS.postgres(5), &[]);
    let words = [&format!("PostgreSQL at 127.0.0.1:{} is too old", old.port()), "14 or later"];
    halts(&config(old.url(), "old"), &[], 69, &words);
    // One that would not, all the same.
    let old = Disguised::start(14, 13, 3, 0);
    halts(&old.config("old"), &[], 69, &["PostgreSQL 13 is too old", "14 or later"]);
}

#[test]
fn a_postgresql_that_is_newer_than_any_known_is_used_with_one_warning() {
    let new = Disguised::start(18, 19, 4, 1);
    let words = ["PostgreSQL 19 is newer than 18", "tested"];
    let mut it = warns(&new.config("new"), &[], &words);
    new.server.sql("insert into t values (1)");
    kafka().wait("new", 1, LIMIT);
    new.proxy.cut_once();
    it.wait_log(LIMIT, &["connected again"]);
    new.server.sql("insert into t values (2)");
    kafka().wait("new", 2, LIMIT);
    stops(&mut it);
    assert_eq!(it.log().matches("is newer than").count(), 1, "{}", it.log());
    assert_eq!(keys("new"), ["1", "2"]);
}

#[test]
fn a_slot_that_is_gone_ends_with_66_and_is_never_made_again_unasked() {
    let config = ready("slot_gone");
    let words =
        ["\"slot_gone\" does not exist", "lost", "pg_create_logical_replication_slot('slot_gone'"];
    let at_once = "slot.missing_timeout=0s";
    let mut it = spawn(&config, &["slot.create=true", at_once]);
    streams(&mut it);
    postgres().drop_slots("slot_gone");
    ended(&mut it, 66, &words);
    halts(&config, &[at_once], 66, &words);
    assert_eq!(confirmed("slot_gone"), "");
}

#[test]
fn a_slot_for_something_else_ends_with_69() {
    let config = ready("other_slot");
    let other = "select pg_create_logical_replication_slot('other_plugin', 'test_decoding')";
    postgres().sql_in("other_slot", other);
    let words = ["\"other_plugin\"", "test_decoding, not pgoutput", "slot.name"];
    halts(&config, &["slot.name=other_plugin"], 69, &words);
    ready("other_slot_2");
    let words =
        ["\"other_slot_2\"", "of database \"other_slot_2\", not \"other_slot\"", "slot.name"];
    halts(&config, &["slot.name=other_slot_2"], 69, &words);
}

#[test]
fn a_publication_that_is_not_there_ends_with_69_and_the_sql_for_it() {
    let config = ready("no_publication");
    let words = ["publication \"q\" does not exist", "no_publication", "CREATE PUBLICATION \"q\""];
    halts(&config, &["publication.name=q"], 69, &words);
}

#[test]
fn a_publication_that_the_role_may_not_make_ends_with_77_and_the_sql_to_hand_on() {
    let words = [
        "role \"sluice\" may not make publication \"p\"",
        "CREATE PUBLICATION \"p\" FOR ALL TABLES;",
    ];
    halts(&config(guarded().url(), "may_not"), &["publication.create=true"], 77, &words);
}

#[test]
fn an_empty_publication_is_warned_of_with_the_sql_that_fills_it() {
    let config = ready("empty").replace("[tables]", "[topic]").replace("\"public.t\"", "template");
    postgres().sql_in("empty", "drop publication p; create publication q");
    let words = ["no table in publication \"q\"", "ALTER PUBLICATION \"q\" ADD TABLE"];
    // The slot is older than the publication.
    postgres().drop_slots("empty");
    let mut it = warns(&config, &["publication.name=q", "slot.create=true"], &words);
    postgres().sql_in("empty", "ALTER PUBLICATION q ADD TABLE t; insert into t values (1)");
    kafka().wait("empty", 1, LIMIT);
    stops(&mut it);
    assert_eq!(keys("empty"), ["1"]);
}

#[test]
fn a_mapped_table_that_is_not_published_ends_with_78_or_may_still_come() {
    let config = ready("unpublished");
    postgres().sql_in("unpublished", "create table u(); create publication every for all tables");
    let set = ["tables.public.u=unpublished", "tables.public.v=unpublished"];
    let words = [
        "\"public.u\" is not published",
        "ALTER PUBLICATION \"p\" ADD TABLE public.\"u\"",
        "\"public.v\" does not exist",
    ];
    halts(&config, &set, 78, &words);
    let all = [set.as_slice(), &["publication.name=every"]].concat();
    stops(&mut warns(&config, &all, &["\"public.v\" does not exist"]));
}

#[test]
fn an_identity_that_blocks_updates_is_warned_of_with_the_sql() {
    let sql = "create table t(id int); create publication p for table t";
    let config = ready_with("blocked", &[], sql);
    let words =
        ["updates and deletes", "\"public.t\"", "ALTER TABLE public.\"t\" REPLICA IDENTITY FULL;"];
    stops(&mut warns(&config, &[], &words));
}

#[test]
fn a_row_of_a_table_that_is_to_be_refused_ends_with_65() {
    let config = ready("refused");
    let mut it = spawn(&config, &[]);
    streams(&mut it);
    postgres().sql_in(
        "refused",
        "insert into t values (1); create table u(id int primary key); alter publication p add table u",
    );
    kafka().wait("refused", 1, LIMIT);
    postgres().sql_in("refused", "insert into u values (2)");
    let words = ["public.u", "[tables]", "topic.unlisted", "\"route\" or \"skip\""];
    let said = ended(&mut it, 65, &words);
    assert!(confirmed_up_to("refused", &said));
    assert_eq!(keys("refused"), ["1"]);
}

#[test]
fn a_row_that_is_too_large_ends_with_65_every_time_and_nothing_after_it_is_confirmed() {
    let config = ready_with("too_large", &["max.message.bytes=10000"], TABLE);
    let mut it = spawn(&config, &[]);
    streams(&mut it);
    postgres().sql_in(
        "too_large",
        "insert into t select i, repeat('a', i) from generate_series(1, 10) i",
    );
    kafka().wait("too_large", 10, LIMIT);
    postgres().sql_in("too_large", "insert into t values (11, repeat('b', 20000))");
    postgres().sql_in("too_large", "insert into t values (12, 'c')");
    let words = ["public.t", "(key: id)", "max.message.bytes", "10000"];
    let said = ended(&mut it, 65, &words);
    assert!(!said.contains("bbb"), "{said}");
    let again = halts(&config, &[], 65, &words);
    assert_eq!(again, said);
    assert!(confirmed_up_to("too_large", &said));
    let ten: Vec<_> = (1..=10).map(|id| id.to_string()).collect();
    assert_eq!(keys("too_large"), ten);
}

#[test]
fn a_row_over_max_message_ends_with_65_every_time_and_nothing_after_it_is_confirmed() {
    let config = ready_with("long_message", &["max.message.bytes=2000000"], TABLE);
    let set = ["postgres.max_message=1MiB"];
    let mut it = spawn(&config, &set);
    streams(&mut it);
    // The first just fits.
    postgres().sql_in("long_message", "insert into t values (1, repeat('a', 1048000))");
    kafka().wait("long_message", 1, LIMIT);
    postgres().sql_in("long_message", "insert into t values (2, repeat('b', 1048600))");
    postgres().sql_in("long_message", "insert into t values (3, 'c')");
    let written = postgres().sql_in("long_message", "select pg_current_wal_lsn()");
    let words = ["slot long_message", "postgres.max_message", "4 to 1048576"];
    let said = ended(&mut it, 65, &words);
    assert!(!said.contains("bbb"), "{said}");
    assert_eq!(halts(&config, &set, 65, &words), said);
    let behind = format!("select '{}'::pg_lsn < '{written}'", confirmed("long_message"));
    assert_eq!(postgres().sql(&behind), "t");
    assert_eq!(keys("long_message"), ["1"]);
    // What it says helps.
    let mut it = spawn(&config, &[]);
    kafka().wait("long_message", 3, LIMIT);
    stops(&mut it);
    assert_eq!(keys("long_message"), ["1", "2", "3"]);
}

#[test]
fn a_truncate_into_a_compacted_topic_is_warned_of_and_ends_with_65() {
    let config = ready_with("compacted", &["cleanup.policy=compact"], TABLE);
    let mut it = spawn(&config, &[]);
    streams(&mut it);
    let log = it.log();
    let warns = |line: &&str| {
        line.contains("WARN") && line.contains("compacted") && line.contains("truncate")
    };
    assert_eq!(log.lines().filter(warns).count(), 1, "{log}");
    postgres().sql_in("compacted", "insert into t values (1)");
    kafka().wait("compacted", 1, LIMIT);
    postgres().sql_in("compacted", "truncate t");
    let said = ended(&mut it, 65, &["public.t", "compacted", "truncate = \"skip\""]);
    assert!(confirmed_up_to("compacted", &said));
    assert_eq!(keys("compacted"), ["1"]);
    // What it says helps.
    let mut it = spawn(&config, &["truncate=skip"]);
    postgres().sql_in("compacted", "insert into t values (2)");
    kafka().wait("compacted", 2, LIMIT);
    stops(&mut it);
    assert_eq!(keys("compacted"), ["1", "2"]);
}

#[test]
fn bytes_that_are_no_text_end_with_65_and_name_slot_position_and_cure() {
    let name = "ascii";
    postgres().drop_slots(name);
    postgres().sql(&format!("drop database if exists {name} with (force)"));
    postgres().sql(&format!(
        "create database {name} template template0 encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'"
    ));
    postgres().sql_in(name, TABLE);
    postgres().sql_in(name, "select pg_create_logical_replication_slot('ascii', 'pgoutput')");
    kafka().topic(name, 1);
    let config = config(&postgres().url_of(name), name);
    postgres().sql_in(name, "insert into t values (1, 'a')");
    postgres().sql_in(name, r"insert into t values (2, E'b\xff')");
    let words = ["slot ascii", "0xff", "UTF8", "pg_replication_slot_advance()"];
    let said = halts(&config, &[], 65, &words);
    let lsn = |word: &str| {
        word.split('/').all(|half| !half.is_empty() && half.chars().all(|c| c.is_ascii_hexdigit()))
    };
    let mut words = said.split([' ', ',', ':', ';', '\n']);
    assert!(words.any(|word| word.contains('/') && lsn(word)), "no LSN in {said}");
    let before = confirmed(name);
    halts(&config, &[], 65, &["slot ascii"]);
    assert_eq!(confirmed(name), before);
}

#[test]
fn a_topic_that_is_not_there_ends_with_69_and_the_command_for_it() {
    let config = ready("no_topic");
    let broker = kafka().brokers();
    let command = format!("--bootstrap-server {broker} --create --topic absent --partitions 1");
    let words = ["topic absent does not exist", "kafka-topics.sh", &command, "topic.create = true"];
    halts(&config, &["tables.public.t=absent"], 69, &words);
    assert!(!kafka().topics("list", &[]).lines().any(|topic| topic == "absent"));
}

#[test]
fn a_wrong_password_for_kafka_ends_with_77() {
    let config = ready("wrong_login");
    let brokers = format!("kafka.brokers={}", kafka().listener("sasl_plaintext"));
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let mechanism_is = format!("kafka.sasl.mechanism={mechanism}");
        let set = [
            &brokers,
            &mechanism_is,
            "kafka.sasl.user=sluice",
            "kafka.sasl.password=wr0ng-pa55word",
        ];
        halts(&config, &set, 77, &["refused the login of sluice", mechanism]);
    }
}

#[test]
fn what_kafka_does_not_allow_ends_with_77_and_the_command_that_allows_it() {
    let config = ready("acl");
    let brokers = format!("kafka.brokers={}", kafka().listener("sasl_plaintext"));
    let login = [
        brokers.as_str(),
        "kafka.sasl.mechanism=SCRAM-SHA-512",
        "kafka.sasl.user=sluice",
        "kafka.sasl.password=sluice-secret",
    ];
    let grant = "kafka-acls.sh --add --allow-principal User:sluice --operation";
    let allow = |operation: &str, resource: &str| kafka().topics("allow", &[operation, resource]);
    halts(&config, &login, 77, &[&format!("{grant} Describe --topic acl")]);
    allow("DESCRIBE", "acl");
    halts(&config, &login, 77, &[&format!("{grant} IdempotentWrite --cluster")]);
    allow("IDEMPOTENT_WRITE", "cluster");
    postgres().sql_in("acl", "insert into t values (1), (2)");
    let before = confirmed("acl");
    halts(&config, &login, 77, &[&format!("{grant} Write --topic acl")]);
    assert_eq!((confirmed("acl"), kafka().count("acl")), (before, 0));
    allow("WRITE", "acl");
    let mut it = spawn(&config, &login);
    kafka().wait("acl", 2, LIMIT);
    stops(&mut it);
    // These rights it can do without, and says so.
    let log = it.log();
    let said = |log: &str, words: &str| log.lines().filter(|line| line.contains(words)).count();
    let system = postgres().sql("select system_identifier from pg_control_system()");
    let id = format!("pgsluice-{system}-acl");
    assert_eq!(said(&log, "DescribeConfigs"), 1, "{log}");
    assert_eq!(said(&log, "rows may be repeated"), 1, "{log}");
    assert_eq!(said(&log, &format!("{grant} Write --transactional-id {id}")), 1, "{log}");
    assert_eq!(keys("acl"), ["1", "2"]);
    // But not whoever wants transactions.
    let atomic = [&login[..], &["kafka.delivery=transactional"]].concat();
    let both = format!("{grant} Write --transactional-id {id} --transactional-id {id}-tx");
    halts(&config, &atomic, 77, &[&both]);
    makes_no_slot(&config, &login);
    for (operation, resource, topic, group) in [
        ("WRITE", format!("txn:{id}"), 1, 1),
        // Then no note is of that topic.
        ("READ", format!("group:{id}"), 1, 0),
        ("READ", "acl".to_owned(), 0, 0),
    ] {
        allow(operation, &resource);
        let mut it = spawn(&config, &login);
        it.wait_log(LIMIT, &["streaming"]);
        // It comes back to the topics, and says the same no second time.
        postgres().sql("select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = 'acl'");
        it.wait_log(LIMIT, &["connected again"]);
        stops(&mut it);
        let log = it.log();
        assert_eq!(said(&log, "rows may be repeated") > 0, topic > 0, "{log}");
        assert_eq!(said(&log, &format!("{grant} Read --topic acl")) > 0, topic > 0, "{log}");
        assert_eq!(said(&log, "gaps may go unnoticed"), group, "{log}");
        assert_eq!(said(&log, &format!("{grant} Read --group {id}")), group, "{log}");
        assert!(said(&log, "\"transactional\" would not be shut out") > 0, "{log}");
        halts(&config, &atomic, 77, &[&format!("{grant} Write --transactional-id {id}-tx")]);
    }
    allow("WRITE", &format!("txn:{id}-tx"));
    postgres().sql_in("acl", "insert into t values (3)");
    let mut it = spawn(&config, &atomic);
    kafka().wait("acl", 3, LIMIT);
    stops(&mut it);
    assert!(!it.log().contains("would not be shut out"), "{}", it.log());
}

/// Nobody can tell whether one that is missing was there before.
fn makes_no_slot(config: &str, login: &[&str]) {
    let create = ["slot.name=acl_untold", "slot.create=true", "slot.missing_timeout=0s"];
    let words =
        ["neither consumer group \"pgsluice-", "pg_create_logical_replication_slot('acl_untold'"];
    halts(config, &[login, &create].concat(), 77, &words);
    let made = "select count(*) from pg_replication_slots where slot_name = 'acl_untold'";
    assert_eq!(postgres().sql(made), "0");
}

#[test]
fn transactions_longer_than_the_broker_takes_end_with_78() {
    let config = ready("long");
    let brokers = format!("kafka.brokers={}", kafka().brokers());
    let sets = [brokers.as_str(), "kafka.delivery=transactional", "kafka.transaction.max_time=15m"];
    let words =
        ["INVALID_TRANSACTION_TIMEOUT", "kafka.transaction.max_time", "transaction.max.timeout.ms"];
    halts(&config, &sets, 78, &words);
}

#[test]
fn a_port_of_admin_listen_that_is_taken_ends_with_78() {
    let port = PORTS.admin(0);
    let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let config = config(guarded().url(), "admin");
    let address = format!("127.0.0.1:{port}");
    let set = format!("admin.listen={address}");
    halts(&config, &[&set], 78, &["admin.listen", &address, "in use"]);
}
