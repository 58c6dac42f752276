//! What is said of the slot before it hurts: each once, and once when it is over.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    lsn::Lsn,
    pg::slot::{Health, Hold, Oldest},
};

/// Of `max_slot_wal_keep_size`: with a quarter left there is time to act at most rates, and twice that
/// is far enough away for it to be over.
const TIGHT: u64 = 4;
const EASY: u64 = 2;

/// PostgreSQL moves `restart_lsn` only past a record of the running transactions, which it writes every 15 s
/// while it is busy, and at checkpoints: one that began at most two of them after the slot moved last holds it.
const RUNNING: Duration = Duration::from_secs(30);

/// Which transaction keeps `restart_lsn` where it is.
#[derive(Debug, Default)]
pub(super) struct Holder {
    restart: Option<(Lsn, Instant)>,
    oldest: Option<(String, Instant)>,
}

impl Holder {
    /// Whether the oldest transaction is older than the slot's last move.
    pub(super) fn holds(&mut self, health: &Health, hold: &Hold, now: Instant) -> bool {
        let restart = health.restart_lsn.unwrap_or_default();
        let moved = match self.restart {
            Some((last, moved)) if last == restart => moved,
            _ => now,
        };
        self.restart = Some((restart, moved));
        let Some(oldest) = &hold.oldest else {
            self.oldest = None;
            return false;
        };
        let seen = match self.oldest.take() {
            Some((xid, seen)) if xid == oldest.xid => seen,
            _ => now,
        };
        self.oldest = Some((oldest.xid.clone(), seen));
        seen <= moved + RUNNING
    }
}

/// What is to be said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Word {
    /// It begins.
    Warn(String),
    /// It is over.
    Over(String),
}

/// What was said and is not over.
#[derive(Debug)]
pub(super) struct Concerns {
    slot: String,
    warn_retained: u64,
    /// How far `wal_status` is from good.
    rank: u8,
    tight: bool,
    large: bool,
    causes: Causes,
}

/// Why the slot keeps more than `slot.warn_retained`, as far as it was said.
#[derive(Debug, Default)]
struct Causes {
    stream: bool,
    /// The transaction that was named last.
    holder: Option<String>,
}

impl Causes {
    /// Whether it is another one than was said. That nobody holds the slot is not: it is over soon.
    fn is_new(&mut self, health: &Health, holder: Option<&Oldest>) -> bool {
        if behind(health) {
            return !std::mem::replace(&mut self.stream, true);
        }
        let Some(Oldest { xid, .. }) = holder else { return false };
        self.holder.replace(xid.clone()).as_ref() != Some(xid)
    }
}

impl Concerns {
    pub(super) const fn new(slot: String, warn_retained: u64) -> Self {
        let causes = Causes { stream: false, holder: None };
        Self { slot, warn_retained, rank: 0, tight: false, large: false, causes }
    }

    /// `held`: by the oldest transaction.
    pub(super) fn judge(&mut self, health: &Health, hold: &Hold, held: bool) -> Vec<Word> {
        let holder = hold.oldest.as_ref().filter(|_| held);
        let why = why(health, holder);
        let words = [
            self.wal_status(health, &why),
            self.safe_wal_size(health, hold, &why),
            self.retained(health, holder, &why),
        ];
        words.into_iter().flatten().collect()
    }

    fn wal_status(&mut self, health: &Health, why: &str) -> Option<Word> {
        let Self { slot, .. } = self;
        let status = health.wal_status.as_deref();
        let rank = match status {
            _ if health.invalidation_reason.is_some() => 3,
            Some("lost") => 3,
            Some("unreserved") => 2,
            Some("extended") => 1,
            _ => 0,
        };
        let last = self.rank;
        self.rank = if rank == 0 { 0 } else { rank.max(last) };
        let retained = health.retained_bytes;
        match rank {
            0 if last > 0 => {
                Some(Word::Over(format!("replication slot {slot:?} keeps little WAL again")))
            }
            _ if rank <= last => None,
            1 => Some(Word::Warn(format!(
                "replication slot {slot:?} keeps more WAL than max_wal_size, {retained} bytes: {why}"
            ))),
            2 => Some(Word::Warn(format!(
                "replication slot {slot:?} is about to be lost: the {retained} bytes of WAL that it \
                 keeps are more than max_slot_wal_keep_size, which may be raised: {why}"
            ))),
            _ => {
                let reason = health.invalidation_reason.as_deref().or(status).unwrap_or_default();
                Some(Word::Warn(format!("replication slot {slot:?} is lost: {reason}")))
            }
        }
    }

    fn safe_wal_size(&mut self, health: &Health, hold: &Hold, why: &str) -> Option<Word> {
        let slot = &self.slot;
        let (safe, keep) = health.safe_wal_size.zip(hold.keep)?;
        let safe = u64::try_from(safe).unwrap_or(0);
        if !self.tight && safe < keep / TIGHT {
            self.tight = true;
            return Some(Word::Warn(format!(
                "replication slot {slot:?} may be lost after {safe} more bytes of WAL \
                 (safe_wal_size; max_slot_wal_keep_size is {keep} bytes, and may be raised): {why}"
            )));
        }
        let over = self.tight && safe >= keep / EASY;
        self.tight &= !over;
        over.then(|| {
            Word::Over(format!("replication slot {slot:?} may keep {safe} more bytes of WAL again"))
        })
    }

    fn retained(&mut self, health: &Health, holder: Option<&Oldest>, why: &str) -> Option<Word> {
        let (slot, retained, limit) = (&self.slot, health.retained_bytes, self.warn_retained);
        if limit > 0 && retained > limit {
            let first = !std::mem::replace(&mut self.large, true);
            if first {
                self.causes = Causes::default();
            }
            let new = self.causes.is_new(health, holder);
            let now = if first { "" } else { ", and now for another reason" };
            return (first || new).then(|| {
                Word::Warn(format!(
                    "replication slot {slot:?} keeps {retained} bytes of WAL, more than \
                     slot.warn_retained ({limit}){now}: {why}"
                ))
            });
        }
        let over = self.large && retained <= limit / 4 * 3;
        self.large &= !over;
        over.then(|| {
            Word::Over(format!("replication slot {slot:?} keeps {retained} bytes of WAL, no more"))
        })
    }
}

/// Whether it is the stream that does not come on.
const fn behind(health: &Health) -> bool {
    health.unconfirmed_bytes > health.retained_bytes / 2
}

/// Why the slot keeps so much.
fn why(health: &Health, holder: Option<&Oldest>) -> String {
    if behind(health) {
        return format!(
            "{} bytes of it are not confirmed, so it is the stream that is behind",
            health.unconfirmed_bytes
        );
    }
    let Some(oldest) = holder else {
        return "PostgreSQL lets go of it every 15 s, and at a CHECKPOINT".to_owned();
    };
    let since = oldest.seconds.map(|seconds| format!(" for {seconds} s")).unwrap_or_default();
    let age = oldest.age;
    match (&oldest.gid, oldest.pid) {
        (Some(gid), _) => format!(
            "it is held by the transaction prepared as {gid:?}{since}, {age} transactions ago: \
             ROLLBACK PREPARED ends it, if nobody commits it"
        ),
        (None, pid) => {
            let pid = pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
            format!(
                "it is held by the transaction of process {pid}, open{since}, {age} transactions old: \
                 pg_terminate_backend({pid}) ends it, if nothing else does"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn hold(keep: Option<u64>, oldest: Option<Oldest>) -> Hold {
        Hold { inactive: None, keep, in_recovery: false, may_log_running: false, oldest }
    }

    fn transaction(xid: &str) -> Oldest {
        let xid = xid.to_owned();
        Oldest { xid, pid: Some(4711), gid: None, age: 12, seconds: Some(90) }
    }

    fn health(retained: u64) -> Health {
        Health { retained_bytes: retained, ..Health::default() }
    }

    /// One word, a warning or its end, with all of these in it.
    #[track_caller]
    fn one(words: &[Word], warning: bool, parts: &[&str]) {
        let [word] = words else { panic!("{words:?}") };
        let (Word::Warn(text) | Word::Over(text)) = word;
        assert_eq!(matches!(word, Word::Warn(_)), warning, "{text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
    }

    #[test]
    fn much_wal_is_said_once_with_who_holds_it_and_once_when_it_is_over() {
        let mut concerns = Concerns::new("s".into(), 100 * MB);
        let held = hold(None, Some(transaction("740")));
        assert_eq!(concerns.judge(&health(100 * MB), &held, true), []);
        let words = concerns.judge(&health(101 * MB), &held, true);
        one(&words, true, &["slot.warn_retained", "process 4711", "for 90 s", "12 transactions"]);
        assert_eq!(concerns.judge(&health(200 * MB), &held, true), []);
        assert_eq!(concerns.judge(&health(80 * MB), &held, true), []);
        one(&concerns.judge(&health(75 * MB), &held, true), false, &["no more"]);
        one(&concerns.judge(&health(101 * MB), &held, false), true, &["every 15 s"]);
    }

    #[test]
    fn another_cause_is_said_once_while_the_warning_stands() {
        let mut concerns = Concerns::new("s".into(), 100 * MB);
        let mut judge = |retained, unconfirmed, xid: Option<&str>| {
            let health = Health { unconfirmed_bytes: unconfirmed * MB, ..health(retained * MB) };
            concerns.judge(&health, &hold(None, xid.map(transaction)), xid.is_some())
        };
        one(&judge(101, 100, None), true, &["the stream that is behind"]);
        assert_eq!(judge(102, 100, Some("1")), []);
        one(&judge(103, 0, Some("1")), true, &["now for another reason: it is held", "4711"]);
        assert_eq!(judge(104, 0, Some("1")), []);
        assert_eq!(judge(104, 0, None), []); // which is over soon
        assert_eq!(judge(104, 0, Some("1")), []);
        assert_eq!(judge(104, 100, None), []); // was said
        one(&judge(105, 0, Some("2")), true, &["for another reason", "slot.warn_retained"]);
        assert_eq!(judge(90, 0, Some("3")), []); // less than is warned of
        one(&judge(10, 0, None), false, &["no more"]);
        let words = judge(101, 100, None);
        one(&words, true, &["the stream that is behind"]);
        assert!(!format!("{words:?}").contains("another reason"), "{words:?}");
    }

    #[test]
    fn a_prepared_transaction_is_named_and_a_stream_that_is_behind_is_not_excused() {
        let prepared = Oldest { pid: None, gid: Some("g'1".into()), ..transaction("1") };
        let text = why(&health(MB), Some(&prepared));
        assert!(text.contains("\"g'1\"") && text.contains("ROLLBACK PREPARED"), "{text}");
        let behind = Health { unconfirmed_bytes: MB, ..health(MB) };
        assert!(why(&behind, Some(&prepared)).contains("the stream that is behind"));
    }

    #[test]
    fn a_limit_that_comes_near_is_said_before_it_is_reached() {
        let mut concerns = Concerns::new("s".into(), 0);
        let limited = hold(Some(64 * MB), None);
        let left = |bytes: u64| Health { safe_wal_size: Some(bytes as i64), ..health(MB) };
        assert_eq!(concerns.judge(&left(16 * MB), &limited, false), []);
        let words = concerns.judge(&left(15 * MB), &limited, false);
        one(&words, true, &["safe_wal_size", "max_slot_wal_keep_size", "15728640"]);
        assert_eq!(concerns.judge(&left(31 * MB), &limited, false), []);
        one(&concerns.judge(&left(32 * MB), &limited, false), false, &["again"]);
    }

    #[test]
    fn each_worse_status_is_said_and_the_good_one_at_last() {
        let mut concerns = Concerns::new("s".into(), 0);
        let mut judge = |status: &str| {
            let health = Health { wal_status: Some(status.to_owned()), ..health(MB) };
            concerns.judge(&health, &hold(None, None), false)
        };
        assert_eq!(judge("reserved"), []);
        one(&judge("extended"), true, &["max_wal_size"]);
        one(&judge("unreserved"), true, &["about to be lost"]);
        assert_eq!(judge("extended"), []);
        one(&judge("reserved"), false, &["again"]);
        one(&judge("lost"), true, &["is lost: lost"]);
    }

    #[test]
    fn only_who_was_there_when_the_slot_moved_last_holds_it() {
        let (begin, mut holder) = (Instant::now(), Holder::default());
        let at = |lsn: u64| Health { restart_lsn: Some(Lsn::new(lsn)), ..Health::default() };
        let first = hold(None, Some(transaction("1")));
        assert!(holder.holds(&at(10), &first, begin));
        let later = begin + RUNNING * 2;
        assert!(holder.holds(&at(10), &first, later));
        assert!(!holder.holds(&at(10), &hold(None, None), later));
        let young = hold(None, Some(transaction("2")));
        assert!(!holder.holds(&at(10), &young, later));
        assert!(holder.holds(&at(20), &young, later + RUNNING));
    }
}
