//! Looks all the time, while a fault happens: is the slot's position monotone, is `/livez` 200, who streams.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::load::{connect, runtime};

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Positions of the slot that were looked at.
    pub positions: usize,
    /// Processes that held the slot.
    pub walsenders: BTreeSet<String>,
    /// Answers of `/livez` that were 200.
    pub alive: usize,
    wrong: Vec<String>,
}

/// A thread that looks until it is told to stop.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Watch {
    /// Of this slot, and of the process whose `admin.listen` has this port.
    pub fn start(url: &str, slot: &str, admin: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (url, slot, stop) = (url.to_owned(), slot.to_owned(), Arc::clone(&stop));
            std::thread::spawn(move || runtime().block_on(look(&url, &slot, admin, &stop)))
        };
        Self { stop, thread }
    }

    /// What was seen; fails if the position ever went back or the process was not alive.
    #[track_caller]
    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::SeqCst);
        let seen = self.thread.join().expect("it does not panic");
        assert_eq!(seen.wrong, Vec::<String>::new());
        assert!(seen.positions > 0, "the slot was never seen");
        seen
    }
}

async fn look(url: &str, slot: &str, admin: u16, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut client: Option<Client> = None;
    let mut last = (String::new(), 0);
    let mut turn = 0_u32;
    let sql = format!(
        "select pg_postmaster_start_time()::text, (confirmed_flush_lsn - '0/0')::text, active_pid::text \
         from pg_replication_slots where slot_name = '{slot}'"
    );
    while !stop.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        turn += 1;
        if turn.is_multiple_of(5) {
            alive(admin, &mut seen);
        }
        let Some(open) = &client else {
            client = connect(url).await;
            continue;
        };
        let Ok(Ok(rows)) =
            tokio::time::timeout(Duration::from_secs(3), open.simple_query(&sql)).await
        else {
            client = None;
            continue;
        };
        for row in &rows {
            let SimpleQueryMessage::Row(row) = row else { continue };
            let server = row.get(0).unwrap_or_default().to_owned();
            let position: u64 = row.get(1).and_then(|text| text.parse().ok()).unwrap_or(0);
            // A crash may take it back, as PostgreSQL does not write it down each time.
            if last.0 == server && position < last.1 {
                seen.wrong.push(format!("the slot went back from {} to {position}", last.1));
            }
            last = (server, position);
            seen.positions += 1;
            seen.walsenders.extend(row.get(2).map(str::to_owned));
        }
    }
    seen
}

/// While the process is away nobody answers, which is no fault.
fn alive(admin: u16, seen: &mut Seen) {
    let ask = || -> std::io::Result<String> {
        let limit = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&([127, 0, 0, 1], admin).into(), limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    match ask() {
        Ok(answer) if answer.starts_with("HTTP/1.1 200") => seen.alive += 1,
        Ok(answer) if !answer.is_empty() => seen.wrong.push(answer),
        _ => {}
    }
}
