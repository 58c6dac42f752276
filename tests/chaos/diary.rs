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
    text: String,
}

impl Diary {
    /// Nothing has happened.
    pub fn new() -> Self {
        Self { begin: Instant::now(), entries: Mutex::default() }
    }

    /// Lets something happen that tells in the end what it was; writes it down and prints it.
    pub fn during(&self, number: usize, what: impl FnOnce() -> String) {
        let (from, begin) = (now(), self.begin.elapsed());
        let text = format!("fault {number}: {}", what());
        let took = self.begin.elapsed() - begin;
        eprintln!("{:7.1} s  {text}, {:.1} s", begin.as_secs_f64(), took.as_secs_f64());
        let entry = Entry { from, to: now(), text };
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// Seconds so far.
    pub fn seconds(&self) -> u64 {
        self.begin.elapsed().as_secs()
    }

    /// What was under way at that time, or was the last before it.
    pub fn at(&self, time: i64) -> String {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let during = |entry: &&Entry| entry.from <= time && time <= entry.to;
        let found: Vec<&Entry> = entries.iter().filter(during).collect();
        if !found.is_empty() {
            let texts: Vec<&str> = found.iter().map(|entry| entry.text.as_str()).collect();
            return format!("during {}", texts.join(" and "));
        }
        let last = entries.iter().filter(|entry| entry.to < time).max_by_key(|entry| entry.to);
        last.map_or_else(
            || "before any fault".to_owned(),
            |last| format!("{} ms after {}", time - last.to, last.text),
        )
    }
}

/// The wall's clock, as the brokers and the instances have it.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    i64::try_from(since.as_millis()).expect("and not much after")
}
