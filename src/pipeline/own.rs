//! Before the first row: the topics become ours, and what they hold is set against what the server has.

use std::{collections::BTreeSet, pin::pin};

use tokio::select;
use tokio_util::sync::CancellationToken;

use super::{
    Error, Moved, Pipeline, Records,
    gap::{Verdict, judge},
    report::telling,
};
use crate::{
    failpoint,
    lsn::Lsn,
    metrics,
    pg::{session::Catalog, timeline::Timelines},
    progress::Evidence,
    sim::{Bug, planted},
    sink::kafka::producer::{Claim, Found, Taken},
    stored::Stored,
};

/// From where a session starts, and as whom.
#[derive(Debug)]
pub struct Start<'a> {
    /// As whom the topics are taken.
    pub claim: Claim,
    /// The slot.
    pub slot: &'a str,
    /// Where it stands.
    pub confirmed: Lsn,
    /// Whether a position that somebody else has moved it to is accepted.
    pub accept_gap: bool,
    /// The server was put back to an earlier state: earlier positions say nothing.
    pub rewound: bool,
    /// What was said once.
    pub said: &'a mut BTreeSet<String>,
}

impl Pipeline<'_> {
    /// Makes the topics ours, now that the slot is: before the first row, with PostgreSQL kept
    /// informed all the while. `false`: stopped before it was done.
    ///
    /// # Errors
    /// The session is over, as in [`Self::run`].
    pub async fn own(
        &mut self,
        mut start: Start<'_>,
        stop: &CancellationToken,
    ) -> Result<bool, Error> {
        let (told, trouble) = (self.progress(false), self.producer.troubles());
        let Self { stream, relations, catalog, records, producer, report, notes, .. } = self;
        let work = async {
            // Before anybody is shut out: who streams from the new primary must not be.
            let claim = Claim { read_back: None, ..start.claim.clone() };
            let found = producer.look(claim, Vec::new()).await?;
            not_left_behind(found.timeline(), relations.timelines())?;
            let Taken { stored, mut found, .. } = producer.take(start.claim.clone()).await?;
            failpoint::hit("topics taken");
            let newest = leave_out(stored, relations.timelines(), catalog, records).await?;
            found.newest.extend(newest);
            let upto = start.judge(&found, relations.timelines(), records)?;
            let noted = producer.noted(relations.timelines().current(), upto).await?;
            failpoint::hit("noted");
            notes.begin(upto, noted);
            records.ledger.ask_for(if noted { records.evidence() } else { Evidence::None });
            Ok(())
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

impl Start<'_> {
    /// Whether the slot stands where we left it. Gives the position to note first.
    fn judge(
        &mut self,
        found: &Found,
        timelines: &Timelines,
        records: &Records,
    ) -> Result<Lsn, Error> {
        let (slot, at) = (self.slot, self.confirmed);
        not_left_behind(found.timeline(), timelines)?;
        if self.rewound {
            return Ok(at);
        }
        let notes = found.notes.as_deref().unwrap_or_default();
        let here = notes.iter().map(|one| one.note);
        let here = here.filter(|note| note.timeline == timelines.current());
        let last = here.max_by_key(|note| note.position);
        if last.is_some_and(|last| last.producer != found.producer) {
            self.say(
                "Kafka has given another producer id: a process that still writes under the one of \
                 before is not shut out, and may repeat rows"
                    .to_owned(),
            );
        }
        let source = self.claim.read_back.map(|read_back| read_back.source);
        match judge(at, timelines, found, source, records.compacted()) {
            Verdict::Ours => {}
            Verdict::Unknown(why) => self.say(format!(
                "whether anybody has moved replication slot {slot:?} to {at} could not be checked: {why}"
            )),
            Verdict::Gap(known) if self.accept_gap => tracing::warn!(
                slot, from = %known, to = %at,
                "a gap is accepted: what was committed in between is in no topic"
            ),
            Verdict::Gap(known) => {
                return Err(Moved { slot: slot.to_owned(), at, known }.into());
            }
        }
        Ok(last.map_or(at, |last| at.max(last.position)))
    }

    fn say(&mut self, text: String) {
        if self.said.contains(&text) {
            tracing::debug!("still: {text}");
        } else {
            tracing::warn!("{text}");
            self.said.insert(text);
        }
    }
}

/// Whether this server is on the newest timeline of which anything is known.
fn not_left_behind(newest: u32, timelines: &Timelines) -> Result<(), Error> {
    let timeline = timelines.current();
    if timeline < newest { Err(Error::OldTimeline { timeline, newest }) } else { Ok(()) }
}

/// Has the rows with these names left out, as far as this server has them, or will send them again:
/// not those that an earlier primary wrote beyond the point where its standby was promoted, and none
/// at all from a server that was put back to an earlier state. Gives back the newest of them, with its
/// timeline.
pub(super) async fn leave_out(
    mut stored: Stored,
    timelines: &Timelines,
    catalog: &mut Catalog,
    records: &mut Records,
) -> Result<Option<(u32, Lsn)>, Error> {
    let (mut last, mut newest, mut newest_timeline) = (Lsn::ZERO, None, 0);
    let phantoms = stored.retain(|timeline, commit| {
        newest_timeline = newest_timeline.max(timeline);
        let ours = timelines.of(commit) == timeline || planted(Bug::PhantomsCount);
        if ours && commit >= last {
            (last, newest) = (commit, Some((timeline, commit)));
        }
        ours
    });
    not_left_behind(newest_timeline, timelines)?;
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
        return Ok(newest);
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
    Ok(newest)
}
