//! A stream that stands still because its walsender waits for a standby: said once when it begins, and
//! once when it is over.
//!
//! To wait for a standby for a moment is what `synchronized_standby_slots` is for. It is a stall when
//! the position stood still over several looks, at each of which the walsender waited. It ends no
//! connection: the walsender sends keepalives meanwhile, and what is late is not dead.

use std::time::Duration;

use tokio::time::Instant;

use super::concern::Word;
use crate::{lsn::Lsn, pg::slot::Walsender};

/// A standby that is well confirms within its `wal_receiver_status_interval`, 10 s, at the latest, and
/// mostly at once.
const LONG: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// Where it stands, and since when.
    at: Option<((Lsn, Lsn), Instant)>,
    said: Option<String>,
}

impl Stall {
    /// `at`: what is confirmed, and what was received.
    pub(super) fn judge(
        &mut self,
        slot: &str,
        at: (Lsn, Lsn),
        walsender: &Walsender,
        now: Instant,
    ) -> Option<Word> {
        let since = match self.at {
            Some((last, since)) if last == at => since,
            _ => {
                self.at = Some((at, now));
                let said = self.said.take()?;
                tracing::debug!("over: {said}");
                let text = format!("replication slot {slot:?} moves again: nothing is waited for");
                return Some(Word::Over(text));
            }
        };
        if !walsender.waits_for_standby {
            // Between two of its looks it may do so for a moment only; one that is idle begins anew.
            if self.said.is_none() {
                self.at = Some((at, now));
            }
            return None;
        }
        if now < since + LONG {
            return None;
        }
        let waits = walsender.waits();
        if self.said.as_deref() == Some(&waits) {
            return None;
        }
        let (confirmed, _) = at;
        let text =
            format!("replication slot {slot:?} stands still at {confirmed}: PostgreSQL {waits}");
        self.said = Some(waits);
        Some(Word::Warn(text))
    }

    /// What is waited for, if it stands still.
    pub(super) fn said(&self) -> Option<&str> {
        self.said.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::slot::Named;

    fn waiting(name: &str) -> Walsender {
        Walsender {
            pid: Some(1),
            waits_for_standby: true,
            named: vec![(name.to_owned(), Named::Missing)],
            ..Walsender::default()
        }
    }

    const AT: (Lsn, Lsn) = (Lsn::new(5), Lsn::new(7));
    const ON: (Lsn, Lsn) = (Lsn::new(5), Lsn::new(8));

    #[test]
    fn is_said_once_for_each_reason_and_once_when_it_is_over() {
        let (mut stall, begin) = (Stall::default(), Instant::now());
        let mut judge = |at, walsender: &Walsender, seconds| {
            stall.judge("s", at, walsender, begin + Duration::from_secs(seconds))
        };
        assert_eq!(judge(AT, &waiting("a"), 0), None);
        assert_eq!(judge(AT, &waiting("a"), 9), None);
        let Some(Word::Warn(text)) = judge(AT, &waiting("a"), 10) else { panic!("not said") };
        assert!(text.contains("\"s\" stands still at 0/5: PostgreSQL sends nothing until \"a\""));
        assert_eq!(judge(AT, &waiting("a"), 20), None);
        assert_eq!(judge(AT, &Walsender::default(), 21), None); // it looks itself, just now
        assert!(matches!(judge(AT, &waiting("b"), 30), Some(Word::Warn(_))));
        assert!(matches!(judge(ON, &waiting("b"), 40), Some(Word::Over(_))));
        assert_eq!(judge(ON, &waiting("b"), 41), None);
    }

    #[test]
    fn one_that_moves_or_is_idle_does_not_stall() {
        let (mut stall, begin) = (Stall::default(), Instant::now());
        for seconds in 0..60 {
            let now = begin + Duration::from_secs(seconds);
            let at = (Lsn::new(5), Lsn::new(seconds));
            assert_eq!(stall.judge("s", at, &waiting("a"), now), None);
        }
        for seconds in 60..120 {
            let now = begin + Duration::from_secs(seconds);
            let walsender = if seconds % 8 == 0 { waiting("a") } else { Walsender::default() };
            assert_eq!(stall.judge("s", AT, &walsender, now), None);
        }
        assert_eq!(stall.said(), None);
    }
}
