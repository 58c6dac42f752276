//! A bank of which `t` and `u` hold the accounts, and a consumer that keeps its own books: it applies each transfer once
//! all its rows are there, in the order of commits. Whoever is killed, stopped or frozen, its sum is never wrong.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::support::{Mode, eventually, script};
use crate::world::{End, LIMIT, World, at_once, is, kafka, postgres};

const ACCOUNTS: u32 = 20;
const BALANCE: i64 = 1000;

/// So that a transfer, which is wide, comes in parts: what ends a process finds it in the midst of one.
const NARROW: Mode = Mode::Slow(700_000);

/// Its table and its number.
type Account = (&'static str, u64);

/// What the consumer knows.
#[derive(Default)]
struct Books {
    balances: HashMap<Account, i64>,
    /// By commit: account and balance, of how many rows.
    open: BTreeMap<String, (usize, Vec<(Account, i64)>)>,
    seen: HashSet<String>,
    applied: usize,
    wrong: Vec<String>,
}

impl Books {
    fn record(&mut self, table: &'static str, record: &Value) {
        let mut headers = record["headers"].as_array().unwrap().iter();
        let id = headers.find(|pair| pair[0] == "id").unwrap()[1].as_str().unwrap().to_owned();
        let row: Value = serde_json::from_str(record["value"].as_str().unwrap()).unwrap();
        let account = (table, row["id"].as_u64().unwrap());
        let rows = row["a"].as_str().unwrap().trim().parse().unwrap();
        let commit = id.split('-').nth(2).unwrap().to_owned();
        if !self.seen.insert(id.clone()) {
            self.wrong.push(format!("{id} came twice"));
        }
        let open = self.open.entry(commit).or_default();
        open.0 = rows;
        open.1.push((account, row["k"].as_i64().unwrap()));
        self.apply();
    }

    fn apply(&mut self) {
        while let Some(first) = self.open.first_entry() {
            if first.get().1.len() < first.get().0 {
                return;
            }
            let (commit, (_, rows)) = first.remove_entry();
            self.balances.extend(rows);
            self.applied += 1;
            let sum: i64 = self.balances.values().sum();
            if sum != 2 * i64::from(ACCOUNTS) * BALANCE {
                self.wrong.push(format!("the sum is {sum} after {commit}"));
            }
        }
    }
}

/// The consumer: two programs that print what they get, as long as the test lasts.
struct Consumer {
    books: Arc<Mutex<Books>>,
    programs: Vec<Child>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Consumer {
    fn start(world: &World) -> Self {
        let books = Arc::<Mutex<Books>>::default();
        let (mut programs, mut threads) = (Vec::new(), Vec::new());
        for table in ["t", "u"] {
            let mut program = Command::new("timeout")
                .args(["--kill-after=10", "600"])
                .arg(script("kafka-dump"))
                .args([kafka().brokers(), &world.topic(table), "--follow", "--timeout", "600"])
                .args(["--isolation", "read_committed"])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .expect("kafka-dump starts");
            let lines = BufReader::new(program.stdout.take().unwrap()).lines();
            programs.push(program);
            let books = Arc::clone(&books);
            threads.push(std::thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    let record = serde_json::from_str(&line).unwrap();
                    lock(&books).record(table, &record);
                }
            }));
        }
        Self { books, programs, threads }
    }

    fn applied(&self) -> usize {
        let books = lock(&self.books);
        assert_eq!(books.wrong, Vec::<String>::new());
        books.applied
    }

    /// Waits until all that is visible was read, while nobody writes: no part of a transfer is among it.
    #[track_caller]
    fn wait_whole(&self, world: &World) {
        let visible: usize =
            ["t", "u"].iter().map(|table| kafka().dump(&world.topic(table)).len()).sum();
        eventually(LIMIT, "all that is visible is read", || {
            lock(&self.books).seen.len() >= visible
        });
        let books = lock(&self.books);
        assert!(books.open.is_empty(), "seen in part: {:?}", books.open);
    }

    /// That its books are PostgreSQL's.
    #[track_caller]
    fn is_balanced(&self, world: &World) {
        let books = lock(&self.books);
        for table in ["t", "u"] {
            let of = books.balances.iter().filter(|((of, _), _)| *of == table);
            let ours: i64 = of.map(|((_, id), balance)| *id as i64 * balance).sum();
            let theirs = world.sql(&format!("select sum(k * id) from {table}"));
            assert_eq!(ours.to_string(), theirs, "the accounts of {table}");
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        for program in &mut self.programs {
            // It passes the signal on to what it started.
            let _ = Command::new("kill").arg(program.id().to_string()).status();
            let _ = program.wait();
        }
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn lock(books: &Mutex<Books>) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So many transfers, each of 2 to 12 rows.
fn transfers(world: &World, count: usize) {
    world.sql(&format!(
        "do $$ declare n int; x int; wide text; begin for i in 1..{count} loop
           n := 1 + (random() * 5)::int; x := (random() * 100)::int; wide := rpad((2 * n)::text, 1000);
           with chosen as (select id from t order by random() limit n)
             update t set k = k - x, a = wide from chosen where t.id = chosen.id;
           with chosen as (select id from u order by random() limit n)
             update u set k = k + x, a = wide from chosen where u.id = chosen.id;
           commit; perform pg_sleep(0.001);
         end loop; end $$"
    ));
}

#[test]
fn a_consumer_of_two_topics_never_sees_a_wrong_sum_nor_keeps_a_transfer_in_part() {
    postgres();
    kafka();
    at_once(["5ms", "100ms"], |interval| {
        let world = &World::new(&format!("bank_{interval}"), End::Killed, &["t", "u"]);
        // One that is frozen stays where it is, and the next is elsewhere.
        let (places, mut place) = ([world, &world.again()], 0);
        places.iter().for_each(|place| place.proxy.set(NARROW));
        let interval = format!("kafka.transaction.interval={interval}");
        let sets = ["kafka.delivery=transactional", "run.drain=60s", &interval];
        let rows = 2 * ACCOUNTS;
        let insert = |table| {
            format!(
                "insert into {table} select i, {BALANCE}, '{rows}' from generate_series(1, {ACCOUNTS}) i;"
            )
        };
        let mut sluice = world.start(&sets);
        world.sql(&format!("begin; {}{} commit", insert("t"), insert("u")));
        world.wait_confirmed(&mut sluice);
        let consumer = Consumer::start(world);
        eventually(LIMIT, "the accounts are known", || consumer.applied() == 1);
        let mut done = 1;
        for round in 1..=6 {
            let mut frozen = None;
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| transfers(world, 200));
                eventually(LIMIT, "some transfers are seen", || {
                    consumer.applied() > done + 20 * round
                });
                match round % 3 {
                    0 => assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log()),
                    1 => sluice.kill(),
                    _ => sluice.pause(),
                }
                places[place].proxy.cut_once();
                places[place].proxy.set(NARROW);
                // What is visible now is all there will be of it for a while.
                consumer.wait_whole(world);
                if round % 3 == 2 {
                    place = 1 - place;
                    let next = places[place].start(&sets);
                    let last = frozen.insert(std::mem::replace(&mut sluice, next));
                    last.resume(); // in the midst of whatever it did
                } else {
                    sluice = places[place].start(&sets);
                }
                writer.join().unwrap();
            });
            world.wait_confirmed(&mut sluice);
            done += 200;
            eventually(LIMIT, "all transfers are seen", || consumer.applied() == done);
            if let Some(mut frozen) = frozen {
                is(&frozen, "passive");
                assert_eq!(frozen.stop(LIMIT), 0, "{}", frozen.log());
            }
            consumer.wait_whole(world);
        }
        assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
        consumer.is_balanced(world);
    });
}
