//! One history: a world of its own in a thread of its own, from the first connection until everything
//! that was committed is stored.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use pgsluice::{
    app::{self, chain},
    sim::{Bug, Gate, gated, install},
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
    plan::{Delivery, Fault, Kind, Late, Plan},
    postgres::{Change, Server, TABLES},
    setup::{TOPICS, hooks, options, watch_leases},
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
    options('a', None); // what is made only once draws nothing in a history
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
    delivery: Delivery,
    starts: Rc<RefCell<Chance>>,
    processes: Rc<RefCell<BTreeMap<char, Process>>>,
    /// Until then something is written, unless it is quiet.
    end: Rc<Cell<Instant>>,
    quiet: Rc<Cell<bool>>,
}

async fn history(plan: Plan, bug: Option<Bug>, keep: bool) -> Outcome {
    let begin = Instant::now();
    let trace = Trace::new(keep);
    let jump = Arc::new(AtomicI64::new(0));
    let net = Net::new(plan.seed, trace.clone(), watch_leases(trace.clone()));
    hooks(&net, &jump, bug);
    let oracle = Oracle::new(trace.clone(), plan.delivery.promise());
    let world = World {
        kafka: Cluster::new(plan.seed, &TOPICS, net.clone(), trace.clone(), oracle.clone()),
        postgres: Server::new(
            plan.seed,
            plan.delivery != Delivery::Idempotent,
            net.clone(),
            trace.clone(),
            oracle.clone(),
        ),
        net,
        trace,
        oracle,
        jump,
        delivery: plan.delivery,
        starts: Rc::new(RefCell::new(Chance::of(plan.seed, "starts"))),
        processes: Rc::default(),
        end: Rc::new(Cell::new(begin)),
        quiet: Rc::default(),
    };
    world.tell(&plan, begin).await;
    world.net.end();
    Outcome { told: world.trace.told(), rows: world.oracle.stored_rows() }
}

impl World {
    async fn tell(&self, plan: &Plan, begin: Instant) {
        self.end.set(begin + Duration::from_millis(plan.length));
        for who in ['a', 'b'].into_iter().take(plan.instances) {
            self.start(who);
        }
        spawn_local(self.clone().write(plan.clone()));
        if plan.delivery != Delivery::Idempotent {
            spawn_local(self.kafka.clone().consume(plan.seed));
        }
        for fault in &plan.faults {
            sleep_until(begin + Duration::from_millis(fault.at)).await;
            if self.trace.is_broken() {
                return;
            }
            self.strike(*fault);
            if let Kind::Forget { who, late, quiet, after } = fault.kind {
                self.quiet.set(true);
                self.forget(who, late, quiet, after).await;
                self.end.set(self.end.get() + Duration::from_millis(quiet));
                self.quiet.set(false);
            }
        }
        sleep_until(self.end.get()).await;
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
        self.oracle.finished();
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
        let (trace, this) = (self.trace.clone(), self.clone());
        let transactions = match self.delivery {
            Delivery::Idempotent => None,
            Delivery::Transactional(transactions) => Some(transactions),
            Delivery::Both(transactions) => {
                Some(transactions).filter(|_| self.starts.borrow_mut().one_in(2))
            }
        };
        let options = options(who, transactions);
        spawn_local(gated(gate, async move {
            match Box::pin(app::run(options, status, stop.clone())).await {
                // Nobody can know that there was a slot: whoever looks after it starts it again.
                Err(error) if this.postgres.lacked_slot() && this.kafka.kept_nothing() => {
                    trace.say(format_args!("{who} is to be started again: {}", chain(&error)));
                    this.later(500, move |this| this.start(who));
                }
                Err(error) if !stop.is_cancelled() => {
                    trace.broken(format_args!("{who} gives up: {}", chain(&error)));
                }
                ended => trace.say(format_args!("{who} ends: {}", ended.is_ok())),
            }
        }));
    }

    /// Transactions of one to a few rows, in one table or both, and some of tables that nobody streams.
    async fn write(self, plan: Plan) {
        let mut chance = Chance::of(plan.seed, "writer");
        while Instant::now() < self.end.get() {
            sleep(chance.ms(1, plan.pause)).await;
            if self.quiet.get() {
                continue;
            }
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
            Kind::HoldEnds { who, time } => self.net.hold_ends(who, after(time)),
            Kind::HoldPostgres { who, ways, time } => self.net.hold(who, "pg", ways, after(time)),
            Kind::PostgresRestart { crash, time } => {
                self.postgres.restart(crash, Duration::from_millis(time))
            }
            Kind::ShutDown { time } => self.postgres.shut_down(Duration::from_millis(time)),
            Kind::Promote { time } => {
                self.postgres.promote(Duration::from_millis(time));
            }
            Kind::PromoteLate { time, missing } => {
                if self.postgres.promote(Duration::from_millis(time)) {
                    self.postgres.lack_slot(true);
                    self.later(time + missing, |this| this.postgres.lack_slot(false));
                }
            }
            Kind::Terminate => self.postgres.terminate(),
            Kind::Forget { .. } => {} // it takes time: `forget`
            Kind::ClockJump { seconds } => self.jump.store(seconds, Ordering::Relaxed),
            kind => self.strike_kafka(kind),
        }
    }

    fn strike_kafka(&self, kind: Kind) {
        match kind {
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
            Kind::Answers { broker, count } => self.kafka.mistreat(broker, count),
            Kind::Retention => self.kafka.delete(&self.oracle),
            Kind::MadeAnew { topic, away } => {
                let (name, partitions) = TOPICS[topic];
                self.kafka.delete_topic(name);
                self.later(away, move |this| {
                    this.kafka.make_topic(name, partitions);
                });
            }
            Kind::Compaction => self.kafka.compact(),
            Kind::Foreign { writer, batches } => self.kafka.foreign(writer, batches),
            _ => {}
        }
    }

    /// Nothing is written until the brokers know nobody any more.
    async fn forget(&self, who: char, late: Late, quiet: u64, after: u64) {
        let over = quiet + after;
        match (late, self.gate(who)) {
            (Late::Frozen, Some(gate)) => {
                gate.freeze();
                self.later(over, move |_| gate.thaw());
            }
            (Late::Bytes, Some(gate)) => {
                let until = Instant::now() + Duration::from_millis(over);
                self.net.hold(who, "kafka", [true, false], until);
                gate.kill();
                self.start(who);
            }
            _ => {}
        }
        sleep(Duration::from_millis(quiet)).await;
        self.kafka.forget();
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
