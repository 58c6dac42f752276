//! What a history stands on: how a process is configured, its sockets and clocks, and an eye on what it
//! sends.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use pgsluice::{
    app, config,
    pg::connect::Host,
    pipeline,
    sim::{Bug, Hooks, install},
};
use tokio::time::Instant;

use super::{
    kafka::{self, Cluster},
    net::{Net, Watch},
    oracle::{Oracle, Promise},
    plan::Transactions,
    postgres::{Server, walsender},
    trace::Trace,
};

/// As `who` is configured.
pub fn options(who: char, transactions: Option<Transactions>) -> app::Options {
    static OPTIONS: OnceLock<app::Options> = OnceLock::new();
    let options = OPTIONS.get_or_init(|| {
        let set = [
            ("postgres.host", "pg1"),
            ("postgres.user", "cdc"),
            ("postgres.database", "cdc"),
            ("postgres.wal_sender_timeout", "6s"),
            ("postgres.status_interval", "2s"),
            ("postgres.retry_max", "1s"),
            ("postgres.connect_timeout", "4s"),
            ("publication.name", "cdc"),
            ("slot.name", "cdc"),
            ("slot.check_interval", "2s"),
            // What goes on beside the stream is not modelled.
            ("slot.heartbeat", "0s"),
            ("slot.health_interval", "0s"),
            ("kafka.brokers", "kafka0:9092"),
            ("kafka.request_timeout", "5s"),
            ("kafka.connect_timeout", "4s"),
            ("kafka.retry_max", "1s"),
            ("topic.unlisted", "route"),
            ("topic.create", "true"),
            ("admin.listen", ""),
        ];
        let set = set.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let sources = config::Sources { set, ..config::Sources::default() };
        config::load(&sources, config::Purpose::Run).expect("it is a configuration").app
    });
    let mut options = options.clone();
    // As it is by itself with several hosts.
    options.postgres.target = pgsluice::pg::connect::TargetSession::Primary;
    options.postgres.hosts =
        (1..=2).map(|host| Host::Tcp(format!("{who}.pg{host}"), 5432)).collect();
    options.kafka.brokers =
        (0..3).map(|broker| (format!("{who}.{}", kafka::name(broker)), 9092)).collect();
    options.once.transactions = transactions.map(|one| pipeline::Transactions {
        interval: Duration::from_millis(one.interval),
        max_bytes: one.max_bytes,
        max_time: Duration::from_millis(one.max_time),
    });
    options.ha.lock = false; // the model has none: whoever waits polls
    assert_eq!(options.postgres.wal_sender_timeout, walsender::TIMEOUT);
    options
}

/// In a world with nothing in it but the two servers.
pub fn with_servers<T>(body: impl AsyncFnOnce(Server, Cluster) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let done = runtime.block_on(async {
        let trace = Trace::new(false);
        let net = Net::new(1, trace.clone(), Arc::new(|_, _, _| {}));
        hooks(&net, &Arc::default(), None);
        let oracle = Oracle::new(trace.clone(), Promise::default());
        let kafka = Cluster::new(1, &TOPICS, net.clone(), trace.clone(), oracle.clone());
        let done = body(Server::new(1, false, net.clone(), trace, oracle), kafka).await;
        net.end();
        done
    });
    install(None);
    done
}

/// Each with its partitions.
pub const TOPICS: [(&str, usize); 2] = [("public.accounts", 2), ("public.notes", 1)];

/// Puts the processes of this thread into that world.
pub fn hooks(net: &Net, jump: &Arc<AtomicI64>, bug: Option<Bug>) {
    let begin = Instant::now();
    let (dial, jumped) = (net.clone(), Arc::clone(jump));
    install(Some(Hooks {
        dial: Arc::new(move |host, _| dial.dial(host)),
        unix: Arc::new(move || {
            let jumped = 1_800_000_000 + jumped.load(Ordering::Relaxed);
            Duration::from_secs(jumped.unsigned_abs()) + begin.elapsed()
        }),
        boot: Arc::new(move || Duration::from_secs(1000) + begin.elapsed()),
        bug,
    }));
}

/// Who has told PostgreSQL nothing for `wal_sender_timeout` sends no batch until a stream is begun anew.
pub fn watch_leases(trace: Trace) -> Watch {
    // When each gave its last sign of life, and whether it was silent for too long.
    let told = Mutex::new(BTreeMap::<char, (Instant, bool)>::new());
    Arc::new(move |who, server, bytes| {
        let now = Instant::now();
        let mut told = told.lock().unwrap();
        if server.starts_with("pg") {
            let start =
                bytes.first() == Some(&b'Q') && bytes.windows(5).any(|part| part == b"START");
            let (last, over) = told.get(&who).copied().unwrap_or((now, false));
            if start {
                told.insert(who, (now, false));
            } else if bytes.first() == Some(&b'd') {
                told.insert(who, (now, over || now - last > walsender::TIMEOUT));
            }
            return;
        }
        let what = match bytes {
            [_, _, _, _, 0, 0, ..] => "sends a batch",
            // A transaction with data, and to be committed.
            [_, _, _, _, 0, 26, .., 1, 0] if bytes.windows(3).any(|part| part == b"-tx") => {
                "ends a transaction"
            }
            _ => return,
        };
        trace.checked();
        let (last, over) = told.get(&who).copied().unwrap_or((now, false));
        if over || now - last > walsender::TIMEOUT {
            let time = (now - last).as_millis();
            trace.broken(format_args!("{who} {what} {time} ms after its last sign of life"));
        }
    })
}
