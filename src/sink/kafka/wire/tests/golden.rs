//! Requests and answers as `org.apache.kafka.common.message` of Kafka 4.2.0 writes them, in an old
//! version and in the newest that we speak.

use std::{fmt::Debug, sync::Arc, time::Duration};

use super::whole;
use crate::sink::kafka::{metadata::Node, wire::*};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[track_caller]
fn written<C: Call>(request: &C, version: i16, hex: &str) {
    let mut buffer = Vec::new();
    let mut writer = Writer::new(&mut buffer, version >= C::FLEXIBLE);
    request.write(&mut writer, version);
    assert!(!writer.overflowed());
    assert_eq!(buffer, bytes(hex), "{} v{version}", C::NAME);
    assert!(buffer.len() <= request.size(), "{} v{version}", C::NAME);
}

#[track_caller]
fn answered<C: Call<Answer: Debug + PartialEq>>(version: i16, hex: &str, answer: &C::Answer) {
    assert_eq!(whole::<C>(version, &bytes(hex)), *answer, "{} v{version}", C::NAME);
}

fn users() -> Arc<str> {
    Arc::from("users")
}

fn transactional_id() -> String {
    "T".to_owned()
}

#[test]
fn init_producer_id() {
    let request = InitProducerId {
        transactional_id: Some(transactional_id()),
        timeout: Duration::from_secs(60),
    };
    written(&request, 1, "0001540000ea60");
    written(&request, 4, "02540000ea60ffffffffffffffffffff00");
    let answer = ProducerId { code: 0, id: 1234, epoch: 5 };
    answered::<InitProducerId>(1, "00000001000000000000000004d20005", &answer);
    answered::<InitProducerId>(4, "00000001000000000000000004d2000500", &answer);
}

#[test]
fn find_coordinator() {
    let request = FindCoordinator { key: transactional_id(), kind: CoordinatorOf::Transaction };
    written(&request, 1, "00015401");
    written(&request, 3, "02540100");
    let answer = {
        let node = Node { id: 7, host: "kafka".to_owned(), port: 9092 };
        Coordinator { code: 0, message: Some("NONE".to_owned()), node }
    };
    answered::<FindCoordinator>(
        1,
        "00000001000000044e4f4e450000000700056b61666b6100002384",
        &answer,
    );
    answered::<FindCoordinator>(3, "000000010000054e4f4e4500000007066b61666b610000238400", &answer);
}

#[test]
fn add_partitions_to_txn() {
    let request = AddPartitionsToTxn {
        transactional_id: transactional_id(),
        producer_id: 1234,
        epoch: 5,
        partitions: vec![(users(), vec![0, 2])],
    };
    written(
        &request,
        2,
        "00015400000000000004d200050000000100057573657273000000020000000000000002",
    );
    written(&request, 3, "025400000000000004d20005020675736572730300000000000000020000");
    let answer = [(0, 0), (2, 90)]
        .map(|(partition, code)| PartitionCode { topic: users(), partition, code })
        .to_vec();
    answered::<AddPartitionsToTxn>(
        2,
        "0000000100000001000575736572730000000200000000000000000002005a",
        &answer,
    );
    answered::<AddPartitionsToTxn>(
        3,
        "0000000102067573657273030000000000000000000002005a000000",
        &answer,
    );
}

#[test]
fn end_txn() {
    let request =
        EndTxn { transactional_id: transactional_id(), producer_id: 1234, epoch: 5, commit: true };
    written(&request, 2, "00015400000000000004d2000501");
    written(&request, 4, "025400000000000004d200050100");
    let answer = 51;
    answered::<EndTxn>(2, "000000010033", &answer);
    answered::<EndTxn>(4, "00000001003300", &answer);
}

#[test]
fn add_offsets_to_txn() {
    let request = AddOffsetsToTxn {
        transactional_id: transactional_id(),
        producer_id: 1234,
        epoch: 5,
        group: "g".to_owned(),
    };
    written(&request, 2, "00015400000000000004d20005000167");
    written(&request, 3, "025400000000000004d20005026700");
    let answer = 90;
    answered::<AddOffsetsToTxn>(2, "00000001005a", &answer);
    answered::<AddOffsetsToTxn>(3, "00000001005a00", &answer);
}

#[test]
fn txn_offset_commit() {
    let request = TxnOffsetCommit {
        transactional_id: transactional_id(),
        group: "g".to_owned(),
        producer_id: 1234,
        epoch: 5,
        offsets: vec![CommittedOffset {
            topic: users(),
            partition: 2,
            offset: 42,
            metadata: "m".to_owned(),
        }],
    };
    written(
        &request,
        2,
        "00015400016700000000000004d20005000000010005757365727300000001000000020000000000\
             00002affffffff00016d",
    );
    written(
        &request,
        3,
        "0254026700000000000004d20005ffffffff0100020675736572730200000002000000000000002a\
             ffffffff026d000000",
    );
    let answer = vec![PartitionCode { topic: users(), partition: 2, code: 47 }];
    answered::<TxnOffsetCommit>(2, "0000000100000001000575736572730000000100000002002f", &answer);
    answered::<TxnOffsetCommit>(3, "00000001020675736572730200000002002f000000", &answer);
}

#[test]
fn offset_fetch() {
    let request = OffsetFetch { group: "g".to_owned(), require_stable: true };
    written(&request, 2, "000167ffffffff");
    written(&request, 7, "0267000100");
    let answer = GroupOffsets {
        code: 0,
        offsets: vec![FetchedOffset {
            topic: users(),
            partition: 2,
            offset: 42,
            metadata: "m".to_owned(),
            code: 88,
        }],
    };
    answered::<OffsetFetch>(
        2,
        "00000001000575736572730000000100000002000000000000002a00016d00580000",
        &answer,
    );
    answered::<OffsetFetch>(
        7,
        "00000001020675736572730200000002000000000000002a00000003026d00580000000000",
        &answer,
    );
}

#[test]
fn list_offsets() {
    let request = ListOffsets { partitions: vec![(users(), 2)], at: OffsetAt::Earliest };
    written(&request, 2, "ffffffff0000000001000575736572730000000100000002fffffffffffffffe");
    written(
        &request,
        5,
        "ffffffff0000000001000575736572730000000100000002fffffffffffffffffffffffe",
    );
    let answer = vec![ListedOffset { topic: users(), partition: 2, code: 0, offset: 42 }];
    answered::<ListOffsets>(
        2,
        "00000001000000010005757365727300000001000000020000ffffffffffffffff00000000000000\
             2a",
        &answer,
    );
    answered::<ListOffsets>(
        5,
        "00000001000000010005757365727300000001000000020000ffffffffffffffff00000000000000\
             2a00000003",
        &answer,
    );
}

#[test]
fn fetch() {
    let request = Fetch {
        partitions: vec![FetchPartition {
            topic: users(),
            partition: 2,
            from: 42,
            max_bytes: 65_536,
        }],
        max_bytes: 1_000_000,
        max_wait: Duration::from_millis(500),
        min_bytes: 1,
    };
    written(
        &request,
        4,
        "ffffffff000001f400000001000f4240000000000100057573657273000000010000000200000000\
             0000002a00010000",
    );
    written(
        &request,
        11,
        "ffffffff000001f400000001000f42400000000000ffffffff000000010005757365727300000001\
             00000002ffffffff000000000000002affffffffffffffff00010000000000000000",
    );
    let answer = |log_start_offset| Fetched {
        throttle: Duration::from_millis(1),
        code: 0,
        partitions: vec![PartitionFetched {
            topic: users(),
            partition: 2,
            code: 0,
            high_watermark: 44,
            last_stable_offset: 43,
            log_start_offset,
            records: b"records".to_vec(),
        }],
    };
    answered::<Fetch>(
        4,
        "00000001000000010005757365727300000001000000020000000000000000002c00000000000000\
             2b0000000100000000000004d20000000000000029000000077265636f726473",
        &answer(-1),
    );
    answered::<Fetch>(
        11,
        "00000001000000000000000000010005757365727300000001000000020000000000000000002c00\
             0000000000002b00000000000000090000000100000000000004d20000000000000029ffffffff00\
             0000077265636f726473",
        &answer(9),
    );
}
