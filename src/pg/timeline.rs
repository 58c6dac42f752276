//! On which timeline a commit was written.
//!
//! A promoted standby goes on from where it was, on a timeline of its own, so positions that the old
//! primary wrote beyond that point are written a second time. A commit is known by its timeline and
//! its position together, and the server's history file says which timeline wrote what.
//!
//! Reference: `readTimeLineHistory` in `src/backend/access/transam/timeline.c`.

use crate::{
    lsn::Lsn,
    retry::{Disposition, Exit},
};

/// A history file that PostgreSQL would not have written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// A line that is not a timeline, a position and a reason.
    #[error("line {line} of the history of timeline {current} is no timeline and position")]
    Line {
        /// Whose history.
        current: u32,
        /// Counted from 1.
        line: usize,
    },
    /// A timeline that does not come after the one before it.
    #[error("line {line} of the history of timeline {current} is out of order")]
    Order {
        /// Whose history.
        current: u32,
        /// Counted from 1.
        line: usize,
    },
}

impl Error {
    /// The file stays as it is.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        match self {
            Self::Line { .. } | Self::Order { .. } => Disposition::Halt(Exit::Unavailable),
        }
    }
}

/// The history of a server's timeline.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Timelines {
    current: u32,
    /// Each earlier timeline with the position at which it ended and the next began; ascending.
    switches: Vec<(u32, Lsn)>,
}

impl Timelines {
    /// A timeline without a history: `TIMELINE_HISTORY 1` is always an error.
    #[must_use]
    pub const fn single(current: u32) -> Self {
        Self { current, switches: Vec::new() }
    }

    /// Reads the file that `TIMELINE_HISTORY current` answers with: `timeline \t position \t reason`
    /// a line, comments from `#`, oldest first. The reason is free text, in any encoding.
    pub fn parse(current: u32, file: &[u8]) -> Result<Self, Error> {
        let mut switches: Vec<(u32, Lsn)> = Vec::new();
        for (index, text) in file.split(|byte| *byte == b'\n').enumerate() {
            let text = text.trim_ascii();
            if text.is_empty() || text.starts_with(b"#") {
                continue;
            }
            let line = index + 1;
            let mut words =
                text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(str_of);
            let (timeline, end) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            let (Ok(timeline), Ok(end)) = (timeline.parse::<u32>(), end.parse::<Lsn>()) else {
                return Err(Error::Line { current, line });
            };
            let (before, from) = switches.last().copied().unwrap_or((0, Lsn::ZERO));
            if timeline <= before || timeline >= current || end < from {
                return Err(Error::Order { current, line });
            }
            switches.push((timeline, end));
        }
        Ok(Self { current, switches })
    }

    /// The timeline that the server writes to.
    #[must_use]
    pub const fn current(&self) -> u32 {
        self.current
    }

    /// Each earlier timeline with the position at which it ended, oldest first.
    #[must_use]
    pub fn switches(&self) -> &[(u32, Lsn)] {
        &self.switches
    }

    /// The timeline on which the record that begins at `commit` was written: the latest that began
    /// at or below it.
    #[must_use]
    pub fn of(&self, commit: Lsn) -> u32 {
        let ended = self.switches.partition_point(|(_, end)| *end <= commit);
        self.switches.get(ended).map_or(self.current, |(timeline, _)| *timeline)
    }
}

fn str_of(word: &[u8]) -> &str {
    std::str::from_utf8(word).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &[u8] = b"1\t0/20005C8\tno recovery target specified\n\n\
        # by hand\n2\t0/3000000\tbefore 2000-01-01 \xff\n";

    #[test]
    fn a_commit_belongs_to_the_latest_timeline_that_began_at_or_below_it() {
        let timelines = Timelines::parse(3, FILE).unwrap();
        for (commit, timeline) in [
            (0, 1),
            (0x20_005C7 - 1, 1),
            (0x200_05C7, 1),
            (0x200_05C8, 2),
            (0x2FF_FFFF, 2),
            (0x300_0000, 3),
            (u64::MAX, 3),
        ] {
            assert_eq!(timelines.of(Lsn::new(commit)), timeline, "{commit:X}");
        }
    }

    #[test]
    fn without_a_history_all_belongs_to_the_one_timeline() {
        assert_eq!(Timelines::single(1).of(Lsn::new(5)), 1);
        assert_eq!(Timelines::parse(7, b"").unwrap(), Timelines::single(7));
    }

    #[test]
    fn a_timeline_that_ended_where_it_began_wrote_nothing() {
        let timelines = Timelines::parse(4, b"1\t0/10\n2\t0/10\n3\t0/20").unwrap();
        assert_eq!(timelines.of(Lsn::new(0xF)), 1);
        assert_eq!(timelines.of(Lsn::new(0x10)), 3);
    }

    #[test]
    fn what_is_no_history_names_its_line() {
        let parse = |text: &str| Timelines::parse(3, text.as_bytes()).unwrap_err();
        for text in ["x\t0/1\t", "1", "1\t2", "-1\t0/1", "\u{1}"] {
            assert_eq!(parse(text), Error::Line { current: 3, line: 1 }, "{text}");
        }
        for text in ["1\t0/2\n1\t0/3", "2\t0/2\n1\t0/3", "1\t0/2\n2\t0/1", "#\n3\t0/1"] {
            assert_eq!(parse(text), Error::Order { current: 3, line: 2 }, "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_search_from_the_end(
            gaps in prop::collection::vec((1u32..5, 0u64..20), 0..8), commit in 0u64..200,
        ) {
            let (mut timeline, mut end, mut file, mut begins) = (0, 0, String::new(), vec![]);
            for (step, width) in gaps {
                begins.push((timeline + step, end));
                timeline += step;
                end += width;
                file += &format!("{timeline}\t{}\treason\n", Lsn::new(end));
            }
            begins.push((timeline + 1, end));
            let timelines = Timelines::parse(timeline + 1, file.as_bytes()).unwrap();
            let naive = begins.iter().rev().find(|(_, begin)| *begin <= commit).unwrap().0;
            prop_assert_eq!(timelines.of(Lsn::new(commit)), naive);
        }

        #[test]
        fn survives_any_bytes(current: u32, file: Vec<u8>) {
            let _ = Timelines::parse(current, &file);
        }
    }
}
