//! What happened when.

use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Each fault with its time, as Kafka counts it: milliseconds since 1970.
pub struct Diary {
    begin: Instant,
    entries: Mutex<Vec<Entry>>,
}

struct Entry {
    from: i64,
    to: i64,
    number: usize,
    kind: String,
}

impl Diary {
    /// Nothing has happened.
    pub fn new() -> Self {
        Self { begin: Instant::now(), entries: Mutex::default() }
    }

    /// Lets something happen that tells in the end what it was; writes it down and prints it.
    pub fn during(&self, number: usize, kind: &str, what: impl FnOnce() -> String) {
        let (from, begin) = (now(), self.begin.elapsed());
        let told = what();
        let took = self.begin.elapsed() - begin;
        let (begin, took) = (begin.as_secs_f64(), took.as_secs_f64());
        eprintln!("{begin:7.1} s  fault {number}: {told}, {took:.1} s");
        let entry = Entry { from, to: now(), number, kind: kind.to_owned() };
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// Seconds so far.
    pub fn seconds(&self) -> u64 {
        self.begin.elapsed().as_secs()
    }

    /// What had begun last at that time, with its number.
    pub fn at(&self, time: i64) -> (usize, String) {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let last = entries.iter().filter(|entry| entry.from <= time).max_by_key(|entry| entry.from);
        last.map_or_else(
            || (0, "before any fault".to_owned()),
            |Entry { number, to, kind, .. }| {
                let when = if time <= *to { "during" } else { "after" };
                (*number, format!("{when} fault {number} {kind}"))
            },
        )
    }
}

/// The wall's clock, as the brokers and the instances have it.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    i64::try_from(since.as_millis()).expect("and not much after")
}
