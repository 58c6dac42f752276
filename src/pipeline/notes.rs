//! When a position is noted: before one is confirmed that no record tells of, now and then under
//! load, and at a stop.

use std::time::Duration;

use tokio::{
    select,
    time::{Instant, sleep_until},
};

use super::{Error, Pipeline};
use crate::{
    lsn::Lsn,
    progress::{Evidence, Ledger},
    sink::kafka::producer::Noting,
};

/// Between two, while a position waits for one.
const PACE: Duration = Duration::from_secs(1);
/// While records tell of all positions.
const UNDER_LOAD: Duration = Duration::from_mins(1);
/// From a heartbeat to the keepalive behind it, which is sent in the same moment.
const GATHER: Duration = Duration::from_millis(20);
/// While nothing moves: what is not written for a week is forgotten.
const IDLE: Duration = Duration::from_hours(1);

/// See the module.
#[derive(Debug)]
pub struct Notes {
    timeline: u32,
    /// The highest that was asked for.
    last: Lsn,
    asked_at: Instant,
    /// The server waits for a confirmation, as one that is shutting down does.
    at_once: bool,
    /// Something more is about to come.
    not_before: Option<Instant>,
    under_way: Option<(Lsn, Noting)>,
    usable: bool,
}

impl Notes {
    /// None yet.
    #[must_use]
    pub fn new(timeline: u32) -> Self {
        let (last, asked_at) = (Lsn::ZERO, Instant::now());
        let (at_once, not_before, under_way) = (false, None, None);
        Self { timeline, last, asked_at, at_once, not_before, under_way, usable: false }
    }

    /// The first was written at the start; `usable`: it could be.
    pub(super) fn begin(&mut self, upto: Lsn, usable: bool) {
        (self.last, self.asked_at, self.usable) = (upto, Instant::now(), usable);
    }

    pub(super) const fn hurry(&mut self) {
        self.at_once = true;
    }

    /// A heartbeat came: it and the keepalive behind it are worth one note.
    pub(super) fn gather(&mut self) {
        self.not_before = Some(Instant::now() + GATHER);
    }

    /// When the next one is to be asked for.
    pub(super) fn due(&self, ledger: &Ledger) -> Option<Instant> {
        if !self.usable || self.under_way.is_some() {
            return None;
        }
        let waits = ledger.stored() > ledger.confirmed().lsn();
        let pause = match (waits, ledger.stored() > self.last) {
            (true, _) if self.at_once && ledger.open() == 0 => return Some(self.asked_at),
            (true, _) => PACE,
            (false, true) => UNDER_LOAD,
            (false, false) => IDLE,
        };
        Some((self.asked_at + pause).max(self.not_before.unwrap_or(self.asked_at)))
    }

    /// The position that is noted by now; `None`: none can be. Waits for ever while none is asked for.
    /// Cancel-safe.
    pub(super) async fn done(&mut self) -> Result<Option<Lsn>, Error> {
        let Some((upto, noting)) = &mut self.under_way else {
            return std::future::pending().await;
        };
        let (upto, noted) = (*upto, noting.done().await);
        self.under_way = None;
        self.usable = noted?;
        Ok(self.usable.then_some(upto))
    }
}

impl Pipeline<'_> {
    pub(super) fn note_if_due(&mut self) {
        let due = self.notes.due(&self.records.ledger);
        if due.is_some_and(|due| due <= Instant::now()) {
            self.note();
        }
    }

    fn note(&mut self) {
        let Notes { timeline, last, .. } = self.notes;
        // A server that crashed stands where it was: what was noted before is true all the same.
        let upto = self.records.ledger.stored().max(last);
        let noting = self.producer.note(timeline, upto);
        (self.notes.last, self.notes.asked_at) = (upto, Instant::now());
        (self.notes.at_once, self.notes.not_before) = (false, None);
        self.notes.under_way = Some((upto, noting));
    }

    pub(super) fn noted(&mut self, upto: Option<Lsn>) {
        let ledger = &mut self.records.ledger;
        let moved = match upto {
            Some(upto) => ledger.noted(upto),
            None => ledger.ask_for(Evidence::None),
        };
        if let Some(confirmed) = moved {
            self.stream.confirm(confirmed);
        }
    }

    /// The last one: then the next start can tell whether anybody moved the slot.
    pub(super) async fn note_at_stop(&mut self, give_up: Instant) -> Result<(), Error> {
        let mut asked = self.notes.last;
        while self.notes.usable {
            let stored = self.records.ledger.stored();
            if self.notes.under_way.is_none() {
                if stored <= asked {
                    break;
                }
                self.note();
            }
            select! {
                biased;
                noted = self.notes.done() => match noted {
                    Ok(noted) => {
                        asked = self.notes.last;
                        self.noted(noted);
                    }
                    Err(error) if self.records.evidence() == Evidence::Names => {
                        tracing::debug!("the last note was not written: {error}");
                        break; // what is confirmed is known all the same
                    }
                    Err(error) => return Err(error),
                },
                () = sleep_until(give_up) => break,
                turned = self.stream.turn(false) => turned?,
            }
        }
        let ledger = &self.records.ledger;
        let owed = self.records.evidence() == Evidence::Notes
            && ledger.stored() > ledger.confirmed().lsn();
        if owed { Err(self.drain_over()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn is_due_at_once_soon_now_and_then_or_seldom() {
        let mut ledger = Ledger::new(Lsn::new(5));
        ledger.ask_for(Evidence::Names);
        let mut notes = Notes::new(1);
        assert_eq!(notes.due(&ledger), None, "the topics are not ours yet");
        notes.begin(Lsn::new(5), true);
        let after = |pause| Some(notes.asked_at + pause);
        let due = [IDLE, UNDER_LOAD, PACE, GATHER].map(after);
        assert_eq!(notes.due(&ledger), due[0]);
        // A record tells of this.
        let ticket = ledger.begin();
        ledger.add(ticket, 1);
        ledger.commit(ticket, Lsn::new(10));
        ledger.ack(ticket, 1);
        assert_eq!(notes.due(&ledger), due[1]);
        // And of this nothing but a note.
        ledger.idle(Lsn::new(20));
        assert_eq!(notes.due(&ledger), due[2]);
        notes.hurry();
        assert_eq!(notes.due(&ledger), Some(notes.asked_at));
        // Not while a transaction is open, which ends in a moment.
        ledger.begin();
        assert_eq!(notes.due(&ledger), due[2]);
        notes.asked_at -= PACE;
        notes.gather();
        assert!(notes.due(&ledger) >= due[3], "something more is about to come");
        notes.begin(Lsn::new(20), false);
        assert_eq!(notes.due(&ledger), None, "none can be written");
    }
}
