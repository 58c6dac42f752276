//! The model of PostgreSQL is held to the real one: the same short scenarios on both, over the wire, and
//! the same messages from both.
//!
//! What is asked is what the stream and the slot stand on: what comes from which position on, what comes
//! again, who has the slot, what a status moves, signs of life, and how a walsender ends. LSNs, oids, xids and times
//! are compared by how they relate to each other.

use std::time::Duration;

use pgsluice::pg::{
    connect::{Connection, Error, Host, Kind, Options},
    slot::start_replication,
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    are_same,
    wire::{Came, Sent, Walsender},
};
use crate::{
    postgres::{Change, Server, TABLES, walsender::TIMEOUT},
    setup::{options, with_servers},
    support::{Ports, Postgres},
};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn the_model_of_postgres_answers_as_postgres_does() {
    let mut options = options('a', None).postgres;
    options.hosts.truncate(1);
    let model = with_servers(async |server, _| {
        let mut asker = Asker::new(Source::Model(server), options.clone());
        asker.ask().await;
        asker.told
    });
    let server = Postgres::start(17, Ports::SIM.postgres(0), &[]);
    server.database("cdc");
    let tables =
        TABLES.map(|name| format!("create table {name} (id bigint primary key, text text)"));
    server.sql_in("cdc", &tables.join(";"));
    server.sql_in(
        "cdc",
        "create table other (id bigint); create role cdc superuser login replication",
    );
    server.sql_in("cdc", &format!("create publication cdc for table {}", TABLES.join(", ")));
    server.sql_in("cdc", "select pg_create_logical_replication_slot('cdc', 'pgoutput')");
    let mut options = options.clone();
    options.hosts = vec![Host::Tcp("127.0.0.1".to_owned(), server.port())];
    options.tls = None;
    options.wal_sender_timeout = Duration::from_secs(600); // of a slow machine as well
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let real = runtime.block_on(async {
        let mut asker = Asker::new(Source::Real(&server), options);
        asker.ask().await;
        asker.told
    });
    are_same(&model, &real, 40);
}

enum Source<'a> {
    Model(Server),
    Real(&'a Postgres),
}

impl Source<'_> {
    /// Commits a transaction; one without changes is of a table that is not published.
    fn commit(&self, changes: &[(usize, u8, u64, &str)]) {
        match self {
            Self::Model(server) => {
                let change = |&(table, op, key, text): &(usize, u8, u64, &str)| Change {
                    table,
                    op,
                    key,
                    text: text.to_owned(),
                };
                server.commit(changes.iter().map(change).collect());
            }
            Self::Real(server) => {
                let statement = |&(table, op, key, text): &(usize, u8, u64, &str)| {
                    let table = TABLES[table];
                    match op {
                        b'I' => format!("insert into {table} values ({key}, '{text}')"),
                        b'U' => format!("update {table} set text = '{text}' where id = {key}"),
                        _ => format!("delete from {table} where id = {key}"),
                    }
                };
                let all: Vec<String> = changes.iter().map(statement).collect();
                let nothing = all.is_empty().then(|| "insert into other values (1)".to_owned());
                server.sql_in("cdc", &all.into_iter().chain(nothing).collect::<Vec<_>>().join(";"));
            }
        }
    }

    /// The slot's position, and whether somebody has it.
    fn slot(&self) -> (u64, bool) {
        match self {
            Self::Model(server) => server.slot(),
            Self::Real(server) => {
                let slot = server.sql(
                    "select confirmed_flush_lsn - '0/0'::pg_lsn, active from pg_replication_slots",
                );
                let (at, active) = slot.split_once('|').unwrap();
                (at.parse().unwrap(), active == "t")
            }
        }
    }

    fn terminate(&self) {
        match self {
            Self::Model(server) => server.terminate(),
            Self::Real(server) => {
                server.sql("select pg_terminate_backend(active_pid) from pg_replication_slots");
            }
        }
    }

    /// The slot is saved as it is.
    fn save(&self) {
        match self {
            Self::Model(server) => server.save(),
            Self::Real(server) => drop(server.sql("checkpoint")),
        }
    }

    /// It crashes, and is there again.
    fn crash(&self) {
        match self {
            Self::Model(server) => server.restart(true, Duration::from_millis(50)),
            Self::Real(server) => {
                server.ctl("stop-immediate");
                server.ctl("start");
            }
        }
    }

    /// It is told to end in good order. Gives its process.
    fn shut_down(&self) -> Option<String> {
        match self {
            Self::Model(server) => {
                server.shut_down(Duration::from_millis(50));
                None
            }
            Self::Real(server) => {
                let pid = server.ctl("pid");
                kill("-INT", &pid); // as `pg_ctl stop -m fast` does, which would wait
                Some(pid)
            }
        }
    }

    /// It is there again, once that process has ended.
    async fn begin(&self, process: Option<String>) {
        let (Self::Real(server), Some(process)) = (self, process) else { return };
        let begin = Instant::now();
        while kill("-0", &process) {
            assert!(begin.elapsed() < LIMIT, "PostgreSQL does not end");
            sleep(Duration::from_millis(20)).await;
        }
        server.ctl("start");
    }
}

struct Asker<'a> {
    source: Source<'a>,
    options: Options,
    told: Vec<(String, String)>,
}

impl<'a> Asker<'a> {
    fn new(source: Source<'a>, options: Options) -> Self {
        Self { source, options, told: Vec::new() }
    }

    fn tell(&mut self, what: &str, answer: impl std::fmt::Debug) {
        self.told.push((what.to_owned(), format!("{answer:?}")));
    }

    /// A connection, once there can be one.
    async fn connect(&self) -> Connection {
        let begin = Instant::now();
        loop {
            match Connection::open(&self.options, Kind::Replication).await {
                Ok(connection) => return connection,
                Err(error) => assert!(begin.elapsed() < LIMIT, "{error}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Streams once nobody else does; `from`: a position other than the slot's own.
    async fn start(&self, from: Option<u64>) -> Walsender {
        self.slot("free", |(_, active)| !active).await;
        let mut connection = self.connect().await;
        connection.start_copy_both(&command(from)).await.unwrap();
        Walsender::new(connection)
    }

    async fn slot(&self, what: &str, is: impl Fn((u64, bool)) -> bool) {
        let begin = Instant::now();
        while !is(self.source.slot()) {
            assert!(begin.elapsed() < LIMIT, "the slot is not {what}: {:x?}", self.source.slot());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Until a transaction is whole.
    async fn transaction(&mut self, what: &str, walsender: &mut Walsender) -> Sent {
        let sent = timeout(LIMIT, walsender.transaction()).await.expect("a transaction comes");
        for line in &sent.lines {
            self.tell(what, line);
        }
        sent
    }

    /// Confirms a position, and gives the connection up.
    async fn confirm(&self, mut walsender: Walsender, at: u64) {
        walsender.status(at, false).await;
        self.slot("there", |(confirmed, _)| confirmed == at).await;
    }

    async fn ask(&mut self) {
        let mut connection = self.connect().await;
        let system = connection.simple_query("IDENTIFY_SYSTEM").await.unwrap();
        let system: Vec<_> = system.iter().map(|row| (row[1].clone(), row[3].clone())).collect();
        self.tell("IDENTIFY_SYSTEM: timeline and database", system);
        drop(connection);
        let (first, second) = self.again().await;
        self.positions(first, second).await;
        self.silent().await;
        self.ended().await;
        self.crashed().await;
        self.shut_down().await;
    }

    /// Two transactions, twice, as nobody confirms them.
    async fn again(&mut self) -> (Sent, Sent) {
        let mut walsender = self.start(None).await;
        let all = [(0, b'I', 1, "a"), (1, b'I', 2, "b"), (0, b'U', 1, "c"), (1, b'D', 2, "")];
        self.source.commit(&all);
        let first = self.transaction("a transaction", &mut walsender).await;
        self.source.commit(&[(0, b'I', 3, "d"), (1, b'I', 4, "")]);
        let second = self.transaction("the next one", &mut walsender).await;
        self.tell("after the first", (second.begin >= first.end, second.commit > first.end));
        self.source.commit(&[]);
        let beyond = walsender.keepalive(|end, _| end > second.end);
        let beyond = timeout(LIMIT, beyond).await.expect("a keepalive comes");
        self.tell("one of other tables: a keepalive that wants a reply", beyond);
        walsender.status(0, true).await;
        let reply = timeout(LIMIT, walsender.keepalive(|_, _| true)).await;
        self.tell("a reply: one that wants a reply", reply.expect("a reply comes"));

        let mut other = self.connect().await;
        let refused = other.start_copy_both(&command(None)).await;
        self.tell("the slot is taken", refused.err().as_ref().and_then(sqlstate));
        let well = other.simple_query("IDENTIFY_SYSTEM").await.map(|rows| rows.len());
        self.tell("and the connection is good", well.ok());
        drop(walsender);
        self.slot("free", |(_, active)| !active).await;
        other.start_copy_both(&command(None)).await.unwrap();
        let mut walsender = Walsender::new(other);
        for before in [&first, &second] {
            let again = self.transaction("it comes again", &mut walsender).await;
            self.tell("where it was", (again.commit == before.commit, again.end == before.end));
        }
        (first, second)
    }

    /// What a position leaves out.
    async fn positions(&mut self, first: Sent, second: Sent) {
        for (what, at) in [
            ("confirmed to a commit", first.commit),
            ("confirmed beyond a commit", first.commit + 1),
            ("confirmed to its end", first.end),
        ] {
            let walsender = self.start(None).await;
            self.confirm(walsender, at).await;
            let mut walsender = self.start(None).await;
            let next = timeout(LIMIT, walsender.transaction()).await.expect("one comes");
            self.tell(what, [&first, &second].map(|one| one.commit == next.commit));
            let tags = timeout(LIMIT, walsender.done()).await.expect("it ends");
            self.tell("asked to end", tags);
        }
        let walsender = self.start(None).await;
        self.confirm(walsender, second.end).await;
        self.source.commit(&[(0, b'I', 5, "e")]);
        let mut walsender = self.start(None).await;
        let third = self.transaction("both are confirmed", &mut walsender).await;
        self.source.commit(&[(0, b'I', 6, "f")]);
        let fourth = self.transaction("one more", &mut walsender).await;
        drop(walsender);
        for (what, from) in [
            ("from below the slot's position", first.commit),
            ("from its own", second.end),
            ("from a commit above it", fourth.commit),
            ("from the end of one", third.end),
        ] {
            let mut walsender = self.start(Some(from)).await;
            let next = timeout(LIMIT, walsender.transaction()).await.expect("one comes");
            self.tell(what, [&third, &fourth].map(|one| one.commit == next.commit));
            self.tell("and the slot stays", self.source.slot().0 == second.end);
        }
        let walsender = self.start(None).await;
        self.confirm(walsender, fourth.end).await;
    }

    /// Nobody says anything for `wal_sender_timeout`.
    async fn silent(&mut self) {
        let patient = std::mem::replace(&mut self.options.wal_sender_timeout, TIMEOUT);
        let mut walsender = self.start(None).await;
        let asked = walsender.keepalive(|_, reply| reply);
        self.tell("asked for a sign of life", timeout(LIMIT, asked).await.is_ok());
        let rest = timeout(LIMIT, walsender.rest()).await.expect("it ends");
        self.tell("and then", rest);
        self.slot("free", |(_, active)| !active).await;
        // Who answers is not ended.
        let mut walsender = self.start(None).await;
        for _ in 0..2 {
            let asked = timeout(LIMIT, walsender.keepalive(|_, reply| reply)).await;
            self.tell("asked again", asked.is_ok());
            walsender.status(0, false).await;
        }
        self.options.wal_sender_timeout = patient;
    }

    /// By `pg_terminate_backend`.
    async fn ended(&mut self) {
        let mut walsender = self.start(None).await;
        self.source.terminate();
        let rest = timeout(LIMIT, walsender.rest()).await.expect("it ends");
        self.tell("terminated", rest);
    }

    /// What was saved is kept.
    async fn crashed(&mut self) {
        self.source.commit(&[(0, b'I', 7, "g")]);
        let mut walsender = self.start(None).await;
        let saved = self.transaction("one that is saved", &mut walsender).await;
        walsender.status(saved.end, false).await;
        self.slot("there", |(at, _)| at == saved.end).await;
        self.source.save();
        self.source.commit(&[(1, b'I', 8, "h")]);
        let lost = self.transaction("one that is confirmed", &mut walsender).await;
        walsender.status(lost.end, false).await;
        self.slot("there", |(at, _)| at == lost.end).await;
        self.source.crash();
        let rest = timeout(LIMIT, walsender.rest()).await.expect("it ends");
        self.tell("a crash: the last word", rest.last().is_some_and(|came| *came == Came::End));
        self.source.commit(&[(0, b'I', 9, "i")]);
        let mut walsender = self.start(None).await;
        let at = self.source.slot().0;
        self.tell(
            "the slot is where it was saved, or confirmed",
            at == saved.end || at == lost.end,
        );
        let mut next = timeout(LIMIT, walsender.transaction()).await.expect("one comes");
        if at == saved.end {
            assert_eq!(next.commit, lost.commit, "what is not confirmed comes again");
            next = timeout(LIMIT, walsender.transaction()).await.expect("one comes");
        }
        self.tell("the next one is behind all", next.commit > lost.end);
    }

    /// The walsender ends when all is confirmed, everything else at once.
    async fn shut_down(&mut self) {
        self.source.commit(&[(0, b'I', 10, "j")]);
        let mut idle = self.connect().await;
        let mut walsender = self.start(None).await;
        let last = loop {
            let sent = timeout(LIMIT, walsender.transaction()).await.expect("one comes");
            if sent.lines.iter().any(|line| line.contains("10t")) {
                break sent;
            }
        };
        let process = self.source.shut_down();
        let asked = walsender.keepalive(|end, reply| reply && end >= last.end);
        self.tell("it ends: wants a reply", timeout(LIMIT, asked).await.is_ok());
        let ended = idle.simple_query("IDENTIFY_SYSTEM").await;
        self.tell("an idle connection", ended.err().as_ref().and_then(sqlstate));
        let refused = Connection::open(&self.options, Kind::Replication).await;
        self.tell("a new connection", refused.err().as_ref().and_then(sqlstate));
        let rest = timeout(LIMIT, walsender.confirmed(last.end)).await.expect("it ends");
        self.tell("all is confirmed", rest);
        self.source.begin(process).await;
        let walsender = self.start(None).await;
        self.tell("nothing is lost", self.source.slot().0 >= last.end);
        drop(walsender);
    }
}

/// A signal; whether there is such a process.
fn kill(signal: &str, process: &str) -> bool {
    let mut command = std::process::Command::new("kill");
    command.args([signal, process]).stderr(std::process::Stdio::null());
    command.status().unwrap().success()
}

/// What we send, or the same from another position.
fn command(from: Option<u64>) -> String {
    let command = start_replication("cdc", &["cdc".to_owned()]);
    let from = from.map_or((0, 0), |at| (at >> 32, at & 0xffff_ffff));
    command.replace("LOGICAL 0/0", &format!("LOGICAL {:X}/{:X}", from.0, from.1))
}

fn sqlstate(error: &Error) -> Option<String> {
    error.server().map(|server| server.sqlstate.clone())
}
