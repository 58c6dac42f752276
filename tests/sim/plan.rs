//! What happens to whom in a history: drawn from its seed beforehand, so that it can be made shorter.

use super::{chance::Chance, oracle::Promise};

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Milliseconds of writing and of faults.
    pub length: u64,
    /// Longest pause between two transactions, in milliseconds.
    pub pause: u64,
    pub instances: usize,
    pub delivery: Delivery,
    pub faults: Vec<Fault>,
}

/// `kafka.delivery`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Delivery {
    Idempotent,
    Transactional(Transactions),
    /// Each process is started in one mode or the other.
    Both(Transactions),
}

/// `[kafka.transaction]`, in milliseconds and bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transactions {
    pub interval: u64,
    pub max_time: u64,
    pub max_bytes: usize,
}

impl Transactions {
    /// No transaction is over these: all heals in a shorter time.
    const WIDE: (u64, usize) = (20_000, 1 << 20);

    pub fn may_split(self) -> bool {
        (self.max_time, self.max_bytes) != Self::WIDE
    }
}

impl Delivery {
    /// Two thirds are idempotent.
    fn of(seed: u64) -> Self {
        let mut chance = Chance::of(seed, "delivery");
        let drawn = chance.below(12);
        let narrow = (chance.pick(&[1000, 3000]), chance.pick(&[3000, 8000]));
        let (max_time, max_bytes) = if drawn == 0 { narrow } else { Transactions::WIDE };
        let interval = chance.pick(&[20, 100, 400]);
        let transactions = Transactions { interval, max_time, max_bytes };
        match drawn {
            0..3 => Self::Transactional(transactions),
            3 => Self::Both(transactions),
            _ => Self::Idempotent,
        }
    }

    /// The end of a transaction may come when another one is open.
    fn late(self, seed: u64, length: u64) -> Option<Fault> {
        let mut chance = Chance::of(seed, "late");
        let (at, time) = (chance.between(200, length), chance.between(5000, 9000));
        let kind = Kind::HoldEnds { who: 'a', time };
        let late = self != Self::Idempotent && chance.one_in(3);
        late.then_some(Fault { number: 0, at, kind })
    }

    /// In every tenth history without transactions: what of one was in the topic would be missing from it.
    fn made_anew(self, seed: u64, length: u64) -> Option<Fault> {
        let mut chance = Chance::of(seed, "made anew");
        let (at, away) = (chance.between(300, length), chance.between(0, 2500));
        let kind = Kind::MadeAnew { topic: chance.below(2) as usize, away };
        let anew = self == Self::Idempotent && chance.one_in(10);
        anew.then_some(Fault { number: 0, at, kind })
    }

    /// With transactions in every process.
    pub fn is_transactional(self) -> bool {
        matches!(self, Self::Transactional(_))
    }

    pub fn promise(self) -> Promise {
        match self {
            Self::Idempotent => Promise::default(),
            Self::Transactional(transactions) => {
                let whole = !transactions.may_split();
                Promise { committed: true, ordered: true, whole }
            }
            Self::Both(_) => Promise { committed: true, ordered: false, whole: false },
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Which of its plan.
    pub number: usize,
    /// Milliseconds from the begin on.
    pub at: u64,
    pub kind: Kind,
}

/// Times are in milliseconds, steps in polls of the process.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// It is started again after `down`.
    Crash {
        who: char,
        steps: u64,
        down: u64,
    },
    /// What it has sent to Kafka, and was not read yet, arrives so much later.
    CrashHeld {
        who: char,
        held: u64,
    },
    Freeze {
        who: char,
        steps: u64,
        time: u64,
    },
    Stop {
        who: char,
        down: u64,
    },
    CutKafka {
        who: char,
        broker: usize,
    },
    CutPostgres {
        who: char,
    },
    HoldKafka {
        who: char,
        broker: usize,
        ways: [bool; 2],
        time: u64,
    },
    /// What it has to say to its transactions' coordinator is late.
    HoldEnds {
        who: char,
        time: u64,
    },
    HoldPostgres {
        who: char,
        ways: [bool; 2],
        time: u64,
    },
    BrokerCrash {
        broker: usize,
        time: u64,
    },
    BrokerFreeze {
        broker: usize,
        time: u64,
    },
    MoveLeaders,
    SlowReplicas {
        time: u64,
    },
    PostgresRestart {
        crash: bool,
        time: u64,
    },
    /// It ends once its walsender's client has confirmed everything.
    ShutDown {
        time: u64,
    },
    Promote {
        time: u64,
    },
    /// The slot is not there before so long after it.
    PromoteLate {
        time: u64,
        missing: u64,
    },
    Terminate,
    /// So many batches are refused for a moment's reason, or stored with an answer that does not say so.
    Answers {
        broker: usize,
        count: u64,
    },
    /// What is confirmed is deleted.
    Retention,
    /// A topic is deleted, and made again after so long.
    MadeAnew {
        topic: usize,
        away: u64,
    },
    /// Of what is confirmed the last record of each key stays.
    Compaction,
    ClockJump {
        seconds: i64,
    },
    /// Nothing is written for so long that brokers forget all ids, and meanwhile this one stands still, or is started
    /// anew while what it sent before is still on its way; until so long after.
    Forget {
        who: char,
        late: Late,
        quiet: u64,
        after: u64,
    },
    /// Somebody else writes into our topics.
    Foreign {
        writer: Writer,
        batches: u64,
    },
}

/// What of a process comes late.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Late {
    Nothing,
    Frozen,
    Bytes,
}

/// Somebody who knows nothing of us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Writer {
    /// Without a producer id.
    Plain,
    Idempotent,
    /// All in one transaction, which is open for so long.
    Transactional {
        commit: bool,
        open: u64,
    },
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash { .. } => "crash",
            Self::CrashHeld { .. } => "crash, late bytes",
            Self::Freeze { .. } => "freeze",
            Self::Stop { .. } => "stop",
            Self::CutKafka { .. } => "cut from Kafka",
            Self::CutPostgres { .. } => "cut from PostgreSQL",
            Self::HoldKafka { .. } => "held from Kafka",
            Self::HoldEnds { .. } => "held from the coordinator",
            Self::HoldPostgres { .. } => "held from PostgreSQL",
            Self::BrokerCrash { .. } => "broker crash",
            Self::BrokerFreeze { .. } => "broker freeze",
            Self::MoveLeaders => "leaders moved",
            Self::SlowReplicas { .. } => "slow replicas",
            Self::PostgresRestart { .. } => "PostgreSQL restart",
            Self::ShutDown { .. } => "PostgreSQL fast shutdown",
            Self::Promote { .. } => "promotion",
            Self::PromoteLate { .. } => "promotion, the slot comes later",
            Self::Terminate => "walsender terminated",
            Self::Answers { .. } => "odd answers",
            Self::Retention => "retention",
            Self::MadeAnew { .. } => "topic made anew",
            Self::Compaction => "compaction",
            Self::ClockJump { .. } => "clock jump",
            Self::Forget { .. } => "forgotten ids",
            Self::Foreign { .. } => "foreign records",
        }
    }
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::of(seed, "plan");
        let delivery = Delivery::of(seed);
        let length = chance.between(3_000, 12_000);
        let instances = if chance.one_in(2) { 2 } else { 1 };
        let count = match chance.below(10) {
            0 => 0,
            1..4 => chance.between(1, 2),
            _ => chance.between(2, 8),
        };
        let mut promoted = false;
        let mut faults: Vec<Fault> = (0..count)
            .map(|_| {
                let at = chance.between(200, length);
                let kind = kind(&mut chance, instances, &mut promoted);
                Fault { number: 0, at, kind }
            })
            .collect();
        // Whoever stands still with batches that wait for Kafka still has them when it goes on.
        let frozen = faults.iter().find(|one| matches!(one.kind, Kind::Freeze { .. })).copied();
        if let Some(frozen) = frozen.filter(|_| chance.one_in(3)) {
            let at = frozen.at.saturating_sub(chance.between(0, 400));
            let (broker, time) = (chance.below(3) as usize, chance.between(1000, 9000));
            let kind = match chance.below(3) {
                0 => Kind::BrokerFreeze { broker, time },
                1 => Kind::BrokerCrash { broker, time },
                _ => Kind::HoldKafka { who: 'a', broker, ways: [true, true], time },
            };
            faults.push(Fault { number: 0, at, kind });
        }
        faults.extend(delivery.late(seed, length));
        faults.extend(foreign(seed, length));
        faults.extend(shut_down(seed, length));
        faults.extend(compaction(seed, length));
        faults.extend(late_slot(seed, length));
        faults.extend(forget(seed, length));
        faults.extend(delivery.made_anew(seed, length));
        faults.sort_by_key(|fault| fault.at);
        faults.iter_mut().enumerate().for_each(|(number, fault)| fault.number = number);
        let pause = chance.pick(&[40, 120, 400]);
        Self { seed, length, pause, instances, delivery, faults }
    }

    /// What is left of it, for [`Self::shrunk`].
    pub fn again(&self) -> String {
        let faults: Vec<String> = self.faults.iter().map(|one| one.number.to_string()).collect();
        let Self { length, pause, instances, .. } = self;
        format!("{length} {pause} {instances} {}", faults.join(" "))
    }

    /// Without what is left out in `again`.
    pub fn shrunk(mut self, again: &str) -> Self {
        let numbers: Vec<u64> = again.split(' ').filter_map(|text| text.parse().ok()).collect();
        let [length, pause, instances, ref faults @ ..] = numbers[..] else {
            panic!("{again:?} is not what was printed");
        };
        (self.length, self.pause, self.instances) = (length, pause, instances as usize);
        self.faults.retain(|fault| faults.contains(&(fault.number as u64)));
        self
    }
}

/// A fifth of the histories have others in their topics.
fn foreign(seed: u64, length: u64) -> Vec<Fault> {
    let mut chance = Chance::of(seed, "foreign writers");
    let count = if chance.one_in(5) { chance.between(1, 4) } else { 0 };
    let mut one = |_| {
        let at = chance.between(100, length);
        let (commit, open) = (chance.one_in(2), chance.between(0, 9000));
        let writer = match chance.below(4) {
            0 => Writer::Plain,
            1 => Writer::Idempotent,
            _ => Writer::Transactional { commit, open },
        };
        Fault { number: 0, at, kind: Kind::Foreign { writer, batches: chance.between(1, 12) } }
    };
    (0..count).map(&mut one).collect()
}

/// In every tenth history PostgreSQL is told to end in good order.
fn shut_down(seed: u64, length: u64) -> Option<Fault> {
    let mut chance = Chance::of(seed, "fast shutdown");
    let (at, time) = (chance.between(200, length), chance.between(100, 3000));
    chance.one_in(10).then_some(Fault { number: 0, at, kind: Kind::ShutDown { time } })
}

/// In every eighth history the topics are compacted, again and again.
fn compaction(seed: u64, length: u64) -> Vec<Fault> {
    let mut chance = Chance::of(seed, "compaction");
    let count = if chance.one_in(8) { chance.between(1, 4) } else { 0 };
    let one = |_| Fault { number: 0, at: chance.between(500, length), kind: Kind::Compaction };
    (0..count).map(one).collect()
}

/// In one of sixteen histories the slot comes to the promoted standby after it, but within `slot.missing_timeout`.
fn late_slot(seed: u64, length: u64) -> Option<Fault> {
    let mut chance = Chance::of(seed, "late slot");
    let (at, time) = (chance.between(2000, length), chance.between(100, 3000));
    let kind = Kind::PromoteLate { time, missing: chance.between(100, 20_000) };
    chance.one_in(16).then_some(Fault { number: 0, at, kind })
}

/// In one of sixteen histories.
fn forget(seed: u64, length: u64) -> Option<Fault> {
    let mut chance = Chance::of(seed, "forgotten ids");
    let at = chance.between(500, length);
    let late = chance.pick(&[Late::Nothing, Late::Frozen, Late::Frozen, Late::Bytes]);
    let (quiet, after) = (chance.between(80_000, 100_000), chance.between(0, 4000));
    let kind = Kind::Forget { who: 'a', late, quiet, after };
    chance.one_in(16).then_some(Fault { number: 0, at, kind })
}

fn kind(chance: &mut Chance, instances: usize, promoted: &mut bool) -> Kind {
    let who = if instances == 2 && chance.one_in(3) { 'b' } else { 'a' };
    let broker = chance.below(3) as usize;
    let ways = chance.pick(&[[true, true], [true, true], [true, false], [false, true]]);
    let steps = match chance.below(3) {
        0 => 0,
        1 => chance.below(20),
        _ => chance.below(300),
    };
    let (down, short, long) =
        (chance.between(0, 3000), chance.between(100, 3000), chance.between(3000, 15_000));
    match chance.below(27) {
        0..3 => Kind::Crash { who, steps, down },
        3..5 => Kind::CrashHeld { who, held: if chance.one_in(2) { short } else { long } },
        5 => Kind::Freeze { who, steps, time: short },
        6..9 => Kind::Freeze { who, steps, time: long },
        9 => Kind::Stop { who, down },
        10..12 => Kind::CutKafka { who, broker },
        12 => Kind::CutPostgres { who },
        13..15 => {
            Kind::HoldKafka { who, broker, ways, time: if chance.one_in(2) { short } else { long } }
        }
        15 => Kind::HoldPostgres { who, ways, time: long },
        16..18 => Kind::BrokerCrash { broker, time: down + short },
        18 => Kind::BrokerFreeze { broker, time: if chance.one_in(2) { short } else { long } },
        19 => Kind::MoveLeaders,
        20 => Kind::SlowReplicas { time: long },
        21 => Kind::PostgresRestart { crash: chance.one_in(2), time: short },
        22 => match chance.below(3) {
            0 if !*promoted => {
                *promoted = true;
                Kind::Promote { time: short }
            }
            _ => Kind::Terminate,
        },
        23..25 => Kind::Answers { broker, count: chance.between(1, 6) },
        25 => Kind::Retention,
        _ => Kind::ClockJump { seconds: chance.between(0, 7200) as i64 - 3600 },
    }
}
