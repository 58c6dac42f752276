//! What is wrong now: said once when it begins, once when it is over, and on `/status` in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{debug, info, warn};

/// What is in trouble.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum What {
    /// A broker, by its id.
    Broker(i32),
    /// A partition, by its place in the machine.
    Partition(usize),
    /// The cluster's metadata.
    Metadata,
    /// Of transactions.
    Coordinator,
}

/// How long nothing must be in trouble until it is over: a broker that has just come back answers, for
/// a moment, that it leads nothing.
const CALM: Duration = Duration::from_secs(2);

/// See the module. An episode lasts from the first trouble until there was none for [`CALM`].
#[derive(Debug, Default)]
pub(super) struct Troubles {
    open: BTreeMap<What, String>,
    since: Option<Instant>,
    /// Since when nothing is in trouble any more.
    calm: Option<Instant>,
    /// Causes of this episode that the log has.
    said: BTreeSet<String>,
    changed: bool,
}

impl Troubles {
    /// `what` is in trouble: `text` says why. The log gets it unless it has one of the same `cause`
    /// in this episode.
    pub(super) fn begin(&mut self, what: What, cause: &str, text: String, now: Instant) {
        self.since.get_or_insert(now);
        self.calm = None;
        if self.said.insert(cause.to_owned()) {
            warn!("{text}; nothing is lost, trying on");
        } else {
            debug!("{text}");
        }
        let before = self.open.insert(what, text);
        self.changed |= before.as_ref() != self.open.get(&what);
    }

    /// `what` works.
    pub(super) fn end(&mut self, what: What, now: Instant) {
        if self.open.remove(&what).is_some() {
            self.changed = true;
            self.ended(now);
        }
    }

    /// Forgets brokers that nobody needs any more.
    pub(super) fn keep_brokers(&mut self, needed: impl Fn(i32) -> bool, now: Instant) {
        let before = self.open.len();
        self.open.retain(|what, _| !matches!(what, What::Broker(id) if !needed(*id)));
        if self.open.len() < before {
            self.changed = true;
            self.ended(now);
        }
    }

    /// What was to be sent is given up.
    pub(super) fn forget_partitions(&mut self, now: Instant) {
        let before = self.open.len();
        self.open.retain(|what, _| !matches!(what, What::Partition(_)));
        if self.open.len() < before {
            self.changed = true;
            self.ended(now);
        }
    }

    fn ended(&mut self, now: Instant) {
        if self.open.is_empty() {
            self.calm = Some(now);
        }
    }

    /// Says that it is over, once it is. When to look again, if it may be soon.
    pub(super) fn look(&mut self, now: Instant) -> Option<Instant> {
        let calm = self.calm?;
        if now < calm + CALM {
            return Some(calm + CALM);
        }
        let lasted = self.since.take().map_or(Duration::ZERO, |since| calm.duration_since(since));
        self.calm = None;
        self.said.clear();
        info!("Kafka stores everything again, after {:.1}s", lasted.as_secs_f64());
        None
    }

    /// Whether [`Self::text`] may be another than at the last call.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The first trouble in words, and how many more there are.
    pub(super) fn text(&self) -> Option<String> {
        let first = self.open.values().next()?;
        Some(match self.open.len() - 1 {
            0 => first.clone(),
            more => format!("{first} (and {more} more)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_episode_ends_with_its_last_trouble() {
        let now = Instant::now();
        let mut troubles = Troubles::default();
        assert_eq!(troubles.text(), None);
        troubles.begin(What::Broker(1), "refused", "broker 1 is away".into(), now);
        troubles.begin(What::Partition(0), "timeout", "a[0] waits".into(), now);
        assert!(troubles.take_changed());
        assert_eq!(troubles.text().as_deref(), Some("broker 1 is away (and 1 more)"));
        troubles.end(What::Broker(1), now);
        assert_eq!(troubles.text().as_deref(), Some("a[0] waits"));
        troubles.end(What::Partition(0), now);
        troubles.end(What::Partition(0), now);
        assert_eq!(troubles.text(), None);
        // Not over yet: it is the same episode if it begins again.
        assert_eq!(troubles.look(now), Some(now + CALM));
        troubles.begin(What::Partition(1), "leader", "a[1] has no leader".into(), now + CALM);
        assert_eq!(troubles.look(now + CALM), None);
        assert_eq!((troubles.since, troubles.said.len()), (Some(now), 3));
        troubles.end(What::Partition(1), now + CALM);
        assert_eq!(troubles.look(now + 2 * CALM), None);
        assert_eq!((troubles.since, troubles.said.len()), (None, 0));
    }

    #[test]
    fn a_broker_that_nobody_needs_is_no_trouble() {
        let now = Instant::now();
        let mut troubles = Troubles::default();
        troubles.begin(What::Broker(1), "refused", "broker 1 is away".into(), now);
        troubles.keep_brokers(|id| id == 1, now);
        assert!(troubles.text().is_some());
        troubles.keep_brokers(|_| false, now);
        assert_eq!(troubles.text(), None);
    }
}
