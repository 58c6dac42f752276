//! How long PostgreSQL may say nothing before its connection counts as dead.

use std::time::Duration;

use super::{App, Error, Options};
use crate::lsn::Lsn;

/// Without `wal_sender_timeout` a server may be silent for long; a minute is long.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

/// The longest silence that is borne at first.
pub(crate) fn first_silence(options: &Options) -> Duration {
    let timeout = options.postgres.wal_sender_timeout;
    if timeout.is_zero() { SILENCE } else { timeout.max(Duration::from_secs(2)) }
}

impl App {
    /// A walsender that works through a huge transaction of other tables may say nothing for
    /// minutes: giving up on it at the same point again and again would never end.
    pub(super) fn mind_silence(&mut self, error: &Error, before: Lsn) {
        let silent = error.silent();
        if silent && self.last.received <= before {
            self.silence = self.silence.saturating_mul(2);
            tracing::info!(seconds = self.silence.as_secs(), "waiting longer for PostgreSQL");
        } else if self.last.received > before {
            self.silence = first_silence(&self.options);
        }
    }
}
