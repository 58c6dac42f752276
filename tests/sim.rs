//! The simulator: the real frame reader, pipeline, ledger, producer, fence and read-back, one or two
//! processes of them, in one thread on virtual time, against small models of PostgreSQL and Kafka.
//!
//! A seed is a history. `SIM_SEED=n` runs one and prints what happened, `SIM_SHRUNK` (as it was printed) its
//! shrunk form; `SIM_FROM`, `SIM_COUNT` and `SIM_SECONDS` (2000 in any case) say which are run, and
//! `SIM_LOG=debug` has the processes say what they do.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "clippy only sees #[test] functions as tests, not their helpers"
)]

#[path = "sim/chance.rs"]
mod chance;
#[path = "sim/consumer.rs"]
mod consumer;
#[path = "sim/kafka/mod.rs"]
mod kafka;
#[path = "sim/net.rs"]
mod net;
#[path = "sim/oracle.rs"]
mod oracle;
#[path = "sim/plan.rs"]
mod plan;
#[path = "sim/postgres/mod.rs"]
mod postgres;
#[path = "sim/same/mod.rs"]
mod same;
#[path = "sim/setup.rs"]
mod setup;
#[path = "sim/shrink.rs"]
mod shrink;
mod support;
#[path = "sim/trace.rs"]
mod trace;
#[path = "sim/world.rs"]
mod world;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use pgsluice::sim::Bug;
use plan::Plan;
use shrink::shrink;
use world::run;

/// A fifth of a history's time was the allocator's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Histories of a run for which nothing else is said.
const LEAST: u64 = 2000;

/// Failing seeds that are shrunk; it takes the time of some dozens of histories.
const SHRUNK: usize = 3;

/// A plan that breaks a promise, made shorter, and in words. It ends as it did, each time.
fn shortest(plan: &Plan, bug: Option<Bug>) -> String {
    let shrunk = shrink(plan, bug);
    let (outcome, again) = (run(&shrunk, bug, false), run(&shrunk, bug, false));
    assert!(outcome.broken().is_some() && outcome.told.hash == again.told.hash, "{shrunk:?}");
    // Without the fault that was planted it is sound.
    assert!(bug.is_none() || run(&shrunk, None, false).broken().is_none(), "{shrunk:?}");
    format!(
        "{}; SIM_SEED={} SIM_SHRUNK={:?}: {} of {} faults: {:?}",
        outcome.broken().unwrap_or("nothing"),
        plan.seed,
        shrunk.again(),
        shrunk.faults.len(),
        plan.faults.len(),
        shrunk.faults,
    )
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn a_seed_is_the_same_history_twice() {
    for seed in 0..20 {
        let plan = Plan::of(seed);
        let (first, second) = (run(&plan, None, true), run(&plan, None, true));
        let (a, b) = (&first.told.lines, &second.told.lines);
        let at = a.iter().zip(b).position(|(a, b)| a != b);
        if let Some(at) = at {
            panic!("seed {seed}: {:?} is {:?} the second time", &a[at], &b[at]);
        }
        assert_eq!(first.told.hash, second.told.hash, "seed {seed}");
    }
}

/// Each found a fault of ours: a topic that was away at a taking; a key of one made anew with an old value, also after a
/// promotion that put the slot back; an answer from before a freeze; a topic made anew in the midst of a taking.
const FOUND: [u64; 5] = [3634, 4784, 1_614_383, 1_214_995, 1_662_918];

#[test]
fn what_was_found_once_is_mended() {
    for seed in FOUND {
        assert_eq!(run(&Plan::of(seed), None, false).broken(), None, "seed {seed}");
    }
}

#[test]
fn histories_keep_every_promise() {
    if let Some(seed) = number("SIM_SEED") {
        let shrunk = std::env::var("SIM_SHRUNK").ok();
        let plan = match shrunk {
            Some(shrunk) => Plan::of(seed).shrunk(&shrunk),
            None => Plan::of(seed),
        };
        let filter = std::env::var("SIM_LOG").unwrap_or_else(|_| "sim=info".to_owned());
        let log = tracing_subscriber::fmt().with_env_filter(filter).without_time();
        log.with_writer(std::io::stdout).with_ansi(false).init();
        let outcome = run(&plan, None, true);
        println!("{plan:#?}\n{:?} after {} rows", outcome.broken(), outcome.rows);
        assert_eq!(outcome.broken(), None);
        return;
    }
    let from = number("SIM_FROM").unwrap_or(0);
    let most = number("SIM_COUNT").unwrap_or(u64::MAX);
    let limit = number("SIM_SECONDS").map(Duration::from_secs);
    let (begin, mut done, mut rows, mut checks) = (Instant::now(), 0, 0, 0);
    let mut faults = BTreeMap::<&str, u64>::new();
    let (mut failed, mut hash) = (Vec::new(), 0_u64);
    for seed in (from..).take(usize::try_from(most).unwrap()) {
        let over = limit.is_none_or(|limit| begin.elapsed() > limit);
        if over && most == u64::MAX && done >= LEAST {
            break;
        }
        let outcome = run(&Plan::of(seed), None, false);
        (done, rows, checks) = (done + 1, rows + outcome.rows, checks + outcome.told.checks);
        hash = hash.rotate_left(1) ^ outcome.told.hash;
        for (kind, count) in &outcome.told.faults {
            *faults.entry(kind).or_default() += count;
        }
        if let Some(broken) = outcome.broken() {
            println!("seed {seed}: {broken}");
            if failed.len() < SHRUNK {
                println!("  {}", shortest(&Plan::of(seed), None));
            }
            failed.push(seed);
            if failed.len() >= 20 {
                break;
            }
        }
    }
    let minutes = begin.elapsed().as_secs_f64() / 60.0;
    println!(
        "{done} histories from {from} in {minutes:.2} min, {rows} rows, {checks} checks, hash \
         {hash:016x}, faults {faults:?}"
    );
    assert!(failed.is_empty(), "seeds {failed:?}");
}

/// Histories within which a planted fault must be found.
const ENOUGH: u64 = 10_000;

#[test]
fn each_planted_fault_is_found() {
    let only = std::env::var("SIM_BUG").ok();
    let (mut lost, mut from) = (Vec::new(), number("SIM_FROM").unwrap_or(0));
    for bug in Bug::ALL {
        let name = format!("{bug:?}");
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let begin = Instant::now();
        let broken = |seed: &u64| run(&Plan::of(*seed), Some(bug), false).broken().is_some();
        // Those of transactions cannot show in other histories.
        let fits =
            |seed: &u64| !bug.is_transactional() || Plan::of(*seed).delivery.is_transactional();
        let count = number("SIM_COUNT").unwrap_or(ENOUGH);
        let tried = std::cell::Cell::new(0);
        let counted = |_: &u64| tried.set(tried.get() + 1);
        match (from..).filter(fits).take(count as usize).inspect(counted).find(broken) {
            Some(seed) => println!(
                "{name}: in history {} after {:.1} s: {}",
                tried.get(),
                begin.elapsed().as_secs_f64(),
                shortest(&Plan::of(seed), Some(bug)),
            ),
            None => {
                println!(
                    "{name}: not found in {count} histories, {:.1} s",
                    begin.elapsed().as_secs_f64()
                );
                lost.push(name);
            }
        }
        from += 100_000;
    }
    assert!(lost.is_empty(), "not found: {lost:?}");
}
