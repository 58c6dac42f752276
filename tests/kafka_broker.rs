//! A connection to a broker, by itself, against real ones: every listener and login, every version
//! that we promise, and what each refusal is called.

#![allow(clippy::unwrap_used, reason = "clippy knows only functions with #[test] as tests")]

#[path = "kafka_broker/fence.rs"]
mod fence;
mod support;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use pgsluice::{
    net::{self, Secret, SecretSource, TcpOptions, TlsOptions, Verify},
    retry::{Disposition, Exit},
    sink::kafka::{
        Compression, Error, Mechanism, Options, Sasl, TopicOptions,
        broker::Broker,
        topics,
        wire::{InitProducerId, PartitionRecords, Produce, Produced},
    },
};
use rskafka::protocol::{
    record::{
        ControlBatchOrRecords, Record, RecordBatch, RecordBatchCompression,
        RecordBatchTimestampType,
    },
    traits::WriteType,
};
use rustls::AlertDescription;
use support::{Kafka, Ports, eventually, kafka::LATEST, kafka::one_at_a_time};
use tokio::io::AsyncWriteExt as _;

const LIMIT: Duration = Duration::from_secs(15);
const MECHANISMS: [Mechanism; 3] =
    [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512];

fn port(i: u16) -> u16 {
    Ports::KAFKA.kafka(0) + i
}

fn block_on<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(body)
}

fn options() -> Options {
    Options {
        brokers: Vec::new(),
        client_id: "kafka_broker".to_owned(),
        tls: None,
        sasl: None,
        tcp: TcpOptions { connect_timeout: LIMIT, keepalive: LIMIT, user_timeout: LIMIT },
        compression: Compression::None,
        request_timeout: LIMIT,
        retry_max: Duration::from_secs(1),
        metadata_max_age: LIMIT,
        topic: TopicOptions {
            create: false,
            partitions: 3,
            replication_factor: -1,
            config: BTreeMap::new(),
        },
    }
}

fn tls(ca: &str, client: bool) -> TlsOptions {
    let file = |name: &str| PathBuf::from(Kafka::certificates()).join(name);
    let client = client.then(|| (file("client.pem"), file("client.key")));
    TlsOptions { verify: Verify::Full, ca: Some(file(ca)), client }
}

fn sasl(mechanism: Mechanism, password: &str) -> Sasl {
    let password = SecretSource::Text(Secret::new(password.to_owned()));
    Sasl { mechanism, user: "sluice".to_owned(), password }
}

fn secure(tls: Option<TlsOptions>, sasl: Option<Sasl>) -> Options {
    Options { tls, sasl, ..options() }
}

async fn connect(listener: u16, options: &Options) -> Result<Broker, Error> {
    Broker::connect("127.0.0.1", port(listener), options).await
}

fn create() -> TopicOptions {
    TopicOptions { create: true, ..options().topic }
}

/// An error and all its causes.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn batch(producer: (i64, i16), base_sequence: i32, values: &[&str]) -> Arc<Vec<u8>> {
    batch_of(Some(b"key".to_vec()), producer, base_sequence, values)
}

fn batch_of(
    key: Option<Vec<u8>>,
    (producer_id, producer_epoch): (i64, i16),
    base_sequence: i32,
    values: &[&str],
) -> Arc<Vec<u8>> {
    let record = |(offset, value): (i32, &&str)| Record {
        timestamp_delta: 0,
        offset_delta: offset,
        key: key.clone(),
        value: Some(value.as_bytes().to_vec()),
        headers: Vec::new(),
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_millis()).unwrap();
    let batch = RecordBatch {
        base_offset: 0,
        partition_leader_epoch: -1,
        last_offset_delta: i32::try_from(values.len()).unwrap() - 1,
        first_timestamp: now,
        max_timestamp: now,
        producer_id,
        producer_epoch,
        base_sequence,
        records: ControlBatchOrRecords::Records((0..).zip(values).map(record).collect()),
        compression: RecordBatchCompression::NoCompression,
        is_transactional: false,
        timestamp_type: RecordBatchTimestampType::CreateTime,
    };
    let mut bytes = Vec::new();
    batch.write(&mut bytes).unwrap();
    Arc::new(bytes)
}

async fn produce(broker: &Broker, batches: Vec<(&str, i32, Arc<Vec<u8>>)>) -> Produced {
    let batches = batches.into_iter().map(|(topic, partition, records)| PartitionRecords {
        topic: Arc::from(topic),
        partition,
        records,
    });
    let timeout = Duration::from_secs(5);
    let request = Produce { transactional_id: None, timeout, batches: batches.collect() };
    broker.produce(request).await.unwrap()
}

fn codes(produced: &Produced) -> Vec<(i32, i16, i64)> {
    let mut codes: Vec<_> =
        produced.partitions.iter().map(|p| (p.partition, p.code, p.base_offset)).collect();
    codes.sort_unstable();
    codes
}

/// The producer id as soon as the coordinator has one.
async fn producer(broker: &Broker) -> (i64, i16) {
    loop {
        match broker.init_producer_id(InitProducerId::PLAIN).await {
            Ok(producer) => return producer,
            Err(error) if error.disposition() == Disposition::Retry => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{}", told(&error)),
        }
    }
}

#[test]
fn works_with_the_oldest_and_the_newest_kafka() {
    for version in ["3.9.2", "4.0.0", LATEST, "4.4.0"] {
        one_at_a_time(|| {
            let _kafka = Kafka::start("broker-versions", port(0), 1, &[], version);
            block_on(logins());
            block_on(records());
            block_on(fence::by_hand());
        });
    }
}

async fn logins() {
    let mut all = vec![(0, options()), (1, secure(Some(tls("ca.pem", false)), None))];
    all.push((1, secure(Some(tls("ca.pem", true)), None)));
    for mechanism in MECHANISMS {
        let login = sasl(mechanism, "sluice-secret");
        all.push((2, secure(None, Some(login.clone()))));
        all.push((3, secure(Some(tls("ca.pem", false)), Some(login))));
    }
    for (listener, options) in all {
        let broker = connect(listener, &options).await.unwrap_or_else(|e| panic!("{}", told(&e)));
        let metadata = broker.metadata(&[]).await.unwrap_or_else(|e| panic!("{}", told(&e)));
        let node = metadata.node(1).unwrap();
        assert_eq!((node.host.as_str(), node.port), ("127.0.0.1", port(listener)));
        assert_eq!(broker.renew_at(), None);
    }
}

async fn records() {
    let broker = connect(0, &options()).await.unwrap();
    let metadata = broker.metadata(&["users", "no.such"]).await.unwrap();
    assert!(metadata.cluster_id.is_some());
    assert_eq!(metadata.topic("users").map(|topic| topic.code), Some(3));
    let config = BTreeMap::from([("max.message.bytes".to_owned(), "2000".to_owned())]);
    let topic = topics::check(&broker, "users", &TopicOptions { config, ..create() }).await;
    let topic = topic.unwrap_or_else(|e| panic!("{}", told(&e)));
    assert_eq!((topic.partitions, topic.max_message_bytes), (3, 2000));
    assert_eq!((topic.min_insync_replicas, topic.compacted), (Some(1), false));
    assert!(topic.id.is_some());
    let again = topics::check(&broker, "users", &create()).await.unwrap();
    assert_eq!(again, topic);
    broker.create_topic("users", &create()).await.unwrap(); // is there already
    let compact = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
    let options = TopicOptions { config: compact, ..create() };
    assert!(topics::check(&broker, "a.compacted-topic", &options).await.unwrap().compacted);

    let id = producer(&broker).await;
    let first = batch(id, 0, &["a", "b"]);
    let batches = || {
        vec![
            ("users", 0, Arc::clone(&first)),
            ("a.compacted-topic", 2, batch(id, 0, &["c"])),
            ("users", 2, batch(id, 0, &["d"])),
        ]
    };
    // A broker may tell that it leads a new partition a moment before it does.
    let mut produced = produce(&broker, batches()).await;
    while produced.partitions.iter().any(|partition| partition.code == 6) {
        produced = produce(&broker, batches()).await;
    }
    assert_eq!(codes(&produced), [(0, 0, 0), (2, 0, 0), (2, 0, 0)]);
    // Sent again it is found, and sent later it is out of order.
    let produced = produce(&broker, batches()).await;
    assert_eq!(codes(&produced), [(0, 0, 0), (2, 0, 0), (2, 0, 0)]);
    let produced = produce(&broker, vec![("users", 0, batch(id, 9, &["e"]))]).await;
    assert_eq!(codes(&produced), [(0, 45, -1)]);
    let large = "x".repeat(3000);
    let batches = vec![("users", 0, batch(id, 2, &[&large])), ("users", 7, batch(id, 0, &["f"]))];
    let produced = produce(&broker, batches).await;
    assert_eq!(codes(&produced), [(0, 10, -1), (7, 3, -1)]);
    let batches = vec![("a.compacted-topic", 2, batch_of(None, id, 1, &["c"]))];
    let produced = produce(&broker, batches).await;
    assert_eq!(codes(&produced), [(2, 87, -1)]);
    let error = broker.refused(produced.partitions.first().unwrap());
    assert!(error.to_string().contains("record 0 of the batch"), "{error}");
    assert_eq!(error.disposition(), Disposition::Halt(Exit::Data));
    let mut broken = batch(id, 2, &["g"]).to_vec();
    *broken.last_mut().unwrap() ^= 1;
    let produced = produce(&broker, vec![("users", 0, broken.into())]).await;
    assert_eq!(codes(&produced), [(0, 2, -1)]);
}

#[test]
fn a_server_that_cannot_be_trusted_or_does_not_trust_us_halts_with_77() {
    let require = "listener.name.ssl.ssl.client.auth=required";
    let check = async |listener, options: Options, part: &str| {
        let attempt = async || match connect(listener, &options).await {
            Err(error) => error,
            Ok(broker) => broker.metadata(&[]).await.unwrap_err(),
        };
        let error = attempt().await;
        let told = told(&error);
        assert!(told.contains(part), "{told}");
        assert!(!told.contains("wrong-secret"), "{told}");
        assert_eq!(error.disposition(), Disposition::Halt(Exit::Permission), "{told}");
    };
    one_at_a_time(|| {
        let _kafka = Kafka::start("broker-trust", port(0), 1, &[require], LATEST);
        block_on(async {
            let ours = || Some(tls("ca.pem", false));
            check(1, secure(Some(tls("other-ca.pem", true)), None), "certificate").await;
            check(1, secure(ours(), None), "does it want a client certificate").await;
            who_only_writes_reads_why_it_cannot(&ours().unwrap()).await;
            connect(1, &secure(Some(tls("ca.pem", true)), None)).await.unwrap();
            let error = connect(0, &secure(ours(), None)).await.unwrap_err();
            assert!(told(&error).contains("does this listener speak it?"), "{}", told(&error));
            for mechanism in MECHANISMS {
                let wrong = Some(sasl(mechanism, "wrong-secret"));
                check(2, secure(None, wrong.clone()), "refused the login of sluice").await;
                check(3, secure(ours(), wrong), "refused the login of sluice").await;
                let login =
                    Sasl { user: "=no,body".to_owned(), ..sasl(mechanism, "sluice-secret") };
                check(2, secure(None, Some(login)), "refused the login of =no,body").await;
            }
        });
        block_on(plain_where_more_is_wanted());
    });
}

async fn who_only_writes_reads_why_it_cannot(tls: &TlsOptions) {
    let tcp = options().tcp;
    let mut stream = net::connect("127.0.0.1", port(1), &tcp, Some(tls)).await.unwrap();
    let error = tokio::time::timeout(LIMIT, async {
        loop {
            let written = stream.write_all(&[0; 4]).await;
            if let Err(error) = written.and(stream.flush().await) {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let error = error.await.unwrap();
    let said = error.get_ref().and_then(|said| said.downcast_ref::<rustls::Error>());
    let wanted = rustls::Error::AlertReceived(AlertDescription::BadCertificate);
    assert_eq!(said, Some(&wanted), "{error}");
}

/// That may be somebody else's mistake who restarts the broker, so it is waited for, with a hint.
async fn plain_where_more_is_wanted() {
    let error = connect(1, &options()).await.unwrap_err();
    assert!(told(&error).contains("does this listener want TLS?"), "{}", told(&error));
    let broker = connect(2, &options()).await.unwrap();
    let error = broker.metadata(&[]).await.unwrap_err();
    assert!(told(&error).contains("want a login (kafka.sasl)?"), "{}", told(&error));
    let error = connect(0, &secure(None, Some(sasl(Mechanism::Plain, "x")))).await.unwrap_err();
    assert!(told(&error).contains("offers no PLAIN"), "{}", told(&error));
    assert_eq!(error.disposition(), Disposition::Halt(Exit::Permission), "{}", told(&error));
}

#[test]
fn a_missing_topic_is_named_and_never_made_by_asking() {
    one_at_a_time(|| {
        let settings = ["auto.create.topics.enable=true", "connections.max.idle.ms=1500"];
        let kafka = Kafka::start("broker-topics", port(0), 1, &settings, LATEST);
        block_on(missing_topics());
        assert!(!kafka.topics("list", &[]).contains("no.such"));
        block_on(async {
            let broker = connect(0, &options()).await.unwrap();
            assert!(!broker.is_closed());
            tokio::time::timeout(LIMIT, broker.closed()).await.unwrap();
        });
    });
}

async fn missing_topics() {
    let broker = connect(0, &options()).await.unwrap();
    let error = topics::check(&broker, "no.such", &options().topic).await.unwrap_err();
    let command =
        format!("--bootstrap-server 127.0.0.1:{} --create --topic no.such --partitions 3", port(0));
    assert!(told(&error).contains(&command), "{}", told(&error));
    assert_eq!(error.disposition(), Disposition::Halt(Exit::Unavailable));
    let error = topics::check(&broker, "größe", &create()).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Halt(Exit::Config));
    let config = BTreeMap::from([("no.such.setting".to_owned(), "1".to_owned())]);
    let wrong = TopicOptions { config, ..create() };
    let error = topics::check(&broker, "no.such", &wrong).await.unwrap_err();
    assert_eq!(error.code(), Some(40), "{}", told(&error));
    assert_eq!(error.disposition(), Disposition::Halt(Exit::Config), "{}", told(&error));
    let wrong = TopicOptions { replication_factor: 3, ..create() };
    let error = topics::check(&broker, "no.such", &wrong).await.unwrap_err();
    assert_eq!(error.code(), Some(38), "{}", told(&error));
    assert_eq!(error.disposition(), Disposition::Halt(Exit::Config), "{}", told(&error));
    let wrong = TopicOptions { partitions: 0, ..create() };
    let error = topics::check(&broker, "no.such", &wrong).await.unwrap_err();
    assert_eq!(error.code(), Some(37), "{}", told(&error));
    let produced = produce(&broker, vec![("no.such", 0, batch((-1, -1), -1, &["a"]))]).await;
    assert_eq!(codes(&produced), [(0, 3, -1)]);
}

#[test]
fn a_refusal_by_acl_is_named_with_the_command_that_allows_it() {
    one_at_a_time(|| {
        let settings = [
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:ANONYMOUS",
            "connections.max.reauth.ms=3000",
        ];
        let kafka = Kafka::start("broker-acls", port(0), 1, &settings, LATEST);
        kafka.topic("users", 1);
        block_on(refusals());
        block_on(expiry());
    });
}

async fn refusals() {
    let login = Some(sasl(Mechanism::ScramSha256, "sluice-secret"));
    let broker = connect(2, &secure(None, login)).await.unwrap();
    let halts = |error: Error, part: &str| {
        let told = told(&error);
        assert!(told.contains(part), "{told}");
        assert_eq!(error.disposition(), Disposition::Halt(Exit::Permission), "{told}");
    };
    let error = topics::check(&broker, "users", &options().topic).await.unwrap_err();
    halts(error, "--allow-principal User:sluice --operation Describe --topic users");
    // A topic that may not be seen looks the same whether it is there or not.
    let error = topics::check(&broker, "no.such", &create()).await.unwrap_err();
    halts(error, "--operation Describe --topic no.such");
    let error = broker.create_topic("no.such", &create()).await.unwrap_err();
    halts(error, "--operation Create --topic no.such");
    halts(
        broker.init_producer_id(InitProducerId::PLAIN).await.unwrap_err(),
        "--operation IdempotentWrite --cluster",
    );
    fence::refusals(&broker, halts).await;
    assert_eq!(broker.topic_configs("users").await.unwrap(), None);
    let produced = produce(&broker, vec![("users", 0, batch((-1, -1), -1, &["a"]))]).await;
    assert_eq!(codes(&produced), [(0, 29, -1)]);
}

async fn expiry() {
    let login = Some(sasl(Mechanism::ScramSha512, "sluice-secret"));
    let begin = tokio::time::Instant::now();
    let broker = connect(2, &secure(None, login)).await.unwrap();
    let renewal = broker.renew_at().unwrap();
    assert!(renewal > begin && renewal < begin + Duration::from_secs(3));
    tokio::time::sleep_until(renewal).await;
    broker.metadata(&[]).await.unwrap();
    tokio::time::sleep_until(begin + Duration::from_secs(4)).await;
    let error = broker.metadata(&[]).await.unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{}", told(&error));
    assert_eq!(error.disposition(), Disposition::Retry);
}

#[test]
fn a_cluster_tells_leaders_and_a_frozen_broker_costs_its_limit() {
    one_at_a_time(|| {
        let settings = ["min.insync.replicas=3", "broker.session.timeout.ms=3000"];
        let kafka = Kafka::start("broker-three", port(0), 3, &settings, LATEST);
        block_on(async {
            let broker = connect(0, &options()).await.unwrap();
            let topic = topics::check(&broker, "users", &create()).await.unwrap();
            assert_eq!((topic.partitions, topic.min_insync_replicas), (3, Some(3)));
            let metadata = broker.metadata(&["users"]).await.unwrap();
            let partition = metadata.topic("users").unwrap().partition(0).unwrap();
            assert_eq!((partition.replicas.len(), partition.isr.len()), (3, 3));
        });
        kafka.ctl("3", "pause");
        let short = Options { request_timeout: Duration::from_millis(700), ..options() };
        block_on(async {
            let error = connect(20, &short).await.unwrap_err();
            assert!(told(&error).contains("did not answer ApiVersions"), "{}", told(&error));
            assert_eq!(error.disposition(), Disposition::Retry);
        });
        eventually(LIMIT * 2, "broker 3 is out of every ISR", || block_on(two_are_too_few()));
        kafka.ctl("3", "resume");
    });
}

/// Whether a partition whose leader is left refuses a batch as long as one of three is away.
async fn two_are_too_few() -> bool {
    let broker = connect(0, &options()).await.unwrap();
    let metadata = broker.metadata(&["users"]).await.unwrap();
    let topic = metadata.topic("users").unwrap();
    // Two are left, or one, if the new controller knew none at first and let the leaders begin alone.
    let few = |isr: &[i32]| !isr.is_empty() && !isr.contains(&3);
    let led = topic.partitions.iter().find(|p| p.leader.is_some() && few(&p.isr));
    let Some(partition) = led else { return false };
    let leader = metadata.node(partition.leader.unwrap()).unwrap();
    let leader = Broker::connect(&leader.host, leader.port, &options()).await.unwrap();
    let records = batch((-1, -1), -1, &["a"]);
    let produced = produce(&leader, vec![("users", partition.index, records)]).await;
    codes(&produced) == [(partition.index, 19, -1)]
}

#[test]
fn a_port_where_nobody_listens_is_waited_for() {
    block_on(async {
        let error = Broker::connect("127.0.0.1", 1, &options()).await.unwrap_err();
        assert!(
            matches!(error, Error::Connect { source: net::Error::Connect { .. }, .. }),
            "{error}"
        );
        assert_eq!(error.disposition(), Disposition::Retry);
    });
}
