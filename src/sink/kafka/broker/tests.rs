//! Against brokers that misbehave, each for one connection on 127.0.0.1.

use std::collections::BTreeMap;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    net::{Secret, SecretSource, TcpOptions},
    retry::{Disposition, Exit},
    sink::kafka::{
        Compression, Mechanism, Sasl,
        wire::{InitProducerId, PartitionRecords},
    },
};

/// What a broker does about a request.
enum Act {
    Answer(Vec<u8>),
    Silence,
    Close,
}

use Act::{Answer, Close, Silence};

mod questions;

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const LIST_OFFSETS: i16 = 2;
const METADATA: i16 = 3;
const OFFSET_FETCH: i16 = 9;
const FIND_COORDINATOR: i16 = 10;
const HANDSHAKE: i16 = 17;
const API_VERSIONS: i16 = 18;
const INIT_PRODUCER_ID: i16 = 22;
const ADD_PARTITIONS_TO_TXN: i16 = 24;
const ADD_OFFSETS_TO_TXN: i16 = 25;
const END_TXN: i16 = 26;
const TXN_OFFSET_COMMIT: i16 = 28;
const AUTHENTICATE: i16 = 36;

fn options(port: u16) -> Options {
    Options {
        brokers: vec![("127.0.0.1".to_owned(), port)],
        client_id: "test".to_owned(),
        tls: None,
        sasl: None,
        tcp: TcpOptions {
            connect_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(5),
            user_timeout: Duration::from_secs(5),
        },
        compression: Compression::None,
        request_timeout: Duration::from_millis(300),
        retry_max: Duration::from_secs(1),
        metadata_max_age: Duration::from_secs(60),
        topic: TopicOptions {
            create: false,
            partitions: 1,
            replication_factor: -1,
            config: BTreeMap::new(),
        },
    }
}

/// Serves one connection by `act`, which gets API key and version; answers are of old versions, so
/// that no header has tags.
async fn broker(mut act: impl FnMut(i16, i16) -> Act + Send + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        while let Some((key, version, correlation)) = request(&mut stream).await {
            match act(key, version) {
                Answer(body) => {
                    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
                    let frame = [&length, &correlation.to_be_bytes(), body.as_slice()].concat();
                    stream.write_all(&frame).await.unwrap();
                }
                Silence => {}
                Close => return,
            }
        }
    });
    port
}

async fn request(stream: &mut TcpStream) -> Option<(i16, i16, i32)> {
    let length = stream.read_u32().await.ok()?;
    let (key, version) = (stream.read_i16().await.ok()?, stream.read_i16().await.ok()?);
    let correlation = stream.read_i32().await.ok()?;
    let mut rest = vec![0; usize::try_from(length).unwrap() - 8];
    stream.read_exact(&mut rest).await.ok()?;
    Some((key, version, correlation))
}

/// `ApiVersions` 0 of a broker that knows these requests in one version each, none of them flexible.
fn versions(code: i16) -> Act {
    let ranges: [(i16, i16); 14] = [
        (PRODUCE, 3),
        (FETCH, 7),
        (LIST_OFFSETS, 2),
        (METADATA, 4),
        (OFFSET_FETCH, 2),
        (FIND_COORDINATOR, 1),
        (HANDSHAKE, 1),
        (API_VERSIONS, 0),
        (INIT_PRODUCER_ID, 0),
        (ADD_PARTITIONS_TO_TXN, 0),
        (ADD_OFFSETS_TO_TXN, 0),
        (END_TXN, 0),
        (TXN_OFFSET_COMMIT, 0),
        (AUTHENTICATE, 1),
    ];
    let mut body = [code.to_be_bytes().as_slice(), &14_i32.to_be_bytes()].concat();
    for (key, version) in ranges {
        for field in [key, version, version] {
            body.extend(field.to_be_bytes());
        }
    }
    Answer(body)
}

/// Refuses version 3 as an old broker does; then all else by `act`.
fn old(mut act: impl FnMut(i16) -> Act) -> impl FnMut(i16, i16) -> Act {
    move |key, version| match (key, version) {
        (API_VERSIONS, 0) => versions(0),
        (API_VERSIONS, _) => versions(35),
        (key, _) => act(key),
    }
}

async fn connect(act: impl FnMut(i16) -> Act + Send + 'static) -> Broker {
    let port = broker(old(act)).await;
    Broker::connect("127.0.0.1", port, &options(port)).await.unwrap()
}

fn one_batch() -> Produce {
    let records = Arc::new(b"records".to_vec());
    let batches = vec![PartitionRecords { topic: Arc::from("users"), partition: 0, records }];
    Produce { transactional_id: None, timeout: Duration::from_millis(1), batches }
}

/// Produce 3: one batch of `users[partition]`, stored at offset 9, with a throttle time.
fn produced(partition: i32) -> Act {
    let mut body = 1_i32.to_be_bytes().to_vec();
    body.extend(5_i16.to_be_bytes());
    body.extend(b"users");
    body.extend(1_i32.to_be_bytes());
    body.extend(partition.to_be_bytes());
    body.extend(0_i16.to_be_bytes());
    body.extend(9_i64.to_be_bytes());
    body.extend((-1_i64).to_be_bytes());
    body.extend(1000_i32.to_be_bytes());
    Answer(body)
}

#[tokio::test]
async fn speaks_to_a_broker_that_refuses_the_newest_api_versions() {
    let broker = connect(|_| Answer([&[0; 6], 77_i64.to_be_bytes().as_slice(), &[0, 3]].concat()));
    assert_eq!(broker.await.init_producer_id(InitProducerId::PLAIN).await.unwrap(), (77, 3));
}

#[tokio::test]
async fn a_throttled_produce_is_stored_and_not_sent_again() {
    let mut sent = 0;
    let broker = connect(move |_| {
        sent += 1;
        assert_eq!(sent, 1);
        produced(0)
    })
    .await;
    let produced = broker.produce(one_batch()).await.unwrap();
    assert_eq!(produced.throttle, Duration::from_secs(1));
    assert_eq!(produced.partitions.first().map(|p| (p.code, p.base_offset)), Some((0, 9)));
}

#[tokio::test]
async fn a_silent_broker_costs_the_limit_and_every_request_under_way() {
    let broker = connect(|_| Silence).await;
    let other = broker.clone();
    let produce = tokio::spawn(async move { other.produce(one_batch()).await });
    tokio::task::yield_now().await;
    let error = broker.metadata(&[]).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { api: "Metadata", .. }), "{error}");
    assert_eq!(error.disposition(), Disposition::Retry);
    assert!(broker.is_closed());
    let error = produce.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
}

#[tokio::test]
async fn a_listener_that_never_answers_is_left() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let error = Broker::connect("127.0.0.1", port, &options(port)).await.unwrap_err();
    let told = format!("broker 127.0.0.1:{port} did not answer ApiVersions within 0.3 s");
    assert_eq!(error.to_string(), told);
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_ends_the_connection() {
    let broker = connect(|_| Answer(vec![0; 5])).await;
    let error = broker.init_producer_id(InitProducerId::PLAIN).await.unwrap_err();
    assert!(matches!(error, Error::Malformed { api: "InitProducerId", .. }), "{error}");
    assert!(broker.is_closed());
}

#[tokio::test]
async fn an_answer_about_another_partition_is_none() {
    let broker = connect(|_| produced(1)).await;
    let error = broker.produce(one_batch()).await.unwrap_err();
    assert!(error.to_string().ends_with("without being asked about users[1]"), "{error}");
    assert!(broker.is_closed());
    let broker = connect(|_| Answer(vec![0; 8])).await;
    let error = broker.produce(one_batch()).await.unwrap_err();
    assert!(error.to_string().ends_with("answered Produce without users[0]"), "{error}");
}

#[tokio::test]
async fn a_connection_closed_at_its_first_request_may_want_a_login() {
    let port = broker(|key, version| match (key, version) {
        (API_VERSIONS, 0) => versions(0),
        (API_VERSIONS, _) => versions(35),
        _ => Close,
    })
    .await;
    let broker = Broker::connect("127.0.0.1", port, &options(port)).await.unwrap();
    assert!(!broker.is_closed());
    let error = broker.metadata(&[]).await.unwrap_err();
    assert!(error.to_string().contains("want a login (kafka.sasl)?"), "{error}");
    assert_eq!(error.disposition(), Disposition::Retry);
    broker.closed().await;
}

#[tokio::test]
async fn a_broker_without_a_version_of_ours_cannot_be_used() {
    let broker = connect(|_| Close).await;
    let error = broker.topic_configs("users").await.unwrap_err();
    assert!(matches!(error, Error::Version { api: "DescribeConfigs", .. }), "{error}");
    assert_eq!(error.disposition(), Disposition::Halt(Exit::Unavailable));
    assert!(!broker.is_closed());
}

#[tokio::test]
async fn what_is_no_kafka_is_left() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let error = Broker::connect("127.0.0.1", port, &options(port)).await.unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
    assert!(error.to_string().contains("does this listener want TLS?"), "{error}");
}

/// `SaslHandshake` 1 with these two mechanisms, and `SaslAuthenticate` 1 with this answer.
fn login(key: i16, code: i16, token: &[u8]) -> Act {
    if key == HANDSHAKE {
        let mut body = vec![0, 0, 0, 0, 0, 2, 0, 5];
        body.extend(b"PLAIN");
        body.extend([0, 13]);
        body.extend(b"SCRAM-SHA-256");
        return Answer(body);
    }
    let mut body = code.to_be_bytes().to_vec();
    body.extend((-1_i16).to_be_bytes());
    body.extend(u32::try_from(token.len()).unwrap().to_be_bytes());
    body.extend(token);
    body.extend(10_000_i64.to_be_bytes());
    Answer(body)
}

async fn log_in(
    mechanism: Mechanism,
    act: impl FnMut(i16) -> Act + Send + 'static,
) -> Result<Broker, Error> {
    let port = broker(old(act)).await;
    let password = SecretSource::Text(Secret::new("pencil".to_owned()));
    let sasl = Some(Sasl { mechanism, user: "sluice".to_owned(), password });
    let options = Options { sasl, ..options(port) };
    Broker::connect("127.0.0.1", port, &options).await
}

#[tokio::test]
async fn a_login_is_renewed_before_it_ends() {
    let before = Instant::now();
    let broker = log_in(Mechanism::Plain, |key| login(key, 0, b"")).await.unwrap();
    let renewal = broker.renew_at().unwrap() - before;
    assert!(renewal >= Duration::from_secs(8) && renewal < Duration::from_secs(9), "{renewal:?}");
}

#[tokio::test]
async fn a_refused_login_halts_with_77_and_names_the_user() {
    let error = log_in(Mechanism::Plain, |key| login(key, 58, b"")).await.unwrap_err();
    let told = "refused the login of sluice by PLAIN: SASL_AUTHENTICATION_FAILED (58)";
    assert!(error.to_string().ends_with(told), "{error}");
    assert_eq!(error.disposition(), Disposition::Halt(Exit::Permission));
    assert!(!format!("{error:?}").contains("pencil"));
}

#[tokio::test]
async fn a_mechanism_that_is_not_offered_halts_with_77() {
    let error = log_in(Mechanism::ScramSha512, |key| login(key, 0, b"")).await.unwrap_err();
    let told = "offers no SCRAM-SHA-512, only PLAIN, SCRAM-SHA-256";
    assert!(error.to_string().ends_with(told), "{error}");
    assert_eq!(error.disposition(), Disposition::Halt(Exit::Permission));
}

#[tokio::test]
async fn a_broker_that_skips_its_proof_is_not_believed() {
    let error = log_in(Mechanism::ScramSha256, |key| login(key, 0, b"")).await.unwrap_err();
    assert!(matches!(error, Error::Scram { .. }), "{error}");
    assert_eq!(error.disposition(), Disposition::Halt(Exit::Permission));
}

#[test]
fn a_connection_may_move_to_another_thread() {
    const fn is_send<T: Send>(_: &T) {}
    let options = options(1);
    is_send(&Broker::connect("127.0.0.1", 1, &options));
}
