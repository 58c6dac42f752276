//! 5000 rows a second, fifty a transaction, by one writer.

use std::io::Write as _;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::bed::Bed;

const ROWS: u64 = 50;
const EVERY: Duration = Duration::from_millis(10);

/// Rows with the ids 0, 1, 2 and so on, until it is stopped.
pub struct Load {
    over: Arc<AtomicBool>,
    writer: JoinHandle<u64>,
    psql: Child,
}

impl Load {
    pub fn start(bed: &Bed) -> Self {
        let mut psql = bed.postgres().psql_for(bed.name, 900);
        let mut psql = psql.stdin(Stdio::piped()).spawn().unwrap();
        let mut input = psql.stdin.take().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let writer = std::thread::spawn(move || {
            let (begin, mut id) = (Instant::now(), 0);
            while !stop.load(Ordering::Relaxed) {
                let last = id + ROWS - 1;
                let rows =
                    format!("select i, repeat('x', 90) from generate_series({id}, {last}) i");
                writeln!(input, "insert into t {rows};").unwrap();
                id += ROWS;
                let due = begin + EVERY * u32::try_from(id / ROWS).unwrap();
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            id
        });
        Self { over, writer, psql }
    }

    /// How many rows there are.
    pub fn stop(mut self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        let count = self.writer.join().unwrap();
        assert!(self.psql.wait().unwrap().success(), "psql failed");
        count
    }
}
