//! Beside the stream: an ordinary connection on which the slot is looked at, and heartbeats are
//! written while nothing else moves.
//!
//! The slot of a quiet publication stands still while everybody else writes WAL, which it keeps; a
//! heartbeat moves it, proves the whole path alive, and measures it from end to end. And what would
//! hurt later, as a limit that comes near or a transaction that is left open, is said before it does.
//! The other hosts are asked beside it whether the stream could go on there: `standbys`.
//!
//! **Must stay true.** The stream waits for nothing of this, and nothing of this ends it: a connection
//! that is blocked or broken is made anew in silence, what was seen last is marked stale, and a
//! heartbeat that is late is said, and no more. Every statement has a limit in time.

mod beat;
mod concern;
mod stall;
mod standbys;
mod task;

use std::{hash::BuildHasher as _, time::Duration};

use tokio::{sync::watch, task::JoinHandle};

use crate::{
    pg::{
        connect::{self, Host},
        slot::Ready,
    },
    pipeline::Pulse,
    sim,
    status::Status,
};

/// `slot.heartbeat` and what else is done about the slot.
#[derive(Clone, Debug)]
pub struct Options {
    /// `slot.heartbeat`: written when nothing else moved for so long; zero: never.
    pub heartbeat: Duration,
    /// `slot.health_interval`: how often the slot is looked at; zero: never.
    pub interval: Duration,
    /// `slot.warn_retained`: more WAL than this is said; zero: never.
    pub warn_retained: u64,
    /// `slot.standby_interval`: how often the other hosts are asked for their copies; zero: never.
    pub standbys: Duration,
}

/// With which server, and as whom.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Aim {
    /// There is nobody to ask.
    Away,
    /// Another instance streams, from the slot of this server.
    Passive(Host),
    /// We do.
    Active(Box<Source>),
}

/// The server that we stream from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Source {
    host: Host,
    version_num: u32,
    role: String,
    in_recovery: bool,
    /// No two sessions are the same.
    session: u64,
}

/// The task, as the supervisor holds it.
pub(super) struct Vigil {
    aim: watch::Sender<Aim>,
    sessions: u64,
    task: Option<JoinHandle<()>>,
    standbys: Option<JoinHandle<()>>,
}

impl Vigil {
    /// Begins, and gives what the pipeline is to tell of heartbeats.
    pub(super) fn begin(options: &super::Options, status: watch::Sender<Status>) -> (Self, Pulse) {
        let (postgres, slot) = (options.postgres.clone(), options.slot.name.clone());
        let process = std::hash::RandomState::new().hash_one(0_u8);
        let (pulse, signs) = Pulse::new(&slot, process);
        let (aim, aimed) = watch::channel(Aim::Away);
        let vigil = &options.vigil;
        let on = !(vigil.heartbeat.is_zero() && vigil.interval.is_zero());
        let others = options.postgres.hosts.len() > 1 && !vigil.standbys.is_zero();
        let standbys = others.then(|| {
            let (postgres, slot, status) = (postgres.clone(), slot.clone(), status.clone());
            let standbys = standbys::Standbys::new(postgres, slot, vigil.standbys, status);
            sim::spawn(standbys.run(aimed.clone()))
        });
        let task = on.then(|| {
            let task = task::Task::new(vigil, postgres, slot, process, signs, status);
            sim::spawn(task.run(aimed))
        });
        (Self { aim, sessions: 0, task, standbys }, pulse)
    }

    /// A session has begun.
    pub(super) fn active(&mut self, host: &Host, ready: &Ready) {
        self.sessions += 1;
        let server = &ready.server;
        let source = Source {
            host: host.clone(),
            version_num: server.version_num,
            role: server.role.clone(),
            in_recovery: server.in_recovery,
            session: self.sessions,
        };
        self.aim.send_replace(Aim::Active(Box::new(source)));
    }

    /// It is over. `passive`: another instance has the slot, which is there. Of several servers that
    /// would do, others may not have it.
    pub(super) fn inactive(&self, passive: Option<&Host>) {
        let aim = passive.cloned().map_or(Aim::Away, Aim::Passive);
        self.aim.send_if_modified(|now| {
            let other = *now != aim;
            *now = aim;
            other
        });
    }
}

impl Drop for Vigil {
    fn drop(&mut self) {
        // They hold connections and nothing else: there is nothing to wait for.
        for task in self.task.iter().chain(&self.standbys) {
            task.abort();
        }
    }
}

/// Longest wait for an answer: then the connection is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What comes later than this is late, if nothing is said of a heartbeat's own pace.
fn late(options: &Options, postgres: &connect::Options) -> Duration {
    // Below that even a walsender that is well may be silent.
    let silence = super::silence::SILENCE.min(match postgres.wal_sender_timeout {
        Duration::ZERO => super::silence::SILENCE,
        timeout => timeout,
    });
    silence.max(options.heartbeat.saturating_mul(3))
}
