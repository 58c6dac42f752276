//! One PostgreSQL, and the standby that may take its place: a log of transactions, a slot, walsenders.

mod bytes;
mod catalog;
mod session;
pub mod walsender;

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use pgsluice::sim::{Gate, gated};
use tokio::{sync::Notify, time::sleep};

use super::{chance::Chance, net::Net, oracle::Oracle, trace::Trace};

pub const SYSTEM: u64 = 7_300_000_000_000_000_001;

/// Published tables, by `oid - 16384`.
pub const TABLES: [&str; 2] = ["accounts", "notes"];

#[derive(Clone)]
pub struct Server {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    /// It is told to end.
    stops: Arc<Notify>,
    net: Net,
    trace: Trace,
    oracle: Oracle,
}

#[derive(Clone, Debug)]
pub struct Change {
    pub table: usize,
    /// `I`, `U` or `D`.
    pub op: u8,
    pub key: u64,
    pub text: String,
}

#[derive(Clone, Debug)]
struct Transaction {
    xid: u32,
    begin: u64,
    commit: u64,
    end: u64,
    committed_at: i64,
    changes: Arc<Vec<Change>>,
}

struct State {
    chance: Chance,
    /// The host that is the primary: 1 or 2.
    host: usize,
    gate: Gate,
    timeline: u32,
    switches: Vec<(u32, u64)>,
    wal: Vec<Transaction>,
    end: u64,
    xid: u32,
    pid: i32,
    /// Of the slot.
    confirmed: u64,
    /// What is on its disk, and at its standby.
    saved: u64,
    synced: u64,
    active: Option<i32>,
    /// The slot is not there.
    missing: bool,
    /// And was not at some time.
    lacked: bool,
    /// Walsenders that are to end.
    terminated: Vec<i32>,
    /// It ends as soon as its walsender does, and is away for so long.
    stopping: Option<Duration>,
    /// Whether a transaction may come in two parts.
    parts: bool,
}

pub fn name(host: usize) -> String {
    format!("pg{host}")
}

impl Server {
    pub fn new(seed: u64, parts: bool, net: Net, trace: Trace, oracle: Oracle) -> Self {
        const BEGIN: u64 = 0x100_0000;
        let state = State {
            chance: Chance::of(seed, "postgres"),
            host: 1,
            gate: Gate::default(),
            timeline: 1,
            switches: Vec::new(),
            wal: Vec::new(),
            end: BEGIN,
            xid: 700,
            pid: 100,
            confirmed: BEGIN,
            saved: BEGIN,
            synced: BEGIN,
            active: None,
            missing: false,
            lacked: false,
            terminated: Vec::new(),
            stopping: None,
            parts,
        };
        let this = Self {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::new(Notify::new()),
            stops: Arc::new(Notify::new()),
            net,
            trace,
            oracle,
        };
        this.listen();
        this
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn listen(&self) {
        let (this, gate, host) = {
            let state = self.lock();
            (self.clone(), state.gate.clone(), state.host)
        };
        let process = gate.clone();
        let accept = move |_, end| {
            let (this, gate) = (this.clone(), gate.clone());
            tokio::spawn(gated(gate, async move { this.serve(end).await }));
        };
        self.net.listen(&name(host), process, Arc::new(accept));
    }

    /// Commits a transaction; without changes it is one of unpublished tables.
    pub fn commit(&self, changes: Vec<Change>) {
        let mut state = self.lock();
        if !state.gate.runs() || state.stopping.is_some() {
            return;
        }
        self.write(&mut state, changes);
        drop(state);
        self.changed.notify_waiters();
    }

    fn write(&self, state: &mut State, changes: Vec<Change>) {
        let begin = state.end + state.chance.below(4) * 8;
        let commit = begin + 64 * (changes.len() as u64 + 1);
        let end = commit + 48;
        (state.end, state.xid) = (end, state.xid + 1);
        let unix = pgsluice::sim::unix().as_micros() as i64;
        let transaction = Transaction {
            xid: state.xid,
            begin,
            commit,
            end,
            committed_at: unix - 946_684_800_000_000,
            changes: Arc::new(changes),
        };
        let rows = transaction.changes.len() as u32;
        self.trace.say(format_args!("commit {commit:x} of {rows} rows"));
        let keys = transaction.changes.iter().map(|change| change.key).collect();
        self.oracle.commit(state.timeline, commit, keys);
        state.wal.push(transaction);
    }

    /// A walsender was told this.
    fn confirm(&self, flushed: u64) {
        let mut state = self.lock();
        if flushed > state.confirmed {
            self.trace.say(format_args!("confirmed {flushed:x}"));
            if flushed > state.end {
                self.trace.broken(format_args!("{flushed:x} is confirmed, beyond the WAL's end"));
            }
            self.oracle.confirmed(flushed);
            state.confirmed = flushed;
            if state.chance.one_in(3) {
                state.saved = flushed;
            }
            if state.chance.one_in(2) {
                state.synced = state.saved;
                self.oracle.forgotten(state.synced);
            }
        }
    }

    /// It ends and is started anew: after a crash the slot is as it was last saved.
    pub fn restart(&self, crash: bool, away: Duration) {
        self.trace.say(format_args!("postgres is started anew, crash: {crash}"));
        let (gate, next) = {
            let mut state = self.lock();
            let gate = std::mem::take(&mut state.gate);
            if crash {
                state.confirmed = state.saved;
            } else {
                state.saved = state.confirmed;
            }
            (state.active, state.terminated, state.stopping) = (None, Vec::new(), None);
            let next = state.gate.clone();
            next.freeze(); // nothing is committed meanwhile
            (gate, next)
        };
        gate.kill();
        let this = self.clone();
        tokio::spawn(async move {
            sleep(away).await;
            next.thaw();
            this.listen();
        });
    }

    /// It is told to end: all but the walsender that has the slot end at once, and that one when its
    /// client has confirmed everything, to the end of the last record.
    pub fn shut_down(&self, away: Duration) {
        {
            let mut state = self.lock();
            if !state.gate.runs() || state.stopping.is_some() {
                return;
            }
            self.trace.say(format_args!("postgres is told to end"));
            self.write(&mut state, Vec::new()); // the last checkpoint
            state.stopping = Some(away);
        }
        self.stops.notify_waiters();
        self.changed.notify_waiters();
        self.ended();
    }

    /// Nobody has the slot any more.
    fn ended(&self) {
        let away = {
            let mut state = self.lock();
            if state.active.is_some() { None } else { state.stopping.take() }
        };
        if let Some(away) = away {
            self.restart(false, away);
        }
    }

    /// Its standby takes over, which has not got the last transactions; `false`: it has before.
    pub fn promote(&self, away: Duration) -> bool {
        {
            let mut state = self.lock();
            if state.host == 2 {
                return false;
            }
            let behind = match state.chance.below(3) {
                0 => 0,
                _ => state.chance.below(6) as usize,
            };
            let keep = state.wal.len().saturating_sub(behind);
            // What the slot on the standby stands at was there.
            let kept = state.wal.iter().take(keep).map(|one| one.end).next_back();
            let switch = kept.unwrap_or(state.end).max(state.synced);
            let lost: Vec<Transaction> = {
                let at = state.wal.partition_point(|one| one.end <= switch);
                state.wal.split_off(at)
            };
            let timeline = state.timeline;
            lost.iter().for_each(|one| self.oracle.lost(timeline, one.commit));
            self.trace.say(format_args!("promoted at {switch:x}, {} are lost", lost.len()));
            state.switches.push((timeline, switch));
            (state.timeline, state.host, state.end) = (timeline + 1, 2, switch);
            state.confirmed = state.synced.min(switch);
            state.saved = state.confirmed;
        }
        self.restart(false, away);
        true
    }

    /// From now on it is missing, or is there.
    pub fn lack_slot(&self, missing: bool) {
        self.trace.say(format_args!("the slot is missing: {missing}"));
        let mut state = self.lock();
        (state.missing, state.lacked) = (missing, true);
    }

    /// Whether it ever was missing.
    pub fn lacked_slot(&self) -> bool {
        self.lock().lacked
    }

    /// `pg_terminate_backend` of the walsender.
    pub fn terminate(&self) {
        let mut state = self.lock();
        state.terminated = state.active.into_iter().collect();
        drop(state);
        self.changed.notify_waiters();
    }

    /// The slot's position, and whether a walsender has it.
    pub fn slot(&self) -> (u64, bool) {
        let state = self.lock();
        (state.confirmed, state.active.is_some())
    }

    /// The slot is on disk as it is, as after a checkpoint.
    pub fn save(&self) {
        let mut state = self.lock();
        state.saved = state.confirmed;
    }

    /// Whether the slot is beyond the last published row.
    pub fn done(&self) -> bool {
        let state = self.lock();
        let last = state.wal.iter().rev().find(|one| !one.changes.is_empty());
        last.is_none_or(|one| state.confirmed > one.commit)
    }
}
