//! One history: a world of its own in a thread of its own, from the first connection until everything
//! that was committed is stored.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use pgsluice::{
    app::{self, chain},
    config,
    pg::connect::Host,
    sim::{Bug, Gate, Hooks, gated, install},
    status::Status,
};
use tokio::{
    sync::watch,
    task::spawn_local,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    chance::{Chance, seed_system},
    kafka::{self, Cluster},
    net::Net,
    oracle::Oracle,
    plan::{Fault, Kind, Plan},
    postgres::{Change, Server, TABLES, walsender},
    trace::{Told, Trace},
};

/// After the last fault everything must be stored within this.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a history came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub told: Told,
    pub rows: usize,
}

impl Outcome {
    pub fn broken(&self) -> Option<&str> {
        self.told.broken.as_deref()
    }
}

/// Runs a history; `keep`: what happened in words as well.
pub fn run(plan: &Plan, bug: Option<Bug>, keep: bool) -> Outcome {
    options('a'); // what is made only once draws nothing in a history
    let plan = plan.clone();
    let thread = std::thread::Builder::new().stack_size(4 << 20);
    let history = move || {
        seed_system(plan.seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let outcome = tokio::task::LocalSet::new().block_on(&runtime, history(plan, bug, keep));
        drop(runtime);
        install(None);
        outcome
    };
    match thread.spawn(history).unwrap().join() {
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let broken = Some(format!("a panic: {}", text.unwrap_or_default()));
            Outcome { told: Told { broken, ..Told::default() }, rows: 0 }
        }
    }
}

/// As `who` is configured.
pub fn options(who: char) -> app::Options {
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
            ("admin.listen", ""),
        ];
        let set = set.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let sources = config::Sources { set, ..config::Sources::default() };
        config::load(&sources, config::Purpose::Run).expect("it is a configuration").app
    });
    let mut options = options.clone();
    options.postgres.hosts =
        (1..=2).map(|host| Host::Tcp(format!("{who}.pg{host}"), 5432)).collect();
    options.kafka.brokers =
        (0..3).map(|broker| (format!("{who}.{}", kafka::name(broker)), 9092)).collect();
    options.ha.lock = false; // the model has none: whoever waits polls
    assert_eq!(options.postgres.wal_sender_timeout, walsender::TIMEOUT);
    options
}

/// In a world with nothing in it but Kafka.
pub fn with_kafka<T>(body: impl AsyncFnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let done = runtime.block_on(async {
        let trace = Trace::new(false);
        let net = Net::new(1, trace.clone(), Arc::new(|_, _, _| {}));
        hooks(&net, &Arc::default(), None);
        let _kafka = Cluster::new(1, &TOPICS, net, trace.clone(), Oracle::new(trace));
        body().await
    });
    install(None);
    done
}

/// Each with its partitions.
const TOPICS: [(&str, usize); 2] = [("public.accounts", 2), ("public.notes", 1)];

/// Puts the processes of this thread into that world.
fn hooks(net: &Net, jump: &Arc<AtomicI64>, bug: Option<Bug>) {
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

struct Process {
    gate: Gate,
    stop: CancellationToken,
}

#[derive(Clone)]
struct World {
    net: Net,
    kafka: Cluster,
    postgres: Server,
    trace: Trace,
    oracle: Oracle,
    jump: Arc<AtomicI64>,
    processes: Rc<RefCell<BTreeMap<char, Process>>>,
}

async fn history(plan: Plan, bug: Option<Bug>, keep: bool) -> Outcome {
    let begin = Instant::now();
    let trace = Trace::new(keep);
    let jump = Arc::new(AtomicI64::new(0));
    let net = Net::new(plan.seed, trace.clone(), watch_leases(trace.clone()));
    hooks(&net, &jump, bug);
    let oracle = Oracle::new(trace.clone());
    let world = World {
        kafka: Cluster::new(plan.seed, &TOPICS, net.clone(), trace.clone(), oracle.clone()),
        postgres: Server::new(plan.seed, net.clone(), trace.clone(), oracle.clone()),
        net,
        trace,
        oracle,
        jump,
        processes: Rc::default(),
    };
    world.tell(&plan, begin).await;
    Outcome { told: world.trace.told(), rows: world.oracle.stored_rows() }
}

/// Who has told PostgreSQL nothing for `wal_sender_timeout` sends no batch until a stream is begun anew.
fn watch_leases(trace: Trace) -> super::net::Watch {
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
        } else if matches!(bytes, [_, _, _, _, 0, 0, ..]) {
            trace.checked();
            let (last, over) = told.get(&who).copied().unwrap_or((now, false));
            if over || now - last > walsender::TIMEOUT {
                let time = (now - last).as_millis();
                trace.broken(format_args!(
                    "{who} sends a batch {time} ms after its last sign of life"
                ));
            }
        }
    })
}

impl World {
    async fn tell(&self, plan: &Plan, begin: Instant) {
        let end = begin + Duration::from_millis(plan.length);
        for who in ['a', 'b'].into_iter().take(plan.instances) {
            self.start(who);
        }
        spawn_local(self.clone().write(plan.clone(), end));
        for fault in &plan.faults {
            sleep_until(begin + Duration::from_millis(fault.at)).await;
            if self.trace.is_broken() {
                return;
            }
            self.strike(*fault);
        }
        sleep_until(end).await;
        self.heal();
        let patience = Instant::now() + PATIENCE;
        while !(self.postgres.done() && self.oracle.missing() == 0) {
            if self.trace.is_broken() {
                return;
            }
            if Instant::now() > patience {
                let missing = self.oracle.missing();
                let why = if missing == 0 { "not all is confirmed" } else { "rows are missing" };
                return self.trace.broken(format_args!("it comes to nothing: {why}, {missing}"));
            }
            sleep(Duration::from_millis(100)).await;
        }
        // Whatever is still on its way must not change that.
        sleep(Duration::from_secs(20)).await;
    }

    /// A process begins.
    fn start(&self, who: char) {
        let (gate, stop) = (Gate::default(), CancellationToken::new());
        self.net.process(who, gate.clone());
        let process = Process { gate: gate.clone(), stop: stop.clone() };
        if let Some(before) = self.processes.borrow_mut().insert(who, process) {
            before.gate.kill();
        }
        self.trace.say(format_args!("{who} begins"));
        let (status, _) = watch::channel(Status::default());
        let trace = self.trace.clone();
        spawn_local(gated(gate, async move {
            match Box::pin(app::run(options(who), status, stop.clone())).await {
                Err(error) if !stop.is_cancelled() => {
                    trace.broken(format_args!("{who} gives up: {}", chain(&error)));
                }
                ended => trace.say(format_args!("{who} ends: {}", ended.is_ok())),
            }
        }));
    }

    /// Transactions of one to a few rows, in one table or both, and some of tables that nobody streams.
    async fn write(self, plan: Plan, end: Instant) {
        let mut chance = Chance::of(plan.seed, "writer");
        while Instant::now() < end {
            sleep(chance.ms(1, plan.pause)).await;
            let count = match chance.below(12) {
                0 => 0,
                1 => chance.between(5, 40),
                _ => chance.between(1, 3),
            };
            let change = |_| {
                let table = chance.below(TABLES.len() as u64) as usize;
                let op = chance.pick(b"IIUUD");
                let text = "x".repeat(chance.below(60) as usize);
                Change { table, op, key: chance.below(20), text }
            };
            let changes = (0..count).map(change).collect();
            self.postgres.commit(changes);
        }
    }

    fn gate(&self, who: char) -> Option<Gate> {
        self.processes.borrow().get(&who).map(|process| process.gate.clone())
    }

    fn later(&self, time: u64, what: impl FnOnce(&Self) + 'static) {
        let this = self.clone();
        spawn_local(async move {
            sleep(Duration::from_millis(time)).await;
            what(&this);
        });
    }

    fn strike(&self, fault: Fault) {
        self.trace.fault(fault.kind.name());
        self.trace.say(format_args!("FAULT {:?}", fault.kind));
        let now = Instant::now();
        let after = |time: u64| now + Duration::from_millis(time);
        match fault.kind {
            Kind::Crash { who, steps, down } => {
                let Some(gate) = self.gate(who) else { return };
                gate.light(steps, true);
                self.later(down, move |this| this.start(who));
            }
            Kind::CrashHeld { who, held } => {
                let Some(gate) = self.gate(who) else { return };
                self.net.hold(who, "kafka", [true, false], after(held));
                gate.kill();
                self.start(who);
            }
            Kind::Freeze { who, steps, time } => {
                let Some(gate) = self.gate(who) else { return };
                gate.light(steps, false);
                self.later(time, move |_| gate.thaw());
            }
            Kind::Stop { who, down } => {
                if let Some(process) = self.processes.borrow().get(&who) {
                    process.stop.cancel();
                }
                self.later(down + 500, move |this| this.start(who));
            }
            Kind::CutKafka { who, broker } => self.net.cut(who, &kafka::name(broker)),
            Kind::CutPostgres { who } => self.net.cut(who, "pg"),
            Kind::HoldKafka { who, broker, ways, time } => {
                self.net.hold(who, &kafka::name(broker), ways, after(time));
            }
            Kind::HoldPostgres { who, ways, time } => self.net.hold(who, "pg", ways, after(time)),
            Kind::BrokerCrash { broker, time } => {
                self.kafka.crash(broker);
                self.later(time, move |this| this.kafka.resume(broker));
            }
            Kind::BrokerFreeze { broker, time } => {
                self.kafka.freeze(broker);
                self.later(time, move |this| this.kafka.resume(broker));
            }
            Kind::MoveLeaders => self.kafka.move_leaders(),
            Kind::SlowReplicas { time } => self.kafka.slow(Duration::from_millis(time)),
            Kind::PostgresRestart { crash, time } => {
                self.postgres.restart(crash, Duration::from_millis(time))
            }
            Kind::Promote { time } => self.postgres.promote(Duration::from_millis(time)),
            Kind::Terminate => self.postgres.terminate(),
            Kind::Answers { broker, count } => self.kafka.mistreat(broker, count),
            Kind::Retention => self.kafka.delete(&self.oracle),
            Kind::ClockJump { seconds } => self.jump.store(seconds, Ordering::Relaxed),
        }
    }

    /// No fault any more: whoever is frozen goes on, whoever is away comes back.
    fn heal(&self) {
        self.trace.say(format_args!("everything heals"));
        self.net.release();
        self.kafka.heal();
        let all: Vec<(char, Gate, bool)> = self
            .processes
            .borrow()
            .iter()
            .map(|(who, process)| (*who, process.gate.clone(), process.stop.is_cancelled()))
            .collect();
        for (who, gate, stopped) in all {
            gate.thaw();
            if gate.is_dead() || stopped {
                self.start(who);
            }
        }
    }
}
