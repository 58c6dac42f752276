//! A database, a slot and topics of one case, and a process that ends with rows that are stored and not confirmed.

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use crate::support::{
    Kafka, Pgsluice, Ports, Postgres, Proxy, Record, eventually, eventually_some, kafka::LATEST,
    soak,
};

pub const LIMIT: Duration = Duration::from_secs(60);

pub const PORTS: Ports = Ports::ONCE;

pub fn postgres() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    let many = ["max_connections=200", "max_replication_slots=160", "max_wal_senders=160"];
    SERVER.get_or_init(|| Postgres::start(17, PORTS.postgres(0), &many))
}

/// Of three brokers in the long run.
pub fn kafka() -> &'static Kafka {
    static CLUSTER: OnceLock<Kafka> = OnceLock::new();
    let brokers = if soak() { 3 } else { 1 };
    CLUSTER.get_or_init(|| Kafka::start("once", PORTS.kafka(0), brokers, &[], LATEST))
}

/// Rows of every table before anything is tried: then they are described, and confirmed.
pub const BASE: Range<u32> = 0..4;
/// What the first process stores at last.
pub const FIRST: Range<u32> = 4..44;
/// What is written when it has ended.
pub const SECOND: Range<u32> = 44..56;
pub const ALL: Range<u32> = 0..56;

/// How the first process ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// By SIGTERM: all is confirmed.
    Stopped,
    /// By SIGKILL: [`FIRST`] is stored, and not confirmed.
    Killed,
}

/// Everything is named after the case.
pub struct World {
    pub name: String,
    pub slot: String,
    pub end: End,
    /// From us to PostgreSQL.
    pub proxy: Proxy,
    postgres: &'static Postgres,
    tables: &'static [&'static str],
    admin: u16,
}

impl World {
    /// With tables, a publication of all of them and the slot.
    pub fn new(name: &str, end: End, tables: &'static [&'static str]) -> Self {
        Self::on(postgres(), name, end, tables)
    }

    /// The same on another server.
    pub fn on(
        postgres: &'static Postgres,
        name: &str,
        end: End,
        tables: &'static [&'static str],
    ) -> Self {
        let name = format!("{name}_{end:?}").to_lowercase();
        postgres.database(&name);
        let _ = postgres.try_sql("postgres", "create role cdc_user login replication");
        let (slot, proxy, admin) = (name.clone(), proxy(postgres), take_admin());
        let world = Self { name, slot, end, proxy, postgres, tables, admin };
        for table in tables {
            world.sql(&format!("create table {table}(id int primary key, k int, a text)"));
        }
        world.sql("create publication p for all tables");
        world.make_slot();
        world
    }

    /// Another pipeline of the same tables, into the same topics.
    pub fn beside(&self) -> Self {
        let slot = format!("{}_b", self.slot);
        let world = self.with_slot(slot);
        world.make_slot();
        world
    }

    /// For another instance of the same pipeline.
    pub fn again(&self) -> Self {
        self.with_slot(self.slot.clone())
    }

    fn with_slot(&self, slot: String) -> Self {
        let Self { ref name, end, postgres, tables, .. } = *self;
        let (name, proxy, admin) = (name.clone(), proxy(postgres), take_admin());
        Self { name, slot, end, proxy, postgres, tables, admin }
    }

    #[track_caller]
    pub fn sql(&self, text: &str) -> String {
        self.postgres.sql_in(&self.name, text)
    }

    pub fn make_slot(&self) {
        let slot = &self.slot;
        self.sql(&format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    }

    pub fn topic(&self, table: &str) -> String {
        format!("{}.public.{table}", self.name)
    }

    /// Started, and streaming.
    #[track_caller]
    pub fn start(&self, sets: &[&str]) -> Pgsluice {
        let mut sluice = self.spawn(sets, &[]);
        sluice.wait_ready(LIMIT);
        sluice
    }

    /// Started.
    pub fn spawn(&self, sets: &[&str], env: &[(&str, &str)]) -> Pgsluice {
        self.spawn_as(&["run"], sets, env)
    }

    /// Started by another command.
    pub fn spawn_as(&self, command: &[&str], sets: &[&str], env: &[(&str, &str)]) -> Pgsluice {
        let Self { name, slot, admin, .. } = self;
        let config = format!(
            "[postgres]\nurl = \"postgres://cdc_user@127.0.0.1:{}/{}\"\n\
             wal_sender_timeout = \"60s\"\nretry_max = \"500ms\"\n\
             [publication]\nname = \"p\"\n[slot]\nname = \"{slot}\"\ncheck_interval = \"100ms\"\n\
             heartbeat = \"0s\"\nhealth_interval = \"0s\"\n\
             [kafka]\nbrokers = \"{}\"\nretry_max = \"500ms\"\n\
             [topic]\ntemplate = \"{}.{{schema}}.{{table}}\"\ncreate = true\npartitions = 3\n\
             [batch]\nlinger = \"1ms\"\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n",
            self.proxy.port(),
            name,
            kafka().brokers(),
            name,
        );
        let mut args = command.to_vec();
        sets.iter().for_each(|set| args.extend(["--set", set]));
        Pgsluice::spawn_with(&config, &args, env)
    }

    /// Rows of every table, four a transaction.
    #[track_caller]
    pub fn write(&self, rows: Range<u32>) {
        let mut text = String::new();
        for first in rows.step_by(4) {
            text += "begin;";
            for table in self.tables {
                let last = first + 3;
                text += &format!(
                    "insert into {table} select i, i % 3, 'row' from generate_series({first}, {last}) i;"
                );
            }
            text += "commit;";
        }
        self.sql(&text);
    }

    /// Waits until the slot has passed all that is written now.
    #[track_caller]
    pub fn wait_confirmed(&self, sluice: &mut Pgsluice) {
        let now = self.sql("select pg_current_wal_insert_lsn()");
        eventually(LIMIT, &format!("slot {} is at {now}", self.slot), || {
            if let Some(code) = sluice.try_wait() {
                panic!("it ended with {code}:\n{}", sluice.log());
            }
            self.confirmed(&now)
        });
    }

    pub fn confirmed(&self, lsn: &str) -> bool {
        let of = format!("from pg_replication_slots where slot_name = '{}'", self.slot);
        self.sql(&format!("select confirmed_flush_lsn >= '{lsn}' {of}")) == "t"
    }

    /// A process from its start to its end, which has stored [`BASE`] and [`FIRST`] then.
    #[track_caller]
    pub fn first(&self, sets: &[&str]) {
        first_of(&[self], sets);
    }

    /// Ends it as it is to end, once [`FIRST`] is stored.
    pub fn finish(&self, sluice: &mut Pgsluice, before: usize) {
        let count = FIRST.len() * self.tables.len();
        eventually(LIMIT, "the rows are stored", || stored(sluice) == before + count);
        if self.end == End::Stopped {
            assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
            return;
        }
        sluice.kill();
        self.proxy.cut_once();
        // Nothing was written since.
        let now = self.sql("select pg_current_wal_insert_lsn()");
        assert!(!self.confirmed(&now), "it was to be killed before it had confirmed");
    }

    /// The next process: it stores [`SECOND`]. Gives back how many rows it left out and its log.
    #[track_caller]
    pub fn second(&self, sets: &[&str]) -> (usize, String) {
        self.write(SECOND);
        self.drain(sets)
    }

    /// A process that confirms all there is. Gives back how many rows it left out and its log.
    #[track_caller]
    pub fn drain(&self, sets: &[&str]) -> (usize, String) {
        let mut sluice = self.start(sets);
        self.wait_confirmed(&mut sluice);
        let left_out = sluice.metric("pgsluice_already_stored_total", &[]) as usize;
        assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
        (left_out, sluice.log())
    }

    /// What the next process is to leave out, if nothing of it is gone.
    pub fn unconfirmed(&self) -> usize {
        if self.end == End::Killed { FIRST.len() * self.tables.len() } else { 0 }
    }

    /// Every row in a topic, ascending, each record of ours there once.
    #[track_caller]
    pub fn rows(&self, topic: &str) -> Vec<u32> {
        rows_of(&ours(topic))
    }
}

/// Two worlds at once, one for each end.
#[track_caller]
pub fn both(name: &str, tables: &'static [&'static str], case: impl Fn(&World) + Sync) {
    postgres();
    kafka();
    at_once([End::Stopped, End::Killed], |end| case(&World::new(name, end, tables)));
}

/// The same for pipelines that are beside each other.
#[track_caller]
pub fn first_of(worlds: &[&World], sets: &[&str]) {
    let mut all: Vec<_> = worlds.iter().map(|world| (*world, world.start(sets))).collect();
    let first = worlds[0];
    first.write(BASE);
    all.iter_mut().for_each(|(world, sluice)| world.wait_confirmed(sluice));
    let before: Vec<_> = all.iter().map(|(_, sluice)| stored(sluice)).collect();
    for world in worlds.iter().filter(|world| world.end == End::Killed) {
        world.proxy.hold();
    }
    first.write(FIRST);
    for ((world, sluice), before) in all.iter_mut().zip(before) {
        world.finish(sluice, before);
    }
}

fn proxy(postgres: &Postgres) -> Proxy {
    Proxy::start(0, &format!("127.0.0.1:{}", postgres.port()))
}

/// A thread each.
#[track_caller]
pub fn at_once<T: Send>(of: impl IntoIterator<Item = T>, case: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        let case = &case;
        let all: Vec<_> = of.into_iter().map(|one| scope.spawn(move || case(one))).collect();
        let ends: Vec<_> = all.into_iter().map(|thread| thread.join()).collect();
        assert!(ends.iter().all(Result::is_ok), "a case failed; its reason is above");
    });
}

/// Waits until an instance is in this role, as `/status` has it.
#[track_caller]
pub fn is(sluice: &Pgsluice, role: &str) {
    let role = format!("\"role\":\"{role}\"");
    eventually(LIMIT, &role, || sluice.http("/status").is_ok_and(|(_, body)| body.contains(&role)));
}

/// Records that Kafka has acknowledged.
pub fn stored(sluice: &Pgsluice) -> usize {
    sluice.metric("pgsluice_records_total", &[]) as usize
}

/// The records with an `id`, also behind a transaction that is open, checked: each is there once.
#[track_caller]
pub fn ours(topic: &str) -> Vec<Record> {
    ours_in(kafka(), topic)
}

/// The same of another cluster.
#[track_caller]
pub fn ours_in(kafka: &Kafka, topic: &str) -> Vec<Record> {
    let all = kafka.dump_uncommitted(topic);
    let ours: Vec<_> = all.into_iter().filter(|one| one.header("id").is_some()).collect();
    let ids: BTreeSet<_> = ours.iter().map(|one| one.header("id").unwrap()).collect();
    assert_eq!(ids.len(), ours.len(), "a record of {topic} is stored twice");
    ours
}

/// What a consumer with `isolation.level=read_committed` has of a topic, checked: each record is there once.
#[track_caller]
pub fn stored_once(topic: &str) -> Vec<Record> {
    let all = kafka().dump(topic);
    let ids: BTreeSet<_> = all.iter().map(|one| one.header("id").unwrap()).collect();
    assert_eq!(ids.len(), all.len(), "a record of {topic} is there twice");
    all
}

pub fn rows_of(records: &[Record]) -> Vec<u32> {
    let mut rows: Vec<u32> =
        records.iter().map(|record| record.json()["id"].as_u64().unwrap() as u32).collect();
    rows.sort_unstable();
    rows
}

/// That these are all rows of the range, each once.
#[track_caller]
pub fn is_each_once(found: &[u32], rows: Range<u32>, world: &World) {
    assert_eq!(found, rows.collect::<Vec<_>>(), "{}", world.name);
}

impl Drop for World {
    fn drop(&mut self) {
        give_admin(self.admin);
    }
}

fn free() -> std::sync::MutexGuard<'static, Vec<u16>> {
    static FREE: OnceLock<Mutex<Vec<u16>>> = OnceLock::new();
    let free = FREE.get_or_init(|| Mutex::new((0..10).map(|i| PORTS.admin(i)).collect()));
    free.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn take_admin() -> u16 {
    eventually_some(Duration::from_secs(600), "a port is free for admin.listen", || free().pop())
}

pub fn give_admin(port: u16) {
    free().push(port);
}

/// Operation and key of records, in their order.
pub fn lines_of(records: &[Record]) -> Vec<String> {
    let line = |one: &Record| {
        format!("{} {}", one.header("op").unwrap(), one.key.as_deref().unwrap_or("-"))
    };
    records.iter().map(line).collect()
}
