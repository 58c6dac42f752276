//! What happens to whom in a history: drawn from its seed beforehand, so that it can be made shorter.

use super::chance::Chance;

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Milliseconds of writing and of faults.
    pub length: u64,
    /// Longest pause between two transactions, in milliseconds.
    pub pause: u64,
    pub instances: usize,
    pub faults: Vec<Fault>,
}

#[derive(Clone, Copy, Debug)]
pub struct Fault {
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
    Promote {
        time: u64,
    },
    Terminate,
    /// So many batches are refused for a moment's reason, or stored with an answer that does not say so.
    Answers {
        broker: usize,
        count: u64,
    },
    /// What is confirmed is deleted.
    Retention,
    ClockJump {
        seconds: i64,
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
            Self::HoldPostgres { .. } => "held from PostgreSQL",
            Self::BrokerCrash { .. } => "broker crash",
            Self::BrokerFreeze { .. } => "broker freeze",
            Self::MoveLeaders => "leaders moved",
            Self::SlowReplicas { .. } => "slow replicas",
            Self::PostgresRestart { .. } => "PostgreSQL restart",
            Self::Promote { .. } => "promotion",
            Self::Terminate => "walsender terminated",
            Self::Answers { .. } => "odd answers",
            Self::Retention => "retention",
            Self::ClockJump { .. } => "clock jump",
        }
    }
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::of(seed, "plan");
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
                Fault { at, kind }
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
            faults.push(Fault { at, kind });
        }
        faults.sort_by_key(|fault| fault.at);
        let pause = chance.pick(&[40, 120, 400]);
        Self { seed, length, pause, instances, faults }
    }
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
