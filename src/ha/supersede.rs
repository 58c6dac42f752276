//! Whether the active instance stands still, and is to be ended before PostgreSQL does it.
//!
//! What a walsender last heard of its client bears the client's own time, so it is never compared
//! with a clock of ours: it is watched whether another one comes.
//!
//! **Must stay true.** An instance that is only held up, in a long transaction of unpublished tables
//! say, is not ended again and again: without progress of the slot in between the patience doubles.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use crate::{lsn::Lsn, pg::slot::Active};

/// See the module.
#[derive(Debug, Default)]
pub struct Supersede {
    /// The process, what it last heard, and since when that is so.
    watched: Option<(i32, Option<String>, Instant)>,
    /// Where the slot stood when an instance was ended, and how often that was there.
    ended: Option<(Lsn, u32)>,
    /// Rights that are missing, as far as it was said.
    pub(super) said: BTreeSet<&'static str>,
}

impl Supersede {
    /// For how long nothing came from it, if that is too long.
    pub(super) fn silent(
        &mut self,
        active: &Active,
        slot_at: Lsn,
        after: Duration,
        now: Instant,
    ) -> Option<Duration> {
        let same = self
            .watched
            .as_ref()
            .is_some_and(|(pid, reply, _)| *pid == active.pid && *reply == active.reply_time);
        if !same {
            self.watched = Some((active.pid, active.reply_time.clone(), now));
        }
        let (_, _, since) = self.watched.as_ref()?;
        let silent = now.duration_since(*since);
        let times = self.ended.filter(|(at, _)| *at == slot_at).map_or(0, |(_, times)| times);
        let patience = after.saturating_mul(2_u32.saturating_pow(times));
        (silent >= patience).then_some(silent)
    }

    /// It was ended.
    pub(super) fn ended(&mut self, slot_at: Lsn) {
        let times = self.ended.filter(|(at, _)| *at == slot_at).map_or(0, |(_, times)| times);
        (self.watched, self.ended) = (None, Some((slot_at, times + 1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(10);

    fn active(pid: i32, reply: &str) -> Active {
        Active { pid, reply_time: Some(reply.to_owned()), ..Active::default() }
    }

    #[test]
    fn only_one_that_says_nothing_for_long_is_silent() {
        let (mut it, begin) = (Supersede::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut silent =
            |pid, reply, seconds| it.silent(&active(pid, reply), Lsn::ZERO, AFTER, at(seconds));
        assert_eq!(silent(1, "a", 0), None);
        assert_eq!(silent(1, "a", 9), None);
        assert_eq!(silent(1, "b", 11), None, "it has spoken");
        assert_eq!(silent(1, "b", 20), None);
        assert_eq!(silent(2, "b", 21), None, "it is another one");
        assert_eq!(silent(2, "b", 31), Some(AFTER));
    }

    #[test]
    fn without_progress_the_patience_doubles() {
        let (mut it, begin) = (Supersede::default(), Instant::now());
        let mut wait = |slot_at: u64, seconds| {
            let slot_at = Lsn::new(slot_at);
            it.silent(&active(1, "a"), slot_at, AFTER, begin);
            let found = it.silent(&active(1, "a"), slot_at, AFTER, begin + seconds * AFTER / 10);
            if found.is_some() {
                it.ended(slot_at);
            }
            found.is_some()
        };
        assert!(wait(5, 10));
        assert!(!wait(5, 19));
        assert!(wait(5, 20));
        assert!(!wait(5, 39));
        assert!(wait(6, 10), "the slot has moved");
    }
}
