//! Real servers, our own binary and a bad network, for the integration tests: `mod support;`.
//!
//! A test file begins with `#![allow(clippy::unwrap_used, reason = "…")]`, as clippy takes only `#[test]` functions for tests, not
//! their helpers. Its binary runs with a clean environment: no `PG…`, no `PGSLUICE_…` of the caller.
//!
//! Everything here has a deadline and ends with a sentence. Nothing sleeps for an assertion: [`eventually`] asks again until
//! a condition holds. What a test started is stopped when its value is dropped, and by [`guard`] when the test process ends
//! in any other way; what an earlier run left behind is removed before anything starts under its name.
//!
//! # Ports
//! Cargo runs one test binary after the other, and the tests of one at the same time. So each binary has a [`Ports`] of its own, 100 ports
//! from `TESTS_PORTS` (15000 if not set: below the range that the kernel gives to clients) on. Two runs on
//! one machine need two values of it.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "every test binary uses a part of it"
)]

pub mod guard;
pub mod kafka;
pub mod postgres;
pub mod process;
pub mod proxy;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

pub use kafka::{Kafka, Record};
pub use postgres::Postgres;
pub use process::Pgsluice;
pub use proxy::{Mode, Proxy};

/// The 100 ports of one test binary. A new binary takes the next free number below.
#[derive(Clone, Copy, Debug)]
pub struct Ports(u16);

impl Ports {
    /// `tests/harness.rs`, which tries this module itself.
    pub const HARNESS: Self = Self(0);
    /// `tests/end_to_end.rs`: each PostgreSQL with each Kafka.
    pub const END_TO_END: Self = Self(1);
    /// `tests/faults.rs`: killed, paused, cut off.
    pub const FAULTS: Self = Self(2);
    /// `tests/to_json.rs`: every type against `to_json`.
    pub const VALUES: Self = Self(3);
    /// `tests/bad_input.rs`: exit codes and their sentences.
    pub const BAD_INPUT: Self = Self(4);
    /// `tests/security.rs`: TLS and logins on both sides.
    pub const SECURITY: Self = Self(5);
    /// `tests/postgres.rs`: the replication connection, slot and publication by themselves.
    pub const POSTGRES: Self = Self(6);
    /// `tests/kafka_broker.rs`: our side of Kafka by itself.
    pub const KAFKA: Self = Self(7);
    /// `tests/soak.rs`: long runs with chance.
    pub const SOAK: Self = Self(8);
    /// `tests/quote_ident.rs`: names as PostgreSQL quotes them.
    pub const QUOTE_IDENT: Self = Self(9);
    /// `tests/chaos.rs`: two instances, three brokers, faults in a random order.
    pub const CHAOS: Self = Self(10);
    /// `tests/once.rs`: each row once, whatever was changed meanwhile.
    pub const ONCE: Self = Self(11);
    /// `tests/sim.rs`: a model, and what it is a model of.
    pub const SIM: Self = Self(12);
    /// `tests/failover.rs`: several instances, of which one streams.
    pub const FAILOVER: Self = Self(13);
    /// `tests/slot_health.rs`: heartbeats, and what is said of a slot.
    pub const SLOT_HEALTH: Self = Self(14);
    /// `tests/switchover.rs`: a standby becomes the primary, with the slot or without it.
    pub const SWITCHOVER: Self = Self(15);
    /// `tests/standby.rs`: a standby as the source.
    pub const STANDBY: Self = Self(16);

    /// A PostgreSQL's port: `i` from 0 to 9.
    pub fn postgres(self, i: u16) -> u16 {
        assert!(i < 10, "a test binary has ten ports for PostgreSQL");
        self.first() + i
    }

    /// A Kafka's first port: `i` 0 or 1. It takes up to 27 from there on.
    pub fn kafka(self, i: u16) -> u16 {
        assert!(i < 2, "a test binary has ports for two Kafkas");
        self.first() + 10 + 30 * i
    }

    /// An `admin.listen` of ours: `i` from 0 to 9.
    pub fn admin(self, i: u16) -> u16 {
        assert!(i < 10, "a test binary has ten ports for admin.listen");
        self.first() + 70 + i
    }

    /// A [`Proxy`]'s: `i` from 0 to 19.
    pub fn proxy(self, i: u16) -> u16 {
        assert!(i < 20, "a test binary has twenty ports for proxies");
        self.first() + 80 + i
    }

    fn first(self) -> u16 {
        let base = std::env::var("TESTS_PORTS").ok();
        let base: u16 = base.map_or(15000, |text| text.parse().expect("TESTS_PORTS is a port"));
        base + 100 * self.0
    }
}

/// Asks until `condition` holds; after `deadline` the test fails and says what it waited for.
#[track_caller]
pub fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    let mut pause = Duration::from_millis(10);
    while !condition() {
        assert!(begin.elapsed() < deadline, "after {deadline:?} still not: {what}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(250));
    }
}

/// As [`eventually`], for something that is there at last: returns it.
#[track_caller]
pub fn eventually_some<T>(
    deadline: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let mut found = None;
    eventually(deadline, what, || {
        found = look();
        found.is_some()
    });
    found.expect("eventually only returns when it was found")
}

/// Is this the long run of `tests/soak.sh`? Then tests take more seeds and rounds.
pub fn soak() -> bool {
    std::env::var_os("TESTS_SOAK").is_some_and(|value| value == "1")
}

/// A script of `tests/servers/`, by its name.
pub fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/servers").join(name)
}

/// Runs a script of `tests/servers/` and returns what it printed; the test fails if the script does.
#[track_caller]
pub fn run(name: &str, args: &[&str], env: &[(&str, &str)]) -> String {
    let output = try_run(name, args, env);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {args:?}: {}: {errors}", output.status);
    String::from_utf8(output.stdout).expect("the scripts print UTF-8")
}

/// As [`run`], but the script may fail. The limit is for a first start, which downloads.
pub fn try_run(name: &str, args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new("timeout")
        .args(["--kill-after=10", "900"])
        .arg(script(name))
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("timeout {name}: {error}"))
}

/// Produces records that did not come from us: a line a record, as `kafka-dump` prints them.
#[track_caller]
pub fn produce(brokers: &str, topic: &str, lines: &str) {
    produce_with(brokers, topic, lines, &[]);
}

/// The same with options of `kafka-produce`.
#[track_caller]
pub fn produce_with(brokers: &str, topic: &str, lines: &str, options: &[&str]) {
    let mut child = Command::new("timeout")
        .args(["--kill-after=10", "300"])
        .arg(script("kafka-produce"))
        .args([brokers, topic])
        .args(options)
        .stdin(Stdio::piped())
        .spawn()
        .expect("the script starts");
    let mut input = child.stdin.take().expect("it was piped");
    std::io::Write::write_all(&mut input, lines.as_bytes()).expect("the script reads");
    drop(input);
    assert!(
        child.wait().expect("it is our child").success(),
        "kafka-produce failed; its reason is above"
    );
}
