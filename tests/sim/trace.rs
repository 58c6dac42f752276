//! What happened in a history: as a hash, by which two runs are compared, and in words if wanted; and
//! the first promise that was broken.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex},
};

use tokio::time::Instant;

#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    begin: Instant,
    hash: u64,
    line: String,
    lines: Option<Vec<String>>,
    broken: Option<String>,
    checks: u64,
    faults: BTreeMap<&'static str, u64>,
}

/// What is left of it.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub hash: u64,
    pub lines: Vec<String>,
    pub broken: Option<String>,
    pub checks: u64,
    pub faults: BTreeMap<&'static str, u64>,
}

impl Trace {
    pub fn new(keep: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            begin: Instant::now(),
            hash: 0xcbf2_9ce4_8422_2325,
            line: String::new(),
            lines: keep.then(Vec::new),
            broken: None,
            checks: 0,
            faults: BTreeMap::new(),
        })))
    }

    pub fn say(&self, what: std::fmt::Arguments<'_>) {
        let mut inner = self.0.lock().unwrap();
        let Inner { begin, hash, line, lines, .. } = &mut *inner;
        line.clear();
        let _ = write!(line, "{:>8.3} {what}", begin.elapsed().as_secs_f64());
        for byte in line.bytes() {
            *hash = (*hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(lines) = lines {
            tracing::info!("{line}");
            lines.push(line.clone());
        }
    }

    /// A promise was broken: the first one is kept.
    pub fn broken(&self, what: std::fmt::Arguments<'_>) {
        self.say(format_args!("BROKEN: {what}"));
        self.0.lock().unwrap().broken.get_or_insert_with(|| what.to_string());
    }

    pub fn is_broken(&self) -> bool {
        self.0.lock().unwrap().broken.is_some()
    }

    /// A promise was looked at.
    pub fn checked(&self) {
        self.0.lock().unwrap().checks += 1;
    }

    pub fn fault(&self, kind: &'static str) {
        *self.0.lock().unwrap().faults.entry(kind).or_default() += 1;
    }

    pub fn told(&self) -> Told {
        let inner = self.0.lock().unwrap();
        Told {
            hash: inner.hash,
            lines: inner.lines.clone().unwrap_or_default(),
            broken: inner.broken.clone(),
            checks: inner.checks,
            faults: inner.faults.clone(),
        }
    }
}
