//! One partition's log, served as a broker would, against a naive reading of it.

mod model;

use proptest::{collection::vec, prelude::*};

use self::model::{Log, Piece};
use super::*;
use crate::{batch::Codec, lsn::Lsn};

const SOURCE: u64 = 7;
/// Commits of the model are below, all with these indexes.
const COMMITS: u64 = 24;
const INDEXES: u32 = 4;
const OURS: Identity = Identity { id: 4000, epoch: 9 };
/// Of our transactions.
const DATA: Identity = Identity { id: 4001, epoch: 5 };

/// How a broker serves the log.
#[derive(Clone, Debug)]
struct Served {
    /// Of one fetch.
    max_bytes: usize,
    log_start: i64,
    /// For each fetch, whether it is one for several partitions that gives this one nothing.
    starved: Vec<bool>,
}

fn sight(from: u64, max_bytes: u64) -> Sight {
    let wanted =
        Some(ReadBack { source: SOURCE, from: Lsn::new(from), max_bytes, memory: 1 << 20 });
    Sight {
        fences: vec![OURS],
        wanted,
        stored: Stored::new(SOURCE, 10_000),
        bytes: 0,
        newest: BTreeMap::new(),
        newest_below: BTreeMap::new(),
    }
}

/// As [`super::super::taking`] reads one partition.
fn read(log: &Log, low: i64, sight: &mut Sight, served: &Served) -> Tail {
    let mut tail = Tail::new("t".into(), 0, 1, low);
    let mut starved = served.starved.iter().copied().cycle();
    for _ in 0..10_000 {
        let Some(from) = tail.wanted() else { return tail };
        let most = sight.wanted.unwrap().max_bytes;
        assert!(tail.waits() || sight.bytes < most, "{} bytes of {most} were read", sight.bytes);
        if from < served.log_start {
            // A broker does not say with this error where the log begins.
            assert!(!tail.out_of_range(sight, -1), "it would ask for {from} for ever");
            panic!("{from} is before the log's start {}", served.log_start);
        }
        let nothing = starved.next().unwrap_or(false) && !tail.alone && !tail.waits();
        let set = if nothing { Vec::new() } else { log.fetch(from, served.max_bytes) };
        tail.feed(sight, &set, served.log_start, tail.alone).unwrap();
    }
    panic!("it does not end: {tail:?}");
}

fn codecs() -> impl Strategy<Value = Codec> {
    prop_oneof![Just(Codec::None), Just(Codec::Gzip), Just(Codec::Snappy), Just(Codec::Lz4)]
}

fn names(commits: std::ops::Range<u64>) -> impl Strategy<Value = Vec<(u64, u32)>> {
    vec((commits, 0..INDEXES), 1..12)
}

fn pieces(commits: std::ops::Range<u64>, most: usize) -> impl Strategy<Value = Vec<Piece>> {
    let marker = prop_oneof![Just(Marker::Commit), Just(Marker::Abort)];
    let producer = prop_oneof![Just(1_i64), Just(2), Just(OURS.id), Just(DATA.id)];
    let (one, other) = (names(commits.clone()), names(commits.clone()));
    let piece = prop_oneof![
        4 => (one, codecs())
            .prop_map(|(names, codec)| Piece::Plain { source: SOURCE, names, codec }),
        1 => (other, codecs())
            .prop_map(|(names, codec)| Piece::Plain { source: 8, names, codec }),
        2 => (1..60_u8).prop_map(Piece::Nameless),
        3 => (producer.clone(), names(commits), codecs())
            .prop_map(|(producer, names, codec)| Piece::Part { producer, names, codec }),
        2 => (producer, marker).prop_map(|(producer, marker)| Piece::End { producer, marker }),
        1 => Just(Piece::Leader),
        1 => (1..60_u8).prop_map(Piece::Emptied),
        1 => (1..100_u8).prop_map(Piece::Gap),
    ];
    vec(piece, 0..most)
}

proptest! {
    #[test]
    fn finds_what_a_naive_reader_finds(
        old in pieces(0..COMMITS / 2, 30),
        new in pieces(0..COMMITS, 40),
        late in pieces(COMMITS / 2..COMMITS, 5),
        between in pieces(COMMITS / 2..COMMITS, 5),
        both in any::<bool>(),
        after in pieces(0..COMMITS, 4),
        from in 0..COMMITS,
        start in any::<prop::sample::Index>(),
        most in prop_oneof![3 => Just(u64::MAX), 1 => 0..20_000_u64],
        max_bytes in 1..6_000_usize,
        starved in vec(any::<bool>(), 1..6),
    ) {
        let mut log = Log::default();
        old.iter().chain(&new).for_each(|piece| log.push(piece));
        let low = log.end;
        late.iter().for_each(|piece| log.push(piece));
        log.marker(OURS.id, OURS.epoch, Marker::Abort);
        if both {
            between.iter().for_each(|piece| log.push(piece));
            log.marker(DATA.id, DATA.epoch, Marker::Abort);
        }
        // Anywhere in the front half, also in the middle of a batch.
        let log_start = start.index(low as usize / 2 + 1) as i64;
        let (must, may) = log.naive(from, log_start);
        after.iter().for_each(|piece| log.push(piece));
        let mut sight = sight(from, most);
        sight.fences.extend(both.then_some(DATA));
        let tail = read(&log, low, &mut sight, &Served { max_bytes, log_start, starved });
        prop_assert!(most != u64::MAX || !tail.cut);
        for commit in 0..COMMITS {
            for index in 0..INDEXES {
                let found = sight.stored.contains(1, Lsn::new(commit), index, None);
                let name = (commit, index);
                prop_assert!(found || tail.cut || !must.contains(&name), "{name:?} is missing");
                prop_assert!(!found || may.contains(&name), "{name:?} is not stored");
            }
        }
    }
}

/// One plain batch, 300 of others, our marker.
fn long() -> (Log, i64) {
    let mut log = Log::default();
    log.push(&Piece::Plain { source: SOURCE, names: vec![(9, 1)], codec: Codec::None });
    (0..300).for_each(|_| log.push(&Piece::Nameless(1)));
    let low = log.end;
    log.marker(OURS.id, OURS.epoch, Marker::Abort);
    (log, low)
}

#[test]
fn an_answer_without_records_is_not_taken_for_the_end() {
    let ((log, low), mut sight) = (long(), sight(5, u64::MAX));
    let mut tail = Tail::new("t".into(), 0, 1, low);
    let mut asked = 0;
    while let Some(from) = tail.wanted() {
        asked += 1;
        let set = if asked % 3 == 0 { log.fetch(from, 1 << 20) } else { Vec::new() };
        tail.feed(&mut sight, &set, 0, tail.alone).unwrap();
    }
    assert_eq!((sight.stored.len(), tail.cut), (1, false));
}

#[test]
fn a_broker_that_never_answers_with_records_is_given_up() {
    let ((log, low), mut sight) = (long(), sight(5, u64::MAX));
    let mut tail = Tail::new("t".into(), 0, 1, low);
    tail.feed(&mut sight, &log.fetch(low, 1 << 20), 0, true).unwrap();
    for _ in 0..1000 {
        if tail.wanted().is_some() {
            tail.feed(&mut sight, &[], 0, true).unwrap();
        }
    }
    assert_eq!((tail.wanted(), tail.cut), (None, true));
}

#[test]
fn what_is_deleted_while_it_is_read_is_gone_and_an_unexplained_end_is_an_error() {
    let ((log, low), mut sight) = (long(), sight(5, u64::MAX));
    let mut tail = Tail::new("t".into(), 0, 1, low);
    tail.feed(&mut sight, &log.fetch(low, 1 << 20), 0, true).unwrap();
    assert!(!tail.out_of_range(&mut sight, -1), "it would be asked for for ever");
    assert!(tail.out_of_range(&mut sight, low));
    assert_eq!((tail.wanted(), tail.cut), (None, false));
}

/// What was read of a log from its end backwards, and the newest commit.
fn read_all(pieces: &[Piece], log_start: i64) -> (Option<Unsure>, Option<Lsn>) {
    let (mut log, mut sight) = (Log::default(), sight(5, u64::MAX));
    pieces.iter().for_each(|piece| log.push(piece));
    let low = log.end;
    log.marker(OURS.id, OURS.epoch, Marker::Abort);
    let served = Served { max_bytes: 1 << 20, log_start, starved: vec![false] };
    let tail = read(&log, low, &mut sight, &served);
    (tail.unsure(), sight.newest.get(&1).copied())
}

#[test]
fn the_newest_commit_is_told_also_if_it_is_confirmed() {
    let plain =
        |commit| Piece::Plain { source: SOURCE, names: vec![(commit, 0)], codec: Codec::None };
    let foreign = Piece::Plain { source: 8, names: vec![(9, 0)], codec: Codec::None };
    assert_eq!(read_all(&[plain(2), plain(3), foreign.clone()], 0), (None, Some(Lsn::new(3))));
    assert_eq!(read_all(&[plain(3), plain(7)], 0), (None, Some(Lsn::new(7))));
    assert_eq!(read_all(&[foreign], 0), (None, None));
}

#[test]
fn the_newest_below_what_is_read_back_is_told_beside_the_newest() {
    let (mut log, mut sight) = (Log::default(), sight(5, u64::MAX));
    for commit in [2, 4, 6, 9] {
        log.push(&Piece::Plain { source: SOURCE, names: vec![(commit, 0)], codec: Codec::None });
    }
    let low = log.end;
    log.marker(OURS.id, OURS.epoch, Marker::Abort);
    read(&log, low, &mut sight, &Served { max_bytes: 1 << 20, log_start: 0, starved: vec![false] });
    assert_eq!(sight.newest(), [(1, Lsn::new(9)), (1, Lsn::new(4))]);
}

#[test]
fn what_may_have_lost_the_newest_record_is_told() {
    let plain =
        |commit| Piece::Plain { source: SOURCE, names: vec![(commit, 0)], codec: Codec::None };
    let compacted = (Some(Unsure::Compacted("t".into(), 0)), Some(Lsn::new(3)));
    assert_eq!(read_all(&[plain(3), Piece::Emptied(2)], 0), compacted);
    assert_eq!(read_all(&[plain(3), Piece::Gap(2), Piece::Nameless(1)], 0), compacted);
    // Older than ours nothing matters, and what was deleted is no gap.
    let old = [Piece::Nameless(70), Piece::Gap(2), Piece::Nameless(70), plain(3)];
    assert_eq!(read_all(&old, 0), (None, Some(Lsn::new(3))));
    let deleted = [plain(2), Piece::Nameless(2), plain(3)];
    assert_eq!(read_all(&deleted, 2), (None, Some(Lsn::new(3))));
    let emptied = Some(Unsure::Emptied("t".into(), 0));
    assert_eq!(read_all(&[plain(3), Piece::Nameless(2)], 2), (emptied, None));
}

/// Keys that end with an older record than there is.
fn behind(pieces: &[Piece]) -> Vec<u32> {
    let (mut log, mut sight) = (Log::default(), sight(5, u64::MAX));
    pieces.iter().for_each(|piece| log.push(piece));
    let low = log.end;
    log.marker(OURS.id, OURS.epoch, Marker::Abort);
    let served = Served { max_bytes: 1 << 20, log_start: 0, starved: vec![false] };
    read(&log, low, &mut sight, &served).behind(&mut sight.stored);
    let place = |key: &u32| Place::topic("t").key(Some(&key.to_be_bytes()));
    (0..INDEXES).filter(|key| sight.stored.comes_again(place(key), false)).collect()
}

#[test]
fn a_replay_that_was_broken_off_is_seen() {
    let plain = |commit, key| {
        let names = vec![(commit, key)];
        Piece::Plain { source: SOURCE, names, codec: Codec::None }
    };
    let part = Piece::Part { producer: DATA.id, names: vec![(6, 0)], codec: Codec::None };
    let end = |marker| Piece::End { producer: DATA.id, marker };
    let whole = [plain(9, 0), plain(9, 1), plain(6, 0), plain(7, 0), plain(9, 0)];
    assert!(behind(&whole).is_empty());
    assert_eq!(behind(&whole[..4]), [0]);
    assert!(behind(&[plain(9, 0), plain(6, 1)]).is_empty(), "another key");
    assert_eq!(behind(&[plain(9, 2), plain(3, 2)]), [2], "also behind what is confirmed");
    let far = [&[plain(9, 0)], &vec![Piece::Nameless(50); 9][..], &[plain(6, 0)]].concat();
    assert_eq!(behind(&far), [0], "steps away");
    let aborted = [plain(9, 0), part.clone(), end(Marker::Abort)];
    assert!(behind(&aborted).is_empty(), "nobody reads it");
    assert_eq!(behind(&[plain(9, 0), part, end(Marker::Commit)]), [0]);
}

#[test]
fn a_glance_finds_the_newest_without_a_marker() {
    let ((log, low), mut sight) = (long(), sight(u64::MAX, u64::MAX));
    let mut tail = Tail::new("t".into(), 0, 1, low).glance(0);
    while let Some(from) = tail.wanted() {
        tail.feed(&mut sight, &log.fetch(from, 1 << 20), 0, true).unwrap();
    }
    assert_eq!((sight.newest.get(&1), sight.stored.len()), (Some(&Lsn::new(9)), 0));
    assert_eq!(Tail::new("t".into(), 0, 1, 0).glance(0).wanted(), None);
}

#[test]
fn a_glance_asks_for_nothing_that_was_deleted() {
    let glance = |log_start| Tail::new("t".into(), 0, 1, 70).glance(log_start);
    assert_eq!(
        [0, 10, 69].map(|log_start| glance(log_start).wanted()),
        [Some(6), Some(10), Some(69)]
    );
    assert_eq!(glance(70).wanted(), None);
    assert_eq!(glance(70).unsure(), Some(Unsure::Emptied("t".into(), 0)));
}

#[test]
fn an_empty_partition_is_done_at_its_marker() {
    let (mut log, mut sight) = (Log::default(), sight(5, 0));
    log.marker(OURS.id, OURS.epoch - 1, Marker::Abort);
    log.marker(OURS.id, OURS.epoch, Marker::Abort);
    let served = Served { max_bytes: 1, log_start: 0, starved: vec![true] };
    assert!(!read(&log, 0, &mut sight, &served).cut);
}

/// Names in one transaction, then its marker; room for two.
fn in_one_transaction(commits: std::ops::Range<u64>, marker: Marker) -> (Sight, Tail) {
    let (mut log, mut sight) = (Log::default(), sight(5, u64::MAX));
    sight.stored = Stored::new(SOURCE, 2);
    let part = |commit| Piece::Part { producer: 1, names: vec![(commit, 0)], codec: Codec::None };
    commits.map(part).for_each(|piece| log.push(&piece));
    log.push(&Piece::End { producer: 1, marker });
    let low = log.end;
    log.marker(OURS.id, OURS.epoch, Marker::Abort);
    let served = Served { max_bytes: 300, log_start: 0, starved: vec![false] };
    let tail = read(&log, low, &mut sight, &served);
    (sight, tail)
}

#[test]
fn what_a_transaction_holds_until_its_marker_is_within_the_memory() {
    let names = |(sight, _): (Sight, Tail)| (sight.stored.len(), sight.stored.refused());
    assert_eq!(names(in_one_transaction(6..8, Marker::Commit)), (2, 0));
    assert_eq!(names(in_one_transaction(6..16, Marker::Commit)), (2, 8));
    assert_eq!(
        names(in_one_transaction(0..5, Marker::Commit)),
        (0, 0),
        "confirmed ones are not kept"
    );
    let (mut sight, _) = in_one_transaction(6..16, Marker::Abort);
    assert_eq!((sight.stored.len(), sight.stored.refused()), (0, 0));
    let name = |commit| Name {
        source: SOURCE,
        timeline: 1,
        commit: Lsn::new(commit),
        index: 0,
        part: None,
    };
    assert!(
        sight.stored.insert(&name(20)) && sight.stored.insert(&name(21)),
        "its room is there again"
    );
}
