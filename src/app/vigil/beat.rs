//! When a heartbeat is written, and when one is late. Time comes in as an argument.

use std::time::Duration;

use tokio::time::Instant;

/// One at a time: the next is written when the last has come back.
#[derive(Debug)]
pub(super) struct Beat {
    pause: Duration,
    late: Duration,
    /// Of the last that was written.
    number: u64,
    under_way: Option<Instant>,
    said: bool,
    /// What moved when it was looked at, and since when that is so.
    moved: u64,
    still_since: Instant,
}

/// What to do now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Nothing, until then.
    Wait(Instant),
    /// Write the one with this number.
    Write(u64),
    /// Say that the one that is under way is late.
    Late,
}

impl Beat {
    pub(super) const fn new(pause: Duration, late: Duration, now: Instant) -> Self {
        let (number, under_way, said, moved) = (0, None, false, 0);
        Self { pause, late, number, under_way, said, moved, still_since: now }
    }

    /// `moved` changes with all that is no heartbeat.
    pub(super) fn step(&mut self, moved: u64, now: Instant) -> Step {
        if let Some(since) = self.under_way {
            return match since + self.late {
                at if self.said => Step::Wait(at + Duration::from_hours(24)),
                at if now < at => Step::Wait(at),
                _ => {
                    self.said = true;
                    Step::Late
                }
            };
        }
        if moved != self.moved {
            (self.moved, self.still_since) = (moved, now);
        }
        let at = self.still_since + self.pause;
        if now < at {
            return Step::Wait(at);
        }
        self.number += 1;
        Step::Write(self.number)
    }

    /// It is being written from then on.
    pub(super) const fn written(&mut self, at: Instant) {
        self.under_way = Some(at);
        self.still_since = at;
    }

    /// It was not, or may not have been.
    pub(super) const fn not_written(&mut self, now: Instant) {
        self.under_way = None;
        self.still_since = now;
    }

    /// One came back then. Gives how long it took, and whether it had been late.
    pub(super) fn returned(&mut self, number: u64, at: Instant) -> Option<(Duration, bool)> {
        if number != self.number {
            return None;
        }
        let since = self.under_way.take()?;
        Some((at.saturating_duration_since(since), std::mem::take(&mut self.said)))
    }

    /// A new session: what was under way may have been lost with the server.
    pub(super) fn restart(&mut self, now: Instant) {
        self.not_written(now);
        self.said = false;
    }

    /// Since when one is under way.
    pub(super) const fn under_way(&self) -> Option<Instant> {
        self.under_way
    }

    /// Of the last that was written.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(10);
    const LATE: Duration = Duration::from_secs(30);

    #[test]
    fn is_written_when_nothing_else_moved_for_so_long() {
        let begin = Instant::now();
        let mut beat = Beat::new(PAUSE, LATE, begin);
        assert_eq!(beat.step(0, begin), Step::Wait(begin + PAUSE));
        let moved = begin + PAUSE / 2;
        assert_eq!(beat.step(1, moved), Step::Wait(moved + PAUSE));
        assert_eq!(beat.step(1, moved + PAUSE), Step::Write(1));
        beat.written(moved + PAUSE);
        assert_eq!(beat.step(1, moved + PAUSE * 2), Step::Wait(moved + PAUSE + LATE));
        let back = moved + PAUSE + Duration::from_secs(1);
        assert_eq!(beat.returned(1, back), Some((Duration::from_secs(1), false)));
        assert_eq!(beat.step(1, back), Step::Wait(moved + PAUSE * 2));
    }

    #[test]
    fn is_late_once_and_holds_the_next_back() {
        let begin = Instant::now();
        let mut beat = Beat::new(PAUSE, LATE, begin);
        assert_eq!(beat.step(0, begin + PAUSE), Step::Write(1));
        beat.written(begin + PAUSE);
        let late = begin + PAUSE + LATE;
        assert_eq!(beat.step(0, late), Step::Late);
        assert!(matches!(beat.step(0, late + LATE), Step::Wait(_)));
        assert_eq!(beat.returned(2, late), None);
        assert_eq!(beat.returned(1, late + LATE), Some((LATE * 2, true)));
        assert_eq!(beat.step(0, late + LATE), Step::Write(2));
    }

    #[test]
    fn what_an_earlier_session_wrote_is_not_waited_for() {
        let begin = Instant::now();
        let mut beat = Beat::new(PAUSE, LATE, begin);
        assert_eq!(beat.step(0, begin + PAUSE), Step::Write(1));
        beat.written(begin + PAUSE);
        beat.restart(begin + PAUSE);
        assert_eq!(beat.returned(1, begin + PAUSE), None);
        assert_eq!(beat.step(0, begin + PAUSE * 2), Step::Write(2));
    }
}
