//! Answers of coordinators.

use std::sync::Arc;

use super::{body, versions, whole};
use crate::sink::kafka::{metadata::Node, wire::*};

#[test]
fn a_coordinator_is_read_in_every_version() {
    let found = |code: i16, id: i32, host: &'static str, port: i32| {
        move |w: &mut Writer<'_>| {
            w.i32(0);
            w.i16(code);
            w.nullable_string(Some("words"));
            w.i32(id);
            w.string(host);
            w.i32(port);
            w.tags();
        }
    };
    for version in versions::<FindCoordinator>() {
        let body = |write: &dyn Fn(&mut Writer<'_>)| body::<FindCoordinator>(version, write);
        let answer = whole::<FindCoordinator>(version, &body(&found(0, 7, "kafka", 9092)));
        let message = Some("words".to_owned());
        let node = Node { id: 7, host: "kafka".to_owned(), port: 9092 };
        assert_eq!(answer, Coordinator { code: 0, message: message.clone(), node });
        let answer = whole::<FindCoordinator>(version, &body(&found(15, -1, "", -1)));
        let node = Node { id: -1, host: String::new(), port: 0 };
        assert_eq!(answer, Coordinator { code: 15, message, node });
        let error = FindCoordinator::read(&body(&found(0, 7, "kafka", 70_000)), version);
        assert!(matches!(error, Err(Malformed::Value { value: 70_000, .. })), "{error:?}");
    }
}

fn codes(w: &mut Writer<'_>) {
    w.i32(0);
    w.array(2);
    for (topic, codes) in [("a", &[(0, 0_i16), (3, 3)][..]), ("b", &[(1, 51)])] {
        w.string(topic);
        w.array(codes.len());
        for &(partition, code) in codes {
            w.i32(partition);
            w.i16(code);
            w.tags();
        }
        w.tags();
    }
    w.tags();
}

fn read() -> Vec<PartitionCode> {
    let one = |topic, partition, code| PartitionCode { topic: Arc::from(topic), partition, code };
    vec![one("a", 0, 0), one("a", 3, 3), one("b", 1, 51)]
}

#[test]
fn codes_of_partitions_are_read_in_every_version() {
    for version in versions::<AddPartitionsToTxn>() {
        let body = body::<AddPartitionsToTxn>(version, codes);
        assert_eq!(whole::<AddPartitionsToTxn>(version, &body), read());
    }
    for version in versions::<TxnOffsetCommit>() {
        let body = body::<TxnOffsetCommit>(version, codes);
        assert_eq!(whole::<TxnOffsetCommit>(version, &body), read());
    }
}

#[test]
fn a_transactions_code_is_read_in_every_version() {
    let code = |w: &mut Writer<'_>| {
        w.i32(0);
        w.i16(90);
        w.tags();
    };
    for version in versions::<EndTxn>() {
        assert_eq!(whole::<EndTxn>(version, &body::<EndTxn>(version, code)), 90);
    }
    for version in versions::<AddOffsetsToTxn>() {
        assert_eq!(whole::<AddOffsetsToTxn>(version, &body::<AddOffsetsToTxn>(version, code)), 90);
    }
}

#[test]
fn the_end_of_a_transaction_never_raises_its_epoch() {
    assert!(EndTxn::VERSIONS.1 < 5);
}

#[test]
fn a_groups_offsets_are_read_in_every_version() {
    for version in versions::<OffsetFetch>() {
        let body = body::<OffsetFetch>(version, |w| {
            if version >= 3 {
                w.i32(0);
            }
            w.array(1);
            w.string("users");
            w.array(2);
            for (partition, offset, metadata, code) in [(0, 42, Some("text"), 0), (1, -1, None, 88)]
            {
                w.i32(partition);
                w.i64(offset);
                if version >= 5 {
                    w.i32(-1);
                }
                w.nullable_string(metadata);
                w.i16(code);
                w.tags();
            }
            w.tags();
            w.i16(14);
            w.tags();
        });
        let one = |partition, offset, metadata: &str, code| FetchedOffset {
            topic: Arc::from("users"),
            partition,
            offset,
            metadata: metadata.to_owned(),
            code,
        };
        let offsets = vec![one(0, 42, "text", 0), one(1, -1, "", 88)];
        assert_eq!(whole::<OffsetFetch>(version, &body), GroupOffsets { code: 14, offsets });
    }
}
