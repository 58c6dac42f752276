//! What to do about an error: wait and try again, or end the process with a code that says why.
//!
//! Pure: the random number comes in as an argument, so that the same run can be had twice.

use std::time::Duration;

/// What the supervisor does about an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Disposition {
    /// Time may heal it: reconnect after a pause.
    Retry,
    /// Only a person can heal it: stop, and say so with this exit code.
    Halt(Exit),
}

/// The process's exit codes, after BSD's `sysexits.h`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Exit {
    /// Asked to stop; all that was received is stored and confirmed.
    Done = 0,
    /// Wrong command line.
    Usage = 64,
    /// A row that may not be skipped cannot be stored.
    Data = 65,
    /// The slot is lost, invalidated, missing or was moved: there is a gap.
    Gap = 66,
    /// A server cannot be used at all.
    Unavailable = 69,
    /// A bug of ours.
    Software = 70,
    /// `run.drain` was over before all was stored.
    Drain = 75,
    /// A server may not be used: login, certificate, privilege, ACL.
    Permission = 77,
    /// Wrong configuration.
    Config = 78,
}

impl Exit {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Done,
        Self::Usage,
        Self::Data,
        Self::Gap,
        Self::Unavailable,
        Self::Software,
        Self::Drain,
        Self::Permission,
        Self::Config,
    ];

    /// The number that the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Pauses that double from `first` to `longest`, each drawn between half and all of it.
///
/// The jitter keeps a fleet that lost the same server from coming back in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempt: u32,
}

impl Backoff {
    /// Begins at `first` and never pauses longer than `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, attempt: 0 }
    }

    /// The next pause; `random` is any number, evenly spread.
    pub fn next(&mut self, random: u32) -> Duration {
        let whole = self.first.saturating_mul(1 << self.attempt.min(20)).min(self.longest);
        self.attempt = self.attempt.saturating_add(1);
        whole / 2 + (whole / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// It worked: the next trouble begins with short pauses again.
    pub const fn reset(&mut self) {
        self.attempt = 0;
    }

    /// How many pauses there were since the last success.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_longest_and_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let pauses: Vec<_> = (0..6).map(|_| backoff.next(u32::MAX).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.next(0).as_millis(), 50);
    }

    proptest::proptest! {
        #[test]
        fn never_leaves_its_bounds(draws: Vec<u32>) {
            let (first, longest) = (Duration::from_millis(10), Duration::from_secs(5));
            let mut backoff = Backoff::new(first, longest);
            for draw in draws {
                let pause = backoff.next(draw);
                proptest::prop_assert!(pause >= first / 2 && pause <= longest);
            }
        }
    }
}
