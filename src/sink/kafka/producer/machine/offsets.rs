//! Whether a partition is ours alone: the offsets of our batches join, or somebody else wrote between them.

/// Where the next batch would be, if nobody else writes.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    next: Option<i64>,
}

impl Offsets {
    /// A batch of so many records is stored from `base` on; −1: the broker does not tell, as of some
    /// that are sent again. Before it, `unanswered` records were stored of which no answer came.
    /// Gives how many offsets in front of it are somebody else's: records, or markers of transactions.
    pub(super) fn stored(&mut self, base: i64, records: u32, unanswered: u32) -> u64 {
        if base < 0 {
            self.next = None;
            return 0;
        }
        let end = base.saturating_add(i64::from(records));
        let Some(next) = self.next.replace(end) else { return 0 };
        if end < next {
            self.next = Some(next); // one of before, sent again
        }
        let ours = next.saturating_add(i64::from(unanswered));
        u64::try_from(base.saturating_sub(ours)).unwrap_or(0)
    }

    /// The transaction of what is stored there ends with a marker of ours.
    pub(super) fn marked(&mut self) {
        self.next = self.next.map(|next| next.saturating_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_between_two_of_ours() {
        let mut offsets = Offsets::default();
        assert_eq!(offsets.stored(100, 10, 0), 0); // what was there before is not our business
        assert_eq!(offsets.stored(110, 5, 0), 0);
        assert_eq!(offsets.stored(118, 2, 0), 3);
        assert_eq!(offsets.stored(110, 5, 0), 0); // sent again
        assert_eq!(offsets.stored(120, 1, 0), 0);
        assert_eq!(offsets.stored(131, 1, 10), 0); // the answer to ten others was lost
        assert_eq!(offsets.stored(143, 1, 10), 1);
        assert_eq!(offsets.stored(-1, 7, 0), 0);
        assert_eq!(offsets.stored(170, 1, 0), 0);
        offsets.marked();
        assert_eq!(offsets.stored(172, 1, 0), 0);
        offsets.marked();
        assert_eq!(offsets.stored(175, 1, 0), 1);
    }
}
