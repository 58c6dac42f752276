//! Record sets as a broker gives them back, read by ours.

mod sets;

use std::io::Write as _;

use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use self::sets::*;
use super::*;
use crate::batch::{
    log::{Entries, Entry, Error as LogError, Marker},
    record_batch::{ATTRIBUTES, HEADER, put, set_length},
};

const LIMIT: usize = 1 << 20;

fn only(set: &[u8]) -> Entry<'_> {
    let mut entries = Entries::new(set);
    let entry = entries.next().unwrap().unwrap();
    assert!(entries.next().is_none());
    assert_eq!(entries.next_offset(), Some(entry.last_offset + 1));
    entry
}

fn found(entry: &Entry<'_>, name: &str, limit: usize) -> Result<Vec<(i64, Vec<u8>)>, LogError> {
    let mut found = Vec::new();
    let visit = |offset, _: Option<&[u8]>, value: &[u8]| found.push((offset, value.to_vec()));
    entry.headers(name.as_bytes(), limit, visit)?;
    Ok(found)
}

fn strings(entry: &Entry<'_>, name: &str) -> Vec<(i64, String)> {
    let found = found(entry, name, LIMIT).unwrap().into_iter();
    found.map(|(offset, value)| (offset, String::from_utf8(value).unwrap())).collect()
}

#[test]
fn reads_what_a_broker_compressed_with_snappy() {
    let set = hex(SNAPPY);
    let entry = only(&set);
    assert_eq!((entry.base_offset, entry.last_offset, entry.records), (1000, 1003, 2));
    assert_eq!((entry.producer_id, entry.epoch, entry.base_sequence), (-1, -1, -1));
    assert_eq!((entry.transactional, entry.marker), (false, None));
    assert_eq!(strings(&entry, "id"), [(1000, FIRST.to_owned()), (1003, SECOND.to_owned())]);
}

#[test]
fn reads_what_a_broker_compressed_with_zstd() {
    let set = hex(ZSTD);
    let entry = only(&set);
    assert_eq!((entry.base_offset, entry.last_offset, entry.records), (1000, 1003, 2));
    assert_eq!((entry.producer_id, entry.epoch, entry.base_sequence), (4711, 3, 42));
    assert_eq!((entry.transactional, entry.marker), (true, None));
    assert_eq!(strings(&entry, "id"), [(1000, FIRST.to_owned()), (1003, SECOND.to_owned())]);
    assert_eq!(strings(&entry, "op"), [(1000, "c".to_owned()), (1003, "d".to_owned())]);
    assert_eq!(strings(&entry, "i"), []);
}

#[test]
fn the_ends_of_transactions_are_seen() {
    let set = [COMMIT, ABORT, EMPTY, LEADER].map(hex).concat();
    let entries: Vec<_> = Entries::new(&set).map(Result::unwrap).collect();
    let seen = entries.iter().map(|e| (e.base_offset, e.last_offset, e.marker, e.records));
    let expected = [
        (7, 7, Some(Marker::Commit), 1),
        (8, 8, Some(Marker::Abort), 1),
        (9, 13, None, 0),
        (14, 14, None, 1),
    ];
    assert!(seen.eq(expected));
    assert!(entries.iter().take(3).all(|e| (e.producer_id, e.epoch) == (4711, 3)));
    assert_eq!(
        entries.iter().map(|e| e.transactional).collect::<Vec<_>>(),
        [true, true, true, false]
    );
    assert!(entries.iter().all(|e| strings(e, "id").is_empty()));
}

/// Magic 1: offset, size, checksum, magic, attributes, timestamp, null key, value; magic 0 has no
/// timestamp.
#[test]
fn old_entries_are_stepped_over() {
    let old = |offset: i64, magic: u8, rest: &[u8]| {
        let size = 6 + rest.len() as i32;
        let checksum = [0; 4]; // not looked at
        [&offset.to_be_bytes()[..], &size.to_be_bytes(), &checksum, &[magic, 0], rest].concat()
    };
    let zero = old(5, 0, b"\xff\xff\xff\xff\0\0\0\x01v");
    let one = old(6, 1, b"\0\0\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\x01v");
    let set = [zero.clone(), one.clone(), hex(COMMIT), one.clone()].concat();
    let mut entries = Entries::new(&set);
    assert_eq!(entries.next_offset(), None);
    assert_eq!(entries.next().unwrap().unwrap().base_offset, 7);
    assert_eq!(entries.next_offset(), Some(8));
    assert!(entries.next().is_none());
    assert_eq!(entries.next_offset(), Some(8)); // it never goes back
    let set = [zero, one].concat();
    let mut entries = Entries::new(&set);
    assert!(entries.next().is_none());
    assert_eq!(entries.next_offset(), Some(7));
}

fn error(set: &[u8]) -> String {
    let mut entries = Entries::new(set);
    let error = entries.next().unwrap().unwrap_err().to_string();
    assert!(entries.next().is_none());
    error
}

#[test]
fn a_wrong_checksum_names_the_offset() {
    let mut set = hex(ZSTD);
    *set.last_mut().unwrap() ^= 1;
    assert_eq!(error(&set), "the record batch at offset 1000 has a wrong checksum");
}

#[test]
fn lengths_that_cannot_be_are_errors() {
    for (length, magic) in [(-1, 2), (0, 2), (48, 2), (i32::MIN, 2), (13, 0), (21, 1), (0, 0)] {
        let mut set = hex(COMMIT);
        put(&mut set, 8, i32::to_be_bytes(length));
        put(&mut set, 16, [magic]);
        assert_eq!(error(&set), "the entry at offset 7 is damaged: its length");
    }
    let mut set = hex(COMMIT);
    put(&mut set, 16, [3]);
    assert_eq!(error(&set), "the entry at offset 7 has the unknown magic 3");
}

#[test]
fn numbers_that_cannot_be_are_errors() {
    let changed = |at, field: [u8; 4]| {
        let mut set = hex(EMPTY);
        put(&mut set, at, field);
        reseal(set)
    };
    let header = "the entry at offset 9 is damaged: its header";
    assert_eq!(error(&changed(23, (-1_i32).to_be_bytes())), header);
    assert_eq!(error(&changed(57, (-1_i32).to_be_bytes())), header);
    let mut set = hex(EMPTY);
    put(&mut set, 0, (i64::MAX - 3).to_be_bytes());
    assert!(error(&set).ends_with("is damaged: its header"));
    put(&mut set, 0, (-1_i64).to_be_bytes());
    assert!(error(&set).ends_with("is damaged: its offset"));
}

#[test]
fn as_many_records_as_it_says_and_no_byte_more() {
    let records = hex(SNAPPY);
    for (records_said, what) in [(1, "bytes after its records"), (3, "a record")] {
        let mut set = records.clone();
        put(&mut set, 57, i32::to_be_bytes(records_said));
        let set = reseal(set);
        let error = found(&only(&set), "id", LIMIT).unwrap_err().to_string();
        assert_eq!(error, format!("the entry at offset 1000 is damaged: {what}"));
    }
}

#[test]
fn a_record_beyond_the_last_offset_is_damaged() {
    let mut set = hex(SNAPPY);
    put(&mut set, 23, 2_i32.to_be_bytes());
    let set = reseal(set);
    assert!(found(&only(&set), "id", LIMIT).is_err());
}

fn expected(rows: &[Row], base: i64, name: &str) -> Vec<(i64, Vec<u8>)> {
    let headers = (base..).zip(rows).flat_map(|(offset, row)| {
        row.headers.iter().map(move |(this, value)| (offset, this, value))
    });
    let named = headers.filter(|(_, this, _)| *this == name);
    named.map(|(offset, _, value)| (offset, value.clone())).collect()
}

proptest! {
    #[test]
    fn what_we_wrote_is_read_back(rows in vec(row(), 1..40), base in 0..i64::MAX - 100, block in 20..5000_usize) {
        let batch = batch_of(&rows).bytes;
        let used = rows.iter().flat_map(|row| row.headers.iter().map(|(name, _)| name.as_str()));
        let names: Vec<_> = used.take(2).chain(["no such name"]).collect();
        for mut set in kept(&batch, block) {
            put(&mut set, 0, base.to_be_bytes());
            let entry = only(&set);
            prop_assert_eq!((entry.base_offset, entry.records), (base, rows.len() as u32));
            prop_assert_eq!(entry.last_offset, base + rows.len() as i64 - 1);
            for name in &names {
                let limit = batch.len() - HEADER;
                prop_assert_eq!(found(&entry, name, limit).unwrap(), expected(&rows, base, name));
            }
        }
    }

    #[test]
    fn one_byte_over_the_limit_is_too_large(rows in vec(row(), 1..10), block in 20..5000_usize) {
        let batch = batch_of(&rows).bytes;
        let limit = batch.len() - HEADER - 1;
        for set in kept(&batch, block) {
            let entry = only(&set);
            let packed = set[ATTRIBUTES + 1] & 7 != 0;
            let result = found(&entry, "id", limit);
            prop_assert_eq!(matches!(result, Err(LogError::TooLarge { .. })), packed);
            prop_assert_eq!(result.is_ok(), !packed);
        }
    }

    #[test]
    fn a_cut_set_ends_after_its_whole_entries(
        all in vec(vec(row(), 1..4), 1..4), cut in any::<prop::sample::Index>(),
    ) {
        let mut set = Vec::new();
        let (mut base, mut ends) = (0_i64, Vec::new());
        for rows in &all {
            let start = set.len();
            set.extend(sealed(&batch_of(rows).bytes));
            put(&mut set[start..], 0, base.to_be_bytes());
            base += rows.len() as i64;
            ends.push((set.len(), base));
        }
        let cut = cut.index(set.len() + 1);
        let mut entries = Entries::new(&set[..cut]);
        let whole = entries.by_ref().map(|entry| entry.unwrap().last_offset + 1);
        let expected: Vec<_> = ends.iter().filter(|(end, _)| *end <= cut).map(|(_, next)| *next).collect();
        prop_assert_eq!(whole.collect::<Vec<_>>(), expected.clone());
        prop_assert_eq!(entries.next_offset(), expected.last().copied());
    }

    #[test]
    fn a_damaged_set_is_no_reason_to_panic(
        rows in vec(row(), 1..10), kind in 0..7_usize, flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut set = kept(&batch_of(&rows).bytes, 1000)[kind].clone();
        for (at, with) in flips {
            let at = at.index(set.len());
            set[at] = with;
        }
        visit_all(&set);
        if set.len() > HEADER {
            visit_all(&reseal(set.clone()));
            set.truncate(HEADER + cut.index(set.len() - HEADER));
            visit_all(&reseal(set));
        }
    }

    #[test]
    fn any_bytes_are_no_reason_to_panic(bytes in vec(any::<u8>(), 0..200), codec in 0..8_u8, magic in 0..4_u8) {
        visit_all(&bytes);
        visit_all(&with_body(&hex(ZSTD), codec, &bytes));
        let mut head = hex(COMMIT);
        put(&mut head, 16, [magic]);
        visit_all(&[&head[..61], &bytes].concat());
    }
}

/// Everything that can be asked, within two limits.
fn visit_all(set: &[u8]) {
    for entry in Entries::new(set).flatten() {
        for limit in [LIMIT, 100] {
            let _ = entry.headers(b"id", limit, |_, _, _| ());
        }
    }
}

#[test]
fn every_cut_and_every_flip_of_a_byte_is_no_reason_to_panic() {
    for golden in [SNAPPY, ZSTD, COMMIT, ABORT, EMPTY, LEADER] {
        let golden = hex(golden);
        for length in 0..golden.len() {
            assert_eq!(Entries::new(&golden[..length]).count(), 0);
        }
        for at in 0..golden.len() {
            for bit in 0..8 {
                let mut set = golden.clone();
                set[at] ^= 1 << bit;
                // The base offset and the leader's epoch are the broker's: no checksum counts them.
                let counted = at >= ATTRIBUTES || (17..21).contains(&at);
                let read = Entries::new(&set).next().is_some_and(|entry| entry.is_ok());
                assert!(!(counted && read));
                visit_all(&set);
                visit_all(&reseal(set));
            }
        }
    }
}

#[test]
fn a_few_bytes_that_would_be_many_are_too_large() {
    let zeros = vec![0; 2 * LIMIT];
    let many = {
        let mut batch = [&hex(EMPTY)[..], &zeros].concat();
        put(&mut batch, 57, 1_i32.to_be_bytes());
        batch
    };
    // One block of 128 KiB is four bytes: its header says repeated, and what.
    let block = ((128_u32 << 10) << 3 | 1 << 1).to_le_bytes();
    let bomb = |head: &[u8]| [head, &[&block[..3], &[0]].concat().repeat(1000)].concat();
    let windows = [0x38, 0x58, 0x88, 0xff].map(|window| bomb(&[0x28, 0xb5, 0x2f, 0xfd, 0, window]));
    let single = bomb(b"\x28\xb5\x2f\xfd\xe0\xff\xff\xff\xff\0\0\0\0");
    let claims = b"\xff\xff\xff\xff\x0f\0".to_vec();
    let framed = [&xerial(&[], 1)[..], b"\0\0\0\x06", &claims].concat();
    let raw = windows.into_iter().chain([single]).map(|body| (4, body));
    let raw =
        raw.chain([(2, claims), (2, framed)]).map(|(codec, body)| with_body(&many, codec, &body));
    for set in raw.chain(kept(&many, 32 << 10).into_iter().skip(1)) {
        let result = found(&only(&set), "id", LIMIT);
        assert!(matches!(result, Err(LogError::TooLarge { .. })), "{result:?}");
    }
}

#[test]
fn a_codec_that_is_none_is_named() {
    for codec in 5..8 {
        let set = with_body(&hex(SNAPPY), codec, b"x");
        let error = found(&only(&set), "id", LIMIT).unwrap_err().to_string();
        let wanted = "the record batch at offset 1000 is compressed by the unknown codec";
        assert_eq!(error, format!("{wanted} {codec}"));
    }
}

/// As `cat a.gz b.gz`: Java's readers take them for one.
#[test]
fn streams_one_after_the_other_are_one() {
    let rows: Vec<_> = (0..20)
        .map(|n| Row { headers: vec![("id".into(), vec![n; 9])], ..Row::of(b"value") })
        .collect();
    let batch = batch_of(&rows).bytes;
    let halves = batch[HEADER..].split_at(100);
    let both = |f: &dyn Fn(&[u8]) -> Vec<u8>| [f(halves.0), f(halves.1)].concat();
    let gzip = |half: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(half).unwrap();
        encoder.finish().unwrap()
    };
    let bodies = [
        (1, both(&gzip)),
        (2, both(&|half| xerial(half, 30))),
        (4, both(&|half| compress_to_vec(half, CompressionLevel::Fastest))),
    ];
    for (codec, body) in bodies {
        let set = with_body(&batch, codec, &body);
        assert_eq!(found(&only(&set), "id", LIMIT).unwrap(), expected(&rows, 0, "id"));
    }
}
