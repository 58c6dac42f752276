//! Rows are written, by several connections at a time. Nobody here knows what of it is committed: [`crate::reference`] does.
//!
//! So a statement fits whatever rows there are: an insert updates a row that is there, a delete of none is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

use crate::chance::Chance;
use crate::rows::{TABLES, Table};

/// Rows of a table: few enough that a key has many changes.
const ROWS: u64 = 200;

/// The rows of large transactions are others, from there on.
const LARGE: u64 = 10_000;

/// Connections that write.
const WRITERS: u64 = 4;

/// A pause after each transaction, so that there are a few hundred in a second.
const PAUSE: Duration = Duration::from_millis(5);

/// Longer than any fault, with a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Threads that write until they are told to stop.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Transactions that are committed for all we know.
    committed: AtomicU64,
    /// The last number that was given to a row.
    seq: AtomicU64,
}

impl Load {
    /// Writes into this database.
    pub fn start(url: &str, seed: u64) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (1..=WRITERS).map(|number| {
            let (url, shared) = (url.to_owned(), Arc::clone(&shared));
            std::thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(write(&url, Chance::new(seed, number), &shared));
            })
        });
        Self { threads: threads.collect(), shared }
    }

    /// Transactions committed so far, but for those whose answer was lost.
    pub fn committed(&self) -> u64 {
        self.shared.committed.load(Ordering::SeqCst)
    }

    /// Whether it still writes, or has failed.
    pub fn alive(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// Ends it.
    #[track_caller]
    pub fn stop(mut self) -> u64 {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("the writer says why it ends");
        }
        self.committed()
    }
}

async fn connect(url: &str) -> Option<Client> {
    let limit = Duration::from_secs(5);
    let (client, connection) =
        tokio::time::timeout(limit, tokio_postgres::connect(url, NoTls)).await.ok()?.ok()?;
    tokio::spawn(connection);
    Some(client)
}

async fn write(url: &str, mut chance: Chance, shared: &Shared) {
    let (mut client, mut heard) = (None, Instant::now());
    while !shared.stop.load(Ordering::SeqCst) {
        assert!(heard.elapsed() < LIMIT, "the writer has not heard of PostgreSQL for {LIMIT:?}");
        let Some(open) = &client else {
            client = connect(url).await;
            tokio::time::sleep(PAUSE * 4).await;
            continue;
        };
        let sql = transaction(&mut chance, shared);
        match tokio::time::timeout(LIMIT, open.batch_execute(&sql)).await {
            Ok(Ok(())) => {
                heard = Instant::now();
                shared.committed.fetch_add(1, Ordering::SeqCst);
            }
            Ok(Err(error)) => match error.as_db_error() {
                // Two writers met: one begins anew.
                Some(db) if matches!(db.code().code(), "40P01" | "23505") => {
                    let _ = open.batch_execute("rollback").await;
                }
                // A server that goes down, or the connection; anything else is a mistake of this file.
                Some(db) if !db.code().code().starts_with("57P") => panic!("{db}: {sql:.500}"),
                _ => client = None,
            },
            Err(_) => client = None,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The text of a transaction.
fn transaction(chance: &mut Chance, shared: &Shared) -> String {
    let mut sql = String::from("begin;");
    if chance.below(1500) == 0 {
        let (table, rows) = (&TABLES[index(chance)], chance.between(2000, 5000));
        sql += &put(table, &format!("{LARGE} + i"), rows, shared);
        if chance.below(4) == 0 {
            sql += &format!("delete from {} where id >= {};", table.name, LARGE / 4 + 1000);
        }
        return sql + "commit";
    }
    let statements =
        if chance.below(12) == 0 { chance.between(5, 20) } else { chance.between(1, 3) };
    for number in 0..statements {
        // What is rolled back takes numbers, and is never seen.
        match chance.below(16) {
            0 => {
                let nothing = statement(chance, shared) + &statement(chance, shared);
                sql += &format!("savepoint s{number};{nothing}rollback to s{number};");
            }
            1 => {
                let kept = statement(chance, shared);
                sql += &format!("savepoint s{number};{kept}release s{number};");
            }
            _ => sql += &statement(chance, shared),
        }
    }
    sql + if chance.below(50) == 0 { "rollback" } else { "commit" }
}

fn index(chance: &mut Chance) -> usize {
    usize::try_from(chance.below(TABLES.len() as u64)).expect("it is an index")
}

fn statement(chance: &mut Chance, shared: &Shared) -> String {
    let table = &TABLES[index(chance)];
    let (name, n) = (table.name, chance.below(ROWS));
    let is = |n: u64| format!("({}) = ({})", table.key_columns(), table.key_of(&n.to_string()));
    match chance.below(10) {
        0..=4 => put(table, &n.to_string(), 1, shared),
        5 => put(table, &format!("{n} + i"), chance.between(2, 12), shared),
        6 => {
            let (rows, last) = (chance.between(2, 12), n + 40);
            let base = shared.numbers(200);
            format!(
                "with few as (select ctid, row_number() over () - 1 as i from {name} \
                   where id between {n} and {last} limit {rows}) \
                 update {name} t set seq = {base} + i, pad = pad({base} + i) from few where t.ctid = few.ctid;"
            )
        }
        7 => {
            let (other, seq) = (chance.below(ROWS), shared.numbers(1));
            let key = table.key_of(&other.to_string());
            format!(
                "update {name} set ({}, seq, pad) = ({key}, {seq}, pad({seq})) \
                 where {} and not exists (select from {name} where {});",
                table.key_columns(),
                is(n),
                is(other)
            )
        }
        8 => format!("delete from {name} where {};", is(n)),
        _ => format!("delete from {name} where id between {n} and {};", n + chance.below(8)),
    }
}

/// Rows by their numbers, in which `i` goes from 0 to `rows` - 1: new ones, or the ones that are there are updated.
fn put(table: &Table, n: &str, rows: u64, shared: &Shared) -> String {
    let base = shared.numbers(rows);
    format!(
        "insert into {} select {}, {base} + i, pad({base} + i) from generate_series(0, {}) i \
         on conflict ({}) do update set seq = excluded.seq, pad = excluded.pad;",
        table.name,
        table.key_of(n),
        rows - 1,
        table.key_columns()
    )
}

impl Shared {
    /// The first of so many numbers for rows.
    fn numbers(&self, count: u64) -> u64 {
        self.seq.fetch_add(count, Ordering::SeqCst) + 1
    }
}
