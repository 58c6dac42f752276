//! Higher epochs than anybody had before.

use std::{sync::Arc, time::Duration};

use futures_util::future::join;
use tracing::{debug, warn};

use super::{
    super::{claim::Identities, queue::Identity},
    Taker,
};
use crate::{
    failpoint,
    sink::kafka::{broker::Broker, codes, error::Error, wire::InitProducerId},
};

/// A broker ends a transaction without data after this, should we be gone in its middle.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);

impl Taker {
    /// Higher epochs than anybody had before, and the id of the first. `None`: nobody can be shut out.
    pub(super) async fn identities(&mut self) -> Result<Option<(Arc<str>, Identities)>, Error> {
        let claim = Arc::clone(&self.claim);
        let (Some(id), Some(data_id)) = (claim.transactional_id.clone(), claim.data_id()) else {
            return Ok(None);
        };
        let transactional = claim.transaction_timeout.is_some();
        let timeout = claim.transaction_timeout.unwrap_or(TRANSACTION_TIMEOUT);
        let [first, second] = self.both(&id, &data_id, timeout).await;
        let identity = match self.next_epoch(&id, TRANSACTION_TIMEOUT, first).await {
            Err(error) if not_allowed(&error) && !transactional => {
                // The command goes on where the error ends.
                warn!(
                    "rows may be repeated after a crash, as nobody can be shut out: {error} \
                     --transactional-id {data_id}"
                );
                return Ok(None);
            }
            Err(error) => return Err(with(error, &data_id)),
            Ok(identity) => identity,
        };
        let mut fences = vec![(Arc::clone(&id), identity)];
        match self.next_epoch(&data_id, timeout, second).await {
            Ok(identity) => fences.push((data_id, identity)),
            Err(error) if not_allowed(&error) && !transactional => warn!(
                "an instance with kafka.delivery = \"transactional\" would not be shut out: {error}"
            ),
            Err(error) => return Err(error),
        }
        let last = fences.last().map_or(identity, |(_, last)| *last);
        let data = if transactional { last } else { identity };
        Ok(Some((id, Identities { data, fences })))
    }

    /// The first attempt of both at once, as mostly is enough.
    async fn both(
        &mut self,
        id: &Arc<str>,
        data_id: &Arc<str>,
        timeout: Duration,
    ) -> [Option<Result<Identity, Error>>; 2] {
        let (Ok(one), Ok(other)) = (self.coordinator(id).await, self.coordinator(data_id).await)
        else {
            return [None, None];
        };
        let (first, second) =
            join(init(&one, id, TRANSACTION_TIMEOUT), init(&other, data_id, timeout)).await;
        [Some(first), Some(second)]
    }

    /// A higher epoch of a transactional id. Whatever was open under it is over then. `tried`: what the
    /// first attempt came to, if it was made already.
    async fn next_epoch(
        &mut self,
        id: &Arc<str>,
        timeout: Duration,
        mut tried: Option<Result<Identity, Error>>,
    ) -> Result<Identity, Error> {
        let mut pauses = self.pauses();
        loop {
            let got = match tried.take() {
                Some(got) => got,
                None => match self.coordinator(id).await {
                    Ok(broker) => init(&broker, id, timeout).await,
                    Err(error) => Err(error),
                },
            };
            match got {
                Ok(identity) => {
                    let Identity { id: producer_id, epoch } = identity;
                    debug!(transactional_id = &**id, producer_id, epoch, "a new epoch is ours");
                    failpoint::hit("epoch");
                    return Ok(identity);
                }
                Err(error) => {
                    self.again(&mut pauses, error, "no producer id of our own yet").await?
                }
            }
        }
    }
}

async fn init(broker: &Broker, id: &Arc<str>, timeout: Duration) -> Result<Identity, Error> {
    let transactional_id = Some(id.to_string());
    let request = InitProducerId { transactional_id, timeout };
    let (id, epoch) = broker.init_producer_id(request).await?;
    Ok(Identity { id, epoch })
}

fn not_allowed(error: &Error) -> bool {
    error.code() == Some(codes::TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
}

/// The right to the other transactional id is missing too, or will be.
fn with(error: Error, other: &str) -> Error {
    match error {
        Error::Refused(refusal) if not_allowed(&Error::Refused(refusal.clone())) => {
            Error::NotAllowed { refusal, other: other.to_owned() }
        }
        error => error,
    }
}
