//! Whether the stream could go on at the other hosts, were one of them promoted: asked while we stream,
//! at once and every `slot.standby_interval`.
//!
//! All are asked at the same time, each over a short connection with bounded waits, in a task of its
//! own: the stream and the heartbeats wait for none of it. What is wrong is said once when it begins
//! and once when it is over; what is mostly over in a moment, only when it was there at two looks.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    select,
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{super::now_ms, Aim, PATIENCE, Source};
use crate::{
    lsn::Lsn,
    metrics,
    pg::{
        connect::{self, Host},
        slot::{self, Sight, Unready},
    },
    status::{Standby, Status},
};

/// A copy that lies behind moves with each round of the worker, every 30 s at most where little is written.
const STUCK: Duration = Duration::from_secs(120);

/// Until the server that is streamed from is asked again, if it did not answer.
const RETRY: Duration = Duration::from_secs(5);

pub(super) struct Standbys {
    postgres: connect::Options,
    slot: String,
    interval: Duration,
    status: watch::Sender<Status>,
    known: BTreeMap<String, Known>,
    advised: HashSet<String>,
}

/// What is known of one host.
#[derive(Debug, Default)]
struct Known {
    /// Where its copy stood, and since when, while it lay behind.
    at: Option<(Lsn, Instant)>,
    /// At the last look.
    kind: Option<&'static str>,
    /// What was said and is not over.
    said: Option<&'static str>,
}

/// What is to be said of a host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Say {
    Nothing,
    Warn,
    Over,
}

impl Known {
    /// Whether the copy has not moved for long, though it lies behind.
    fn stuck(&mut self, copy: Option<Lsn>, slot: Option<Lsn>, now: Instant) -> bool {
        let Some(at) = copy.filter(|at| Some(*at) < slot) else {
            self.at = None;
            return false;
        };
        let since = match self.at {
            Some((last, since)) if last == at => since,
            _ => now,
        };
        self.at = Some((at, since));
        now >= since + STUCK
    }

    fn judge(&mut self, unready: Option<&Unready>) -> Say {
        let kind = unready.map(|unready| unready.kind);
        let twice = std::mem::replace(&mut self.kind, kind) == kind;
        let Some(unready) = unready else {
            return if self.said.take().is_some() { Say::Over } else { Say::Nothing };
        };
        if self.said == kind || unready.passing && !twice {
            return Say::Nothing;
        }
        self.said = Some(unready.kind);
        Say::Warn
    }
}

impl Standbys {
    pub(super) fn new(
        postgres: connect::Options,
        slot: String,
        interval: Duration,
        status: watch::Sender<Status>,
    ) -> Self {
        let (known, advised) = (BTreeMap::new(), HashSet::new());
        Self { postgres, slot, interval, status, known, advised }
    }

    /// Until the supervisor is gone.
    pub(super) async fn run(mut self, mut aimed: watch::Receiver<Aim>) {
        loop {
            let aim = aimed.borrow_and_update().clone();
            let watched = async {
                match &aim {
                    Aim::Active(source) => self.watch(source).await,
                    Aim::Away | Aim::Passive(_) => {
                        self.forget();
                        std::future::pending().await
                    }
                }
            };
            // Cancel-safe: connections that are dropped are closed, and all is asked again.
            select! {
                biased;
                changed = aimed.changed() => if changed.is_err() { return },
                () = watched => {}
            }
        }
    }

    async fn watch(&mut self, source: &Source) {
        loop {
            let pause = match self.look(source).await {
                Ok(()) => self.interval,
                Err(error) => {
                    tracing::debug!(%error, "the standbys' copies cannot be judged");
                    RETRY.min(self.interval)
                }
            };
            sleep(pause).await;
        }
    }

    async fn look(&mut self, source: &Source) -> Result<(), String> {
        let primary = self.ask(&source.host).await?;
        if primary.in_recovery {
            self.forget();
            return Ok(());
        }
        let others: Vec<_> =
            self.postgres.hosts.iter().filter(|host| **host != source.host).cloned().collect();
        let seen = join_all(others.iter().map(|host| self.ask(host))).await;
        let mut shown = Vec::new();
        for (host, seen) in others.iter().zip(seen) {
            if seen.as_ref().is_ok_and(|seen| seen.is(&primary)) {
                continue; // one server, by two names
            }
            shown.push(self.judge(&host.to_string(), seen, &primary));
        }
        self.status.send_modify(|status| status.standbys = shown);
        Ok(())
    }

    /// One look at a server, whose waits are bounded.
    async fn ask(&self, host: &Host) -> Result<Sight, String> {
        let chain = super::super::chain;
        let sql = connect::sql(&self.postgres, host).await.map_err(|error| chain(&error))?;
        match timeout(PATIENCE, slot::look_at_copy(&sql, &self.slot)).await {
            Ok(seen) => seen.map_err(|error| chain(&error)),
            Err(_) => Err(format!("no answer came in {} s", PATIENCE.as_secs())),
        }
    }

    fn judge(&mut self, host: &str, seen: Result<Sight, String>, primary: &Sight) -> Standby {
        let slot = &self.slot;
        let known = self.known.entry(host.to_owned()).or_default();
        let (copy, unready) = match seen {
            Ok(copy) => {
                let stuck =
                    known.stuck(copy.confirmed_flush, primary.confirmed_flush, Instant::now());
                let unready = copy.unready(primary, slot, stuck);
                (copy, unready)
            }
            Err(error) => {
                let why = format!("it cannot be asked: {error}");
                (Sight::default(), Some(Unready { kind: "away", why, passing: true }))
            }
        };
        let why = unready.as_ref().map(|unready| unready.why.clone());
        let begin = format!("standby {host}: after its promotion the stream");
        match known.judge(unready.as_ref()) {
            Say::Nothing => {}
            Say::Warn => {
                let why = why.as_deref().unwrap_or_default();
                tracing::warn!("{begin} could not go on with replication slot {slot:?}: {why}");
            }
            Say::Over => tracing::info!("{begin} could go on with replication slot {slot:?} again"),
        }
        let advice = copy.unsynchronized(primary).filter(|_| unready.is_none()).map(|sql| {
            format!(
                "what standby {host} does not have may be streamed before it does, and such rows would be \
                 in Kafka only, were it promoted then. To have the stream wait for it, on the primary: {sql}"
            )
        });
        if let Some(advice) = &advice
            && self.advised.insert(advice.clone())
        {
            tracing::warn!("{advice}");
        }
        let behind = copy.behind(primary);
        metrics::standby(host, Some((unready.is_none(), behind)));
        Standby {
            host: host.to_owned(),
            ready: unready.is_none(),
            reason: why,
            advice,
            present: copy.present,
            synced: copy.synced,
            temporary: copy.temporary,
            invalidation_reason: copy.invalidation_reason,
            confirmed_flush_lsn: copy.confirmed_flush.map(|lsn| lsn.to_string()),
            restart_lsn: copy.restart_lsn.map(|lsn| lsn.to_string()),
            behind_bytes: behind,
            at_ms: now_ms(),
        }
    }

    /// Somebody else looks now, or nobody: what was seen says nothing any more.
    fn forget(&self) {
        for host in self.known.keys() {
            metrics::standby(host, None);
        }
        self.status.send_if_modified(|status| {
            let any = !status.standbys.is_empty();
            status.standbys.clear();
            any
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unready(kind: &'static str, passing: bool) -> Unready {
        Unready { kind, why: "why".into(), passing }
    }

    #[test]
    fn a_trouble_is_said_once_and_its_end_once() {
        let mut known = Known::default();
        assert_eq!(known.judge(None), Say::Nothing);
        let (blocked, off) = (unready("blocked", false), unready("off", false));
        assert_eq!(known.judge(Some(&blocked)), Say::Warn);
        assert_eq!(known.judge(Some(&blocked)), Say::Nothing);
        assert_eq!(known.judge(Some(&off)), Say::Warn);
        assert_eq!(known.judge(None), Say::Over);
        assert_eq!(known.judge(None), Say::Nothing);
    }

    #[test]
    fn what_is_over_in_a_moment_is_not_said() {
        let mut known = Known::default();
        let (absent, temporary) = (unready("absent", true), unready("temporary", true));
        for once in [&absent, &temporary] {
            assert_eq!(known.judge(Some(once)), Say::Nothing);
        }
        assert_eq!(known.judge(None), Say::Nothing);
        assert_eq!(known.judge(Some(&absent)), Say::Nothing);
        assert_eq!(known.judge(Some(&absent)), Say::Warn);
        assert_eq!(known.judge(Some(&absent)), Say::Nothing);
    }

    #[test]
    fn a_copy_is_stuck_when_it_lies_behind_and_does_not_move() {
        let (mut known, begin) = (Known::default(), Instant::now());
        let at = |lsn| Some(Lsn::new(lsn));
        let after = |seconds| begin + Duration::from_secs(seconds);
        assert!(!known.stuck(at(5), at(9), after(0)));
        assert!(!known.stuck(at(6), at(9), after(60)));
        assert!(!known.stuck(at(6), at(9), after(179)));
        assert!(known.stuck(at(6), at(9), after(180)));
        assert!(!known.stuck(at(9), at(9), after(300)));
        assert!(!known.stuck(at(9), at(10), after(400)));
    }
}
