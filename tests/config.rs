//! The configuration as people write it: files, variables, `--set`, and every way to get it wrong.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use pgsluice::{
    config::{Config, Invalid, Purpose, Sources, load},
    net::{SecretSource, Verify},
    pg::connect::{Host, TargetSession},
    route::Unlisted,
};

/// The least that can run.
const LEAST: &str = r#"
[postgres]
user = "u"
[publication]
name = "p"
[slot]
name = "s"
[kafka]
brokers = ["k:9092"]
"#;

/// A file of its own for one test.
fn file(ending: &str, text: impl AsRef<[u8]>) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("config-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name).with_extension(ending);
    fs::write(&path, text).expect("the test folder can be written to");
    path
}

#[derive(Default)]
struct Given {
    file: Option<PathBuf>,
    vars: BTreeMap<OsString, OsString>,
    set: Vec<(String, String)>,
}

impl Given {
    fn toml(text: &str) -> Self {
        Self { file: Some(file("toml", text)), ..Self::default() }
    }

    /// The least that can run, and this.
    fn least(more: &str) -> Self {
        Self::toml(&format!("{more}\n{LEAST}"))
    }

    fn var(mut self, name: &str, value: &str) -> Self {
        self.vars.insert(name.into(), value.into());
        self
    }

    fn set(mut self, key: &str, value: &str) -> Self {
        self.set.push((key.into(), value.into()));
        self
    }

    fn load(self) -> Result<Config, Invalid> {
        self.load_for(Purpose::Run)
    }

    fn load_for(self, purpose: Purpose) -> Result<Config, Invalid> {
        let search = vec!["/nowhere/pgsluice.toml".into(), "/nowhere/else.toml".into()];
        load(&Sources { file: self.file, search, vars: self.vars, set: self.set }, purpose)
    }

    fn good(self) -> Config {
        self.load().unwrap_or_else(|invalid| panic!("{invalid}"))
    }

    /// What is said when it is refused.
    fn bad(self) -> String {
        match self.load() {
            Ok(config) => panic!("taken:\n{}", config.listing),
            Err(invalid) => invalid.to_string(),
        }
    }
}

#[track_caller]
fn says(text: &str, all: &[&str]) {
    for wanted in all {
        assert!(text.contains(wanted), "no {wanted:?} in:\n{text}");
    }
}

#[test]
fn toml_yaml_and_json_give_the_same() {
    let toml = r#"
        truncate = "skip"
        [postgres]
        url = "postgres://u:pw@db:5433/d"
        connect_timeout = "3s"
        [publication]
        name = ["p", "q"]
        [slot]
        name = "s"
        failover = true
        [kafka]
        brokers = ["a:1", "b:2"]
        [tables]
        "public.a" = "x"
        "public.b" = { topic = "y", key = ["k", "l"] }
        [topic]
        partitions = 3
        [topic.config]
        "retention.ms" = 86400000
        [batch]
        max_bytes = "2MiB"
    "#;
    let yaml = "
truncate: skip
postgres: {url: 'postgres://u:pw@db:5433/d', connect_timeout: 3s}
publication:
  name: [p, q]
slot: {name: s, failover: true}
kafka:
  brokers:
    - a:1
    - b:2
tables:
  public.a: x
  public.b: {topic: y, key: [k, l]}
topic:
  partitions: 3
  config: {retention.ms: 86400000}
batch: {max_bytes: 2MiB}
format:
";
    let json = r#"{"truncate": "skip",
        "postgres": {"url": "postgres://u:pw@db:5433/d", "connect_timeout": "3s"},
        "publication": {"name": ["p", "q"]}, "slot": {"name": "s", "failover": true},
        "kafka": {"brokers": ["a:1", "b:2"]},
        "tables": {"public.a": "x", "public.b": {"topic": "y", "key": ["k", "l"]}},
        "topic": {"partitions": 3, "config": {"retention.ms": 86400000}},
        "batch": {"max_bytes": "2MiB"}}"#;
    let read = |ending: &str, text: &str| {
        let path = file(ending, text);
        let config = Given { file: Some(path.clone()), ..Given::default() }.good();
        let listing = config.listing.replace(&path.display().to_string(), "FILE");
        format!("{:?}{listing}", config.app)
    };
    let first = read("toml", toml);
    says(&first, &["Tcp(\"db\", 5433)", "retention.ms\": \"86400000", "Skip"]);
    assert_eq!(first, read("yaml", yaml));
    assert_eq!(first, read("yml", yaml));
    assert_eq!(first, read("json", json));
}

#[test]
fn what_is_nearer_to_the_command_wins() {
    let level = |given: Given| given.good().app.kafka.client_id;
    let in_file = || Given::toml(&LEAST.replace("[kafka]", "[kafka]\nclient_id = \"file\""));
    assert_eq!(level(Given::least("")), "pgsluice");
    assert_eq!(level(in_file()), "file");
    let and_variable = || in_file().var("PGSLUICE_KAFKA__CLIENT_ID", "variable");
    assert_eq!(level(and_variable()), "variable");
    assert_eq!(level(and_variable().set("kafka.client_id", "set")), "set");
    assert_eq!(level(and_variable().set("kafka.client_id", "a").set("kafka.client_id", "b")), "b");
}

#[test]
fn libpqs_variables_fill_what_the_file_leaves_open() {
    let given = Given::least("")
        .var("PGHOST", "db")
        .var("PGPORT", "6000")
        .var("PGUSER", "other")
        .var("PGDATABASE", "d")
        .var("PGPASSWORD", "0123")
        .var("PGSSLMODE", "require")
        .var("PGCONNECT_TIMEOUT", "7")
        .var("PGTARGETSESSIONATTRS", "primary")
        .var("PGAPPNAME", "")
        .good();
    let pg = given.app.postgres;
    assert_eq!(pg.hosts, [Host::Tcp("db".into(), 6000)]);
    assert_eq!((pg.user.as_str(), pg.database.as_str()), ("u", "d"));
    assert_eq!(pg.password.unwrap().read().unwrap().reveal(), "0123");
    assert_eq!(pg.tls.unwrap().verify, Verify::Nothing);
    assert_eq!(pg.tcp.connect_timeout, Duration::from_secs(7));
    assert_eq!(pg.target, TargetSession::Primary);
    assert_eq!(pg.application_name, "pgsluice");
}

#[test]
fn a_service_stands_between_libpqs_variables_and_the_file() {
    let services = file("conf", "[cdc]\nhost=from-service\nport=1\nuser=nobody\n");
    let given = Given::least("")
        .var("PGSERVICEFILE", &services.to_string_lossy())
        .var("PGSERVICE", "cdc")
        .var("PGHOST", "from-variable")
        .var("PGDATABASE", "d");
    let pg = given.good().app.postgres;
    assert_eq!(pg.hosts, [Host::Tcp("from-service".into(), 1)]);
    assert_eq!((pg.user.as_str(), pg.database.as_str()), ("u", "d"));
    says(&Given::least("").var("PGSERVICE", "gone").bad(), &["postgres.service", "\"gone\""]);
}

#[test]
fn a_password_that_looks_like_a_number_stays_text() {
    for text in ["0123", "1e5", "true", "[1]", "{a}", "\"quoted\"", "", "ä ö"] {
        for given in [
            Given::least("").var("PGSLUICE_POSTGRES__PASSWORD", text),
            Given::least("").set("postgres.password", text),
        ] {
            assert_eq!(given.good().app.postgres.password.unwrap().read().unwrap().reveal(), text);
        }
    }
}

#[test]
fn lists_and_tables_come_from_variables_and_the_command_line() {
    let app = Given::least("")
        .var("PGSLUICE_KAFKA__BROKERS", "[\"a:1\", \"b:2\"]")
        .var("PGSLUICE_TABLES", "{\"public.a\" = \"x\", \"public.b\" = {key = [\"k\"]}}")
        .var("PGSLUICE_TOPIC__CONFIG", "{\"cleanup.policy\": \"compact\"}")
        .set("tables.public.c", "z")
        .set("tables.\"public.b\".topic", "y")
        .set("topic.config.retention.ms", "5")
        .set("headers", "[]")
        .good()
        .app;
    assert_eq!(app.kafka.brokers, [("a".into(), 1), ("b".into(), 2)]);
    let topics: Vec<_> = app.route.tables.values().map(|t| t.topic.clone().unwrap()).collect();
    assert_eq!(topics, ["x", "y", "z"]);
    assert_eq!(app.route.tables["public.b"].key.as_deref(), Some(&["k".to_owned()][..]));
    assert_eq!(app.kafka.topic.config["cleanup.policy"], "compact");
    assert_eq!(app.kafka.topic.config["retention.ms"], "5");
    assert!(app.encode.headers.is_empty());
    let comma = Given::least("").var("PGSLUICE_KAFKA__BROKERS", "a:1, [::1]:2").good();
    assert_eq!(comma.app.kafka.brokers, [("a".into(), 1), ("::1".into(), 2)]);
}

#[test]
fn kafka_topic_settings_may_stand_without_quotes() {
    let app = Given::least("[topic.config]\nretention.ms = 5\nmin.insync.replicas = 2").good().app;
    assert_eq!(app.kafka.topic.config["retention.ms"], "5");
    assert_eq!(app.kafka.topic.config["min.insync.replicas"], "2");
}

#[test]
fn several_hosts_share_a_port_or_have_one_each() {
    let hosts = |url: &str| {
        let text = LEAST.replace("user = \"u\"", &format!("url = \"{url}\"\nuser = \"u\""));
        Given::toml(&text).good().app.postgres.hosts
    };
    let tcp = |host: &str, port| Host::Tcp(host.into(), port);
    assert_eq!(hosts("postgres://a,b/"), [tcp("a", 5432), tcp("b", 5432)]);
    assert_eq!(hosts("postgres://a:1,b/"), [tcp("a", 1), tcp("b", 5432)]);
    assert_eq!(hosts("postgres://a:1,[::2]:2/"), [tcp("a", 1), tcp("::2", 2)]);
    assert_eq!(hosts("host=/tmp port=7"), [Host::Unix("/tmp".into(), 7)]);
    assert_eq!(hosts("postgres://%2Ftmp/"), [Host::Unix("/tmp".into(), 5432)]);
    let list = LEAST.replace("user", "hosts = [\"a\", \"b\"]\nport = [1, 2]\nuser");
    assert_eq!(Given::toml(&list).good().app.postgres.hosts, [tcp("a", 1), tcp("b", 2)]);
    let uneven = LEAST.replace("user", "host = \"a,b,c\"\nport = \"1,2\"\nuser");
    says(&Given::toml(&uneven).bad(), &["postgres.port has 2 ports for 3 hosts"]);
}

#[test]
fn a_url_and_a_key_may_not_say_two_things_in_one_place() {
    let with = |more: &str| {
        Given::toml(&LEAST.replace("user = \"u\"", &format!("url = \"postgres://u@h/d\"\n{more}")))
    };
    with("database = \"d\"\nhost = \"h\"").good();
    says(
        &with("database = \"e\"\nuser = \"v\"").bad(),
        &["postgres.url says something else than postgres.database", "postgres.user"],
    );
    // In another place the nearer one wins, for what it says.
    let pg = with("").set("postgres.database", "e").good().app.postgres;
    assert_eq!((pg.user.as_str(), pg.database.as_str()), ("u", "e"));
    let pg = with("").set("postgres.url", "postgres://i").good().app.postgres;
    assert_eq!((pg.hosts, pg.database.as_str()), (vec![Host::Tcp("i".into(), 5432)], "d"));
}

#[test]
fn an_unknown_parameter_of_the_url_is_named() {
    for (url, words) in [
        ("postgres://u@h/d?pgbouncer=true", "pgbouncer"),
        ("postgres://u@h/d?sslmod=require", "did you mean sslmode?"),
        ("postgres://u@h/d?sslcrl=x", "sslcrl, which is not supported"),
        ("host=a hostaddr=1.2.3.4", "an address beside a host name"),
    ] {
        let text = LEAST.replace("user", &format!("url = \"{url}\"\nuser"));
        says(&Given::toml(&text).bad(), &[words, "postgres.url"]);
    }
}

#[test]
fn tls_is_on_off_this_machine_and_never_by_halves() {
    let verify = |host: &str, more: &str| {
        let text = LEAST.replace("user", &format!("host = \"{host}\"\n{more}\nuser"));
        Given::toml(&text).good().app.postgres.tls.map(|tls| (tls.verify, tls.ca.is_some()))
    };
    for host in ["localhost", "127.0.0.1", "::1", "/run/postgresql", "localhost,127.0.0.2"] {
        assert_eq!(verify(host, ""), None, "{host}");
    }
    for host in ["db", "10.0.0.1", "localhost,db"] {
        assert_eq!(verify(host, ""), Some((Verify::Full, false)), "{host}");
    }
    let ca = format!("sslrootcert = {:?}", file("pem", "x"));
    assert_eq!(verify("localhost", &ca), Some((Verify::Full, true)));
    assert_eq!(verify("db", "sslmode = \"disable\""), None);
    assert_eq!(verify("db", "sslmode = \"require\""), Some((Verify::Nothing, false)));
    assert_eq!(verify("db", &format!("sslmode = \"require\"\n{ca}")), Some((Verify::Ca, true)));
    assert_eq!(verify("db", "sslrootcert = \"system\""), Some((Verify::Full, false)));
    for (lines, words) in [
        ("sslmode = \"prefer\"", "falls back to plain text"),
        ("sslmode = \"allow\"", "plain text"),
        ("sslmode = \"verify_full\"", "did you mean verify-full?"),
        ("sslmode = \"verify-ca\"\nhost = \"db\"", "the system's CAs sign for anybody"),
        ("sslmode = \"require\"\nsslrootcert = \"system\"", "the system's CAs sign for anybody"),
        ("sslcert = \"/nowhere/c.pem\"", "cannot be read"),
        ("sslcert = \"/nowhere/c.pem\"", "needs postgres.sslkey too"),
        ("sslrootcert = \"/\"", "cannot be read"),
        ("channel_binding = \"require\"", "needs TLS"),
    ] {
        says(&Given::toml(&LEAST.replace("user", &format!("{lines}\nuser"))).bad(), &[words]);
    }
}

#[test]
fn weak_tls_is_said_aloud() {
    let warnings = |given: Given| given.good().warnings.join("\n");
    let given = || Given::least("").set("postgres.host", "db");
    says(&warnings(given().set("postgres.sslmode", "disable")), &["sslmode is disable"]);
    says(&warnings(given().set("postgres.sslmode", "require")), &["only verify-full"]);
    says(&warnings(given()), &["kafka.tls is off"]);
    says(&warnings(given().set("headers", "op")), &["headers has no id"]);
    let local = given().set("kafka.brokers", "localhost:1");
    assert_eq!(warnings(local), "");
}

#[test]
fn a_secret_has_one_place() {
    let secret = file("password", "from file\n");
    let path = secret.to_string_lossy();
    let both = LEAST.replace("user", &format!("password = \"x\"\npassword_file = {path:?}\nuser"));
    says(&Given::toml(&both).bad(), &["postgres.password and postgres.password_file are both set"]);
    let read = |given: Given| given.good().app.postgres.password.unwrap().read().unwrap();
    let in_file = LEAST.replace("user", &format!("password_file = {path:?}\nuser"));
    assert_eq!(read(Given::toml(&in_file).var("PGPASSWORD", "x")).reveal(), "from file");
    assert_eq!(read(Given::toml(&in_file).set("postgres.password", "x")).reveal(), "x");
    let passfile = LEAST.replace("user", &format!("passfile = {path:?}\nuser"));
    let pg = Given::toml(&passfile).var("PGPASSWORD", "x").good().app.postgres;
    assert_eq!((pg.password, pg.passfile), (None, Some(secret.clone())));
    says(&Given::least("").set("postgres.password_file", "/nowhere/p").bad(), &["cannot be read"]);
    let sasl = Given::least("")
        .set("kafka.sasl.mechanism", "PLAIN")
        .set("kafka.sasl.user", "me")
        .set("kafka.sasl.password_file", &path);
    assert_eq!(sasl.good().app.kafka.sasl.unwrap().password, SecretSource::File(secret.clone()));
    says(
        &Given::least("").set("kafka.sasl.user", "me").bad(),
        &["needs kafka.sasl.mechanism too", "needs kafka.sasl.password or"],
    );
}

#[test]
fn a_credential_of_systemd_is_found_by_every_key_that_takes_a_file() {
    let secret = file("secret", "x\n");
    let (folder, name) = (secret.parent().unwrap().to_str().unwrap(), secret.file_name().unwrap());
    let name = name.to_str().unwrap();
    let keys = [
        "postgres.password_file",
        "postgres.passfile",
        "postgres.sslrootcert",
        "postgres.sslcert",
        "postgres.sslkey",
        "kafka.tls.ca",
        "kafka.tls.cert",
        "kafka.tls.key",
        "kafka.sasl.password_file",
    ];
    for key in keys {
        for prefix in ["$CREDENTIALS_DIRECTORY/", "${CREDENTIALS_DIRECTORY}/"] {
            let written = format!("{prefix}{name}");
            // What else the key needs is of no matter: the file itself is found, or is what is wrong.
            let wrong = |given: Given| {
                let refused = given.set(key, &written).load().err();
                let problems = refused.map(|invalid| invalid.problems).unwrap_or_default();
                let ours = problems.into_iter().filter(|p| p.key == key);
                ours.map(|p| p.why).filter(|why| !why.starts_with("needs ")).collect::<Vec<_>>()
            };
            let unset = wrong(Given::least(""));
            let why = "begins with $CREDENTIALS_DIRECTORY, which is not set";
            assert!(unset.iter().any(|said| said.starts_with(why)), "{key}: {unset:?}");
            for folder in [folder, &format!("{folder}/")] {
                let set = wrong(Given::least("").var("CREDENTIALS_DIRECTORY", folder));
                assert_eq!(set, Vec::<String>::new(), "{key}");
            }
            let elsewhere = wrong(Given::least("").var("CREDENTIALS_DIRECTORY", "/nowhere"));
            let at = format!("is \"/nowhere/{name}\", which cannot be read");
            assert!(elsewhere.iter().any(|said| said.starts_with(&at)), "{key}: {elsewhere:?}");
        }
    }
    let config = Given::least("")
        .set("postgres.password_file", &format!("$CREDENTIALS_DIRECTORY/{name}"))
        .var("CREDENTIALS_DIRECTORY", folder)
        .good();
    let password = config.app.postgres.password.map(|source| source.read().unwrap());
    assert_eq!(password.unwrap().reveal(), "x");
    // Nothing else is expanded.
    let text = Given::least("")
        .set("postgres.password_file", "$HOME/$CREDENTIALS_DIRECTORY/x")
        .var("HOME", folder)
        .var("CREDENTIALS_DIRECTORY", folder)
        .bad();
    says(&text, &["postgres.password_file is \"$HOME/$CREDENTIALS_DIRECTORY/x\", which cannot"]);
}

#[test]
fn no_secret_is_printed_or_shown_by_debug() {
    let text = LEAST.replace("user = \"u\"", "url = \"postgres://u:geheim1@h/d\"");
    let config = Given::toml(&text)
        .set("kafka.sasl.mechanism", "PLAIN")
        .set("kafka.sasl.user", "me")
        .set("kafka.sasl.password", "geheim2")
        .good();
    let shown = format!("{}{:?}{:?}{:?}", config.listing, config, config.app, config.warnings);
    assert!(!shown.contains("geheim"), "{shown}");
    says(&config.listing, &["password = \"***\""]);
    for given in [
        Given::least("").set("postgres.url", "postgres://u:geheim@h/d?x=geheim"),
        Given::least("").set("postgres.url", "postgres://u:geheim%@h"),
        Given::least("").set("postgres.url", "password=geheim geheim"),
        Given::toml("[postgres]\npassword = \"geheim\nuser = 1"),
        Given::toml("[postgres]\npassword = geheim"),
        Given::toml("[postgres]\npassword = [\"geheim\"]"),
        Given::toml("[postgres]\npasword = \"geheim\""),
        Given {
            file: Some(file("json", "{\"postgres\": {\"password\": \"geheim\" x")),
            ..Given::default()
        },
        Given { file: Some(file("yaml", "postgres: {password: \"geheim\" x")), ..Given::default() },
    ] {
        let said = given.bad();
        assert!(!said.contains("geheim"), "{said}");
    }
}

type Case = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

/// A file, what is set over it, and variables, with the marker `geheim` where a secret may be, is
/// often put, or lands by mistake.
const SECRETS: &[Case] = &[
    ("[postgres]\npassword = \"geheim\"", &[], &[]),
    ("[postgres]\npasword = \"geheim\"", &[], &[]),
    ("[postgres]\npassword = [\"geheim\"]", &[], &[]),
    ("[postgres]\npassword = { a = \"geheim\" }", &[], &[]),
    ("[postgres.password]\ngeheim = 1", &[], &[]),
    ("[postgres]\nport = 1\npassword = \"geheim", &[], &[]),
    ("[postgres]\nurl = \"postgres://a:geheim@b/c\"", &[], &[]),
    ("[postgres]\nurl = \"postgres://a:geheim@b:x/c?y=geheim\"", &[], &[]),
    ("[postgres]\nurl = \"host=a pasword=geheim\"", &[], &[]),
    ("[postgres]\nurl = \"host=a password='geheim\"", &[], &[]),
    ("postgres = \"geheim\"", &[], &[]),
    ("password = \"geheim\"", &[], &[]),
    ("", &["postgres.password=geheim"], &[]),
    ("", &["postgres.pasword=geheim"], &[]),
    ("", &["postgres.password.x=geheim"], &[]),
    ("", &["postgres=geheim"], &[]),
    ("", &["postgres.url=postgres://a:geheim@b/c", "postgres.password=geheim2"], &[]),
    ("", &["kafka.sasl.mechanism=PLAIN", "kafka.sasl.user=u", "kafka.sasl.password=geheim"], &[]),
    ("", &["kafka.sasl.password=geheim"], &[]),
    ("", &["kafka.sasl.pasword=geheim"], &[]),
    ("", &["tables=geheim", "topic.config=geheim"], &[]),
    ("", &["geheim"], &[]),
    ("", &[], &[("PGPASSWORD", "geheim")]),
    ("", &[], &[("PGSLUICE_POSTGRES__PASSWORD", "geheim")]),
    ("", &[], &[("PGSLUICE_POSTGRES__PASWORD", "geheim")]),
    ("", &[], &[("PGSLUICE_KAFKA__SASL", "{password = \"geheim\"}")]),
    ("", &[], &[("PGSLUICE_POSTGRES__URL", "postgres://a:geheim@b:c:d")]),
];

#[test]
fn no_secret_is_printed_by_the_binary_wherever_it_stands() {
    for (text, set, vars) in SECRETS {
        let file =
            file("toml", format!("{text}\n{}", LEAST.replace("[postgres]\nuser = \"u\"", "")));
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgsluice"));
        command.env_clear().env("PGUSER", "u").envs(vars.iter().copied());
        command.arg("config").arg("-c").arg(file);
        let output = command.args(set.iter().flat_map(|pair| ["--set", pair])).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!said.contains("geheim"), "{text:?} {set:?} {vars:?}: {said}");
        assert!([Some(0), Some(64), Some(78)].contains(&output.status.code()), "{said}");
    }
}

/// Something wrong in nearly every line.
const WRONG: &str = r#"
turncate = "table"
[postgres]
usr = "u"
port = 70000
connect_timeout = 5
[publication]
name = []
[slot]
name = "Bad-Name"
[kafak]
brokers = ["a:1"]
[kafka]
brokers = ["a"]
compression = "zstd"
delivery = "exactly-once"
partitioner = "murmur3"
[tables]
users = "u"
"public.a" = { topic = "b c", kay = ["x"] }
[topic]
template = "{db}.{table}"
partitions = 0
[format]
value = "debezium"
[batch]
linger = "5 fortnights"
max_bytes = "-1"
in_flight = "99999999999TiB"
[admin]
listen = ":8081"
[log]
level = "inof"
"#;

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let given = Given::toml(WRONG);
    let name = given.file.clone().unwrap().display().to_string();
    let said = given.bad();
    says(
        &said,
        &[
            &format!("{name}: turncate is not a key; did you mean truncate?"),
            "postgres.usr is not a key; did you mean postgres.user?",
            "postgres.port is \"70000\", not a port",
            "postgres.connect_timeout has no unit: write \"5ms\" or \"5s\"",
            "postgres.user is not set",
            "publication.name is an empty list",
            "slot.name is \"Bad-Name\"; PostgreSQL takes lower-case letters",
            "kafak.brokers is not a key; did you mean kafka.brokers?",
            "kafka.brokers lists \"a\", which has no port",
            "kafka.compression is \"zstd\", for which there is no encoder without a C library",
            "kafka.delivery is \"exactly-once\"",
            "kafka.partitioner is \"murmur3\"",
            "did you mean murmur2?",
            "tables.users must name schema and table",
            "tables.\"public.a\" cannot be used: \"b c\"",
            "tables.\"public.a\".kay is not a key; a table has topic and key; did you mean key?",
            "topic.template cannot be used: ",
            "topic.partitions is 0; it must be from 1 to 100000",
            "format.value is \"debezium\"",
            "batch.linger is \"5 fortnights\", not a time",
            "batch.max_bytes is \"-1\", not a size",
            "batch.in_flight is \"99999999999TiB\"; it must be",
            "admin.listen is \":8081\", not address:port",
            "log.level is \"inof\"",
        ],
    );
}

#[test]
fn the_watermark_that_nobody_set_follows_a_small_read_buffer() {
    let config = Given::least("").set("postgres.read_buffer", "32KiB").load().unwrap();
    assert_eq!(config.app.stream.low_watermark, 16 << 10);
    assert!(config.listing.contains("low_watermark = \"16KiB\""), "{}", config.listing);
}

#[test]
fn a_transactional_id_is_neither_empty_nor_longer_than_a_name() {
    let with = |id: &str| Given::least("").set("kafka.transactional_id", id);
    for id in [String::new(), "x".repeat(250)] {
        says(&with(&id).bad(), &["kafka.transactional_id must have 1 to 249 bytes"]);
    }
    let app = with("mine").load().unwrap().app;
    assert_eq!(app.once.transactional_id.as_deref(), Some("mine"));
    let app = Given::least("").load().unwrap().app;
    assert_eq!(app.once.transactional_id, None);
}

#[test]
fn transactions_have_bounds_and_need_names() {
    assert_eq!(Given::least("").load().unwrap().app.once.transactions, None);
    let given = || Given::least("").set("kafka.delivery", "transactional");
    let all = given().load().unwrap().app.once.transactions.unwrap();
    assert_eq!(all.interval, Duration::from_millis(100));
    assert_eq!((all.max_bytes, all.max_time), (1 << 30, Duration::from_secs(60)));
    let nameless = given().set("headers", "[\"op\"]");
    says(&nameless.bad(), &["kafka.delivery is \"transactional\", which needs the header id"]);
    let long = given().set("kafka.transaction.interval", "20s");
    let long = long.set("kafka.transaction.max_time", "10s");
    let why = "does not go with kafka.transaction.max_time: the interval is the longer one";
    says(&long.bad(), &[&format!("kafka.transaction.interval {why}")]);
}

#[test]
fn a_value_of_the_wrong_type_is_named() {
    for (key, line, words) in [
        (
            "postgres.password",
            "[postgres]\npassword = 12",
            "is a number, not text: put it in quotes",
        ),
        (
            "postgres.allow_md5",
            "[postgres]\nallow_md5 = \"true\"",
            "not true or false: leave out the quotes",
        ),
        ("topic.partitions", "[topic]\npartitions = 1.5", "is 1.5, not a whole number"),
        ("topic.partitions", "[topic]\npartitions = \"3\"", "leave out the quotes"),
        ("topic.partitions", "[topic]\npartitions = -3", "is -3; it must be from 1"),
        ("topic.replication_factor", "[topic]\nreplication_factor = 0", "is 0; it must be -1"),
        ("batch", "batch = 1", "is a number, not a section of keys"),
        ("batch.linger", "[batch]\nlinger = \"5\"", "has no unit"),
        ("batch.linger", "[batch]\nlinger = \"-5ms\"", "not a time"),
        ("batch.linger", "[batch]\nlinger = \"2h\"", "it must be from 0s to 1m"),
        ("batch.max_bytes", "[batch]\nmax_bytes = \"1 parsec\"", "not a size"),
        ("batch.max_bytes", "[batch]\nmax_bytes = -1", "not a size"),
        ("batch.max_bytes", "[batch]\nmax_bytes = \"4MiB\"", "at least 4 times batch.max_bytes"),
        (
            "postgres.low_watermark",
            "[postgres]\nread_buffer = \"32KiB\"\nlow_watermark = \"20KiB\"",
            "at most half of postgres.read_buffer",
        ),
        ("headers", "headers = [\"op\", \"op\"]", "lists op twice"),
        ("headers", "headers = [1]", "has an item that is a number, not text"),
        ("headers", "headers = [\"pos\"]", "none of op id table lsn xid ts"),
        ("truncate", "truncate = \"a b\"", "cannot be used: \"a b\""),
        ("kafka.tls", "[kafka.tls]", "is empty"),
        ("tables", "tables = \"x\"", "is text, not a table"),
        ("tables.public", "[tables]\npublic.users = \"x\"", "in quotes: \"public.users\""),
        ("message.topic", "[message]\ntopic = \"..\"", "cannot be used: \"..\""),
        (
            "postgres.status_interval",
            "[postgres]\nstatus_interval = \"9s\"",
            "a third of postgres.wal_sender_timeout",
        ),
        (
            "postgres.wal_sender_timeout",
            "[postgres]\nwal_sender_timeout = \"10ms\"",
            "0s, for never, or at least 1s",
        ),
    ] {
        let sections = LEAST.replace("[postgres]\n", "");
        let text = match line.strip_prefix("[postgres]\n") {
            Some(line) => LEAST.replace("user", &format!("{line}\nuser")),
            None if line.starts_with('[') => format!("{LEAST}\n{line}"),
            None => format!("{line}\n[postgres]{sections}"),
        };
        says(&Given::toml(&text).bad(), &[key, words]);
    }
}

#[test]
fn an_active_instance_is_ended_neither_too_soon_nor_too_late() {
    let given = |after: &str| Given::least("").set("slot.take_over_after", after);
    assert_eq!(given("0s").good().app.ha.take_over_after, None);
    assert_eq!(given("10s").good().app.ha.take_over_after, Some(Duration::from_secs(10)));
    let soon = "slot.take_over_after must be 0s, for never, or at least \"10s\"";
    says(&given("9s").bad(), &[soon]);
    let late = "slot.take_over_after must be less than postgres.wal_sender_timeout (\"15s\")";
    says(&given("15s").bad(), &[late]);
    let never = || given("9h").set("postgres.wal_sender_timeout", "0s");
    assert_eq!(never().good().app.ha.take_over_after, Some(Duration::from_secs(9 * 3600)));
    let often = given("3s").set("postgres.status_interval", "1500ms").good();
    assert_eq!(often.app.ha.take_over_after, Some(Duration::from_secs(3)));
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_the_line() {
    let bad = |ending: &str, text: &[u8]| {
        let path = file(ending, text);
        let said = Given { file: Some(path.clone()), ..Given::default() }.bad();
        says(&said, &[&path.display().to_string()]);
        // What it would have said is not missing.
        assert!(!said.contains("is not set"), "{said}");
        said
    };
    says(&bad("toml", b"[slot]\nname = \"a\"\nname = \"b\"\n"), &["line 3", "duplicate key"]);
    says(&bad("yaml", b"slot:\n  name: a\n  name: b\n"), &["duplicate key `name`"]);
    says(
        &bad("json", br#"{"slot": {"name": "a", "name": "b"}}"#),
        &["duplicate key `name`", "line 1"],
    );
    says(&bad("toml", b"[slot]\nname = \n"), &["line 2"]);
    says(&bad("json", b"{\n\n,}"), &["line 3"]);
    says(&bad("yaml", b"a: b\n  c: d: e\n"), &["line 2"]);
    says(&bad("json", b"[1]"), &["holds a list, not sections"]);
    says(&bad("toml", b"[slot]\nname = \"\xff\"\n"), &["is not UTF-8, in line 2"]);
    says(&bad("ini", b""), &["ends in none of .toml .yaml .yml .json"]);
    says(&bad("toml", &vec![b'\n'; 5 << 20]), &["cannot be read", "longer than 4194304 bytes"]);
    says(&bad("json", "[".repeat(100_000).as_bytes()), &["is no JSON"]);
    says(&bad("toml", format!("a = {}", "[".repeat(100_000)).as_bytes()), &["is no TOML"]);
    let missing = Given { file: Some("/nowhere/x.toml".into()), ..Given::default() }.bad();
    says(&missing, &["/nowhere/x.toml: cannot be read"]);
    let folder = Given { file: Some(env!("CARGO_TARGET_TMPDIR").into()), ..Given::default() }.bad();
    says(&folder, &["cannot be read"]);
}

#[test]
fn a_path_without_an_end_is_named_with_its_key_and_not_read() {
    let pipe = file("toml", "");
    fs::remove_file(&pipe).expect("it was just made");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    let path = pipe.to_string_lossy();
    says(
        &Given { file: Some(pipe.clone()), ..Given::default() }.bad(),
        &[&*path, "cannot be read: it is no plain file"],
    );
    for wrong in [&*path, "/dev/zero"] {
        for key in
            ["postgres.password_file", "postgres.passfile", "postgres.sslrootcert", "kafka.tls.ca"]
        {
            let given = Given::least("").set(key, wrong);
            says(&given.bad(), &[key, wrong, "which cannot be read: it is no plain file"]);
        }
        let service = Given::least("").var("PGSERVICEFILE", wrong).var("PGSERVICE", "cdc");
        says(&service.bad(), &["postgres.service", wrong, "cannot be read: it is no plain file"]);
    }
    fs::remove_file(&pipe).expect("it is there");
}

#[test]
fn a_table_is_named_in_quotes_and_described_in_short_or_at_length() {
    let routes = |tables: &str| format!("{:?}", Given::least(tables).good().app.route.tables);
    let short = routes("[tables]\n\"public.a\" = \"x\"");
    assert_eq!(routes("[tables]\n\"public.a\" = { topic = \"x\" }"), short);
    assert_eq!(routes("[tables.\"public.a\"]\ntopic = \"x\""), short);
    // TOML reads the dot as a table in a table.
    let unquoted = Given::least("[tables]\npublic.a = \"x\"").bad();
    says(&unquoted, &["tables.public must name schema and table, in quotes: \"public.users\""]);
}

#[test]
fn a_bomb_of_yaml_anchors_is_refused_and_not_blown_up() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, inner) in ('b'..='z').zip('a'..) {
        let items = vec![format!("*{inner}"); 9].join(", ");
        bomb.push_str(&format!("{name}: &{name} [{items}]\n"));
    }
    let path = file("yaml", bomb);
    let output = run(&["config", "-c", &path.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(78));
    says(&String::from_utf8_lossy(&output.stderr), &["is no YAML"]);
}

#[test]
fn a_byte_order_mark_and_crlf_do_no_harm() {
    let text = format!("\u{feff}{}", LEAST.replace('\n', "\r\n"));
    assert_eq!(Given::toml(&text).good().app.slot.name, "s");
}

#[test]
fn without_a_file_both_places_are_named_unless_nothing_is_missing() {
    says(
        &Given::default().bad(),
        &["neither /nowhere/pgsluice.toml nor /nowhere/else.toml", "slot.name is not set"],
    );
    let app = Given::default()
        .var("PGUSER", "u")
        .var("PGSLUICE_PUBLICATION__NAME", "p")
        .var("PGSLUICE_SLOT__NAME", "s")
        .var("PGSLUICE_KAFKA__BROKERS", "a:1")
        .good();
    says(&app.listing, &["# no configuration file", "# PGUSER", "# PGSLUICE_SLOT__NAME"]);
}

#[test]
fn tail_needs_neither_kafka_nor_a_slot() {
    let text = "[postgres]\nuser = \"u\"\n[publication]\nname = \"p\"\n";
    assert!(Given::toml(text).load_for(Purpose::Tail).is_ok());
    says(&Given::toml(text).bad(), &["slot.name is not set", "kafka.brokers is not set"]);
}

#[test]
fn variables_are_checked_like_the_file() {
    says(
        &Given::least("").var("PGSLUICE_KAFKA__BROKER", "a:1").bad(),
        &["PGSLUICE_KAFKA__BROKER: kafka.broker is not a key; did you mean kafka.brokers?"],
    );
    says(
        &Given::least("").var("PGSLUICE_KAFKA_BROKERS", "a:1").bad(),
        &["kafka_brokers is not a key; did you mean kafka.brokers?"],
    );
    says(&Given::least("").var("PGSLUICE_TABLES__PUBLIC__A", "x").bad(), &["give the whole table"]);
    says(&Given::least("").var("PGSLUICE_HEADERS", "[oops").bad(), &["neither TOML nor JSON"]);
    says(&Given::least("").var("PGPORT", "x").bad(), &["PGPORT: postgres.port is \"x\""]);
    says(&Given::least("").set("slot", "x").bad(), &["--set: slot is text, not a section"]);
    says(&Given::least("").set("a..b", "x").bad(), &["a..b is no key"]);
    // Kubernetes sets these for a service of our name.
    Given::least("").var("PGSLUICE_SERVICE_HOST", "1").var("PGSLUICE_PORT", "tcp://1:2").good();
    let mut given = Given::least("");
    given.vars.insert("PGSLUICE_SLOT__NAME".into(), OsStr::from_bytes(b"\xff").into());
    says(&given.bad(), &["PGSLUICE_SLOT__NAME: is not UTF-8"]);
}

#[test]
fn what_goes_on_beside_the_stream_can_be_off_and_is_not_done_too_often() {
    let vigil = Given::least("").good().app.vigil;
    let seconds = (vigil.heartbeat.as_secs(), vigil.interval.as_secs());
    assert_eq!((seconds, vigil.warn_retained), ((10, 5), 4 << 30));
    let standbys = vigil.standbys.as_secs();
    let wait = Given::least("").good().app.missing_timeout.as_secs();
    assert_eq!((standbys, wait), (60, 30));
    let off = Given::least("").set("slot.heartbeat", "0s").set("slot.health_interval", "0");
    let off = off.set("slot.warn_retained", "0").good().app.vigil;
    assert!(off.heartbeat.is_zero() && off.interval.is_zero() && off.warn_retained == 0);
    for key in ["slot.heartbeat", "slot.health_interval", "slot.standby_interval"] {
        let why = format!("{key} is less than 100ms; 0s turns it off");
        says(&Given::least("").set(key, "99ms").bad(), &[&why]);
    }
}

#[test]
fn unlisted_tables_go_by_whether_any_is_listed() {
    assert_eq!(Given::least("").good().app.route.unlisted, Unlisted::Route);
    let listed = || Given::least("[tables]\n\"public.a\" = \"b\"");
    assert_eq!(listed().good().app.route.unlisted, Unlisted::Refuse);
    let skip = listed().set("topic.unlisted", "skip").good();
    assert_eq!(skip.app.route.unlisted, Unlisted::Skip);
}

#[test]
fn the_tutorial_is_the_tutorials_setup() {
    let file = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tutorial.toml"));
    let config = Given { file, ..Given::default() }.good();
    let app = config.app;
    assert_eq!(app.postgres.hosts, [Host::Tcp("127.0.0.1".into(), 5432)]);
    assert_eq!(
        (app.postgres.user.as_str(), app.postgres.database.as_str()),
        ("cdc_user", "cdc_db")
    );
    assert_eq!(app.postgres.password.unwrap().read().unwrap().reveal(), "cdc_pass");
    assert_eq!(app.publication.names, ["cdc_publication"]);
    assert_eq!(
        (app.slot.name.as_str(), app.ha.check_interval),
        ("cdc_slot", Duration::from_secs(3))
    );
    assert_eq!(app.kafka.brokers, [("localhost".into(), 19092)]);
    assert_eq!(app.route.tables["public.users"].topic.as_deref(), Some("users.0"));
    assert_eq!(app.batch.linger, Duration::from_millis(200));
    assert_eq!(app.admin.unwrap().to_string(), "127.0.0.1:8081");
    assert!(app.kafka.topic.create);
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn the_example_can_be_used_as_it_stands() {
    let file = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/example.toml"));
    Given { file, ..Given::default() }.good();
}

#[test]
fn the_listing_can_be_read_again() {
    let first =
        Given::least("[tables]\n\"public.a\" = { topic = \"b\", key = [\"k\"] }\n\"x.y\" = \"z\"")
            .set("topic.config.cleanup.policy", "compact")
            .set("truncate", "skip")
            .set("batch.max_bytes", "1500000")
            .good();
    says(&first.listing, &["truncate = \"skip\"", "# --set", "linger = \"5ms\"", "# default"]);
    let again = Given::toml(&first.listing).good();
    assert_eq!(format!("{:?}", first.app), format!("{:?}", again.app));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn every_unknown_key_is_reported(
        names in proptest::collection::btree_set("[a-z]{1,8}(\\.[a-z]{1,8}){0,2}", 1..8)
    ) {
        // An `x` no key begins with keeps them from being known, or in each other's way.
        let names: Vec<_> = names.iter().enumerate().map(|(at, n)| format!("x{at}{n}")).collect();
        let lines: String = names.iter().map(|name| name.clone() + " = 1\n").collect();
        let problems = Given::least(&lines).load().unwrap_err().problems;
        let keys: Vec<_> = problems.iter().map(|problem| problem.key.clone()).collect();
        for name in &names {
            proptest::prop_assert!(keys.contains(name));
        }
        proptest::prop_assert_eq!(keys.len(), names.len());
    }

    #[test]
    fn no_value_of_any_key_makes_it_panic(key in 0..KEYS.len(), text in ".{0,20}") {
        let _ = Given::least("").set(KEYS[key], &text).load();
    }
}

/// Some of each kind.
const KEYS: &[&str] = &[
    "postgres.url",
    "postgres.host",
    "postgres.port",
    "postgres.sslmode",
    "postgres.options",
    "postgres.connect_timeout",
    "postgres.decoding_memory",
    "publication.name",
    "slot.name",
    "kafka.brokers",
    "topic.partitions",
    "topic.template",
    "topic.config",
    "tables",
    "tables.\"a.b\"",
    "tables.\"a.b\".key",
    "headers",
    "admin.listen",
    "log.level",
    "batch.linger",
];

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgsluice"));
    command
        .env_clear()
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .args(args)
        .output()
        .expect("the binary runs")
}

#[test]
fn a_wrong_command_line_ends_with_64_and_usage() {
    for args in [&[][..], &["rnu"], &["run", "--no"], &["run", "-s", "x"], &["--config"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
    says(&String::from_utf8_lossy(&run(&["confg"]).stderr), &["'config'", "Usage"]);
    let secret = run(&["run", "-s", "geheim"]);
    assert!(!String::from_utf8_lossy(&secret.stderr).contains("geheim"));
}

#[test]
fn a_wrong_configuration_ends_with_78() {
    let path = file("toml", "[slto]\nname = \"s\"\n");
    for command in ["run", "tail", "config"] {
        let output = run(&[command, "-c", &path.to_string_lossy()]);
        assert_eq!(output.status.code(), Some(78), "{command}");
        says(&String::from_utf8_lossy(&output.stderr), &["slto.name", "slot.name"]);
    }
    let none = run(&["run"]);
    assert_eq!(none.status.code(), Some(78));
    says(
        &String::from_utf8_lossy(&none.stderr),
        &["./pgsluice.toml", "/etc/pgsluice/pgsluice.toml"],
    );
}

#[test]
fn config_version_and_help_end_with_0() {
    let path = file("toml", LEAST);
    let output = run(&["config", "-c", &path.to_string_lossy(), "-s", "batch.linger=7ms"]);
    assert_eq!(output.status.code(), Some(0));
    says(&String::from_utf8_lossy(&output.stdout), &["[batch]", "linger = \"7ms\"", "# --set"]);
    let version = run(&["version"]);
    assert_eq!(version.status.code(), Some(0));
    says(
        &String::from_utf8_lossy(&version.stdout),
        &[concat!("pgsluice ", env!("CARGO_PKG_VERSION"))],
    );
    assert_eq!(run(&["--help"]).status.code(), Some(0));
}
