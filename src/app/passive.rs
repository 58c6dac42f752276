//! From a session to the slot: at once, or as a passive instance that waits for it.

use std::future::pending;

use tokio::select;

use super::{App, Error, now_ms, set_role};
use crate::{
    ha::{self, Taken, Turn},
    metrics,
    pg::{
        session::{self, Session},
        slot::{self, SlotOptions},
    },
    sink::kafka::{Producer, producer::Waiting},
    status::{Active, Role},
};

impl App {
    /// A session that has the slot, with Kafka reached and every known topic looked up.
    pub(super) async fn take_slot(&mut self) -> Result<(Session, Taken), Error> {
        loop {
            let mut session = self.prepare().await?;
            match self.turn(&mut session).await {
                // It may be one that is to be made, which is looked into at a new start.
                Err(Error::Session(session::Error::Slot(slot::Error::SlotMissing { .. }))) => {}
                taken => {
                    let taken = taken?;
                    let ms = taken.noticed.elapsed().as_millis();
                    tracing::info!(slot = self.options.slot.name, by = ?taken.by, ms, "the slot is ours");
                    if self.passive {
                        metrics::take_over();
                    }
                    return Ok((session, taken));
                }
            }
        }
    }

    async fn turn(&mut self, session: &mut Session) -> Result<Taken, Error> {
        let Self { options, status, lock, supersede, trouble, passive, producer, vigil, .. } = self;
        let kafka = producer.as_ref().map(Producer::waiting);
        let host = session.host().clone();
        let mut seen = |active: &slot::Active| {
            *passive = true;
            vigil.inactive(Some(&host));
            let text = ha::described(&options.slot.name, active);
            trouble.say(&text, Role::Passive);
            let kafka_trouble = kafka.as_ref().and_then(Waiting::prepare);
            metrics::active(Some((active.application_name.as_deref(), active.address.as_deref())));
            status.send_modify(|status| {
                status.active = Some(shown(active));
                status.kafka_trouble = kafka_trouble;
                status.progress_ms = now_ms();
            });
            set_role(status, Role::Passive, Some(text));
        };
        // One that is dropped meanwhile is a gap, never made again by itself.
        let slot = SlotOptions { create: false, ..options.slot.clone() };
        let mut turn = Turn {
            options: &options.ha,
            postgres: &options.postgres,
            publication: &options.publication,
            slot: &slot,
            mapped: &self.mapped,
            lock,
            supersede,
        };
        let halted = async {
            match producer {
                Some(producer) => producer.halted().await,
                None => pending().await,
            }
        };
        // Whoever is dropped has done nothing that counts: the session is dropped with it.
        select! {
            biased;
            error = halted => Err(error.into()),
            taken = turn.take(session, &mut seen) => Ok(taken?),
        }
    }
}

fn shown(active: &slot::Active) -> Active {
    Active {
        pid: active.pid,
        application_name: active.application_name.clone(),
        address: active.address.clone(),
        since: active.since.clone(),
    }
}
