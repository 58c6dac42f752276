//! Before the first row: the topics become ours, and what they hold is set against what the server has.

use std::pin::pin;

use tokio::select;
use tokio_util::sync::CancellationToken;

use super::{Error, Pipeline, Records, report::telling};
use crate::{
    failpoint,
    lsn::Lsn,
    metrics,
    pg::{session::Catalog, timeline::Timelines},
    sim::{Bug, planted},
    sink::kafka::producer::{Claim, Taken},
    stored::Stored,
};

impl Pipeline<'_> {
    /// Makes the topics ours, now that the slot is: before the first row, with PostgreSQL kept
    /// informed all the while. `false`: stopped before it was done.
    ///
    /// # Errors
    /// The session is over, as in [`Self::run`].
    pub async fn own(&mut self, claim: Claim, stop: &CancellationToken) -> Result<bool, Error> {
        let (told, trouble) = (self.progress(false), self.producer.troubles());
        let Self { stream, relations, catalog, records, producer, report, .. } = self;
        let work = async {
            let Taken { stored, .. } = producer.take(claim).await?;
            failpoint::hit("topics taken");
            leave_out(stored, relations.timelines(), catalog, records).await
        };
        let mut work = pin!(telling(work, *report, told, trouble));
        loop {
            select! {
                biased;
                () = stop.cancelled() => return Ok(false),
                done = &mut work => return done.map(|()| true),
                turned = stream.turn(false) => turned?,
            }
        }
    }
}

/// Has the rows with these names left out, as far as this server has them, or will send them again:
/// not those that an earlier primary wrote beyond the point where its standby was promoted, and none
/// at all from a server that was put back to an earlier state.
pub(super) async fn leave_out(
    mut stored: Stored,
    timelines: &Timelines,
    catalog: &mut Catalog,
    records: &mut Records,
) -> Result<(), Error> {
    let mut last = Lsn::ZERO;
    let phantoms = stored.retain(|timeline, commit| {
        let ours = timelines.of(commit) == timeline || planted(Bug::PhantomsCount);
        last = if ours { last.max(commit) } else { last };
        ours
    });
    if phantoms > 0 {
        metrics::phantoms(phantoms);
        tracing::warn!(
            records = phantoms,
            timeline = timelines.current(),
            "the topics hold records of transactions that this server does not have: its \
             predecessor wrote them, and lost them when this one was promoted. They stay there"
        );
    }
    if stored.is_empty() {
        return Ok(());
    }
    // Now, not at login: another instance may have streamed in between.
    if let Some(end) = catalog.wal_end().await?.filter(|end| *end <= last) {
        tracing::warn!(
            %end,
            stored = %last,
            records = stored.len(),
            "the topics hold records of positions that PostgreSQL's WAL has not reached: it was put \
             back to an earlier state, as from a copy of its files. Everything that the slot gives \
             from now on is stored; what was stored before stays in its topics, and some of it has an \
             id in common with what comes now"
        );
        records.distrust();
    }
    records.already_stored(stored);
    Ok(())
}
