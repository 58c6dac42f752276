//! Which of our records are in the topics already.
//!
//! After a start PostgreSQL sends again what it has no confirmation of, and part of that is stored.
//! The records bear their [`Name`]s: those that were read back are kept in [`Stored`], and exactly
//! those are left out of the replay.
//!
//! Some of what should be stored may not be: compaction, retention or somebody by hand deleted it. It
//! is sent again, behind newer records; so whatever followed it is sent again too, key by key, and a
//! truncate if anything is that it has to follow.
//!
//! **Invariants.** Only names go in that were read below the high watermark: what is above it may
//! be lost yet. Nothing is left out because its position is lower or higher than another's, only
//! because its own name was read; what there was no room for is sent a second time. In each partition
//! the last record of a key is its newest, or it comes again.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, Hash},
};

use foldhash::{HashSet, HashSetExt as _, quality::FixedState};

use crate::{
    lsn::Lsn,
    sim::{Bug, planted},
};

/// A record's own name, as its header `id` writes it:
/// `<source 16>-<timeline 8>-<commit LSN 16>-<index 8>[.<part>]`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name {
    /// Whose record it is.
    pub source: u64,
    /// Timeline of the commit.
    pub timeline: u32,
    /// Commit LSN.
    pub commit: Lsn,
    /// Of the change, in its transaction.
    pub index: u32,
    /// Which of the records of one change; `None`: the only one, or the first.
    pub part: Option<u32>,
}

impl Name {
    /// Reads what we write and nothing else: lower-case hex of fixed width, and a part that is
    /// decimal without leading zeros.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut rest = text;
        let source = hex(&mut rest, 16)?;
        mark(&mut rest, b'-')?;
        let timeline = hex(&mut rest, 8)? as u32;
        mark(&mut rest, b'-')?;
        let commit = Lsn::new(hex(&mut rest, 16)?);
        mark(&mut rest, b'-')?;
        let index = hex(&mut rest, 8)? as u32;
        let part = match rest {
            [] => None,
            [b'.', digits @ ..] => Some(decimal(digits)?),
            _ => return None,
        };
        Some(Self { source, timeline, commit, index, part })
    }
}

/// As many digits off the front, 16 at most.
fn hex(rest: &mut &[u8], digits: usize) -> Option<u64> {
    let (these, after) = rest.split_at_checked(digits)?;
    *rest = after;
    these.iter().try_fold(0, |number, digit| {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(nibble))
    })
}

fn mark(rest: &mut &[u8], expected: u8) -> Option<()> {
    let first = rest.split_off_first()?;
    (*first == expected).then_some(())
}

/// All of it.
fn decimal(digits: &[u8]) -> Option<u32> {
    if !matches!(digits, [b'0'] | [b'1'..=b'9', ..]) {
        return None;
    }
    digits.iter().try_fold(0_u32, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Where the records of one key stand, or those of all keys of a partition.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Place {
    /// Its name, hashed.
    topic: u64,
    partition: u32,
    /// Hashed; `None`: each of them.
    key: Option<u64>,
}

impl Place {
    /// The first partition of a topic.
    #[must_use]
    pub fn topic(name: &str) -> Self {
        Self { topic: hash(name), partition: 0, key: None }
    }

    /// Another partition of the same topic.
    #[must_use]
    pub const fn partition(self, partition: u32) -> Self {
        Self { partition, key: None, ..self }
    }

    /// A key in the same partition; `None`: all of them.
    #[must_use]
    pub fn key(self, key: Option<&[u8]>) -> Self {
        Self { key: key.map(hash), ..self }
    }

    /// All keys of the partition.
    #[must_use]
    pub const fn whole(self) -> Self {
        Self { key: None, ..self }
    }

    /// Whether it is not one key's.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.key.is_none()
    }
}

fn hash<T: Hash + ?Sized>(of: &T) -> u64 {
    FixedState::default().hash_one(of)
}

/// Places told apart of which records come again, 40 bytes each; of more, whole partitions.
const AGAIN: usize = 1 << 14;

/// How many indices of one transaction and part are one entry, a bit each.
const WORD: u32 = u64::BITS;

/// Where 64 names stand that differ in the last six bits of their index. Transactions by their
/// commit first: from there they are forgotten.
type Key = (Lsn, u32, Option<u32>, u32);

const fn place(timeline: u32, commit: Lsn, index: u32, part: Option<u32>) -> (Key, u64) {
    ((commit, timeline, part, index / WORD), 1 << (index % WORD))
}

/// A set of names of one source. Up to 64 rows of a transaction take one entry of 32 bytes, and with
/// the tree's own about 50: a transaction of five million rows takes a few MB.
#[derive(Clone, Debug)]
pub struct Stored {
    source: u64,
    /// Of entries.
    limit: usize,
    words: BTreeMap<Key, u64>,
    names: u64,
    refused: u64,
    again: HashSet<Place>,
    /// Partitions into which something was sent.
    sent: HashSet<Place>,
}

impl Stored {
    /// None yet; at most `limit` entries.
    #[must_use]
    pub fn new(source: u64, limit: usize) -> Self {
        let (words, again, sent) = (BTreeMap::new(), HashSet::new(), HashSet::new());
        Self { source, limit, words, names: 0, refused: 0, again, sent }
    }

    /// Adds a name. `false` if it is not in the set: there was no room, or it is of another source.
    pub fn insert(&mut self, name: &Name) -> bool {
        let (key, bit) = place(name.timeline, name.commit, name.index, name.part);
        name.source == self.source && self.add(key, bit)
    }

    /// Adds some of the names of an entry, all or none.
    fn add(&mut self, key: Key, bits: u64) -> bool {
        let full = self.words.len() >= self.limit;
        match self.words.get_mut(&key) {
            Some(word) => {
                self.names += u64::from((bits & !*word).count_ones());
                *word |= bits;
            }
            None if full => {
                self.refused = self.refused.saturating_add(bits.count_ones().into());
                return false;
            }
            None => {
                self.names += u64::from(bits.count_ones());
                self.words.insert(key, bits);
            }
        }
        true
    }

    /// Adds all of another set of the same source, as far as there is room here.
    pub fn merge(&mut self, mut other: Self) {
        debug_assert_eq!(self.source, other.source, "names of another source are none of ours");
        if other.source != self.source {
            return;
        }
        // The smaller goes into the larger.
        if other.words.len() > self.words.len() && other.words.len() <= self.limit {
            std::mem::swap(&mut self.words, &mut other.words);
            std::mem::swap(&mut self.names, &mut other.names);
        }
        self.refused = self.refused.saturating_add(other.refused);
        other.again.into_iter().for_each(|place| self.again(place));
        self.sent.extend(other.sent);
        for (key, bits) in other.words {
            self.add(key, bits);
        }
    }

    /// For names of which it is to turn out whether they are stored. It has its room from this set.
    #[must_use]
    pub fn pending(&self) -> Self {
        Self::new(self.source, 0)
    }

    /// Adds a name to such a set, as far as both together have room.
    pub fn insert_pending(&mut self, pending: &mut Self, name: &Name) -> bool {
        let (key, _) = place(name.timeline, name.commit, name.index, name.part);
        let full = pending.words.len() == pending.limit && !pending.words.contains_key(&key);
        if full && self.words.len() < self.limit {
            (self.limit, pending.limit) = (self.limit - 1, pending.limit + 1);
        }
        pending.insert(name)
    }

    /// It has turned out.
    pub fn settle(&mut self, pending: Self, stored: bool) {
        self.limit += pending.limit;
        if stored {
            self.merge(pending);
        }
    }

    /// Whether this record was read back.
    #[must_use]
    pub fn contains(&self, timeline: u32, commit: Lsn, index: u32, part: Option<u32>) -> bool {
        let (key, bit) = place(timeline, commit, index, part);
        if planted(Bug::DroppedByPosition) {
            return self.words.last_key_value().is_some_and(|(last, _)| key <= *last);
        }
        self.words.get(&key).is_some_and(|word| word & bit != 0)
    }

    /// Whether any record of this transaction was: to be asked once, so that the rows of others cost
    /// nothing.
    #[must_use]
    pub fn transaction(&self, timeline: u32, commit: Lsn) -> bool {
        if planted(Bug::DroppedByPosition) {
            return self.words.last_key_value().is_some_and(|((last, ..), _)| commit <= *last);
        }
        let first = (commit, timeline, None, 0);
        let last = (commit, timeline, Some(u32::MAX), u32::MAX);
        self.words.range(first..=last).next().is_some()
    }

    /// What is stored there comes again.
    pub fn again(&mut self, place: Place) {
        let told = self.again.len() < AGAIN || self.again.contains(&place);
        self.again.insert(if told { place } else { place.whole() });
    }

    /// A record is sent, behind those that are stored there. Whatever follows it of its key is too; a
    /// row without a key (`place` is whole) replaces none, and a truncate does so with all.
    pub fn send(&mut self, place: Place, truncate: bool) {
        self.sent.insert(place.whole());
        if truncate || !place.is_whole() {
            self.again(place);
        }
    }

    /// Whether a record at this place is sent, stored or not.
    #[must_use]
    pub fn comes_again(&self, place: Place, truncate: bool) -> bool {
        let whole = place.whole();
        !self.again.is_empty() && (self.again.contains(&place) || self.again.contains(&whole))
            || truncate && self.sent.contains(&whole)
    }

    /// Forgets every commit below this one: commits ascend, so none of them will be asked for.
    pub fn pass(&mut self, commit: Lsn) {
        while let Some(first) = self.words.first_entry()
            && first.key().0 < commit
        {
            self.names -= u64::from(first.remove().count_ones());
        }
    }

    /// Forgets the transactions of which `keep` says `false`, by timeline and commit: what an older
    /// timeline has beyond its end never was. Gives how many names that were.
    pub fn retain(&mut self, mut keep: impl FnMut(u32, Lsn) -> bool) -> u64 {
        let mut removed = 0;
        self.words.retain(|(commit, timeline, ..), word| {
            let keep = keep(*timeline, *commit);
            removed += if keep { 0 } else { u64::from(word.count_ones()) };
            keep
        });
        self.names -= removed;
        removed
    }

    /// How many names there are.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.names
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.names == 0
    }

    /// How many names there was no room for, each time that one came.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    const LIMIT: usize = 1000;

    fn name(timeline: u32, commit: u64, index: u32, part: Option<u32>) -> Name {
        Name { source: 7, timeline, commit: Lsn::new(commit), index, part }
    }

    fn place(key: u64) -> Place {
        Place::topic("t").partition(1).key(Some(&key.to_be_bytes()))
    }

    #[test]
    fn what_comes_again_does_so_by_its_key_in_its_partition() {
        let mut stored = Stored::new(7, LIMIT);
        assert!(!stored.comes_again(place(1), false));
        stored.again(place(1));
        assert!(stored.comes_again(place(1), false));
        let others =
            [place(2), place(1).partition(2), Place::topic("u").partition(1), place(1).whole()];
        assert_eq!(others.map(|other| stored.comes_again(other, false)), [false; 4]);
        stored.again(place(2).whole());
        assert!(stored.comes_again(place(3), false), "all of the partition");
        let mut merged = Stored::new(7, LIMIT);
        merged.merge(stored);
        assert!(
            merged.comes_again(place(1), false)
                && !merged.comes_again(place(1).partition(2), false)
        );
    }

    #[test]
    fn a_truncate_comes_again_behind_whatever_was_sent_into_its_partition() {
        for sent in [place(1), place(1).whole()] {
            let mut stored = Stored::new(7, LIMIT);
            let whole = sent.whole();
            stored.again(place(2));
            assert!(!stored.comes_again(whole, true));
            stored.send(sent, false);
            assert!(stored.comes_again(whole, true));
            assert!(!stored.comes_again(whole.partition(2), true));
            assert!(!stored.comes_again(whole, false), "a row without a key");
            assert!(!stored.comes_again(place(3), false));
            stored.send(whole, true);
            assert!(stored.comes_again(whole, false) && stored.comes_again(place(3), false));
        }
    }

    #[test]
    fn of_more_places_than_there_is_room_for_all_of_the_partition_comes_again() {
        let mut stored = Stored::new(7, LIMIT);
        (0..AGAIN as u64).for_each(|key| stored.again(place(key)));
        assert!(!stored.comes_again(place(u64::MAX), false));
        stored.again(place(AGAIN as u64));
        assert!(stored.comes_again(place(u64::MAX), false));
        assert_eq!(stored.again.len(), AGAIN + 1);
    }

    #[test]
    fn reads_a_name_as_documented() {
        let text = b"0123456789abcdef-00000003-00000016b374d848-000000ff";
        let name = Name {
            source: 0x0123_4567_89ab_cdef,
            timeline: 3,
            commit: Lsn::new(0x16_b374_d848),
            index: 255,
            part: None,
        };
        assert_eq!(Name::parse(text), Some(name));
        for (end, part) in [(".0", 0), (".2", 2), (".12", 12), (".4294967295", u32::MAX)] {
            let text = [text, end.as_bytes()].concat();
            assert_eq!(Name::parse(&text), Some(Name { part: Some(part), ..name }));
        }
    }

    #[test]
    fn reads_nothing_else() {
        let good = "0123456789abcdef-00000003-00000016b374d848-000000ff";
        for length in 0..good.len() {
            assert_eq!(Name::parse(&good.as_bytes()[..length]), None);
        }
        for end in [
            ".",
            ".01",
            ".00",
            ".-1",
            ".+1",
            ".1.",
            ".1.2",
            ".a",
            ". 1",
            "-1",
            "0",
            " ",
            ".1 ",
            ".1\n",
            ".4294967296",
            ".99999999999999999999",
        ] {
            assert_eq!(Name::parse(format!("{good}{end}").as_bytes()), None, "{end}");
        }
        for wrong in [
            good.to_uppercase(),
            good.replace('-', "_"),
            good.replace('f', "g"),
            good.replace("00000003", "0x000003"),
            good.replace("00000003", "+0000003"),
            format!(" {good}"),
            format!("0{good}"),
        ] {
            assert_eq!(Name::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn names_of_another_source_are_no_names() {
        let mut stored = Stored::new(8, LIMIT);
        assert!(!stored.insert(&name(1, 2, 3, None)));
        assert!(stored.is_empty());
        assert_eq!(stored.refused(), 0);
    }

    #[test]
    fn beyond_the_limit_only_known_entries_grow() {
        let mut stored = Stored::new(7, 2);
        assert!(stored.insert(&name(1, 10, 0, None)));
        assert!(stored.insert(&name(1, 20, 0, None)));
        assert!(!stored.insert(&name(1, 30, 0, None)));
        assert!(!stored.insert(&name(1, 10, 64, None)));
        assert!(!stored.insert(&name(1, 10, 0, Some(1))));
        assert!(stored.insert(&name(1, 10, 63, None)));
        assert_eq!((stored.len(), stored.refused()), (3, 3));
        assert!(!stored.contains(1, Lsn::new(30), 0, None));
        stored.pass(Lsn::new(20));
        assert!(stored.insert(&name(1, 30, 0, None)));
        assert_eq!((stored.len(), stored.refused()), (2, 3));
    }

    #[test]
    fn what_does_not_fit_when_merged_is_counted() {
        let mut stored = Stored::new(7, 2);
        stored.insert(&name(1, 10, 0, None));
        let mut other = Stored::new(7, 3);
        for commit in [10, 20, 30, 40] {
            other.insert(&name(1, commit, 1, None));
            other.insert(&name(1, commit, 2, None));
        }
        assert_eq!((other.len(), other.refused()), (6, 2));
        stored.merge(other);
        assert_eq!((stored.len(), stored.refused()), (5, 4));
        assert!(stored.contains(1, Lsn::new(10), 0, None));
    }

    #[test]
    fn what_is_pending_shares_the_room() {
        let mut stored = Stored::new(7, 3);
        let (mut one, mut other) = (stored.pending(), stored.pending());
        assert!(stored.insert_pending(&mut one, &name(1, 10, 0, None)));
        assert!(stored.insert_pending(&mut one, &name(1, 10, 63, None)));
        assert!(stored.insert_pending(&mut other, &name(1, 20, 0, None)));
        assert!(stored.insert(&name(1, 10, 0, None)));
        assert!(!stored.insert(&name(1, 30, 0, None)), "two of three are lent");
        assert!(!stored.insert_pending(&mut other, &name(1, 30, 0, None)));
        assert_eq!(stored.refused(), 1);
        // What was not stored after all gives its room back, and needed none.
        stored.settle(other, false);
        assert_eq!(stored.refused(), 1);
        assert!(stored.insert(&name(1, 30, 0, None)));
        stored.settle(one, true);
        assert_eq!((stored.len(), stored.refused(), stored.limit), (3, 1, 3));
        assert!(stored.contains(1, Lsn::new(10), 63, None));
    }

    #[test]
    fn a_large_transaction_is_small() {
        let mut stored = Stored::new(7, 1000);
        for index in 0..64_000 {
            assert!(stored.insert(&name(1, 10, index, None)));
        }
        assert_eq!(stored.len(), 64_000);
        assert_eq!(stored.words.len(), 1000);
        assert_eq!(size_of::<(Key, u64)>(), 32);
    }

    /// Few values, so that names meet; both sides of where an entry ends.
    fn names() -> impl Strategy<Value = Vec<Name>> {
        let index = prop_oneof![0..3_u32, 62..66_u32, Just(u32::MAX)];
        let part = option::of(prop_oneof![0..3_u32, Just(u32::MAX)]);
        let one = (1..4_u32, 0..6_u64, index, part);
        vec(
            one.prop_map(|(timeline, commit, index, part)| name(timeline, commit, index, part)),
            0..60,
        )
    }

    fn stored(names: &[Name]) -> Stored {
        let mut stored = Stored::new(7, LIMIT);
        for name in names {
            assert!(stored.insert(name));
        }
        stored
    }

    fn is_the_same(stored: &Stored, model: &BTreeSet<Name>) -> Result<(), TestCaseError> {
        prop_assert_eq!(stored.len(), model.len() as u64);
        prop_assert_eq!(stored.is_empty(), model.is_empty());
        prop_assert_eq!(stored.refused(), 0);
        for timeline in 0..5 {
            for commit in (0..7).map(Lsn::new) {
                let is_of = |name: &&Name| (name.timeline, name.commit) == (timeline, commit);
                let any = model.iter().any(|name| is_of(&name));
                prop_assert_eq!(stored.transaction(timeline, commit), any);
                for index in [0, 1, 2, 3, 62, 63, 64, 65, u32::MAX] {
                    for part in [None, Some(0), Some(1), Some(2), Some(u32::MAX)] {
                        let name = Name { source: 7, timeline, commit, index, part };
                        let found = stored.contains(timeline, commit, index, part);
                        prop_assert_eq!(found, model.contains(&name));
                    }
                }
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn is_what_a_plain_set_would_be(
            first in names(), second in names(), passed in 0..7_u64, timeline in 1..4_u32, end in 0..7_u64,
        ) {
            let mut all = stored(&first);
            let mut model: BTreeSet<Name> = first.iter().copied().collect();
            all.merge(stored(&second));
            model.extend(&second);
            is_the_same(&all, &model)?;
            let end = Lsn::new(end);
            let removed = all.retain(|of, commit| of != timeline || commit < end);
            let before = model.len();
            model.retain(|name| name.timeline != timeline || name.commit < end);
            prop_assert_eq!(removed, (before - model.len()) as u64);
            is_the_same(&all, &model)?;
            all.pass(Lsn::new(passed));
            model.retain(|name| name.commit >= Lsn::new(passed));
            is_the_same(&all, &model)?;
        }

        #[test]
        fn reads_what_is_printed_as_documented(
            source: u64, timeline: u32, commit: u64, index: u32, part: Option<u32>,
        ) {
            let end = part.map(|part| format!(".{part}")).unwrap_or_default();
            let text = format!("{source:016x}-{timeline:08x}-{commit:016x}-{index:08x}{end}");
            let name = Name { source, timeline, commit: Lsn::new(commit), index, part };
            prop_assert_eq!(Name::parse(text.as_bytes()), Some(name));
        }

        #[test]
        fn one_byte_off_is_another_name_or_none(
            index: u32, part: Option<u32>, at: prop::sample::Index, with: u8,
        ) {
            let end = part.map(|part| format!(".{part}")).unwrap_or_default();
            let good = format!("0123456789abcdef-00000003-00000016b374d848-{index:08x}{end}");
            let mut text = good.clone().into_bytes();
            let at = at.index(text.len());
            text[at] = with;
            let same = text == good.as_bytes();
            prop_assert_eq!(Name::parse(&text) == Name::parse(good.as_bytes()), same);
        }
    }
}
