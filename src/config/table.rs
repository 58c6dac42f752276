//! Every key there is, once: its name, what it takes, its default and what it does.
//!
//! What checks a configuration, suggests the key that was meant, prints the configuration and
//! compares `config/example.toml` all read this list.

use super::kind::{Kind, Kind::*};

/// What a key is when nothing sets it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Preset {
    /// This, as `--set` would take it.
    Is(&'static str),
    /// It depends on other keys; in words.
    By(&'static str),
    /// It must be set.
    Required,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Sections and key, with dots between.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its default.
    pub preset: Preset,
    /// What it does, in one sentence.
    pub doc: &'static str,
}

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

const fn key(name: &'static str, kind: Kind, preset: Preset, doc: &'static str) -> Key {
    Key { name, kind, preset, doc }
}

use Preset::{By, Is, Required};

const NONE: Preset = By("none");
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// A millisecond, a second and a minute, in the unit of `Kind::Span`.
const MS: u64 = 1;
const S: u64 = 1000;
const MIN: u64 = 60 * S;

/// In the order of a first file.
pub(super) const KEYS: &[Key] = &[
    key("postgres.url", Text, NONE, "where PostgreSQL is: a libpq URI or key=value string"),
    key(
        "postgres.host",
        Commas,
        Is("localhost"),
        "host names, addresses or socket folders, tried in order",
    ),
    key("postgres.port", Ports, Is("5432"), "one port for all hosts, or one for each"),
    key("postgres.user", Text, Required, "role, with LOGIN and REPLICATION"),
    key("postgres.database", Text, By("the user's name"), "database"),
    key("postgres.password", Secret, NONE, "password"),
    key("postgres.password_file", Path, NONE, "file with the password in it, read at every login"),
    key(
        "postgres.passfile",
        Path,
        By("~/.pgpass, if it exists"),
        "libpq's password file, for where neither of the two above is set",
    ),
    key(
        "postgres.service",
        Text,
        NONE,
        "section of libpq's service file, for what is not set otherwise",
    ),
    key(
        "postgres.sslmode",
        Words(SSLMODES),
        By("verify-full off loopback or if a certificate is named, else disable"),
        "how much TLS",
    ),
    key("postgres.sslrootcert", Path, By("the system's"), "PEM file of trusted CAs, or \"system\""),
    key("postgres.sslcert", Path, NONE, "PEM file of the client's certificate chain"),
    key("postgres.sslkey", Path, NONE, "PEM file of the client's key, not encrypted"),
    key(
        "postgres.channel_binding",
        Words(&["disable", "prefer", "require"]),
        Is("prefer"),
        "binding of SCRAM to TLS",
    ),
    key(
        "postgres.allow_md5",
        Bool,
        Is("false"),
        "whether a server may ask for an md5 digest of the password",
    ),
    key(
        "postgres.allow_cleartext",
        Bool,
        Is("false"),
        "whether a server may ask for the password itself",
    ),
    key(
        "postgres.target_session_attrs",
        Words(&["any", "read-write", "read-only", "primary", "standby", "prefer-standby"]),
        Is("any"),
        "which of several hosts will do",
    ),
    key("postgres.application_name", Text, Is("pgsluice"), "shown in pg_stat_activity"),
    key("postgres.options", Text, NONE, "more \"-c name=value\" for our own connections"),
    key(
        "postgres.connect_timeout",
        Span(100 * MS, 10 * MIN),
        Is("10s"),
        "longest wait for one address, TLS and login included",
    ),
    key(
        "postgres.keepalive",
        Span(S, 120 * MIN),
        Is("10s"),
        "TCP keepalive: idle time before a probe, and between probes",
    ),
    key(
        "postgres.user_timeout",
        Span(S, 120 * MIN),
        Is("30s"),
        "longest wait for sent bytes to be acknowledged by TCP",
    ),
    key(
        "postgres.retry_max",
        Span(100 * MS, 60 * MIN),
        Is("10s"),
        "longest pause between two attempts to reach PostgreSQL",
    ),
    key(
        "postgres.wal_sender_timeout",
        Span(0, 24 * 60 * MIN),
        Is("15s"),
        "of our own walsender: silence after which either side gives up; 0s: the walsender never does",
    ),
    key(
        "postgres.status_interval",
        Span(100 * MS, 10 * S),
        By("a third of wal_sender_timeout, at most 10s"),
        "longest time between two standby status updates",
    ),
    key(
        "postgres.decoding_memory",
        Size(64 * KIB, 1024 * GIB),
        Is("64MiB"),
        "logical_decoding_work_mem of our own walsender",
    ),
    key(
        "postgres.max_message",
        Size(MIB, 2047 * MIB),
        Is("1GiB"),
        "longest message taken from PostgreSQL, which sends no row over 1 GiB",
    ),
    key(
        "postgres.read_buffer",
        Size(16 * KIB, 64 * MIB),
        Is("256KiB"),
        "read buffer; it grows for a longer message and shrinks again",
    ),
    key(
        "postgres.low_watermark",
        Size(0, MIB),
        Is("24KiB"),
        "bytes that the kernel gathers under load before it wakes us (SO_RCVLOWAT); 0: off",
    ),
    key("publication.name", Names, Required, "one publication, or a list"),
    key("publication.create", Bool, Is("false"), "make the first one if it is missing"),
    key(
        "publication.tables",
        Names,
        Is("[]"),
        "tables of a publication that is made, schema.table; none: FOR ALL TABLES",
    ),
    key(
        "publication.operations",
        Names,
        Is("[]"),
        "of insert update delete truncate, for a publication that is made; none: all",
    ),
    key(
        "publication.via_partition_root",
        Bool,
        Is("false"),
        "publish_via_partition_root of a publication that is made",
    ),
    key("slot.name", Text, Required, "replication slot: lower-case letters, digits, underscores"),
    key("slot.create", Bool, Is("false"), "make it if it is missing"),
    key(
        "slot.failover",
        Words(&["auto", "true", "false"]),
        Is("auto"),
        "make it with FAILOVER; auto: from PostgreSQL 17 on",
    ),
    key(
        "slot.check_interval",
        Span(100 * MS, 60 * MIN),
        Is("1s"),
        "how often a passive instance looks whether the slot is free",
    ),
    key("kafka.brokers", Commas, Required, "bootstrap brokers, host:port"),
    key("kafka.client_id", Text, Is("pgsluice"), "shown in the broker's logs and quotas"),
    key(
        "kafka.compression",
        Words(&["none", "snappy", "lz4", "gzip"]),
        Is("none"),
        "codec of record batches",
    ),
    key(
        "kafka.partitioner",
        Words(&["murmur2", "fnv1a", "reference", "crc32", "spread"]),
        Is("murmur2"),
        "from key to partition",
    ),
    key(
        "kafka.delivery",
        Words(&["idempotent", "transactional"]),
        Is("idempotent"),
        "each row once; or also each transaction whole, for consumers with isolation.level=read_committed",
    ),
    key(
        "kafka.transaction.interval",
        Span(MS, MIN),
        Is("100ms"),
        "how long a transaction of Kafka's collects those of PostgreSQL",
    ),
    key(
        "kafka.transaction.max_bytes",
        Size(MIB, 1 << 40),
        Is("1GiB"),
        "most bytes in one; a transaction of PostgreSQL's that is larger is cut there, counted and said",
    ),
    key(
        "kafka.transaction.max_time",
        Span(S, 15 * MIN),
        Is("1m"),
        "how long one may last; a transaction of PostgreSQL's that takes longer is cut then",
    ),
    key(
        "kafka.transactional_id",
        Text,
        By("pgsluice-<system identifier>-<slot>"),
        "as whom Kafka knows this pipeline, and shuts out an instance that died or froze",
    ),
    key(
        "kafka.read_back",
        Size(MIB, 1 << 40),
        Is("1GiB"),
        "most bytes to read of the topics when they are taken; what lies behind may be repeated",
    ),
    key(
        "kafka.read_back_memory",
        Size(64 * KIB, 64 * GIB),
        Is("32MiB"),
        "most memory for the names of rows that are stored already",
    ),
    key("kafka.timestamp", Words(&["sent", "commit"]), Is("sent"), "a record's time"),
    key(
        "kafka.connect_timeout",
        Span(100 * MS, 10 * MIN),
        Is("10s"),
        "longest wait for one address, TLS and login included",
    ),
    key(
        "kafka.request_timeout",
        Span(S, 30 * MIN),
        Is("30s"),
        "longest wait for an answer while nothing moves on the connection",
    ),
    key("kafka.retry_max", Span(10 * MS, 60 * MIN), Is("5s"), "longest pause between two attempts"),
    key(
        "kafka.metadata_max_age",
        Span(S, 24 * 60 * MIN),
        Is("5m"),
        "metadata is asked for again when it is older",
    ),
    key(
        "kafka.keepalive",
        Span(S, 120 * MIN),
        Is("10s"),
        "TCP keepalive: idle time before a probe, and between probes",
    ),
    key(
        "kafka.user_timeout",
        Span(S, 120 * MIN),
        Is("30s"),
        "longest wait for sent bytes to be acknowledged by TCP",
    ),
    key(
        "kafka.tls.enabled",
        Bool,
        By("true if another key of [kafka.tls] is set"),
        "whether brokers are reached by TLS",
    ),
    key("kafka.tls.ca", Path, By("the system's"), "PEM file of trusted CAs"),
    key("kafka.tls.cert", Path, NONE, "PEM file of the client's certificate chain"),
    key("kafka.tls.key", Path, NONE, "PEM file of the client's key, not encrypted"),
    key(
        "kafka.tls.verify",
        Words(&["full", "ca", "none"]),
        Is("full"),
        "how much of a broker's certificate is checked",
    ),
    key(
        "kafka.sasl.mechanism",
        Words(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]),
        NONE,
        "how to log in",
    ),
    key("kafka.sasl.user", Text, NONE, "user"),
    key("kafka.sasl.password", Secret, NONE, "password"),
    key(
        "kafka.sasl.password_file",
        Path,
        NONE,
        "file with the password in it, read at every login",
    ),
    key("tables", Tables, Is("{}"), "what is said of each table: its topic, or { topic, key }"),
    key(
        "topic.template",
        Text,
        Is("{schema}.{table}"),
        "topic of a table that has none in [tables]",
    ),
    key(
        "topic.unlisted",
        Words(&["route", "skip", "refuse"]),
        By("route with an empty [tables], else refuse"),
        "where a table goes that [tables] does not list",
    ),
    key(
        "topic.create",
        Bool,
        Is("false"),
        "make missing topics; the broker's auto-creation is never used",
    ),
    key("topic.partitions", Whole(1, 100_000), Is("1"), "partitions of a topic that is made"),
    key(
        "topic.replication_factor",
        Whole(-1, 1000),
        Is("-1"),
        "replicas of a topic that is made; -1: the broker's default",
    ),
    key("topic.config", Map, Is("{}"), "settings of a topic that is made, as Kafka names them"),
    key("format.value", Words(&["row"]), Is("row"), "shape of a record's value"),
    key(
        "format.key",
        Words(&["auto", "json"]),
        Is("auto"),
        "one key column: its text, several: a JSON object; json: always an object",
    ),
    key("format.tombstones", Bool, Is("false"), "whether a delete is followed by a null value"),
    key("format.numeric", Words(&["string", "number"]), Is("string"), "how a numeric is written"),
    key("headers", Names, Is("[\"op\", \"id\"]"), "of op id table lsn xid ts"),
    key(
        "truncate",
        Text,
        Is("table"),
        "where a truncate goes: table (its topic), skip, or a topic's name",
    ),
    key("message.topic", Text, NONE, "topic of logical messages; none: they go nowhere, counted"),
    key(
        "message.prefixes",
        Names,
        Is("[]"),
        "prefixes of logical messages that are taken; none: all",
    ),
    key(
        "batch.linger",
        Span(0, MIN),
        Is("5ms"),
        "how long the first record of a batch waits for company",
    ),
    key("batch.max_bytes", Size(KIB, GIB), Is("1MiB"), "bytes in one batch, before compression"),
    key("batch.max_records", Whole(1, 1_000_000), Is("10000"), "records in one batch"),
    key(
        "batch.in_flight",
        Size(4 * KIB, 64 * GIB),
        Is("8MiB"),
        "bytes in open and unacknowledged batches, every copy counted; above it nothing is read",
    ),
    key(
        "admin.listen",
        Text,
        Is("127.0.0.1:8081"),
        "HTTP for /metrics /livez /readyz /status; \"\": off",
    ),
    key(
        "log.level",
        Text,
        Is("info"),
        "error warn info debug trace, or a filter such as info,pgsluice::sink=debug",
    ),
    key(
        "log.format",
        Words(&["auto", "text", "json"]),
        Is("auto"),
        "auto: text on a terminal, JSON elsewhere",
    ),
    key("run.drain", Span(0, 60 * MIN), Is("10s"), "longest wait for acks at shutdown"),
];

/// libpq's, without `prefer` and `allow`, which fall back to plain text when somebody asks them to.
pub(super) const SSLMODES: &[&str] = &["disable", "require", "verify-ca", "verify-full"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use figment::{
        providers::{Format as _, Toml},
        value::{Dict, Value as Raw},
    };

    use super::*;

    const EXAMPLE: &str = include_str!("../../config/example.toml");

    /// The example with every key that is commented out put in force.
    fn uncommented() -> Dict {
        let is_setting = |line: &str| {
            let name = line.split(" = ").next().unwrap_or_default();
            let bare = !name.is_empty()
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            let section = line.starts_with('[') && line.contains(']');
            line.contains(" = ") && (bare || name.starts_with('"')) || section
        };
        let strip = |line: &'static str| {
            line.strip_prefix("# ").filter(|line| is_setting(line)).unwrap_or(line)
        };
        let text: Vec<_> = EXAMPLE.lines().map(strip).collect();
        Toml::from_str::<super::super::file::Tree>(&text.join("\n")).unwrap().0.into_dict().unwrap()
    }

    fn find_in<'a>(dict: &'a Dict, name: &str) -> Option<&'a Raw> {
        let mut names = name.split('.');
        let first = dict.get(names.next()?)?;
        names.try_fold(first, |raw, name| raw.as_dict()?.get(name))
    }

    #[test]
    fn the_example_holds_every_key_with_a_value_that_it_takes() {
        let all = uncommented();
        for key in KEYS {
            let raw = find_in(&all, key.name).unwrap_or_else(|| panic!("no {}", key.name));
            if matches!(key.kind, Kind::Map | Kind::Tables) {
                continue;
            }
            let value = key.kind.read(raw).unwrap_or_else(|why| panic!("{} {why}", key.name));
            if let Preset::Is(text) = key.preset {
                let default = key.kind.read(&key.kind.literal(text).unwrap()).unwrap();
                assert_eq!(value, default, "{}: the example shows another default", key.name);
            }
        }
    }

    #[test]
    fn the_example_holds_no_key_that_does_not_exist() {
        fn walk(prefix: &str, dict: &Dict) {
            for (name, raw) in dict {
                let path =
                    if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                match (find(&path), raw) {
                    (Some(_), _) => {}
                    (None, Raw::Dict(_, inner)) => walk(&path, inner),
                    (None, _) => panic!("{path} is not a key"),
                }
            }
        }
        walk("", &uncommented());
    }

    #[test]
    fn names_every_key_once_and_every_default_is_taken() {
        let mut seen = BTreeSet::new();
        for key in KEYS {
            assert!(seen.insert(key.name), "{} is there twice", key.name);
            if let (Preset::Is(text), false) =
                (key.preset, matches!(key.kind, Kind::Map | Kind::Tables))
            {
                let read = key.kind.literal(text).and_then(|raw| key.kind.read(&raw));
                assert!(read.is_ok(), "{}: {read:?}", key.name);
            }
        }
    }
}
