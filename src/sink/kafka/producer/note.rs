//! How far we have come, as a consumer group keeps it for the next start.
//!
//! A position that no record's name tells is written down before it is relied upon: as the metadata
//! of an offset of partition 0 of every topic that is ours, as deleting a topic deletes its offsets.
//! All of them are written at once and say how many they are, so that it shows where a topic was
//! deleted since; and each bears its topic's id, as a coordinator that was away keeps such offsets.

use std::{fmt, sync::Arc};

use crate::lsn::Lsn;

/// What the group keeps of one topic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Note {
    /// Of the position.
    pub timeline: u32,
    /// All below is stored.
    pub position: Lsn,
    /// As whom we wrote then.
    pub producer: i64,
    /// In which epoch.
    pub epoch: i16,
    /// How many topics have this note.
    pub topics: usize,
    /// By what our records are known, which may tell of higher positions; `None`: by nothing, and
    /// every position is noted.
    pub source: Option<u64>,
    /// The topic's id, where brokers tell it.
    pub topic: Option<u128>,
}

/// A note, and where it was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kept {
    /// The topic.
    pub topic: Arc<str>,
    /// What it says.
    pub note: Note,
    /// The topic is gone, or another one by now.
    pub gone: bool,
}

impl Note {
    /// Reads what we write. Words that came after us are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let words = text.strip_prefix("v1 ")?;
        let value = |key: &str| {
            let word = |word: &'_ str| word.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
            words.split(' ').find_map(word)
        };
        let source = match value("source")?.as_str() {
            "-" => None,
            hex if hex.len() == 16 => Some(u64::from_str_radix(hex, 16).ok()?),
            _ => return None,
        };
        let topic = match value("topic")?.as_str() {
            "-" => None,
            hex if hex.len() == 32 => Some(u128::from_str_radix(hex, 16).ok()?),
            _ => return None,
        };
        Some(Self {
            topic,
            timeline: value("timeline")?.parse().ok()?,
            position: value("position")?.parse().ok()?,
            producer: value("producer")?.parse().ok()?,
            epoch: value("epoch")?.parse().ok()?,
            topics: value("topics")?.parse().ok()?,
            source,
        })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { timeline, position, producer, epoch, topics, source, topic } = self;
        write!(f, "v1 timeline={timeline} position={position} producer={producer} epoch={epoch}")?;
        write!(f, " topics={topics} source=")?;
        match source {
            Some(source) => write!(f, "{source:016x}")?,
            None => f.write_str("-")?,
        }
        match topic {
            Some(topic) => write!(f, " topic={topic:032x}"),
            None => f.write_str(" topic=-"),
        }
    }
}

/// What is known of earlier positions.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// What the group keeps. `None`: it cannot be used.
    pub notes: Option<Vec<Kept>>,
    /// The newest commits of our records that were met, by timeline: of all, and of those below what is
    /// read back.
    pub newest: Vec<(u32, Lsn)>,
    /// Our producer id.
    pub producer: i64,
    /// Why there may have been newer ones.
    pub unsure: Option<Unsure>,
}

impl Found {
    /// The newest timeline of all that is known; 0: nothing is.
    #[must_use]
    pub fn timeline(&self) -> u32 {
        let noted = self.notes.iter().flatten().map(|one| one.note.timeline);
        noted.chain(self.newest.iter().map(|(timeline, _)| *timeline)).max().unwrap_or(0)
    }
}

/// Why records of ours may have been where none is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unsure {
    /// They were not all read.
    NotRead,
    /// None is there any more, and older ones were deleted.
    Emptied(Arc<str>, i32),
    /// Compaction took some away.
    Compacted(Arc<str>, i32),
}

impl fmt::Display for Unsure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRead => f.write_str("the topics could not be read back to the end"),
            Self::Emptied(topic, partition) => {
                write!(f, "what was in {topic}[{partition}] was deleted, by retention or by hand")
            }
            Self::Compacted(topic, partition) => {
                write!(f, "{topic}[{partition}] is compacted, and may have lost the newest record")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOTE: Note = Note {
        timeline: 3,
        position: Lsn::new(0x16_B374_8AB0),
        producer: 4001,
        epoch: 7,
        topics: 2,
        source: Some(0x0123_4567_89ab_cdef),
        topic: Some(0xfedc),
    };
    const TEXT: &str = "v1 timeline=3 position=16/B3748AB0 producer=4001 epoch=7 topics=2 \
        source=0123456789abcdef topic=0000000000000000000000000000fedc";

    #[test]
    fn reads_what_it_writes() {
        assert_eq!(NOTE.to_string(), TEXT);
        assert_eq!(Note::parse(TEXT), Some(NOTE));
        let nameless = Note { source: None, topic: None, ..NOTE };
        assert_eq!(Note::parse(&nameless.to_string()), Some(nameless));
        assert_eq!(Note::parse(&format!("{TEXT} later=1")), Some(NOTE));
    }

    #[test]
    fn reads_no_other_text() {
        for text in ["", "v1", "v1 ", "v2 timeline=3", &TEXT.replace("v1", "v2"), &TEXT[3..]] {
            assert_eq!(Note::parse(text), None, "{text}");
        }
        for word in TEXT.split(' ') {
            assert_eq!(Note::parse(&TEXT.replace(word, "")), None, "without {word}");
        }
        assert_eq!(Note::parse(&TEXT.replace("cdef", "cde")), None);
        assert_eq!(Note::parse(&TEXT.replace("=7", "=99999")), None);
    }

    proptest! {
        #[test]
        fn survives_any_text_and_reads_any_note(
            text: String, timeline: u32, position: u64, producer: i64, epoch: i16, topics: usize,
            source: Option<u64>, topic: Option<u128>,
        ) {
            let _ = Note::parse(&text);
            let position = Lsn::new(position);
            let note = Note { timeline, position, producer, epoch, topics, source, topic };
            prop_assert_eq!(Note::parse(&note.to_string()), Some(note));
        }
    }
}
