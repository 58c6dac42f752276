//! A fence by hand: a transactional id's next epoch, a marker of it in every partition, and after that no batch of an
//! older epoch. And a group's offset and metadata, which go with a transaction.

use std::{sync::Arc, time::Duration};

use pgsluice::sink::kafka::{
    Error,
    broker::Broker,
    topics,
    wire::{
        AddOffsetsToTxn, AddPartitionsToTxn, Call, CommittedOffset, CoordinatorOf, EndTxn, Fetch,
        FetchPartition, Fetched, FetchedOffset, InitProducerId, ListOffsets, OffsetAt, OffsetFetch,
        PartitionCode, TxnOffsetCommit,
    },
};
use tokio::time::{Instant, sleep};

use crate::{LIMIT, batch, codes, connect, create, options, produce, told};

pub(crate) const ID: &str = "a-transactional-id";
pub(crate) const GROUP: &str = "a-group";
const TOPIC: &str = "fenced";
const PARTITIONS: [i32; 3] = [0, 1, 2];

/// A transactional id's epoch.
type Producer = (i64, i16);

/// Fences once, and commits an offset twice.
pub(crate) async fn by_hand() {
    let broker = connect(0, &options()).await.unwrap();
    topics::check(&broker, TOPIC, &create()).await.unwrap();
    let transactions = coordinator(&broker, CoordinatorOf::Transaction, ID).await;
    let old = next_epoch(&transactions).await;
    // A broker may tell that it leads a new partition a moment before it does.
    while stored(&broker, old, 0).await != [(0, 0, 0), (1, 0, 0), (2, 0, 0)] {
        sleep(Duration::from_millis(20)).await;
    }
    let new = next_epoch(&transactions).await;
    assert!(new.0 == old.0 && new.1 > old.1, "{old:?} {new:?}");
    // Nobody is kept out yet.
    assert_eq!(stored(&broker, old, 1).await, [(0, 0, 1), (1, 0, 1), (2, 0, 1)]);

    until_ready(async || {
        done(&transactions, AddPartitionsToTxn::NAME, &add(&transactions, new).await?)
    })
    .await;
    until_ready(async || transactions.end_txn(end(new, false)).await).await;
    let markers = markers(&broker, new).await;
    assert_eq!(markers, PARTITIONS.map(|_| 2));
    assert_eq!(stored(&broker, old, 2).await, PARTITIONS.map(|number| (number, 47, -1)));
    assert_eq!(stored(&broker, new, 0).await, PARTITIONS.map(|number| (number, 0, 3)));
    logs(&broker).await;
    offsets(&broker, &transactions, new).await;
    zombie(&broker, &transactions, old).await;
}

async fn coordinator(broker: &Broker, kind: CoordinatorOf, key: &str) -> Broker {
    let node = until_ready(async || broker.find_coordinator(kind, key).await).await;
    assert_eq!(node.id, 1);
    Broker::connect(&node.host, node.port, &options()).await.unwrap()
}

async fn next_epoch(transactions: &Broker) -> Producer {
    let request =
        InitProducerId { transactional_id: Some(ID.to_owned()), timeout: Duration::from_secs(60) };
    until_ready(async || transactions.init_producer_id(request.clone()).await).await
}

/// A plain batch of one record to each partition, and what became of it.
async fn stored(broker: &Broker, producer: Producer, sequence: i32) -> Vec<(i32, i16, i64)> {
    let batches = PARTITIONS.map(|number| (TOPIC, number, batch(producer, sequence, &["a"])));
    codes(&produce(broker, batches.to_vec()).await)
}

async fn add(
    transactions: &Broker,
    (producer_id, epoch): Producer,
) -> Result<Vec<PartitionCode>, Error> {
    let request = AddPartitionsToTxn {
        transactional_id: ID.to_owned(),
        producer_id,
        epoch,
        partitions: vec![(Arc::from(TOPIC), PARTITIONS.to_vec())],
    };
    transactions.add_partitions_to_txn(request).await
}

fn end((producer_id, epoch): Producer, commit: bool) -> EndTxn {
    EndTxn { transactional_id: ID.to_owned(), producer_id, epoch, commit }
}

/// Asks again while the coordinator is not ready or the transactional id is busy.
async fn until_ready<T>(ask: impl AsyncFnMut() -> Result<T, Error>) -> T {
    until_judged(ask).await.unwrap_or_else(|e| panic!("{}", told(&e)))
}

async fn until_judged<T>(mut ask: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
    let end = Instant::now() + LIMIT;
    loop {
        match ask().await {
            Err(error)
                if matches!(error.code(), Some(14 | 15 | 16 | 51)) && Instant::now() < end =>
            {
                sleep(Duration::from_millis(20)).await;
            }
            judged => return judged,
        }
    }
}

/// The first code that is not 0 as an error.
fn done(broker: &Broker, api: &'static str, codes: &[PartitionCode]) -> Result<(), Error> {
    match codes.iter().find(|one| one.code != 0) {
        Some(one) => Err(broker.refusal(api, one.code).into()),
        None => Ok(()),
    }
}

async fn fetch(broker: &Broker, from: i64) -> Fetched {
    let one =
        |partition| FetchPartition { topic: Arc::from(TOPIC), partition, from, max_bytes: 1 << 20 };
    let partitions = PARTITIONS.map(one).to_vec();
    let max_wait = Duration::from_millis(100);
    let request = Fetch { partitions, max_bytes: i32::MAX, max_wait, min_bytes: 1 };
    broker.fetch(request).await.unwrap_or_else(|e| panic!("{}", told(&e)))
}

/// What a batch says in its header, as far as a fence is concerned.
#[derive(Debug, Eq, PartialEq)]
struct Header {
    base_offset: i64,
    attributes: i16,
    producer: Producer,
}

fn headers(mut records: &[u8]) -> Vec<Header> {
    let mut headers = Vec::new();
    while !records.is_empty() {
        let length = i32::from_be_bytes(records[8..12].try_into().unwrap());
        let (batch, rest) = records.split_at(12 + usize::try_from(length).unwrap());
        headers.push(Header {
            base_offset: i64::from_be_bytes(batch[..8].try_into().unwrap()),
            attributes: i16::from_be_bytes(batch[21..23].try_into().unwrap()),
            producer: (
                i64::from_be_bytes(batch[43..51].try_into().unwrap()),
                i16::from_be_bytes(batch[51..53].try_into().unwrap()),
            ),
        });
        records = rest;
    }
    headers
}

/// Waits for this epoch's marker in every partition, and gives their offsets.
async fn markers(broker: &Broker, producer: Producer) -> Vec<i64> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let fetched = fetch(broker, 0).await;
        let marker = |records: &Vec<u8>| {
            let headers = headers(records);
            headers
                .iter()
                .find(|h| h.attributes == 0x30 && h.producer == producer)
                .map(|h| h.base_offset)
        };
        let found: Vec<_> = fetched.partitions.iter().map(|one| marker(&one.records)).collect();
        if let Some(markers) = found.iter().copied().collect() {
            return markers;
        }
        assert!(Instant::now() < deadline, "there is no marker of {producer:?}: {found:?}");
    }
}

/// Three batches, a marker before the last of them.
async fn logs(broker: &Broker) {
    let fetched = fetch(broker, 0).await;
    assert_eq!((fetched.throttle, fetched.code), (Duration::ZERO, 0));
    for one in &fetched.partitions {
        let attributes: Vec<_> = headers(&one.records).iter().map(|h| h.attributes).collect();
        assert_eq!((one.code, attributes.as_slice()), (0, [0, 0, 0x30, 0].as_slice()));
        let ends = (one.log_start_offset, one.last_stable_offset, one.high_watermark);
        assert_eq!(ends, (0, 4, 4), "{}[{}]", one.topic, one.partition);
    }
    let end = fetch(broker, 4).await;
    assert!(end.partitions.iter().all(|one| one.code == 0 && one.records.is_empty()));
    let beyond = fetch(broker, 5).await;
    assert!(beyond.partitions.iter().all(|one| one.code == 1 && one.records.is_empty()));
    for (at, offset) in [(OffsetAt::Earliest, 0), (OffsetAt::Latest, 4)] {
        let partitions = [0, 1, 2, 3].map(|number| (Arc::from(TOPIC), number)).to_vec();
        let listed = broker.list_offsets(ListOffsets { partitions, at }).await.unwrap();
        let mut listed: Vec<_> =
            listed.iter().map(|one| (one.partition, one.code, one.offset)).collect();
        listed.sort_unstable();
        assert_eq!(listed, [(0, 0, offset), (1, 0, offset), (2, 0, offset), (3, 3, -1)]);
    }
}

fn commit((producer_id, epoch): Producer, offset: i64, metadata: &str) -> TxnOffsetCommit {
    let topic = Arc::from(TOPIC);
    let metadata = metadata.to_owned();
    TxnOffsetCommit {
        transactional_id: ID.to_owned(),
        group: GROUP.to_owned(),
        producer_id,
        epoch,
        offsets: vec![CommittedOffset { topic, partition: 2, offset, metadata }],
    }
}

fn add_offsets((producer_id, epoch): Producer) -> AddOffsetsToTxn {
    AddOffsetsToTxn { transactional_id: ID.to_owned(), producer_id, epoch, group: GROUP.to_owned() }
}

/// What the group keeps.
async fn kept(groups: &Broker, require_stable: bool) -> Vec<FetchedOffset> {
    let request = OffsetFetch { group: GROUP.to_owned(), require_stable };
    until_ready(async || groups.offset_fetch(request.clone()).await).await
}

async fn offsets(broker: &Broker, transactions: &Broker, producer: Producer) {
    let groups = coordinator(broker, CoordinatorOf::Group, GROUP).await;
    assert_eq!(kept(&groups, true).await, []);
    let one = |offset, metadata: &str, code| FetchedOffset {
        topic: Arc::from(TOPIC),
        partition: 2,
        offset,
        metadata: metadata.to_owned(),
        code,
    };
    let longest = "ü".repeat(4096); // offset.metadata.max.bytes counts letters
    let mut before = Vec::new();
    for (offset, metadata) in [(1, "first"), (2, &longest)] {
        until_ready(async || transactions.add_offsets_to_txn(add_offsets(producer)).await).await;
        until_ready(async || {
            let codes = groups.txn_offset_commit(commit(producer, offset, metadata)).await?;
            done(&groups, TxnOffsetCommit::NAME, &codes)
        })
        .await;
        // Not before the transaction ends; and a first offset is not even told to be under way.
        assert_eq!(kept(&groups, false).await, before);
        let unstable: Vec<_> = before.iter().map(|_| one(-1, "", 88)).collect();
        assert_eq!(kept(&groups, true).await, unstable);
        until_ready(async || transactions.end_txn(end(producer, true)).await).await;
        let after = vec![one(offset, metadata, 0)];
        let deadline = Instant::now() + LIMIT;
        while kept(&groups, true).await != after {
            assert!(Instant::now() < deadline, "{:?}", kept(&groups, true).await);
            sleep(Duration::from_millis(20)).await;
        }
        before = after;
    }
    let too_long = format!("{longest}.");
    until_ready(async || transactions.add_offsets_to_txn(add_offsets(producer)).await).await;
    let codes = groups.txn_offset_commit(commit(producer, 3, &too_long)).await.unwrap();
    assert_eq!(codes.first().map(|one| one.code), Some(12));
    until_ready(async || transactions.end_txn(end(producer, false)).await).await;
    assert_eq!(kept(&groups, false).await, before);
}

/// Whoever has an older epoch is told so everywhere.
async fn zombie(broker: &Broker, transactions: &Broker, old: Producer) {
    let add = async || done(transactions, AddPartitionsToTxn::NAME, &add(transactions, old).await?);
    let end = async || transactions.end_txn(end(old, true)).await;
    let add_offsets = async || transactions.add_offsets_to_txn(add_offsets(old)).await;
    let refused =
        [until_judged(add).await, until_judged(end).await, until_judged(add_offsets).await];
    assert_eq!(refused.map(|answer| answer.unwrap_err().code()), [Some(90); 3]);
    let groups = coordinator(broker, CoordinatorOf::Group, GROUP).await;
    let codes = groups.txn_offset_commit(commit(old, 9, "late")).await.unwrap();
    assert_eq!(codes.iter().map(|one| one.code).collect::<Vec<_>>(), [47]);
}

/// Each request of a user without any right, and the command that would let it through.
pub(crate) async fn refusals(broker: &Broker, halts: impl Fn(Error, &str)) {
    const WRITE: &str = "--operation Write --transactional-id a-transactional-id";
    const READ: &str = "--operation Read --group a-group";
    let producer = (1, 0);
    let found = broker.find_coordinator(CoordinatorOf::Transaction, ID).await;
    halts(found.unwrap_err(), WRITE);
    halts(broker.find_coordinator(CoordinatorOf::Group, GROUP).await.unwrap_err(), READ);
    let request = InitProducerId { transactional_id: Some(ID.to_owned()), ..InitProducerId::PLAIN };
    halts(broker.init_producer_id(request).await.unwrap_err(), WRITE);
    halts(broker.end_txn(end(producer, false)).await.unwrap_err(), WRITE);
    halts(broker.add_offsets_to_txn(add_offsets(producer)).await.unwrap_err(), WRITE);
    let fetch_offsets = OffsetFetch { group: GROUP.to_owned(), require_stable: true };
    halts(broker.offset_fetch(fetch_offsets).await.unwrap_err(), READ);
    let added = add(broker, producer).await.unwrap();
    assert!(added.iter().all(|one| one.code == 53), "{added:?}");
    let codes = broker.txn_offset_commit(commit(producer, 1, "")).await.unwrap();
    assert!(codes.iter().all(|one| one.code == 53), "{codes:?}");
    assert!(fetch(broker, 0).await.partitions.iter().all(|one| one.code == 29));
    let request = ListOffsets { partitions: vec![(Arc::from(TOPIC), 0)], at: OffsetAt::Latest };
    let listed = broker.list_offsets(request).await.unwrap();
    assert!(listed.iter().all(|one| one.code == 29), "{listed:?}");
}
