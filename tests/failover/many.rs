//! Three instances that are killed and frozen by chance.

use std::time::{Duration, Instant};

use crate::bed::{Bed, LIMIT};
use crate::load::Load;
use crate::support::{Pgsluice, soak};

/// `wal_sender_timeout` of these, in milliseconds: a frozen one is superseded after it.
const TIMEOUT: u64 = 3000;

const SETS: [&str; 3] = [
    "postgres.wal_sender_timeout=3s",
    "postgres.status_interval=500ms",
    "slot.check_interval=200ms",
];

#[test]
fn of_three_that_are_killed_and_frozen_one_streams_and_each_row_is_there_once() {
    let bed = Bed::new("three");
    let seed = std::env::var("TESTS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut chance = Chance(seed);
    let mut all: Vec<Pgsluice> =
        ["a", "b", "c"].iter().map(|name| bed.spawn(name, &SETS)).collect();
    let load = Load::start(&bed);
    let (begin, length) = (Instant::now(), Duration::from_secs(if soak() { 300 } else { 15 }));
    let mut told = [0, 0, 0];
    while begin.elapsed() < length {
        let which = usize::try_from(chance.below(3)).unwrap();
        let what = chance.below(3);
        told[usize::try_from(what).unwrap()] += 1;
        match what {
            0 => all[which].kill(),
            1 => {
                all[which].pause();
                pause(chance.below(2 * TIMEOUT));
                all[which].resume();
            }
            _ => {
                ended(all[which].stop(LIMIT), &all[which]);
            }
        }
        pause(chance.below(1000));
        if let Some(code) = all[which].try_wait() {
            ended(code, &all[which]);
            all[which] = bed.spawn(["a", "b", "c"][which], &SETS);
        }
        for sluice in &mut all {
            assert_eq!(sluice.try_wait(), None, "{}", sluice.log());
        }
    }
    let rows = load.stop();
    bed.wait_confirmed();
    for sluice in &mut all {
        assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
    }
    let mut sent: Vec<i64> = bed.verify(rows).iter().map(|record| record.timestamp).collect();
    sent.sort_unstable();
    let nobody = sent.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
    println!(
        "seed {seed}: {} kills, {} freezes and {} stops under {rows} rows: nobody for {nobody} ms at \
         the most, with a wal_sender_timeout of {TIMEOUT} ms",
        told[0], told[1], told[2]
    );
}

fn ended(code: i32, sluice: &Pgsluice) {
    let log = sluice.log();
    let as_it_should = match code {
        0 | -9 => true,
        75 => !log.is_empty(), // without a connection it could not confirm what it has stored
        -15 => log.is_empty(), // told before it had begun
        _ => false,
    };
    assert!(as_it_should, "{code}: {log}");
}

/// As long as the fault is to last.
fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// The same seed, the same numbers (SplitMix64).
struct Chance(u64);

impl Chance {
    const fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}
