//! What is stored already, and is not sent again.

use std::hash::Hash;

use super::Records;
use crate::{
    lsn::Lsn,
    progress::Evidence,
    sim::{Bug, planted},
    stored::Stored,
};

impl Records {
    /// A new connection begins at `confirmed`. Everything that is not confirmed comes again.
    pub fn restart(&mut self, confirmed: Lsn, same_history: bool) {
        self.replay.restart(same_history);
        self.stored = None;
        (self.partly_stored, self.distrusted) = (false, false);
        self.batcher.flush_all();
        while self.batcher.closed().is_some() {} // It comes again.
        self.ledger.restart(confirmed);
        self.tables.clear();
        self.ticket = None;
    }

    /// What must be in Kafka before a position is confirmed, where it can be kept.
    pub(in super::super) fn evidence(&self) -> Evidence {
        if self.encoder.names() { Evidence::Names } else { Evidence::Notes }
    }

    /// A topic that may lose any record.
    pub(in super::super) fn compacted(&self) -> Option<&str> {
        self.topics.iter().find(|(_, topic)| topic.compacted).map(|(name, _)| &**name)
    }

    /// Rows with these names are stored already: they are not sent again.
    pub(in super::super) fn already_stored(&mut self, names: Stored) {
        if self.distrusted || planted(Bug::NothingLeftOut) {
            return;
        }
        match &mut self.stored {
            Some(stored) => {
                let refused = stored.refused();
                stored.merge(names);
                // What comes again must be followed by all that followed it.
                if stored.refused() > refused {
                    stored.retain(|_, _| false);
                }
            }
            None => self.stored = Some(names),
        }
        // A topic may be met in the midst of a transaction.
        self.partly_stored = self.ticket.is_some();
    }

    /// The server has another history than the topics: nothing is left out any more.
    pub(in super::super) fn distrust(&mut self) {
        self.stored = None;
        (self.partly_stored, self.distrusted) = (false, true);
    }

    /// A transaction comes, or a message of none: whether some of it is stored already.
    pub(super) fn recognise(&mut self, timeline: u32, commit: Lsn, mark: impl Hash) {
        if self.replay.is_another(commit, mark) {
            self.distrust();
        }
        self.partly_stored = false;
        if let Some(stored) = &mut self.stored {
            stored.pass(commit);
            self.partly_stored = stored.transaction(timeline, commit);
            if stored.is_empty() {
                self.stored = None;
            }
        }
    }
}
