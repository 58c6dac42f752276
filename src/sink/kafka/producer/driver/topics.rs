//! Topics that are looked up while others are ours already.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{
    super::{
        Met,
        ask::{self, Candidate},
        claim::Ours,
    },
    Done, Driver,
    notes::Shared,
};
use crate::sink::kafka::{
    Options,
    error::{Doubt, Error},
    topics::Topic,
};

impl Driver {
    /// Looks a topic up, and takes it if the others are ours.
    pub(super) fn meet(&mut self, name: String, reply: oneshot::Sender<Result<Met, Error>>) {
        let (candidates, options) = (self.candidates(), Arc::clone(&self.options));
        let generation = self.generation;
        let mut group = self.group.clone();
        if self.machine.in_transaction() {
            // To take it would end the open transaction: it is taken together with the others, anew.
            if !self.machine.owns(&name) && group.is_some() {
                self.machine.doubt(&Arc::from(name.as_str()), 0, Doubt::NotTaken);
            }
            group = None;
        }
        self.push(async move {
            let result = meet(candidates, &options, &name, group).await;
            Done::Topic { name, generation, result, reply }
        });
    }
}

/// Looks a topic up, and takes it if the others are ours.
async fn meet(
    candidates: Vec<Candidate>,
    options: &Options,
    name: &str,
    group: Option<Shared>,
) -> Result<(Topic, Option<Ours>), Error> {
    let topic = ask::topic(candidates.clone(), options, name).await?;
    let Some(group) = group else { return Ok((topic, None)) };
    let mut group = group.lock().await;
    group.ask(candidates);
    let ours = group.join(&Arc::from(name)).await?;
    Ok((topic, Some(ours)))
}
