//! A throwaway PostgreSQL.

use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::{eventually, guard, run, try_run};

/// A running server; dropped, it is stopped and deleted.
pub struct Postgres {
    version: u8,
    port: u16,
    url: String,
    admin_url: String,
}

impl Postgres {
    /// Starts PostgreSQL 14 to 18, or 13, which is too old for us. Options are those of `tests/servers/pg-up`: `tls=1`, `auth=scram`, `name=value` for its
    /// configuration file.
    pub fn start(version: u8, port: u16, options: &[&str]) -> Self {
        let (v, p) = (version.to_string(), port.to_string());
        guard::at_the_end(&format!("pg-down {v} {p}"));
        // Whatever version an aborted run left on this port.
        for old in 13..=18u8 {
            let _ = try_run("pg-down", &[&old.to_string(), &p], &[]);
        }
        let printed = run("pg-up", &[&[v.as_str(), p.as_str()], options].concat(), &[]);
        let mut lines = printed.lines();
        let url = lines.next().expect("pg-up prints its URL").to_owned();
        let admin_url = lines.next().unwrap_or(&url).to_owned();
        Self { version, port, url, admin_url }
    }

    /// A hot standby of `primary`, with its settings, and a physical slot there.
    pub fn standby(primary: &Self, port: u16, options: &[&str]) -> Self {
        let (v, p, from) =
            (primary.version.to_string(), port.to_string(), primary.port.to_string());
        guard::at_the_end(&format!("pg-down {v} {p}"));
        let printed =
            run("pg-standby", &[&[v.as_str(), p.as_str(), from.as_str()], options].concat(), &[]);
        let mut lines = printed.lines();
        let url = lines.next().expect("pg-standby prints its URL").to_owned();
        let admin_url = lines.next().unwrap_or(&url).to_owned();
        Self { version: primary.version, port, url, admin_url }
    }

    /// This server, which was stopped, follows `primary` from now on.
    #[track_caller]
    pub fn follow(&self, primary: &Self) {
        let (v, p) = (self.version.to_string(), self.port.to_string());
        run("pg-follow", &[&v, &p, &primary.port.to_string()], &[]);
    }

    /// Its folder.
    pub fn folder(&self) -> std::path::PathBuf {
        let log = std::path::PathBuf::from(self.ctl("log"));
        log.parent().expect("its log is in its folder").to_owned()
    }

    /// The server that the tests of one binary share: started by the first who asks, stopped when the process ends.
    /// Each test makes a [`Postgres::database`] of its own there.
    pub fn shared(version: u8, port: u16) -> &'static Self {
        static SERVERS: [OnceLock<Postgres>; 5] = [const { OnceLock::new() }; 5];
        let index = usize::from(version.checked_sub(14).expect("PostgreSQL is 14 to 18"));
        let server = SERVERS.get(index).expect("PostgreSQL is 14 to 18");
        let server = server.get_or_init(|| Self::start(version, port, &["max_connections=100"]));
        assert_eq!(server.port, port, "the shared PostgreSQL {version} is on another port");
        server
    }

    /// 14 to 18.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// On 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How a client gets in: superuser postgres, or with `auth=…` user sluice, password sluice-secret. Database postgres.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same for another database.
    pub fn url_of(&self, database: &str) -> String {
        in_database(&self.url, database)
    }

    /// Makes an empty database, and drops one of that name, with its slots, that was there before. Returns its URL.
    pub fn database(&self, name: &str) -> String {
        self.drop_slots(name);
        self.sql(&format!(r#"drop database if exists "{name}" with (force)"#));
        self.sql(&format!(r#"create database "{name}" template template0"#));
        self.url_of(name)
    }

    /// Drops all logical slots of a database, with whoever holds them.
    pub fn drop_slots(&self, database: &str) {
        let all = format!("from pg_replication_slots where database = '{database}'");
        eventually(Duration::from_secs(20), "the slots are dropped", || {
            self.sql(&format!("select pg_terminate_backend(active_pid) {all} and active"));
            self.try_sql(
                "postgres",
                &format!("select pg_drop_replication_slot(slot_name) {all} and not active"),
            )
            .is_ok()
                && self.sql(&format!("select count(*) {all}")) == "0"
        });
    }

    /// Runs SQL as superuser in database postgres; returns psql's unaligned rows without the last newline.
    #[track_caller]
    pub fn sql(&self, text: &str) -> String {
        self.sql_in("postgres", text)
    }

    /// The same in another database.
    #[track_caller]
    pub fn sql_in(&self, database: &str, text: &str) -> String {
        self.try_sql(database, text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// The same, and psql's complaint if it fails. All statements are one transaction, unless they say otherwise.
    pub fn try_sql(&self, database: &str, text: &str) -> Result<String, String> {
        let output = self
            .psql(database)
            .args(["-c", text])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("psql (apt-get install postgresql-client): {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        let mut text = String::from_utf8(output.stdout).map_err(|error| error.to_string())?;
        text.truncate(text.trim_end_matches('\n').len());
        Ok(text)
    }

    /// psql with everything but its commands, for a test that wants to hold a transaction open through its stdin.
    pub fn psql(&self, database: &str) -> Command {
        self.psql_for(database, 300)
    }

    /// The same, with so many seconds at the most.
    pub fn psql_for(&self, database: &str, seconds: u32) -> Command {
        let mut command = Command::new("timeout");
        command
            .args([
                "--kill-after=5",
                &seconds.to_string(),
                "psql",
                "-XqAt",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
            ])
            .arg(in_database(&self.admin_url, database))
            .env("PGCONNECT_TIMEOUT", "20")
            .env("PGOPTIONS", "-c client_min_messages=warning");
        command
    }

    /// `stop-fast`, `stop-immediate`, `kill`, `pause`, `resume`, `start`, `promote`, `pid`, `log` (see `pg-ctl`).
    #[track_caller]
    pub fn ctl(&self, verb: &str) -> String {
        let out = run("pg-ctl", &[&self.version.to_string(), &self.port.to_string(), verb], &[]);
        out.trim_end().to_owned()
    }

    /// The server's own log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.ctl("log")).unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = try_run("pg-down", &[&self.version.to_string(), &self.port.to_string()], &[]);
    }
}

/// A URL with `postgres` as its database changed into another. Names are percent-encoded where they must be.
fn in_database(url: &str, database: &str) -> String {
    let (address, query) =
        url.split_once('?').map_or((url, None), |(address, query)| (address, Some(query)));
    let server = address.strip_suffix("/postgres").expect("pg-up's URL ends with its database");
    let mut name = String::new();
    for byte in database.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    query.map_or_else(|| format!("{server}/{name}"), |query| format!("{server}/{name}?{query}"))
}

/// Runs a test's closure one at a time over all tests of the binary: for those that restart a shared server.
pub fn alone<T>(body: impl FnOnce() -> T) -> T {
    static LOCK: Mutex<()> = Mutex::new(());
    let _lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    body()
}
