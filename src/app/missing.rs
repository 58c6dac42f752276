//! A slot that is not there: was it never made, is it gone, or is it not there yet?
//!
//! After a promotion whoever keeps slots on standbys, as Patroni and pg_failover_slots do, may bring it
//! a little later. So a slot that was there before is waited for: `slot.missing_timeout`. What appears
//! meanwhile is judged as at any start, and one that was made anew further on is a gap.
//!
//! **Must stay true.** A slot is made only where nothing of ours is, in the consumer group or at the
//! ends of the topics: else the rows from then on until now would be passed over in silence. If
//! neither can be read, nobody knows, and none is made.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::{App, Error, chain};
use crate::{
    lease::Lease,
    lsn::Lsn,
    pg::{
        session::{self, Session},
        slot,
    },
    sink::kafka::producer::Found,
};

/// Where the slot was, and how far.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LastSeen {
    /// The server, and its timeline.
    pub server: String,
    /// What was confirmed there last.
    pub confirmed: Lsn,
}

/// Kafka could not be asked what was there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unasked {
    /// Why not.
    pub why: String,
    /// What makes a first slot.
    pub sql: String,
}

/// What this process knows of the slot, should it be missing.
#[derive(Debug, Default)]
pub(super) struct Sought {
    /// Whether it was streamed from: then it is never made again unasked.
    pub(super) streamed: bool,
    /// Where it was last.
    found: Option<LastSeen>,
    /// It is waited for.
    missing: Option<Missing>,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    since: Instant,
    /// What Kafka has, once that is known: without a slot it does not change by itself.
    last: Option<Lsn>,
}

impl App {
    /// Whether the slot may be made that `error` says is missing; it was looked for from `looked` on.
    pub(super) async fn missing(
        &mut self,
        error: session::Error,
        looked: Instant,
    ) -> Result<(), Error> {
        let session::Error::Slot(slot::Error::SlotMissing { name, sql, place: Some(place) }) =
            &error
        else {
            return Err(error.into());
        };
        let create = self.options.slot.create && !self.sought.streamed;
        // A former primary that comes back meanwhile is none the less one, though it has the slot.
        self.newest_timeline = self.newest_timeline.max(place.server.timeline);
        let (last, unasked) = match self.sought.missing.and_then(|missing| missing.last) {
            Some(last) => (Some(last), None),
            None => match self.last_stored(place, create).await? {
                Ok(last) => (last, None),
                Err(why) => (None, Some(Box::new(Unasked { why, sql: sql.clone() }))),
            },
        };
        let server = named(&place.host, place.server.timeline);
        let (slot, seen) = (name.clone(), self.seen());
        if let Some(elsewhere) = place.elsewhere.clone()
            && !(create && (last.is_none() && unasked.is_none() || self.accept_gap))
        {
            // No gap, as long as it may come back.
            let (host, sql) = (place.host.clone(), sql.clone());
            return Err(Error::Elsewhere { slot, host, elsewhere, sql });
        }
        // If Kafka did not say, it may have been there.
        let was_there = last.is_some() || seen.is_some() || unasked.is_some();
        if was_there && !self.accept_gap && self.waits(last, looked) {
            let wait = self.options.missing_timeout;
            return Err(Error::Missing { slot, server, seen, unasked, wait });
        }
        match last {
            None if create => match unasked.filter(|_| !self.accept_gap) {
                None => Ok(()),
                Some(unasked) => Err(Error::Untold { slot, server, unasked }),
            },
            None => Err(error.into()),
            Some(last) if create && self.accept_gap => {
                tracing::warn!(slot, from = %last, "a gap is accepted: the slot is made anew");
                Ok(())
            }
            Some(last) => Err(Error::Gone { slot, server, seen, last, create, sql: sql.clone() }),
        }
    }

    /// The slot is there.
    pub(super) fn found(&mut self, session: &Session) {
        if let Some(missing) = self.sought.missing.take() {
            let slot = &self.options.slot.name;
            let seconds = missing.since.elapsed().as_secs();
            tracing::info!(slot, seconds, "the slot that was missing is there");
        }
        let server = named(&session.host().to_string(), session.identity.timelines.current());
        self.sought.found = Some(LastSeen { server, confirmed: session.ready.confirmed_flush });
    }

    /// A slot that is waited for is looked for as often as one that is to be free.
    pub(super) fn paused(&self, pause: Duration) -> Duration {
        match self.sought.missing {
            Some(_) => pause.min(self.options.ha.check_interval),
            None => pause,
        }
    }

    /// With what this process confirmed since.
    fn seen(&self) -> Option<LastSeen> {
        let seen = self.sought.found.clone()?;
        Some(LastSeen { confirmed: seen.confirmed.max(self.last.confirmed), ..seen })
    }

    /// Whether it is to be waited for still. An answer from before this process was frozen is no reason
    /// to give up: it may have come in the meantime.
    fn waits(&mut self, last: Option<Lsn>, looked: Instant) -> bool {
        let wait = self.options.missing_timeout;
        let missing = self.sought.missing.get_or_insert(Missing { since: looked, last });
        missing.last = missing.last.or(last);
        wait > Duration::ZERO && looked < missing.since + wait
    }

    /// Our last position that Kafka knows of, or why it could not be asked.
    async fn last_stored(
        &mut self,
        place: &slot::Place,
        create: bool,
    ) -> Result<Result<Option<Lsn>, String>, Error> {
        let claim = self.claim_at(&place.server, Lsn::ZERO, false, Lease::new(Default::default()));
        let (named, group) = (claim.read_back.is_some(), claim.transactional_id.clone());
        let names = self.topics_of(&place.published).into_iter().map(Arc::from).collect();
        let limit = self.options.kafka.request_timeout;
        let looked = async {
            self.reach_kafka().await?;
            match &mut self.producer {
                Some(producer) => Ok::<Found, Error>(producer.look(claim, names).await?),
                None => Ok(Found::default()),
            }
        };
        let found = if create {
            let found = looked.await?;
            let untold = found.notes.is_none() && found.newest.is_empty();
            if untold && (!named || found.unsure.is_some()) {
                let group = group.as_deref().unwrap_or_default();
                return Ok(Err(format!(
                    "neither consumer group {group:?} nor the ends of the topics can tell"
                )));
            }
            found
        } else {
            // Only to say more: it is missing in any case.
            match timeout(limit, looked).await {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => return Ok(Err(chain(&error))),
                Err(_) => return Ok(Err("it did not answer in time".to_owned())),
            }
        };
        let noted = found.notes.iter().flatten().map(|one| one.note.position);
        let named = found.newest.iter().map(|(_, commit)| commit.next());
        Ok(Ok(noted.chain(named).max()))
    }
}

fn named(host: &str, timeline: u32) -> String {
    format!("{host} (timeline {timeline})")
}
