//! What a broker's Fetch gives back: `codec (1) │ records (1) │ bytes`. The bytes as a record set; then as the records of
//! a batch with a right checksum, as else nearly nothing would get past it. They are read or refused, without a panic and
//! without memory that the bytes do not bear out (the driver's limit of memory sees to that).

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgsluice::{
    batch::{log::Entries, record_batch},
    stored::{Name, Stored},
};

/// Far above the input's size, so that bombs are tried, and far below the driver's limit.
const LIMIT: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let [codec, records, bytes @ ..] = input else { return };
    read(bytes);
    read(&batch(codec & 7, *records, bytes));
});

fn read(set: &[u8]) {
    let mut entries = Entries::new(set);
    let (mut count, mut stored) = (0, Stored::new(0x0123_4567_89ab_cdef, 100));
    for entry in entries.by_ref() {
        count += 1;
        let Ok(entry) = entry else { continue };
        assert!(0 <= entry.base_offset && entry.base_offset <= entry.last_offset);
        for limit in [100, LIMIT] {
            let mut all = 0;
            // Whether it is right or not: what was visited counts.
            let _ = entry.headers(b"id", limit, |offset, _, value| {
                assert!((entry.base_offset..=entry.last_offset).contains(&offset));
                all += value.len();
                if let Some(name) = Name::parse(value)
                    && stored.insert(&name)
                {
                    assert!(stored.contains(name.timeline, name.commit, name.index, name.part));
                }
            });
            assert!(all <= limit.max(set.len()));
        }
    }
    assert!(entries.next().is_none());
    assert!(count <= set.len() / record_batch::HEADER + 1, "more than there is room for");
}

/// A sealed batch with this for its records.
fn batch(codec: u8, records: u8, body: &[u8]) -> Vec<u8> {
    let mut batch = vec![0; record_batch::HEADER];
    batch.extend_from_slice(body);
    let length = batch.len() as u32 - 12;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = 2;
    batch[22] = codec;
    batch[26] = records; // the last offset delta: some may be gone
    batch[60] = records;
    record_batch::seal(&mut batch, 1, 2, 3);
    batch
}
