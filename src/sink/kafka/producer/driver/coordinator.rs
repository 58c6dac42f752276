//! What the coordinator of our transactions is asked for, one thing at a time, over a connection of its
//! own: on a shared one it would wait behind the batches under way.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    super::{
        ask::{self, Candidate, chain},
        machine::NotCoordinated,
        taking::{add_partitions, end_transaction},
    },
    Done, Driver,
};
use crate::{
    failpoint,
    retry::Disposition,
    sim::{Bug, planted},
    sink::kafka::{
        Options,
        broker::Broker,
        codes,
        error::{Doubt, Error},
        wire::CoordinatorOf,
    },
};

/// What it is asked for.
pub(super) enum Step {
    Add(Vec<(Arc<str>, i32)>),
    End,
}

/// Why it was not done.
pub(super) enum Unmet {
    Not(NotCoordinated),
    /// Only a person can mend it.
    Halt(Error),
}

impl Driver {
    /// The transactional id of the batches, if they have one.
    pub(super) fn data_id(&self) -> Option<Arc<str>> {
        let claim = self.claim.as_ref()?;
        claim.transaction_timeout.and_then(|_| claim.data_id())
    }

    pub(super) fn coordinate(&mut self, step: Step) {
        let lease = self.claim.as_ref().map(|claim| claim.lease.clone());
        let over = move || lease.as_ref().is_some_and(|lease| !lease.holds());
        if over() {
            return self.machine.doubt_transaction(Doubt::Lease);
        }
        let (Some(id), Some(identities)) = (self.data_id(), &self.identities) else { return };
        let (identity, generation) = (identities.data, self.generation);
        let now = Instant::now();
        let usable = |broker: &Broker| {
            !broker.is_closed() && broker.renew_at().is_none_or(|renew_at| now < renew_at)
        };
        let broker = self.coordinator.take().filter(usable);
        let (candidates, options) = (self.candidates(), Arc::clone(&self.options));
        self.push(async move {
            let broker = match broker {
                Some(broker) => Ok(broker),
                None => find(candidates, &options, &id).await,
            };
            match broker {
                Err(error) => {
                    Done::Coordinated { generation, broker: None, result: Err(unasked(error)) }
                }
                // It took its time to be found.
                Ok(_) if over() => {
                    let why = Unmet::Not(NotCoordinated::Doubt(Doubt::Lease));
                    Done::Coordinated { generation, broker: None, result: Err(why) }
                }
                Ok(broker) => {
                    let (end, result) = match step {
                        Step::Add(partitions) => {
                            failpoint::hit("tx, to be added");
                            (false, add_partitions(&broker, &id, identity, &partitions).await)
                        }
                        Step::End => {
                            failpoint::hit("tx, to be ended");
                            (true, end_transaction(&broker, &id, identity, true).await)
                        }
                    };
                    failpoint::hit("tx, answered");
                    judged(generation, broker, end, result)
                }
            }
        });
    }

    pub(super) fn coordinated(
        &mut self,
        generation: u64,
        broker: Option<Broker>,
        result: Result<(), Unmet>,
    ) {
        if generation != self.generation {
            return; // its transaction was given up
        }
        self.coordinator = broker;
        let (now, random) = (Instant::now(), self.random.next());
        match result {
            Ok(()) => self.machine.coordinated(now),
            Err(Unmet::Not(why)) => self.machine.not_coordinated(why, now, random),
            Err(Unmet::Halt(error)) => self.machine.halt(error),
        }
    }
}

async fn find(
    candidates: Vec<Candidate>,
    options: &Options,
    id: &Arc<str>,
) -> Result<Broker, Error> {
    let question =
        async |broker: Broker| broker.find_coordinator(CoordinatorOf::Transaction, id).await;
    let node = ask::any(candidates, options, question).await?;
    Broker::connect(&node.host, node.port, options).await
}

fn judged(generation: u64, broker: Broker, end: bool, result: Result<(), Error>) -> Done {
    let error = match result {
        Ok(()) => return Done::Coordinated { generation, broker: Some(broker), result: Ok(()) },
        Err(error) => error,
    };
    let (keep, why) = match &error {
        Error::Fenced { code, .. } => (false, NotCoordinated::Doubt(Doubt::Refused(*code))),
        Error::Refused(refusal) if refusal.code == codes::CONCURRENT_TRANSACTIONS => {
            (true, NotCoordinated::Busy)
        }
        Error::Refused(refusal) if refusal.code == codes::INVALID_TXN_STATE => {
            (false, NotCoordinated::Doubt(Doubt::Refused(refusal.code)))
        }
        // It answered that it has not done it.
        Error::Refused(_) => {
            return Done::Coordinated { generation, broker: None, result: Err(unasked(error)) };
        }
        _ if end && planted(Bug::UnansweredIsEnded) => {
            return Done::Coordinated { generation, broker: None, result: Ok(()) };
        }
        _ if end && !planted(Bug::EndRepeated) => (false, NotCoordinated::Doubt(Doubt::Unanswered)),
        _ => return Done::Coordinated { generation, broker: None, result: Err(unasked(error)) },
    };
    let broker = keep.then_some(broker);
    Done::Coordinated { generation, broker, result: Err(Unmet::Not(why)) }
}

/// Nothing has come of it.
fn unasked(error: Error) -> Unmet {
    match error.disposition() {
        Disposition::Retry => Unmet::Not(NotCoordinated::Later(chain(&error))),
        Disposition::Halt(_) => Unmet::Halt(error),
    }
}
