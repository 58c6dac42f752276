//! What can happen, and in which order.

use crate::chance::Chance;

/// Which of an instance's connections.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    Postgres,
    Kafka,
    Both,
}

/// What happens once. Brokers are 1, 2, 3; times are milliseconds. The active instance is the one that streams.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// SIGKILL.
    KillActive,
    /// SIGKILL.
    KillPassive,
    /// SIGKILL to both.
    KillBoth,
    /// SIGSTOP, and SIGCONT after this time: perhaps another is active by then.
    FreezeActive { ms: u64 },
    /// The same, with its last bytes for Kafka kept, at least so many, until another writes; it goes on this much later.
    FreezeHeld { bytes: usize, ms: u64 },
    /// SIGTERM.
    TermActive,
    /// Its last bytes for Kafka are kept, at least so many; killed, and they arrive when another writes, and this much later.
    KillHeld { bytes: usize, ms: u64 },
    /// The same, but it goes on.
    Held { ms: u64 },
    /// Killed while a broker is paused, which goes on after this time.
    KillWhilePaused { broker: u8, ms: u64 },
    /// `pg_terminate_backend`.
    TerminateWalsender,
    /// Restarted.
    PostgresFast,
    /// Restarted, with a recovery.
    PostgresImmediate,
    /// SIGKILL to the postmaster.
    PostgresKill,
    /// SIGSTOP to all of its processes, and SIGCONT.
    PostgresPause { ms: u64 },
    /// SIGKILL, and started again.
    BrokerKill { broker: u8 },
    /// SIGSTOP and SIGCONT.
    BrokerPause { broker: u8, ms: u64 },
    /// This broker leads every partition.
    Lead { broker: u8 },
    /// All of them are stopped, then started.
    BrokersRestart,
    /// Of the active instance's connections.
    Reset { side: Side },
    /// In silence.
    BlackHole { side: Side, ms: u64 },
    /// After so many bytes, towards the server or towards the client.
    Cut { side: Side, sent: bool, bytes: u64 },
    /// So many bytes a second.
    Slow { side: Side, rate: u32, ms: u64 },
}

/// How many kinds there are.
const KINDS: usize = 22;

/// A step of the run.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// From 1.
    pub number: usize,
    /// What happens.
    pub fault: Fault,
    /// It begins so many milliseconds after the one before began, which is not over then; else that is.
    pub on_top: Option<u64>,
    /// Then wait until all is stored, not only some.
    pub thorough: bool,
}

/// As many steps as wanted, of these kinds or, if none is named, of all: each comes once before one comes again.
pub fn plan(chance: &mut Chance, count: usize, only: &[&str]) -> Vec<Step> {
    let wanted = |&kind: &usize| {
        only.is_empty() || only.contains(&draw(kind, &mut Chance::new(0, 0)).kind().as_str())
    };
    let kinds: Vec<usize> = (0..KINDS).filter(wanted).collect();
    assert!(!kinds.is_empty(), "no kind of fault has such a name: {only:?}");
    let mut deck = Vec::new();
    let steps = (1..=count).map(|number| {
        if deck.is_empty() {
            deck.clone_from(&kinds);
            chance.shuffle(&mut deck);
        }
        let fault = draw(deck.pop().expect("it was filled"), chance);
        let on_top = (number % 5 == 0).then(|| chance.below(2000));
        Step { number, fault, on_top, thorough: chance.below(3) == 0 }
    });
    steps.collect()
}

fn draw(kind: usize, chance: &mut Chance) -> Fault {
    let broker = u8::try_from(chance.between(1, 3)).expect("a small number");
    let side = chance.one(&[Side::Postgres, Side::Kafka, Side::Both]);
    match kind {
        0 => Fault::KillActive,
        1 => Fault::KillPassive,
        // As often longer than wal_sender_timeout as not.
        2 => Fault::FreezeActive {
            ms: if chance.below(2) == 0 {
                chance.between(1000, 3500)
            } else {
                chance.between(3500, 20_000)
            },
        },
        3 => Fault::TermActive,
        4 => Fault::KillHeld {
            bytes: chance.one(&[1, 500, 5000, 50_000]),
            ms: chance.between(1000, 3000),
        },
        5 => Fault::Held { ms: chance.between(500, 4000) },
        6 => Fault::KillWhilePaused { broker, ms: chance.between(500, 5000) },
        7 => Fault::TerminateWalsender,
        8 => Fault::PostgresFast,
        9 => Fault::PostgresImmediate,
        10 => Fault::PostgresKill,
        11 => Fault::BrokerKill { broker },
        12 => Fault::BrokerPause { broker, ms: chance.between(1000, 8000) },
        13 => Fault::Lead { broker },
        14 => Fault::BrokersRestart,
        15 => Fault::Reset { side },
        16 => Fault::BlackHole { side, ms: chance.between(2000, 6000) },
        17 => Fault::Cut { side, sent: chance.below(2) == 0, bytes: chance.below(60_000) },
        18 => Fault::Slow { side, rate: 100_000, ms: chance.between(1000, 4000) },
        19 => Fault::KillBoth,
        20 => Fault::PostgresPause { ms: chance.between(1000, 6000) },
        21 => Fault::FreezeHeld {
            bytes: chance.one(&[1, 500, 5000, 50_000]),
            ms: chance.between(0, 2000),
        },
        _ => unreachable!("KINDS says how many there are"),
    }
}

impl Fault {
    /// Its first word.
    pub fn kind(&self) -> String {
        let text = format!("{self:?}");
        text.split(' ').next().unwrap_or_default().to_owned()
    }

    /// What it touches: two may happen at a time if they share nothing.
    pub fn touches(&self) -> u8 {
        const PROCESS: u8 = 1;
        const POSTGRES: u8 = 2;
        const KAFKA: u8 = 4;
        const NETWORK: u8 = 8;
        match self {
            Self::KillActive
            | Self::KillPassive
            | Self::KillBoth
            | Self::FreezeActive { .. }
            | Self::TermActive => PROCESS,
            Self::KillHeld { .. } | Self::FreezeHeld { .. } => PROCESS | NETWORK,
            Self::KillWhilePaused { .. } => PROCESS | KAFKA,
            Self::TerminateWalsender
            | Self::PostgresFast
            | Self::PostgresImmediate
            | Self::PostgresPause { .. }
            | Self::PostgresKill => POSTGRES,
            Self::BrokerKill { .. }
            | Self::BrokerPause { .. }
            | Self::Lead { .. }
            | Self::BrokersRestart => KAFKA,
            Self::Held { .. }
            | Self::Reset { .. }
            | Self::BlackHole { .. }
            | Self::Cut { .. }
            | Self::Slow { .. } => NETWORK,
        }
    }
}
