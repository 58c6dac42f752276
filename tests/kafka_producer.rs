//! The producer by itself against real brokers: everything arrives once and in order, whatever
//! happens to them.

#![allow(clippy::unwrap_used, reason = "clippy knows only functions with #[test] as tests")]

mod support;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use pgsluice::{
    batch::{Batcher, Limits, Stamp, TopicId},
    lease::Lease,
    lsn::Lsn,
    net::{Secret, SecretSource, TcpOptions},
    progress::Ledger,
    retry::{Disposition, Exit},
    sink::kafka::{
        Compression, Error, Mechanism, Options, Producer, Sasl, TopicOptions,
        producer::{Claim, ReadBack, Taken},
    },
};
use support::{
    Kafka, Ports, Proxy,
    kafka::{LATEST, one_at_a_time},
    soak,
};

type Fault = fn(&Kafka);

const LIMIT: Duration = Duration::from_secs(60);
const PARTITIONS: u32 = 6;
const IN_FLIGHT: usize = 8 << 20;

fn port(i: u16) -> u16 {
    Ports::KAFKA.kafka(0) + i
}

fn options(brokers: &str) -> Options {
    let brokers = brokers.split(',').map(|broker| {
        let (host, port) = broker.rsplit_once(':').unwrap();
        (host.to_owned(), port.parse().unwrap())
    });
    Options {
        brokers: brokers.collect(),
        client_id: "kafka_producer".to_owned(),
        tls: None,
        sasl: None,
        tcp: TcpOptions {
            connect_timeout: Duration::from_secs(3),
            keepalive: LIMIT,
            user_timeout: LIMIT,
        },
        compression: Compression::None,
        request_timeout: Duration::from_secs(5),
        retry_max: Duration::from_secs(1),
        metadata_max_age: Duration::from_secs(30),
        topic: TopicOptions {
            create: false,
            partitions: 1,
            replication_factor: -1,
            config: BTreeMap::new(),
        },
    }
}

/// What the pipeline does: numbers the records of each partition, keeps count, and takes the topic
/// anew when the producer is in doubt.
struct Source {
    name: String,
    producer: Producer,
    batcher: Batcher,
    ledger: Ledger,
    topic: TopicId,
    sent: Vec<u64>,
    /// Of each record sent, by partition.
    sizes: Vec<Vec<usize>>,
    doubts: u32,
    delivered: u64,
    /// After every hundred records.
    pause: Duration,
    /// In transactional mode; a thousand records are committed together then.
    transaction_timeout: Option<Duration>,
}

impl Source {
    async fn new(options: Options, topic: &str, max_bytes: usize) -> Self {
        Self::with(options, topic, max_bytes, None).await
    }

    async fn with(
        options: Options,
        topic: &str,
        max_bytes: usize,
        transaction_timeout: Option<Duration>,
    ) -> Self {
        let mut producer = connect(options).await;
        let found = producer.topic(topic).await.unwrap().topic;
        assert_eq!(found.partitions, PARTITIONS);
        let name = topic.to_owned();
        let limits = Limits {
            max_bytes,
            max_records: 10_000,
            linger: Duration::from_millis(1),
            in_flight: IN_FLIGHT,
        };
        let mut batcher = Batcher::new(limits);
        let topic = batcher.topic(Arc::from(topic), PARTITIONS, usize::MAX);
        let sent = vec![0; PARTITIONS as usize];
        let sizes = vec![Vec::new(); PARTITIONS as usize];
        let ledger = Ledger::new(Lsn::ZERO);
        let (doubts, delivered, pause) = (0, 0, Duration::ZERO);
        let mut source = Self {
            name,
            producer,
            batcher,
            ledger,
            topic,
            sent,
            sizes,
            doubts,
            delivered,
            pause,
            transaction_timeout,
        };
        assert!(source.take().await.stored.is_empty());
        source
    }

    async fn take(&mut self) -> Taken {
        let read_back =
            ReadBack { source: 7, from: Lsn::ZERO, max_bytes: 1 << 30, memory: 64 << 20 };
        let transactional_id = Some(Arc::from(format!("test-{}", self.name)));
        let lease = Lease::new(Duration::ZERO);
        let (source, read_back) = (Some(7), Some(read_back));
        let transaction_timeout = self.transaction_timeout;
        let claim = Claim { transactional_id, transaction_timeout, source, read_back, lease };
        let taken = tokio::time::timeout(LIMIT, self.producer.take(claim)).await;
        taken.expect("the topic could not be taken").unwrap()
    }

    /// Shuts out what is under way, and sends again what is not stored.
    async fn take_anew(&mut self) {
        self.doubts += 1;
        let taken = self.take().await;
        assert_eq!(taken.read.cut, 0);
        self.batcher.flush_all();
        while self.batcher.closed().is_some() {}
        self.delivered = taken.stored.len();
        for (partition, sizes) in (0..).zip(self.sizes.clone()) {
            for (number, size) in (0..).zip(sizes) {
                if !taken.stored.contains(1, Lsn::new(number), partition, None) {
                    self.put(partition, number, size);
                }
            }
        }
        self.commit();
    }

    /// Sends records of `size` bytes to the partitions in turn, until `enough` says so.
    async fn run(&mut self, size: usize, mut enough: impl FnMut(u64) -> bool) {
        let mut count = 0;
        while !enough(count) {
            for _ in 0..100 {
                self.append(u32::try_from(count % u64::from(PARTITIONS)).unwrap(), size);
                count += 1;
            }
            self.batcher.flush_due(Instant::now());
            self.submit();
            if count % 1000 == 0 {
                self.commit();
            }
            while self.producer.in_flight() > IN_FLIGHT {
                self.settle().await;
            }
            tokio::time::sleep(self.pause).await;
        }
    }

    /// Awaits what is under way.
    async fn finish(&mut self) {
        self.commit();
        while self.delivered < self.sent.iter().sum() {
            self.settle().await;
        }
        assert_eq!(self.producer.in_flight(), 0);
        assert_eq!(self.producer.trouble(), None);
    }

    fn append(&mut self, partition: u32, size: usize) {
        let next = &mut self.sent[partition as usize];
        let number = *next;
        *next += 1;
        self.sizes[partition as usize].push(size);
        self.put(partition, number, size);
    }

    fn put(&mut self, partition: u32, number: u64, size: usize) {
        let id = format!("{:016x}-{:08x}-{number:016x}-{partition:08x}", 7, 1);
        // Lengths in a record are zigzag: twice what they are.
        let header = [&[4], b"id".as_slice(), &[102], id.as_bytes()].concat();
        let number = number.to_string();
        let stamp = Stamp { timestamp_ms: now_ms(), committed_at: 0, now: Instant::now() };
        let ticket = self.ledger.begin();
        self.batcher
            .append(self.topic, partition, stamp, ticket, |record| {
                record.key(Some(number.as_bytes()));
                // Neither constant nor random: codecs find something, but not everything.
                let letters = (0..size).map(|i| b'a' + u8::try_from(i * i % 23).unwrap());
                record.value_with(|out| {
                    out.extend(letters);
                    Ok::<_, Infallible>(())
                })?;
                record.headers(1, &header);
                Ok::<_, Infallible>(())
            })
            .unwrap();
    }

    fn submit(&mut self) {
        while let Some(batch) = self.batcher.closed() {
            self.producer.submit(batch);
        }
    }

    /// Without transactions only what is open goes out.
    fn commit(&mut self) {
        if self.transaction_timeout.is_some() || self.batcher.bytes() > 0 {
            self.batcher.flush_all();
            self.submit();
            self.producer.commit();
        }
    }

    async fn settle(&mut self) {
        let delivered = tokio::time::timeout(LIMIT, self.producer.delivered()).await;
        let delivery = match delivered {
            Ok(Ok(delivery)) => delivery,
            Ok(Err(Error::Doubt { .. })) => return Box::pin(self.take_anew()).await,
            Ok(Err(error)) => panic!("{error}"),
            Err(_) => panic!("nothing was stored: {:?}", self.producer.trouble()),
        };
        self.delivered += u64::from(delivery.batch.records);
        self.batcher.recycle(delivery.batch.bytes, delivery.batch.tickets);
    }

    /// Each partition holds what it was sent: in order, and each record once.
    fn check(&self, kafka: &Kafka, topic: &str) {
        let mut next = vec![0_u64; PARTITIONS as usize];
        for record in kafka.dump(topic) {
            let place = usize::try_from(record.partition).unwrap();
            let number: u64 = record.key.as_deref().unwrap().parse().unwrap();
            assert_eq!(number, next[place], "partition {place}, after {} doubts", self.doubts);
            next[place] = number + 1;
        }
        assert_eq!(next, self.sent);
    }
}

/// A cluster that has just been started may not answer yet.
async fn connect(options: Options) -> Producer {
    let begin = Instant::now();
    loop {
        match Producer::connect(options.clone()).await {
            Ok(producer) => return producer,
            Err(error) if error.disposition() == Disposition::Retry => {
                assert!(begin.elapsed() < LIMIT, "{error}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Waits until a topic holds so many records, committed or not, while the producer works.
async fn wait_sent(kafka: &Arc<Kafka>, topic: &'static str, count: usize) {
    let begin = Instant::now();
    loop {
        let kafka = Arc::clone(kafka);
        let looked = tokio::task::spawn_blocking(move || kafka.dump_uncommitted(topic).len());
        if looked.await.unwrap() >= count {
            return;
        }
        assert!(begin.elapsed() < LIMIT, "they never come");
    }
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

fn block_on<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(body)
}

/// Does `fault` to the cluster while records are sent, and goes on for a second after it.
fn under_load(topic: &str, options: Options, fault: impl FnOnce() + Send) -> Source {
    under_load_with(topic, options, None, fault)
}

fn under_load_with(
    topic: &str,
    options: Options,
    transaction_timeout: Option<Duration>,
    fault: impl FnOnce() + Send,
) -> Source {
    std::thread::scope(|scope| {
        block_on(async {
            let mut source = Source::with(options, topic, 20_000, transaction_timeout).await;
            source.pause = Duration::from_millis(10); // a steady load: the fault is what counts
            let doing = scope.spawn(fault);
            let mut over = None;
            let enough = |_| {
                if over.is_none() && doing.is_finished() {
                    over = Some(Instant::now());
                }
                over.is_some_and(|at| at.elapsed() > Duration::from_secs(1))
            };
            source.run(200, enough).await;
            source.finish().await;
            source
        })
    })
}

#[test]
fn stores_200_000_records_once_and_in_order_with_every_codec() {
    one_at_a_time(|| {
        for version in ["3.9.2", LATEST, "4.4.0"] {
            let kafka = Kafka::start("producer", port(0), 1, &[], version);
            for compression in
                [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4]
            {
                let topic = format!("{compression:?}").to_lowercase();
                kafka.topic(&topic, PARTITIONS);
                let count = if compression == Compression::None { 200_000 } else { 20_000 };
                let source = block_on(async {
                    let options = Options { compression, ..options(kafka.brokers()) };
                    let mut source = Source::new(options, &topic, 100_000).await;
                    source.run(100, |sent| sent >= count).await;
                    source.finish().await;
                    // And all of it can be read back, but nothing of others.
                    let taken = source.take().await;
                    assert_eq!(taken.stored.len(), source.sent.iter().sum::<u64>());
                    source
                });
                source.check(&kafka, &topic);
            }
        }
    });
}

#[test]
fn a_batch_over_the_topics_limit_goes_in_parts_and_a_record_over_it_halts() {
    one_at_a_time(|| {
        let kafka = Kafka::start("producer", port(0), 1, &[], LATEST);
        kafka.topic_with("small", PARTITIONS, &["max.message.bytes=5000"]);
        block_on(async {
            let mut source = Source::new(options(kafka.brokers()), "small", 100_000).await;
            source.run(100, |sent| sent >= 10_000).await;
            source.finish().await;
            source.check(&kafka, "small");
            // The limit that is known is no longer the limit: the broker says so.
            kafka.topics("alter", &["small", "max.message.bytes=1000"]);
            source.run(100, |sent| sent >= 10_000).await;
            source.finish().await;
            source.check(&kafka, "small");
            source.append(3, 2000);
            source.batcher.flush_all();
            source.submit();
            let error = loop {
                if let Err(error) = source.producer.delivered().await {
                    break error;
                }
            };
            assert!(
                matches!(&error, Error::TooLarge { topic, partition: Some(3), bytes: 2000.., .. }
                    if &**topic == "small"),
                "{error:?}"
            );
            assert_eq!(error.disposition(), Disposition::Halt(Exit::Data));
            source.producer.close().await;
        });
    });
}

#[test]
fn brokers_stopped_killed_and_paused_lose_nothing() {
    one_at_a_time(|| {
        let quick = ["broker.session.timeout.ms=3000"];
        let kafka = Kafka::start("producer", port(0), 3, &quick, LATEST);
        let faults: [(&str, Fault); 3] = [
            ("stopped", |kafka| {
                kafka.ctl("2", "stop");
                kafka.ctl("2", "start");
            }),
            ("killed", |kafka| {
                kafka.ctl("3", "kill");
                std::thread::sleep(Duration::from_secs(5));
                kafka.ctl("3", "start");
            }),
            ("paused", |kafka| {
                kafka.ctl("1", "pause");
                std::thread::sleep(Duration::from_secs(12));
                kafka.ctl("1", "resume");
            }),
        ];
        for (topic, fault) in faults {
            kafka.topic(topic, PARTITIONS);
            let source = under_load(topic, options(kafka.brokers()), || fault(&kafka));
            // The other replicas remember enough for the broker to know a resend.
            source.check(&kafka, topic);
        }
    });
}

#[test]
fn a_single_broker_restarted_loses_nothing() {
    one_at_a_time(|| {
        let kafka = Kafka::start("producer", port(0), 1, &[], LATEST);
        kafka.topic("restarted", PARTITIONS);
        let source = under_load("restarted", options(kafka.brokers()), || {
            for verb in ["kill", "start", "stop", "start"] {
                kafka.ctl("1", verb);
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        // It knows each producer's last batch only: what came of the others was read back.
        source.check(&kafka, "restarted");
    });
}

#[test]
fn answers_lost_on_the_way_repeat_nothing() {
    one_at_a_time(|| {
        let proxied = format!("proxied={}", Ports::KAFKA.proxy(0));
        let kafka = Kafka::start("producer", port(0), 1, &[&proxied], LATEST);
        let proxy = Proxy::start(Ports::KAFKA.proxy(0), &format!("127.0.0.1:{}", port(5)));
        kafka.topic("cut", PARTITIONS);
        let options = options(kafka.listener("proxied"));
        let source = under_load("cut", options, || {
            for _ in 0..30 {
                std::thread::sleep(Duration::from_millis(100));
                proxy.cut_once();
            }
        });
        source.check(&kafka, "cut");
        assert!(proxy.accepted() > 10);
    });
}

#[test]
fn logins_are_renewed_before_they_end_and_idle_connections_made_again() {
    one_at_a_time(|| {
        let short = ["connections.max.reauth.ms=3000", "connections.max.idle.ms=2000"];
        let kafka = Kafka::start("producer", port(0), 1, &short, LATEST);
        let sasl = Sasl {
            mechanism: Mechanism::ScramSha256,
            user: "sluice".to_owned(),
            password: SecretSource::Text(Secret::new("sluice-secret".to_owned())),
        };
        let options = Options { sasl: Some(sasl), ..options(kafka.listener("sasl_plaintext")) };
        let renewed = async |timeout| {
            kafka.topic("renewed", PARTITIONS);
            let mut source = Source::with(options.clone(), "renewed", 20_000, timeout).await;
            let begin = Instant::now();
            source.run(200, |_| begin.elapsed() > Duration::from_secs(8)).await;
            source.finish().await;
            tokio::time::sleep(Duration::from_secs(6)).await;
            assert_eq!(source.producer.trouble(), None);
            source.run(200, |sent| sent >= 1000).await;
            source.finish().await;
            source.check(&kafka, "renewed");
            assert_eq!(source.doubts, 0);
        };
        block_on(async {
            renewed(None).await;
            renewed(Some(LIMIT)).await;
        });
    });
}

/// In transactions: what brokers and the network do to them repeats nothing and loses nothing.
#[test]
fn transactions_are_stored_once_and_in_order_whatever_happens() {
    one_at_a_time(|| {
        for version in ["3.9.2", "4.4.0"] {
            let proxied = format!("proxied={}", Ports::KAFKA.proxy(0));
            let kafka = Kafka::start("producer", port(0), 1, &[&proxied], version);
            let proxy = Proxy::start(Ports::KAFKA.proxy(0), &format!("127.0.0.1:{}", port(5)));
            kafka.topic("plain", PARTITIONS);
            let timeout = Some(Duration::from_secs(60));
            let options = options(kafka.listener("proxied"));
            let source = block_on(async {
                let mut source = Source::with(options.clone(), "plain", 20_000, timeout).await;
                source.run(100, |sent| sent >= 50_000).await;
                source.finish().await;
                assert_eq!(source.doubts, 0, "on {version}");
                let taken = source.take().await;
                assert_eq!(taken.stored.len(), source.sent.iter().sum::<u64>());
                source
            });
            source.check(&kafka, "plain");
            kafka.topic("cut", PARTITIONS);
            let source = under_load_with("cut", options, timeout, || {
                for round in 0..20 {
                    std::thread::sleep(Duration::from_millis(150));
                    proxy.cut_once();
                    if round == 10 {
                        kafka.ctl("1", "kill");
                        kafka.ctl("1", "start");
                    }
                }
            });
            source.check(&kafka, "cut");
        }
    });
}

/// The broker answers as if a successor had come: what was open is read back as not stored, and sent again.
#[test]
fn a_transaction_that_outlives_its_timeout_is_aborted_and_sent_again() {
    one_at_a_time(|| {
        let often = ["transaction.abort.timed.out.transaction.cleanup.interval.ms=200"];
        let versions: &[&str] = if soak() { &["3.9.2", LATEST, "4.4.0"] } else { &["4.4.0"] };
        for version in versions {
            let kafka = Arc::new(Kafka::start("producer", port(0), 1, &often, version));
            kafka.topic("late", PARTITIONS);
            let source = block_on(async {
                let timeout = Some(Duration::from_secs(1));
                let options = options(kafka.brokers());
                let mut source = Source::with(options, "late", 20_000, timeout).await;
                source.run(100, |sent| sent >= 2_000).await;
                source.finish().await;
                let before = source.sent.iter().sum::<u64>();
                (0..300).for_each(|_| source.append(1, 100));
                source.batcher.flush_all();
                source.submit();
                // Until the records are there, and then until the coordinator has ended it.
                wait_sent(&kafka, "late", before as usize + 300).await;
                assert_eq!(kafka.dump("late").len() as u64, before);
                let begin = Instant::now();
                while source.doubts == 0 {
                    assert!(begin.elapsed() < LIMIT, "the transaction was never aborted");
                    source.append(1, 100);
                    source.batcher.flush_all();
                    source.submit();
                    let settled = Box::pin(source.settle());
                    let _ = tokio::time::timeout(Duration::from_millis(200), settled).await;
                }
                source.finish().await;
                source
            });
            source.check(&kafka, "late");
            let aborted = kafka.dump_uncommitted("late").len() - kafka.dump("late").len();
            assert!(aborted >= 300, "{aborted}");
        }
    });
}

/// Whoever is shut out in the midst of a transaction commits nothing of it.
#[test]
fn a_zombie_is_shut_out_of_its_open_transaction() {
    one_at_a_time(|| {
        for version in ["3.9.2", "4.4.0"] {
            let kafka = Arc::new(Kafka::start("producer", port(0), 1, &[], version));
            kafka.topic("shared", PARTITIONS);
            block_on(async {
                let timeout = Some(Duration::from_secs(60));
                let options = options(kafka.brokers());
                let mut zombie = Source::with(options.clone(), "shared", 20_000, timeout).await;
                (0..10).for_each(|number| zombie.append(number % 3, 100));
                zombie.batcher.flush_all();
                zombie.submit();
                wait_sent(&kafka, "shared", 10).await;
                for mode in [timeout, None] {
                    let mut source = Source::with(options.clone(), "shared", 20_000, mode).await;
                    // Also in partitions that it has never written to.
                    zombie.append(5, 100);
                    zombie.batcher.flush_all();
                    zombie.submit();
                    zombie.producer.commit();
                    let told = tokio::time::timeout(LIMIT, zombie.producer.delivered()).await;
                    let error = told.expect("it is told").unwrap_err();
                    assert!(matches!(error, Error::Doubt { .. }), "{error}");
                    source.run(100, |sent| sent >= 1_000).await;
                    source.finish().await;
                    source.check(&kafka, "shared");
                    assert_eq!(source.doubts, 0);
                    kafka.topics("empty", &["shared"]);
                    // It takes its turn, and is shut out again.
                    zombie.take().await;
                    zombie.append(0, 100);
                    zombie.batcher.flush_all();
                    zombie.submit();
                    wait_sent(&kafka, "shared", 1).await;
                    assert_eq!(kafka.dump("shared"), []);
                }
            });
        }
    });
}

/// Who has transactions writes under another transactional id, and shuts out whoever has none all the same.
#[test]
fn a_zombie_without_transactions_is_shut_out_by_one_that_has_them() {
    one_at_a_time(|| {
        let kafka = Arc::new(Kafka::start("producer", port(0), 1, &[], LATEST));
        kafka.topic("plain", PARTITIONS);
        block_on(async {
            let options = options(kafka.brokers());
            let mut zombie = Source::with(options.clone(), "plain", 20_000, None).await;
            (0..10).for_each(|number| zombie.append(number % 3, 100));
            zombie.batcher.flush_all();
            zombie.submit();
            wait_sent(&kafka, "plain", 10).await;
            kafka.topics("empty", &["plain"]);
            let timeout = Some(Duration::from_secs(60));
            let _source = Source::with(options, "plain", 20_000, timeout).await;
            // Where it has written, and where it has not.
            [0, 5].into_iter().for_each(|partition| zombie.append(partition, 100));
            zombie.batcher.flush_all();
            zombie.submit();
            let told = async {
                loop {
                    if let Err(error) = zombie.producer.delivered().await {
                        break error;
                    }
                }
            };
            let error = tokio::time::timeout(LIMIT, told).await.expect("it is told");
            assert!(matches!(error, Error::Doubt { .. }), "{error}");
            assert_eq!(kafka.dump_uncommitted("plain"), []);
        });
    });
}
