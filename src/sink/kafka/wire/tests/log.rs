//! Answers of leaders: where a partition begins and ends, and what is in it.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;

use super::{body, versions, whole};
use crate::sink::kafka::wire::*;

#[test]
fn offsets_are_read_in_every_version() {
    for version in versions::<ListOffsets>() {
        let body = body::<ListOffsets>(version, |w| {
            w.i32(0);
            w.array(1);
            w.string("users");
            w.array(2);
            for (partition, code, offset) in [(0, 0, 42), (1, 6, -1)] {
                w.i32(partition);
                w.i16(code);
                w.i64(-1);
                w.i64(offset);
                if version >= 4 {
                    w.i32(3);
                }
            }
        });
        let topic: Arc<str> = Arc::from("users");
        let one = |partition, code, offset| {
            let topic = Arc::clone(&topic);
            ListedOffset { topic, partition, code, offset }
        };
        assert_eq!(whole::<ListOffsets>(version, &body), [one(0, 0, 42), one(1, 6, -1)]);
    }
}

fn fetched(version: i16) -> Vec<u8> {
    body::<Fetch>(version, |w| {
        w.i32(250);
        if version >= 7 {
            w.i16(0);
            w.i32(0);
        }
        w.array(1);
        w.string("users");
        w.array(2);
        for (partition, code, aborted) in [(0, 0, 1), (1, 1, 0)] {
            w.i32(partition);
            w.i16(code);
            w.i64(44);
            w.i64(43);
            if version >= 5 {
                w.i64(9);
            }
            if aborted == 0 {
                w.null_array();
            } else {
                w.array(aborted);
                w.i64(1234);
                w.i64(41);
            }
            if version >= 11 {
                w.i32(-1);
            }
            match code {
                0 => w.bytes(b"records"),
                _ => w.i32(-1), // null
            }
        }
    })
}

#[test]
fn fetched_records_are_read_in_every_version() {
    for version in versions::<Fetch>() {
        let answer = whole::<Fetch>(version, &fetched(version));
        assert_eq!((answer.throttle, answer.code), (Duration::from_millis(250), 0));
        let one = |partition, code, records: &[u8]| PartitionFetched {
            topic: Arc::from("users"),
            partition,
            code,
            high_watermark: 44,
            last_stable_offset: 43,
            log_start_offset: if version >= 5 { 9 } else { -1 },
            records: records.to_vec(),
        };
        assert_eq!(answer.partitions, [one(0, 0, b"records"), one(1, 1, b"")]);
    }
}

#[test]
fn a_session_that_a_broker_does_not_know_is_told_from_version_7_on() {
    let body = body::<Fetch>(7, |w| {
        w.i32(0);
        w.i16(70);
        w.i32(0);
        w.array(0);
    });
    assert_eq!(whole::<Fetch>(7, &body).code, 70);
}

proptest! {
    #[test]
    fn no_change_of_a_byte_of_a_fetch_makes_its_decoder_panic(
        at in 0..200_usize, byte: u8, version in 4..=11_i16
    ) {
        let mut body = fetched(version);
        if let Some(place) = body.get_mut(at) {
            *place = byte;
        }
        drop(Fetch::read(&body, version));
    }
}
