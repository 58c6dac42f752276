//! A load whose every committed change is known, also when the server dies in the middle of a commit.
//!
//! One writer, so that the order of commits is the order in the model. Each transaction also moves a counter in a table that is
//! not published: after a lost connection the counter tells whether the last one was committed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

/// Published, in this order in a [`Key`]. `c` has the identity FULL.
pub const TABLES: [&str; 3] = ["a", "b", "c"];

/// Ids in each table: few enough that a key has many changes.
const IDS: u64 = 120;

/// A row, by the place of its table and its id.
pub type Key = (usize, u64);

/// What happened to it: `c`, `u` or `d`, and the number of the change (0 for a delete, which does not bear one).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Change {
    /// As in the header `op`.
    pub op: char,
    /// Unique and ascending over all tables.
    pub seq: u64,
}

/// Every committed change, by key, in the order of commits.
#[derive(Debug, Default)]
pub struct Model {
    /// Those of each key.
    pub keys: BTreeMap<Key, Vec<Change>>,
    /// Transactions that are committed.
    transactions: u64,
    seq: u64,
}

impl Model {
    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.keys.values().map(Vec::len).sum()
    }

    /// What a row of this number holds besides: long enough now and then to be TOASTed.
    pub fn pad(seq: u64) -> String {
        let length =
            if seq.is_multiple_of(97) { 5000 } else { 10 + usize::try_from(seq % 90).unwrap_or(0) };
        format!("{seq}-{}", "x".repeat(length))
    }

    /// The changes of one table, by id.
    pub fn changes(&self, table: usize) -> BTreeMap<u64, Vec<Change>> {
        let of_table = self.keys.iter().filter(|((at, _), _)| *at == table);
        of_table.map(|((_, id), changes)| (*id, changes.clone())).collect()
    }

    /// The rows of a table as they must be now: id and number.
    pub fn rows(&self, table: usize) -> BTreeMap<u64, u64> {
        let of_table = self.keys.iter().filter(|((at, _), _)| *at == table);
        let last = of_table.filter_map(|((_, id), changes)| Some((*id, *changes.last()?)));
        last.filter(|(_, change)| change.op != 'd').map(|(id, change)| (id, change.seq)).collect()
    }

    fn alive(&self, key: Key) -> bool {
        self.keys.get(&key).and_then(|changes| changes.last()).is_some_and(|last| last.op != 'd')
    }
}

/// A chance that can be had twice (SplitMix64).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The same seed, the same numbers; in the long run, which sets `TESTS_SEED`, others each time.
    pub fn new(seed: u64) -> Self {
        let round = std::env::var("TESTS_SEED").ok().and_then(|text| text.parse::<u64>().ok());
        Self(seed ^ round.unwrap_or(0) << 16)
    }

    /// From 0 to `bound` - 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    /// A pause of this many milliseconds.
    pub fn pause(&mut self, from: u64, to: u64) {
        std::thread::sleep(Duration::from_millis(from + self.below(to - from)));
    }
}

/// A transaction that is on its way.
struct Pending {
    number: u64,
    changes: Vec<(Key, Change)>,
    sql: String,
}

/// How fast to write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pace {
    /// With a pause after each transaction.
    Steady,
    /// Without.
    Flat,
}

/// A thread that writes until it is told to stop.
pub struct Writer {
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicU64>,
    thread: JoinHandle<Model>,
}

impl Writer {
    /// Writes into this database: about 40 transactions a second, or as many as it can.
    pub fn start(url: &str, seed: u64, pace: Pace) -> Self {
        let (stop, committed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = {
            let (url, stop, committed) =
                (url.to_owned(), Arc::clone(&stop), Arc::clone(&committed));
            std::thread::spawn(move || {
                let runtime = runtime();
                runtime.block_on(write(&url, Chance::new(seed), pace, &stop, &committed))
            })
        };
        Self { stop, committed, thread }
    }

    /// Transactions committed so far by this writer.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::SeqCst)
    }

    /// Waits for this many more transactions.
    #[track_caller]
    pub fn wait_more(&self, count: u64, deadline: Duration) {
        let want = self.committed() + count;
        crate::support::eventually(deadline, &format!("{want} transactions are committed"), || {
            self.committed() >= want
        });
    }

    /// Ends the load; what was on its way is settled first.
    #[track_caller]
    pub fn stop(self) -> Model {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the writer says why it ends")
    }
}

/// For one thread.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts")
}

/// A connection of which nothing is expected.
pub async fn connect(url: &str) -> Option<Client> {
    let limit = Duration::from_secs(5);
    let (client, connection) =
        tokio::time::timeout(limit, tokio_postgres::connect(url, NoTls)).await.ok()?.ok()?;
    tokio::spawn(connection);
    Some(client)
}

async fn write(
    url: &str,
    mut chance: Chance,
    pace: Pace,
    stop: &AtomicBool,
    committed: &AtomicU64,
) -> Model {
    let mut model = Model::default();
    let mut client: Option<Client> = None;
    let mut pending: Option<Pending> = None;
    let mut heard = Instant::now();
    while pending.is_some() || !stop.load(Ordering::SeqCst) {
        assert!(heard.elapsed() < Duration::from_secs(90), "the writer has lost PostgreSQL");
        let Some(open) = &client else {
            client = connect(url).await;
            if let (Some(open), Some(last)) = (&client, &pending) {
                // In doubt: the counter knows.
                match counter(open).await {
                    Some(number) if number == last.number => {
                        settle(&mut model, pending.take(), committed);
                    }
                    Some(_) => pending = None,
                    None => client = None,
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let next = generate(&mut chance, &model);
        let sql = next.sql.clone();
        pending = Some(next);
        match open.batch_execute(&sql).await {
            Ok(()) => settle(&mut model, pending.take(), committed),
            Err(error) => match error.as_db_error() {
                // A server that goes down; anything else is a mistake of this file.
                Some(db) if !db.code().code().starts_with("57P") => panic!("{db}: {sql:.200}"),
                _ => client = None,
            },
        }
        heard = Instant::now();
        if pace == Pace::Steady || client.is_none() {
            tokio::time::sleep(Duration::from_millis(10 + chance.below(30))).await;
        }
    }
    model
}

async fn counter(client: &Client) -> Option<u64> {
    let rows = client.simple_query("select number from marker").await.ok()?;
    rows.iter().find_map(|row| match row {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    })
}

fn settle(model: &mut Model, done: Option<Pending>, committed: &AtomicU64) {
    let Some(done) = done else { return };
    for (key, change) in done.changes {
        model.keys.entry(key).or_default().push(change);
        model.seq = model.seq.max(change.seq);
    }
    model.transactions = done.number;
    committed.fetch_add(1, Ordering::SeqCst);
}

/// Mostly small, now and then some hundreds of changes.
fn generate(chance: &mut Chance, model: &Model) -> Pending {
    let size = match chance.below(40) {
        0 => 300 + chance.below(300),
        1..=9 => 10 + chance.below(20),
        _ => 1 + chance.below(4),
    };
    let mut changes = Vec::new();
    let mut alive: HashMap<Key, bool> = HashMap::new();
    let mut seq = model.seq;
    let mut sql = String::from("begin;");
    for _ in 0..size {
        let at = usize::try_from(chance.below(3)).unwrap_or(0);
        let (id, table) = (chance.below(IDS), TABLES[at]);
        let key = (at, id);
        let lives = alive.entry(key).or_insert_with(|| model.alive(key));
        let (op, number) = match (*lives, chance.below(4)) {
            (false, _) => ('c', seq + 1),
            (true, 0) => ('d', 0),
            (true, _) => ('u', seq + 1),
        };
        *lives = op != 'd';
        seq = seq.max(number);
        let pad = Model::pad(number);
        sql += &match op {
            'c' => format!("insert into {table} values ({id}, {number}, '{pad}');"),
            'u' => format!("update {table} set seq = {number}, pad = '{pad}' where id = {id};"),
            _ => format!("delete from {table} where id = {id};"),
        };
        changes.push((key, Change { op, seq: number }));
    }
    let number = model.transactions + 1;
    sql += &format!("update marker set number = {number};commit");
    Pending { number, changes, sql }
}
