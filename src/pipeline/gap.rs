//! Whether it was us who moved the slot to where it stands.
//!
//! Each position that we confirm is known in Kafka first: by the names of records, or by a note in
//! the consumer group. One beyond all of them was confirmed by somebody else, or is that of a slot
//! that was dropped and made again; the rows before it are in no topic.
//!
//! **Must stay true.** A false alarm ends a healthy service: where the newest of what we knew may be
//! gone, there is none. What is not known to be a gap is said, and nothing more.

use crate::{
    lsn::Lsn,
    pg::timeline::Timelines,
    sink::kafka::producer::{Found, Kept},
};

/// What is to be thought of a slot's position.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// We were there.
    Ours,
    /// Nobody can tell, and why.
    Unknown(String),
    /// Somebody else moved it; we were no further than this.
    Gap(Lsn),
}

/// The slot was moved by somebody else.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "replication slot {slot:?} stands at {at}, and was at {known} when this pipeline confirmed last: \
     somebody else has moved it, or dropped it and made it again. What was committed between {known} \
     and {at} is in no topic, and cannot be had from it any more. To go on without that, once: \
     pgsluice run --accept-gap {slot}"
)]
pub struct Moved {
    /// Its name.
    pub slot: String,
    /// Its position.
    pub at: Lsn,
    /// Our last.
    pub known: Lsn,
}

/// Judges `confirmed` by what was found in Kafka. `source` is that of our records, `compacted` a topic
/// that may lose any of them.
pub(super) fn judge(
    confirmed: Lsn,
    timelines: &Timelines,
    found: &Found,
    source: Option<u64>,
    compacted: Option<&str>,
) -> Verdict {
    let unknown = |why: String| Verdict::Unknown(why);
    let notes = found.notes.as_deref().unwrap_or_default();
    let noted = notes.iter().map(|one| (one.note.timeline, one.note.position));
    let named = found.newest.iter().map(|&(timeline, commit)| (timeline, commit.next()));
    // What an earlier primary wrote and lost says nothing of this one.
    let of_here = |&(timeline, upto): &(u32, Lsn)| {
        let last = Lsn::new(upto.get().saturating_sub(1));
        timeline == timelines.current() || timelines.of(last) == timeline
    };
    let known = noted.chain(named).filter(of_here).map(|(_, upto)| upto).max();
    if known.is_some_and(|known| confirmed <= known) {
        return Verdict::Ours;
    }
    if found.notes.is_none() {
        return unknown("the consumer group cannot be used".to_owned());
    }
    if notes.is_empty() {
        // The first start, as far as anybody can see.
        return match found.newest.is_empty() {
            true => Verdict::Ours,
            false => {
                unknown("the consumer group keeps nothing of it, or has forgotten it".to_owned())
            }
        };
    }
    let here = notes.iter().map(|one| one.note);
    let here = here.filter(|note| note.timeline == timelines.current());
    let Some(last) = here.max_by_key(|note| note.position) else {
        return unknown("only positions of an earlier timeline are known".to_owned());
    };
    if last.source.is_some() {
        // Records may tell of later positions than the note does, if all of them can be seen.
        if last.source != source {
            return unknown("publications, or headers, were others then".to_owned());
        }
        let same = notes.iter().filter(|Kept { note, gone, .. }| {
            !gone && (note.producer, note.epoch) == (last.producer, last.epoch)
        });
        if same.count() < last.topics {
            return unknown("a topic was deleted since then".to_owned());
        }
        if let Some(unsure) = &found.unsure {
            return unknown(unsure.to_string());
        }
        if let Some(topic) = compacted {
            return unknown(format!("topic {topic} is compacted"));
        }
    }
    Verdict::Gap(known.unwrap_or(last.position))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sink::kafka::producer::{Note, Unsure};

    const SOURCE: u64 = 7;

    fn note(timeline: u32, position: u64, topics: usize) -> Note {
        let position = Lsn::new(position);
        Note {
            timeline,
            position,
            producer: 1,
            epoch: 5,
            topics,
            source: Some(SOURCE),
            topic: None,
        }
    }

    fn kept(topic: &str, note: Note) -> Kept {
        Kept { topic: Arc::from(topic), note, gone: false }
    }

    fn found(notes: &[(&str, Note)], newest: &[(u32, u64)]) -> Found {
        Found {
            notes: Some(notes.iter().map(|(topic, note)| kept(topic, *note)).collect()),
            newest: newest.iter().map(|&(timeline, commit)| (timeline, Lsn::new(commit))).collect(),
            producer: 1,
            unsure: None,
        }
    }

    fn judged(confirmed: u64, found: &Found) -> Verdict {
        let timelines = Timelines::single(1);
        judge(Lsn::new(confirmed), &timelines, found, Some(SOURCE), None)
    }

    fn is_unknown(verdict: Verdict, why: &str) {
        assert!(matches!(&verdict, Verdict::Unknown(text) if text.contains(why)), "{verdict:?}");
    }

    #[test]
    fn up_to_a_note_or_a_records_end_it_was_us() {
        let found = found(&[("a", note(1, 100, 2)), ("b", note(1, 100, 2))], &[(1, 149)]);
        for confirmed in [1, 100, 101, 149, 150] {
            assert_eq!(judged(confirmed, &found), Verdict::Ours, "{confirmed}");
        }
        assert_eq!(judged(151, &found), Verdict::Gap(Lsn::new(150)));
    }

    #[test]
    fn what_a_promotion_took_back_does_not_hide_what_it_left() {
        let timelines = Timelines::parse(2, b"1\t0/64\tno recovery target specified\n").unwrap();
        let judged = |newest: &[(u32, u64)]| {
            let found = found(&[("a", note(1, 40, 1)), ("a", note(2, 50, 1))], newest);
            judge(Lsn::new(91), &timelines, &found, Some(SOURCE), None)
        };
        assert_eq!(judged(&[(1, 150), (1, 90)]), Verdict::Ours);
        assert_eq!(judged(&[(1, 150), (1, 80)]), Verdict::Gap(Lsn::new(81)));
    }

    #[test]
    fn a_note_beyond_all_records_counts_as_well() {
        let found = found(&[("a", note(1, 200, 1))], &[(1, 149)]);
        assert_eq!(judged(200, &found), Verdict::Ours);
        assert_eq!(judged(201, &found), Verdict::Gap(Lsn::new(200)));
    }

    #[test]
    fn a_first_start_is_no_gap_and_neither_is_a_forgotten_group() {
        assert_eq!(judged(500, &found(&[], &[])), Verdict::Ours);
        is_unknown(judged(500, &found(&[], &[(1, 100)])), "forgotten");
        let without = Found { notes: None, ..found(&[], &[(1, 100)]) };
        is_unknown(judged(500, &without), "cannot be used");
        assert_eq!(judged(101, &without), Verdict::Ours);
    }

    #[test]
    fn where_newer_records_may_have_been_there_is_no_alarm() {
        let full = found(&[("a", note(1, 100, 2)), ("b", note(1, 100, 2))], &[(1, 120)]);
        assert_eq!(judged(500, &full), Verdict::Gap(Lsn::new(121)));
        let deleted = found(&[("a", note(1, 100, 2))], &[(1, 120)]);
        is_unknown(judged(500, &deleted), "deleted");
        let mut made_anew = full.clone();
        made_anew.notes.as_mut().unwrap()[0].gone = true;
        is_unknown(judged(500, &made_anew), "deleted");
        assert_eq!(judged(100, &made_anew), Verdict::Ours, "what it says is true all the same");
        // Another start's note does not stand in for it.
        let of_earlier = Note { epoch: 4, ..note(1, 90, 2) };
        let replaced = found(&[("a", note(1, 100, 2)), ("c", of_earlier)], &[]);
        is_unknown(judged(500, &replaced), "deleted");
        for unsure in [
            Unsure::NotRead,
            Unsure::Emptied(Arc::from("a"), 0),
            Unsure::Compacted(Arc::from("a"), 0),
        ] {
            is_unknown(judged(500, &Found { unsure: Some(unsure), ..full.clone() }), "");
        }
        let timelines = Timelines::single(1);
        let compacted = judge(Lsn::new(500), &timelines, &full, Some(SOURCE), Some("a"));
        is_unknown(compacted, "compacted");
        let renamed = judge(Lsn::new(500), &timelines, &full, Some(8), None);
        is_unknown(renamed, "publications");
        is_unknown(judge(Lsn::new(500), &timelines, &full, None, None), "headers");
    }

    #[test]
    fn where_every_position_was_noted_records_say_nothing() {
        let nameless = Note { source: None, ..note(1, 100, 2) };
        let found = Found { unsure: Some(Unsure::NotRead), ..found(&[("a", nameless)], &[]) };
        assert_eq!(judged(100, &found), Verdict::Ours);
        assert_eq!(judged(101, &found), Verdict::Gap(Lsn::new(100)));
    }

    #[test]
    fn after_a_promotion_only_what_this_server_has_counts() {
        let timelines = Timelines::parse(2, b"1\t0/64\tx").unwrap();
        let judged =
            |confirmed, found| judge(Lsn::new(confirmed), &timelines, &found, Some(SOURCE), None);
        let old = || found(&[("a", note(1, 0x90, 1))], &[(1, 0x80)]);
        is_unknown(judged(0x70, old()), "earlier timeline");
        // Before the end of the old one its notes and names are good.
        let before = || found(&[("a", note(1, 0x60, 1))], &[(1, 0x61)]);
        assert_eq!(judged(0x62, before()), Verdict::Ours);
        is_unknown(judged(0x66, before()), "earlier timeline");
        let both = found(&[("a", note(2, 0x70, 1)), ("b", note(1, 0x90, 1))], &[(1, 0x80)]);
        assert_eq!(judged(0x71, both), Verdict::Gap(Lsn::new(0x70)));
    }
}
