//! The simulator: the real frame reader, pipeline, ledger, producer, fence and read-back, one or two
//! processes of them, in one thread on virtual time, against small models of PostgreSQL and Kafka.
//!
//! A seed is a history. `SIM_SEED=n` runs one and prints what happened; `SIM_FROM`, `SIM_COUNT` and
//! `SIM_SECONDS` (2000 in any case) say which are run, and `SIM_LOG=debug` has
//! the processes say what they do.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "clippy only sees #[test] functions as tests, not their helpers"
)]

#[path = "sim/chance.rs"]
mod chance;
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
#[path = "sim/same.rs"]
mod same;
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

/// Histories of a run for which nothing else is said.
const LEAST: u64 = 2000;

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

#[test]
fn histories_keep_every_promise() {
    if let Some(seed) = number("SIM_SEED") {
        let plan = Plan::of(seed);
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
    let mut failed = Vec::new();
    for seed in (from..).take(usize::try_from(most).unwrap()) {
        let over = limit.is_none_or(|limit| begin.elapsed() > limit);
        if over && most == u64::MAX && done >= LEAST {
            break;
        }
        let outcome = run(&Plan::of(seed), None, false);
        (done, rows, checks) = (done + 1, rows + outcome.rows, checks + outcome.told.checks);
        for (kind, count) in &outcome.told.faults {
            *faults.entry(kind).or_default() += count;
        }
        if let Some(broken) = outcome.broken() {
            println!("seed {seed}: {broken}");
            failed.push(seed);
            if failed.len() >= 20 {
                break;
            }
        }
    }
    let minutes = begin.elapsed().as_secs_f64() / 60.0;
    println!(
        "{done} histories from {from} in {minutes:.2} min, {rows} rows, {checks} checks, faults {faults:?}"
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
        let count = number("SIM_COUNT").unwrap_or(ENOUGH);
        match (from..from + count).find(broken) {
            Some(seed) => {
                let plan = shrink(&Plan::of(seed), Some(bug));
                let outcome = run(&plan, Some(bug), false);
                println!(
                    "{name}: in history {} after {:.1} s: {}; {} ms, {} of {} faults: {:?}",
                    seed - from + 1,
                    begin.elapsed().as_secs_f64(),
                    outcome.broken().unwrap_or("nothing"),
                    plan.length,
                    plan.faults.len(),
                    Plan::of(seed).faults.len(),
                    plan.faults,
                );
                // Shrunk, it ends as it did, each time.
                assert!(outcome.broken().is_some());
                assert_eq!(outcome.told.hash, run(&plan, Some(bug), false).told.hash, "{name}");
                // Without the fault the same history is sound.
                assert_eq!(run(&plan, None, false).broken(), None, "{name}");
            }
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
