//! What keeps us from streaming: said once when it begins, and once when it is over.

use std::time::Instant;

use crate::status::Role;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    text: Option<String>,
    since: Option<Instant>,
}

impl Trouble {
    pub(super) fn say(&mut self, text: &str, role: Role) {
        if self.text.as_deref() == Some(text) {
            tracing::debug!("still: {text}");
            return;
        }
        if role == Role::Passive {
            tracing::info!("passive: {text}");
        } else {
            tracing::warn!("{text}; trying again");
        }
        self.text = Some(text.to_owned());
        self.since.get_or_insert_with(Instant::now);
    }

    pub(super) fn over(&mut self) {
        if let (Some(_), Some(since)) = (self.text.take(), self.since.take()) {
            tracing::info!(seconds = since.elapsed().as_secs(), "connected again");
        }
    }
}
