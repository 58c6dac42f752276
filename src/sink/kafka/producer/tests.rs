//! The producer against a scripted broker, for what a real one cannot be made to do on demand.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    batch::{Batcher, Limits, Stamp},
    lease::Lease,
    lsn::Lsn,
    net::TcpOptions,
    progress::Ledger,
    retry::{Disposition, Exit},
    sink::kafka::{Doubt, TopicOptions},
};

const LIMIT: Duration = Duration::from_secs(20);
const PRODUCE: i16 = 0;
const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;
const INIT_PRODUCER_ID: i16 = 22;
const DESCRIBE_CONFIGS: i16 = 32;

/// What the broker does about a request.
enum Act {
    Answer(Vec<u8>),
    Close,
}

#[derive(Default)]
struct Script {
    /// Answers to Produce: throttle and code, or none at all. Then all is well.
    produce: Vec<Option<(i32, i16)>>,
    /// Leaders that metadata tells. Then it is broker 0.
    leaders: Vec<i32>,
    producer_ids: i64,
    /// Every Produce, with its time.
    seen: Vec<(Instant, Vec<u8>)>,
}

impl Script {
    fn act(&mut self, port: u16, key: i16, version: i16, body: Vec<u8>) -> Act {
        match (key, version) {
            (API_VERSIONS, 0) => Act::Answer(versions(0)),
            (API_VERSIONS, _) => Act::Answer(versions(35)),
            (METADATA, _) => {
                let leader = if self.leaders.is_empty() { 0 } else { self.leaders.remove(0) };
                Act::Answer(metadata(port, leader))
            }
            (INIT_PRODUCER_ID, _) => {
                self.producer_ids += 1;
                let id = self.producer_ids.to_be_bytes();
                Act::Answer([&[0; 6], id.as_slice(), &[0; 2]].concat())
            }
            // It may not be asked.
            (DESCRIBE_CONFIGS, _) => {
                let one = [0, 0, 0, 1, 0, 29, 0xff, 0xff, 2, 0, 1, b't', 0, 0, 0, 0];
                Act::Answer([&[0; 4], one.as_slice()].concat())
            }
            (PRODUCE, _) => {
                self.seen.push((Instant::now(), body));
                let next =
                    if self.produce.is_empty() { Some((0, 0)) } else { self.produce.remove(0) };
                next.map_or(Act::Close, |(throttle, code)| Act::Answer(produced(throttle, code)))
            }
            _ => Act::Close,
        }
    }
}

fn versions(code: i16) -> Vec<u8> {
    let ranges = [
        (PRODUCE, 3),
        (METADATA, 4),
        (API_VERSIONS, 0),
        (INIT_PRODUCER_ID, 0),
        (DESCRIBE_CONFIGS, 1),
    ];
    let mut body = [code.to_be_bytes().as_slice(), &5_i32.to_be_bytes()].concat();
    for (key, version) in ranges {
        body.extend([key, version, version].into_iter().flat_map(i16::to_be_bytes));
    }
    body
}

/// Version 4: one broker, 0, and topic `t` with one partition.
fn metadata(port: u16, leader: i32) -> Vec<u8> {
    let mut body = Vec::new();
    let ints = |body: &mut Vec<u8>, list: &[i32]| {
        body.extend(list.iter().copied().flat_map(i32::to_be_bytes));
    };
    ints(&mut body, &[0, 1, 0]); // throttle; one broker: 0
    body.extend([0, 9]);
    body.extend(b"127.0.0.1");
    ints(&mut body, &[i32::from(port)]);
    body.extend([0xff; 4]); // rack, cluster
    ints(&mut body, &[0, 1]); // controller; one topic
    body.extend([0, 0, 0, 1, b't', 0]);
    ints(&mut body, &[1]); // one partition
    body.extend([0, 0]);
    ints(&mut body, &[0, leader, 1, 0, 1, 0]);
    body
}

/// Version 3, about partition 0 of `t`.
fn produced(throttle: i32, code: i16) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0];
    body.extend(code.to_be_bytes());
    body.extend(7_i64.to_be_bytes());
    body.extend((-1_i64).to_be_bytes());
    body.extend(throttle.to_be_bytes());
    body
}

async fn broker(script: Script) -> (u16, Arc<Mutex<Script>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = Arc::new(Mutex::new(script));
    let shared = Arc::clone(&script);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, port, Arc::clone(&shared)));
        }
    });
    (port, script)
}

async fn serve(mut stream: TcpStream, port: u16, script: Arc<Mutex<Script>>) -> Option<()> {
    loop {
        let length = stream.read_u32().await.ok()?;
        let (key, version) = (stream.read_i16().await.ok()?, stream.read_i16().await.ok()?);
        let correlation = stream.read_i32().await.ok()?;
        let mut body = vec![0; usize::try_from(length).unwrap() - 8];
        stream.read_exact(&mut body).await.ok()?;
        let act = script.lock().unwrap().act(port, key, version, body);
        let Act::Answer(body) = act else { return None };
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        let frame = [&length, &correlation.to_be_bytes(), body.as_slice()].concat();
        stream.write_all(&frame).await.ok()?;
    }
}

async fn producer(script: Script) -> (Producer, Arc<Mutex<Script>>) {
    let (port, script) = broker(script).await;
    let options = Options {
        brokers: vec![("127.0.0.1".to_owned(), port)],
        client_id: "test".to_owned(),
        tls: None,
        sasl: None,
        tcp: TcpOptions { connect_timeout: LIMIT, keepalive: LIMIT, user_timeout: LIMIT },
        compression: Compression::None,
        request_timeout: LIMIT,
        retry_max: Duration::from_millis(100),
        metadata_max_age: Duration::from_secs(60),
        topic: TopicOptions {
            create: false,
            partitions: 1,
            replication_factor: -1,
            config: BTreeMap::new(),
        },
    };
    let mut producer = Producer::connect(options).await.unwrap();
    producer.topic("t").await.unwrap();
    take(&mut producer).await;
    (producer, script)
}

async fn take(producer: &mut Producer) {
    take_for(producer, Duration::ZERO).await;
}

async fn take_for(producer: &mut Producer, timeout: Duration) {
    let lease = Lease::new(timeout);
    let claim = Claim {
        transactional_id: None,
        transaction_timeout: None,
        source: None,
        read_back: None,
        lease,
    };
    producer.take(claim).await.unwrap();
}

fn batch() -> Batch {
    let limits =
        Limits { max_bytes: 1000, max_records: 10, linger: Duration::ZERO, in_flight: 10_000 };
    let mut batcher = Batcher::new(limits);
    let topic = batcher.topic(Arc::from("t"), 1, 1000);
    let stamp = Stamp { timestamp_ms: 0, committed_at: 0, now: Instant::now() };
    let ticket = Ledger::new(Lsn::ZERO).begin();
    batcher
        .append(topic, 0, stamp, ticket, |record| {
            record.key(None);
            record.null_value();
            Ok::<_, Infallible>(())
        })
        .unwrap();
    batcher.flush_all();
    batcher.closed().unwrap()
}

async fn next(producer: &mut Producer) -> Result<Delivery, Error> {
    tokio::time::timeout(LIMIT, producer.delivered()).await.expect("nothing was delivered")
}

#[tokio::test]
async fn throttling_delays_the_next_request_and_repeats_none() {
    let script = Script { produce: vec![Some((300, 0))], ..Script::default() };
    let (mut producer, script) = producer(script).await;
    for _ in 0..2 {
        producer.submit(batch());
        assert_eq!(next(&mut producer).await.unwrap().base_offset, 7);
    }
    let seen = &script.lock().unwrap().seen;
    assert_eq!(seen.len(), 2);
    let pause = seen[1].0.duration_since(seen[0].0);
    assert!(pause >= Duration::from_millis(300), "{pause:?}");
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_sent_again_byte_for_byte() {
    let script = Script { produce: vec![None, None, Some((0, 7))], ..Script::default() };
    let (mut producer, script) = producer(script).await;
    let batch = batch();
    let size = batch.bytes.len();
    producer.submit(batch);
    assert_eq!(producer.in_flight(), size);
    let delivery = next(&mut producer).await.unwrap();
    assert_eq!((delivery.batch.records, delivery.batch.tickets.len()), (1, 1));
    assert_eq!((producer.in_flight(), producer.trouble()), (0, None));
    let seen = &script.lock().unwrap().seen;
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|(_, body)| *body == seen[0].1));
}

#[tokio::test]
async fn a_partition_without_a_leader_is_waited_for() {
    let script = Script { produce: vec![Some((0, 6))], ..Script::default() };
    let (mut producer, script) = producer(script).await;
    script.lock().unwrap().leaders = vec![-1; 6];
    producer.submit(batch());
    let told = async {
        while producer.trouble().as_deref() != Some("t[0] has no leader") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LIMIT, told).await.expect("it says what it waits for");
    next(&mut producer).await.unwrap();
    assert_eq!(producer.trouble(), None);
    assert_eq!(script.lock().unwrap().seen.len(), 2);
}

#[tokio::test]
async fn a_lost_sequence_leaves_a_doubt_until_the_topics_are_taken_anew() {
    let script = Script { produce: vec![Some((0, 45)), Some((0, 47))], ..Script::default() };
    let (mut producer, script) = producer(script).await;
    for code in [45, 47] {
        producer.submit(batch());
        let error = next(&mut producer).await.unwrap_err();
        assert_eq!(error.disposition(), Disposition::Retry);
        assert!(matches!(error, Error::Doubt { why: Doubt::Refused(told), .. } if told == code));
        producer.submit(batch()); // goes nowhere
        take(&mut producer).await;
        assert_eq!(producer.in_flight(), 0);
    }
    producer.submit(batch());
    next(&mut producer).await.unwrap();
    let script = script.lock().unwrap();
    // Producer id and sequence in the last bytes of the request, of which the batch is the end.
    let size = batch().bytes.len();
    let identities = script.seen.iter().map(|(_, body)| {
        let batch = &body[body.len() - size..];
        let id = i64::from_be_bytes(batch[43..51].try_into().unwrap());
        (id, i32::from_be_bytes(batch[53..57].try_into().unwrap()))
    });
    assert_eq!(identities.collect::<Vec<_>>(), [(1, 0), (2, 0), (3, 0)]);
}

#[tokio::test]
async fn whoever_stood_still_for_too_long_sends_nothing() {
    let (mut producer, script) = producer(Script::default()).await;
    take_for(&mut producer, Duration::from_millis(1)).await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    producer.submit(batch());
    let error = next(&mut producer).await.unwrap_err();
    assert!(matches!(error, Error::Doubt { why: Doubt::Lease, .. }), "{error}");
    assert!(script.lock().unwrap().seen.is_empty());
    take(&mut producer).await;
    producer.submit(batch());
    next(&mut producer).await.unwrap();
}

#[tokio::test]
async fn what_only_a_person_can_mend_ends_it() {
    let script = Script { produce: vec![Some((0, 29))], ..Script::default() };
    let (mut producer, _script) = producer(script).await;
    producer.submit(batch());
    let error = next(&mut producer).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Halt(Exit::Permission));
    assert!(error.to_string().contains("for t[0] with TOPIC_AUTHORIZATION_FAILED"), "{error}");
    producer.close().await;
}
