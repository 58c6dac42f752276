//! Answers about partitions, transactions and groups that are not what was asked for.

use super::*;
use crate::sink::kafka::wire::{
    AddOffsetsToTxn, AddPartitionsToTxn, CommittedOffset, CoordinatorOf, EndTxn, Fetch,
    FetchPartition, ListOffsets, OffsetAt, OffsetFetch, TxnOffsetCommit,
};

fn users() -> Arc<str> {
    Arc::from("users")
}

fn id() -> String {
    "T".to_owned()
}

fn add_partitions() -> AddPartitionsToTxn {
    let partitions = vec![(users(), vec![0])];
    AddPartitionsToTxn { transactional_id: id(), producer_id: 77, epoch: 3, partitions }
}

fn commit_offset() -> TxnOffsetCommit {
    let one = CommittedOffset { topic: users(), partition: 0, offset: 9, metadata: String::new() };
    TxnOffsetCommit {
        transactional_id: id(),
        group: "g".to_owned(),
        producer_id: 77,
        epoch: 3,
        offsets: vec![one],
    }
}

fn list_offsets() -> ListOffsets {
    ListOffsets { partitions: vec![(users(), 0)], at: OffsetAt::Latest }
}

fn fetch() -> Fetch {
    let one = FetchPartition { topic: users(), partition: 0, from: 9, max_bytes: 1000 };
    let max_wait = Duration::from_millis(400);
    Fetch { partitions: vec![one], max_bytes: 1000, max_wait, min_bytes: 1 }
}

/// The answer to `fetch`, of version 7: what goes before the partitions is 10 bytes longer than in the
/// other answers.
fn about(key: i16, partition: i32, rest: usize) -> Act {
    let mut body = vec![0; if key == FETCH { 10 } else { 4 }];
    body.extend(1_i32.to_be_bytes());
    body.extend(5_i16.to_be_bytes());
    body.extend(b"users");
    body.extend(1_i32.to_be_bytes());
    body.extend(partition.to_be_bytes());
    body.extend(vec![0; rest]);
    Answer(body)
}

/// What each question answers as an error.
async fn asked(broker: &Broker, key: i16) -> Error {
    match key {
        ADD_PARTITIONS_TO_TXN => {
            broker.add_partitions_to_txn(add_partitions()).await.map(drop).unwrap_err()
        }
        TXN_OFFSET_COMMIT => broker.txn_offset_commit(commit_offset()).await.map(drop).unwrap_err(),
        LIST_OFFSETS => broker.list_offsets(list_offsets()).await.map(drop).unwrap_err(),
        _ => broker.fetch(fetch()).await.map(drop).unwrap_err(),
    }
}

#[tokio::test]
async fn an_answer_with_other_partitions_than_asked_about_is_none() {
    // After the partition's number: a code, and what comes with it.
    for (key, rest) in
        [(ADD_PARTITIONS_TO_TXN, 2), (TXN_OFFSET_COMMIT, 2), (LIST_OFFSETS, 18), (FETCH, 34)]
    {
        let broker = connect(move |key| about(key, 1, rest)).await;
        let error = asked(&broker, key).await;
        assert!(error.to_string().ends_with("without being asked about users[1]"), "{error}");
        assert!(broker.is_closed());
        let broker = connect(|key| Answer(vec![0; if key == FETCH { 14 } else { 8 }])).await;
        let error = asked(&broker, key).await;
        assert!(error.to_string().ends_with("without users[0]"), "{error}");
        assert!(broker.is_closed());
    }
}

#[tokio::test]
async fn codes_of_partitions_are_left_to_who_asked() {
    let broker = connect(|key| about(key, 0, if key == FETCH { 34 } else { 2 })).await;
    let codes = broker.add_partitions_to_txn(add_partitions()).await.unwrap();
    assert_eq!(codes.first().map(|one| (one.partition, one.code)), Some((0, 0)));
    let codes = broker.txn_offset_commit(commit_offset()).await.unwrap();
    assert_eq!(codes.first().map(|one| (&*one.topic, one.code)), Some(("users", 0)));
    let fetched = broker.fetch(fetch()).await.unwrap();
    assert_eq!(fetched.partitions.first().map(|one| one.records.len()), Some(0));
}

#[tokio::test]
async fn a_fetch_may_take_as_long_as_the_broker_may_wait_and_then_the_limit() {
    let broker = connect(|_| Silence).await;
    let begin = Instant::now();
    let error = broker.fetch(fetch()).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { api: "Fetch", .. }), "{error}");
    assert!(begin.elapsed() >= Duration::from_millis(700), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_code_says_which_transactional_id_and_group_it_is_about() {
    let broker = connect(|key| match key {
        FIND_COORDINATOR => Answer(
            [&[0, 0, 0, 0, 0, 30, 255, 255], [255; 4].as_slice(), &[0, 0], &[255; 4]].concat(),
        ),
        OFFSET_FETCH => Answer(vec![0, 0, 0, 0, 0, 30]),
        INIT_PRODUCER_ID => Answer([&[0, 0, 0, 0, 0, 51], [0; 10].as_slice()].concat()),
        FETCH => Answer([&[0, 0, 0, 0, 0, 70], [0; 8].as_slice()].concat()),
        _ => Answer(vec![0, 0, 0, 0, 0, 53]),
    })
    .await;
    let told = |error: Error, code: i16, part: &str| {
        assert_eq!(error.code(), Some(code), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    let error = broker.find_coordinator(CoordinatorOf::Group, "g").await.unwrap_err();
    told(error, 30, "--operation Read --group g");
    let request = OffsetFetch { group: "g".to_owned(), require_stable: true };
    told(broker.offset_fetch(request).await.unwrap_err(), 30, "--operation Read --group g");
    let request = InitProducerId { transactional_id: Some(id()), ..InitProducerId::PLAIN };
    told(broker.init_producer_id(request).await.unwrap_err(), 51, "for transactional id T with");
    let end = EndTxn { transactional_id: id(), producer_id: 77, epoch: 3, commit: false };
    told(broker.end_txn(end).await.unwrap_err(), 53, "--operation Write --transactional-id T");
    let add = AddOffsetsToTxn {
        transactional_id: id(),
        producer_id: 77,
        epoch: 3,
        group: "g".to_owned(),
    };
    let error = broker.add_offsets_to_txn(add).await.unwrap_err();
    told(error, 53, "for transactional id T, group g with");
    told(broker.fetch(fetch()).await.unwrap_err(), 70, "Fetch with FETCH_SESSION_ID_NOT_FOUND");
    assert!(!broker.is_closed());
}
