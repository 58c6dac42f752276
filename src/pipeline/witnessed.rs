//! Of a standby, nothing is decoded before it is known on which timeline it was written.

use std::pin::pin;

use tokio::{select, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Error, Pipeline, at, report::telling};

impl Pipeline<'_> {
    /// Has the standby say, if something was read, that it is on the timeline that records are named by;
    /// the walsender is kept informed meanwhile. See [`crate::pg::witness`].
    pub(super) async fn witnessed(
        &mut self,
        stop: &CancellationToken,
        give_up: &mut Option<Instant>,
    ) -> Result<(), Error> {
        let reads = self.stream.reads();
        if self.witness.as_ref().is_none_or(|witness| witness.knows(reads)) {
            return Ok(());
        }
        let (told, trouble) = (self.progress(give_up.is_some()), self.producer.troubles());
        let Self { stream, relations, witness, drain, report, .. } = self;
        let Some(witness) = witness else { return Ok(()) };
        let asked = witness.ask(relations.timelines().current(), reads);
        let mut work = pin!(telling(asked, *report, told, trouble));
        loop {
            // The question is dropped only with the session.
            select! {
                biased;
                () = stop.cancelled(), if give_up.is_none() => {
                    *give_up = Some(Instant::now() + *drain);
                }
                asked = &mut work => return Ok(asked?),
                () = at(*give_up) => return Err(Error::Drain { from: stream.told() }),
                turned = stream.turn(false) => turned?,
            }
        }
    }
}
