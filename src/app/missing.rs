//! A slot that is not there: was it never made, or is it gone?
//!
//! **Must stay true.** A slot is made only where nothing of ours is, in the consumer group or at the
//! ends of the topics: else the rows from then on until now would be passed over in silence.

use std::sync::Arc;

use tokio::time::timeout;

use super::{App, Error};
use crate::{
    lease::Lease,
    lsn::Lsn,
    pg::{session, slot},
    sink::kafka::producer::Found,
};

impl App {
    /// Whether the slot may be made that `error` says is missing.
    pub(super) async fn missing(&mut self, error: session::Error) -> Result<(), Error> {
        let session::Error::Slot(slot::Error::SlotMissing { name, sql, place: Some(place) }) =
            &error
        else {
            return Err(error.into());
        };
        let create = self.options.slot.create && !self.slot_seen;
        let claim = self.claim_at(&place.server, Lsn::ZERO, false, Lease::new(Default::default()));
        let names = self.topics_of(&place.published).into_iter().map(Arc::from).collect();
        let limit = self.options.kafka.request_timeout;
        let looked = async {
            self.reach_kafka().await?;
            match &mut self.producer {
                Some(producer) => Ok::<Found, Error>(producer.look(claim, names).await?),
                None => Ok(Found::default()),
            }
        };
        let found = if create {
            looked.await?
        } else {
            // Only to say more: it is missing in any case.
            timeout(limit, looked).await.ok().and_then(Result::ok).unwrap_or_default()
        };
        let noted = found.notes.iter().flatten().map(|one| one.note.position);
        let named = found.newest.iter().map(|(_, commit)| commit.next());
        let (slot, sql, host) = (name.clone(), sql.clone(), place.host.clone());
        let last = noted.chain(named).max();
        match (last, place.elsewhere.clone()) {
            (None, _) if create => Ok(()),
            (Some(last), _) if create && self.accept_gap => {
                tracing::warn!(slot, from = %last, "a gap is accepted: the slot is made anew");
                Ok(())
            }
            // No gap, as long as it may come back.
            (_, Some(elsewhere)) => Err(Error::Elsewhere { slot, host, elsewhere, sql }),
            (None, None) => Err(error.into()),
            (Some(last), None) => Err(Error::Gone { slot, host, last, create, sql }),
        }
    }
}
