//! The model of Kafka is held to the real one: the same requests to both, and the same answers of both.
//!
//! What is asked is what the fence and the sequence numbers stand on: duplicates, gaps, epochs before and
//! after a marker, zombies, transactions, and a group's offsets.

use std::{sync::Arc, time::Duration};

use pgsluice::{
    batch::log::Entries,
    sink::kafka::{
        Error, Options,
        broker::Broker,
        wire::{
            AddOffsetsToTxn, AddPartitionsToTxn, CommittedOffset, CoordinatorOf, EndTxn, Fetch,
            FetchPartition, InitProducerId, ListOffsets, OffsetAt, OffsetFetch, PartitionRecords,
            Produce, TxnOffsetCommit,
        },
    },
};
use tokio::time::{Instant, sleep, timeout};

use super::are_same;
use crate::{
    kafka::{self, batch::batch},
    setup::{options, with_servers},
    support,
};

const TOPIC: &str = "public.notes";
const GROUP: &str = "a-group";
const NAME: &str = "a-transactional-id";
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn the_model_of_kafka_answers_as_kafka_does() {
    let model = with_servers(async |_, cluster| {
        let mut options = options('a', None).kafka;
        options.brokers = vec![(format!("a.{}", kafka::name(0)), 9092)];
        let anew = || {
            cluster.delete_topic(TOPIC);
            cluster.make_topic(TOPIC, 1);
        };
        answers(&options, &anew).await
    });
    let server = support::Kafka::shared("sim", support::Ports::SIM.kafka(0));
    server.topic(TOPIC, 1);
    let (host, port) = server.brokers().split_once(':').expect("host:port");
    let mut options = options('a', None).kafka;
    options.brokers = vec![(host.to_owned(), port.parse().expect("a port"))];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let real = runtime.block_on(answers(&options, &|| server.topic(TOPIC, 1)));
    are_same(&model, &real, 40);
}

/// Whoever asks, and what was answered: a question in words, and codes and numbers.
struct Asker<'a> {
    options: &'a Options,
    leader: Broker,
    coordinator: Broker,
    group: Broker,
    told: Vec<(String, Vec<i64>)>,
    /// Of the partition: other runs wrote there before.
    base: i64,
}

type Producer = (i64, i16);

async fn answers(options: &Options, anew: &dyn Fn()) -> Vec<(String, Vec<i64>)> {
    timeout(LIMIT, ask(options, anew)).await.expect("every question has an answer")
}

async fn ask(options: &Options, anew: &dyn Fn()) -> Vec<(String, Vec<i64>)> {
    let mut a = Asker::new(options).await;
    let first = a.init("a new name").await;
    a.fence("the first fence", first).await;
    a.produce("the first batch", first, 0, 1, false).await;
    a.produce("the same again", first, 0, 1, false).await;
    a.produce("the same with more records", first, 0, 2, false).await;
    a.produce("a gap", first, 5, 1, false).await;
    for sequence in 1..7 {
        a.produce("the next", first, sequence, 1, false).await;
    }
    for sequence in 0..7 {
        a.produce("one of the last again", first, sequence, 1, false).await;
    }
    a.produce("two records", first, 7, 2, false).await;
    a.produce("as if it had been one", first, 8, 1, false).await;

    let second = a.init("the same name").await;
    a.told.push((
        "the same id, the next epoch".to_owned(),
        vec![i64::from(second.0 == first.0), i64::from(second.1 - first.1)],
    ));
    a.produce("the old epoch before the marker", first, 9, 1, false).await;
    a.add("a zombie adds", first).await;
    a.end("a zombie ends", first, false).await;
    a.fence("the second fence", second).await;
    a.produce("the old epoch after the marker", first, 10, 1, false).await;
    a.produce("the old epoch's batch again", first, 9, 1, false).await;
    a.produce("the new epoch, not from 0", second, 1, 1, false).await;
    a.produce("the new epoch", second, 0, 1, false).await;
    a.add("a transaction without data", second).await;
    a.produce("meanwhile a plain batch", second, 1, 1, false).await;
    a.end("its end", second, false).await;
    a.settled(second).await;
    a.end("its end again", second, false).await;
    a.end("its end otherwise", second, true).await;

    a.produce("in a transaction that was not begun", second, 2, 1, true).await;
    a.add("a transaction", second).await;
    a.produce("in a transaction", second, 2, 1, true).await;
    a.produce("plain, while it is open", second, 3, 1, false).await;
    a.end("commit", second, true).await;
    a.settled(second).await;
    a.produce("plain, after it", second, 3, 1, false).await;

    a.offsets("offsets", second, first).await;

    a.add("left open", second).await;
    let third = a.init("after one was left open").await;
    a.told.push(("two epochs on".to_owned(), vec![i64::from(third.1 - second.1)]));
    a.fence("the third fence", third).await;
    a.produce("the third epoch", third, 0, 1, false).await;
    third_epoch(&mut a, second, third).await;

    let (plain, _) = a.leader.init_producer_id(InitProducerId::PLAIN).await.unwrap();
    a.produce("an id that was never here, from 5", (plain, 0), 5, 1, false).await;
    a.produce("an id that was never here, a gap", (plain, 0), 9, 1, false).await;
    for _ in 0..2 {
        a.produce("without an id", (-1, -1), -1, 2, false).await;
    }

    anew();
    a.made_anew(plain).await;
    a.told
}

/// Transactions when an earlier epoch still writes.
async fn third_epoch(a: &mut Asker<'_>, second: Producer, third: Producer) {
    a.add("a transaction of the third epoch", third).await;
    a.produce("a zombie in it", second, 4, 1, true).await;
    a.produce("in it", third, 1, 1, true).await;
    a.produce("the same again", third, 1, 1, true).await;
    a.end("its end", third, true).await;
    a.settled(third).await;
    a.produce("after its end", third, 2, 1, true).await;
    a.end("a zombie's end", second, true).await;
}

fn code(error: &Error) -> i64 {
    error.code().map_or_else(|| panic!("{error}"), i64::from)
}

/// Answers that pass by themselves.
fn passes(code: i64) -> bool {
    matches!(code, 14..=16 | 51)
}

impl<'a> Asker<'a> {
    async fn new(options: &'a Options) -> Self {
        let (host, port) = &options.brokers[0];
        let any = Broker::connect(host, *port, options).await.unwrap();
        let leader = leader(&any, options).await.expect("it is led");
        let coordinator = coordinator(&any, CoordinatorOf::Transaction, NAME, options).await;
        let group = coordinator_of_group(&any, options).await;
        let mut asker = Self { options, leader, coordinator, group, told: Vec::new(), base: 0 };
        asker.base = asker.high().await;
        asker
    }

    async fn high(&self) -> i64 {
        let request = ListOffsets { partitions: vec![(Arc::from(TOPIC), 0)], at: OffsetAt::Latest };
        self.leader.list_offsets(request).await.unwrap()[0].offset
    }

    fn tell(&mut self, what: &str, answer: &[i64]) {
        self.told.push((what.to_owned(), answer.to_vec()));
    }

    async fn init(&mut self, what: &str) -> Producer {
        loop {
            let transactional_id = Some(NAME.to_owned());
            let request = InitProducerId { transactional_id, timeout: Duration::from_secs(60) };
            match self.coordinator.init_producer_id(request).await {
                Ok(producer) => {
                    self.tell(what, &[0]);
                    return producer;
                }
                Err(error) if passes(code(&error)) => sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }

    async fn add(&mut self, what: &str, (producer_id, epoch): Producer) {
        let request = AddPartitionsToTxn {
            transactional_id: NAME.to_owned(),
            producer_id,
            epoch,
            partitions: vec![(Arc::from(TOPIC), vec![0])],
        };
        loop {
            let codes = self.coordinator.add_partitions_to_txn(request.clone()).await.unwrap();
            let code = i64::from(codes[0].code);
            if !passes(code) {
                return self.tell(what, &[code]);
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(&mut self, what: &str, (producer_id, epoch): Producer, commit: bool) {
        let request = EndTxn { transactional_id: NAME.to_owned(), producer_id, epoch, commit };
        loop {
            let answer = self.coordinator.end_txn(request.clone()).await;
            let code = answer.as_ref().err().map_or(0, code);
            if !passes(code) {
                return self.tell(what, &[code]);
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// A transaction without data is begun and aborted, and its marker is waited for.
    async fn fence(&mut self, what: &str, producer: Producer) {
        let from = self.high().await;
        self.add(what, producer).await;
        self.end(what, producer, false).await;
        self.marker(producer, from).await;
        let at = self.high().await - self.base;
        self.tell(what, &[at]);
    }

    async fn marker(&self, producer: Producer, from: i64) {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            let one =
                FetchPartition { topic: Arc::from(TOPIC), partition: 0, from, max_bytes: 1 << 20 };
            let wait = Duration::from_millis(200);
            let request =
                Fetch { partitions: vec![one], max_bytes: 1 << 20, max_wait: wait, min_bytes: 1 };
            let fetched = self.leader.fetch(request).await.unwrap();
            let mut entries = Entries::new(&fetched.partitions[0].records).map(Result::unwrap);
            if entries.any(|one| one.marker.is_some() && (one.producer_id, one.epoch) == producer) {
                return;
            }
        }
        panic!("the marker does not come");
    }

    /// Until the transaction is over: then the coordinator would begin another.
    async fn settled(&mut self, _: Producer) {
        let before = self.high().await;
        let mut seen = before;
        // Its marker is the last thing that is written.
        for _ in 0..3 {
            sleep(Duration::from_millis(100)).await;
            seen = self.high().await;
        }
        self.tell("the end of the log", &[seen - self.base]);
    }

    async fn produce(
        &mut self,
        what: &str,
        producer: Producer,
        sequence: i32,
        count: u32,
        transactional: bool,
    ) {
        let records = Arc::new(batch(producer, sequence, count, transactional, None));
        let batch = PartitionRecords { topic: Arc::from(TOPIC), partition: 0, records };
        let request = Produce {
            transactional_id: transactional.then(|| NAME.into()),
            timeout: self.options.request_timeout,
            batches: vec![batch],
        };
        let produced = self.leader.produce(request).await.unwrap();
        let one = &produced.partitions[0];
        let offset = if one.base_offset < 0 { -1 } else { one.base_offset - self.base };
        self.tell(&format!("{what}: {sequence}"), &[one.code.into(), offset]);
    }

    /// The topic was deleted and made again: nobody is known there.
    async fn made_anew(&mut self, plain: i64) {
        // Once it is led, and its leader knows.
        let end = Instant::now() + LIMIT;
        self.base = 0;
        loop {
            assert!(Instant::now() < end, "the topic made anew is not led");
            let before = self.told.len();
            self.leader = leader(&self.coordinator, self.options)
                .await
                .unwrap_or_else(|| self.leader.clone());
            self.produce("made anew: a number that is not the next", (plain, 0), 77, 1, false)
                .await;
            match self.told[before].1[0] {
                3 | 6 => self.told.truncate(before),
                _ => break,
            }
            sleep(Duration::from_millis(20)).await;
        }
        self.produce("made anew: the same again", (plain, 0), 77, 1, false).await;
        self.produce("made anew: a gap", (plain, 0), 79, 1, false).await;
    }

    /// A group's offset, which goes with a transaction.
    async fn offsets(&mut self, what: &str, (producer_id, epoch): Producer, zombie: Producer) {
        for (producer_id, epoch, name) in
            [(zombie.0, zombie.1, "a zombie's"), (producer_id, epoch, "ours")]
        {
            let request = AddOffsetsToTxn {
                transactional_id: NAME.to_owned(),
                producer_id,
                epoch,
                group: GROUP.to_owned(),
            };
            let answer = self.coordinator.add_offsets_to_txn(request).await;
            let code = answer.as_ref().err().map_or(0, code);
            self.tell(&format!("{what}, {name}"), &[code]);
        }
        for (producer_id, epoch, name) in
            [(producer_id, epoch, "ours"), (zombie.0, zombie.1, "a zombie's")]
        {
            let one = CommittedOffset {
                topic: Arc::from(TOPIC),
                partition: 0,
                offset: 7,
                metadata: "text".to_owned(),
            };
            let request = TxnOffsetCommit {
                transactional_id: NAME.to_owned(),
                group: GROUP.to_owned(),
                producer_id,
                epoch,
                offsets: vec![one],
            };
            let codes = self.group.txn_offset_commit(request).await.unwrap();
            self.tell(&format!("{what}, committed, {name}"), &[codes[0].code.into()]);
        }
        self.kept("before the end").await;
        self.end("their end", (producer_id, epoch), true).await;
        let begin = Instant::now();
        while begin.elapsed() < LIMIT {
            let request = OffsetFetch { group: GROUP.to_owned(), require_stable: true };
            let all = self.group.offset_fetch(request).await.unwrap();
            // A group's first offset is not shown at all while its transaction is not over.
            if !all.is_empty() && all.iter().all(|one| one.code != 88) {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
        self.kept("after the end").await;
    }

    async fn kept(&mut self, what: &str) {
        let request = OffsetFetch { group: GROUP.to_owned(), require_stable: true };
        let all = self.group.offset_fetch(request).await.unwrap();
        let all: Vec<i64> = all
            .iter()
            .flat_map(|one| [one.code.into(), one.offset, one.metadata.len() as i64])
            .collect();
        self.tell(what, &all);
    }
}

/// Who leads the partition.
async fn leader(any: &Broker, options: &Options) -> Option<Broker> {
    let metadata = any.metadata(&[TOPIC]).await.unwrap();
    let leader = metadata.topic(TOPIC)?.partition(0)?.leader?;
    let leader = metadata.node(leader).expect("it is there");
    Some(Broker::connect(&leader.host, leader.port, options).await.unwrap())
}

async fn coordinator_of_group(any: &Broker, options: &Options) -> Broker {
    coordinator(any, CoordinatorOf::Group, GROUP, options).await
}

async fn coordinator(any: &Broker, kind: CoordinatorOf, key: &str, options: &Options) -> Broker {
    loop {
        match any.find_coordinator(kind, key).await {
            Ok(node) => return Broker::connect(&node.host, node.port, options).await.unwrap(),
            Err(error) if passes(code(&error)) => sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
}
