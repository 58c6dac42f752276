//! Exactly once, whatever happens: two instances on one slot, three brokers, rows that are written all the time, and faults one
//! after the other in an order that a seed gives. In the end every topic is compared, record by record, with what PostgreSQL
//! itself says was committed.
//!
//! `tests/chaos.sh` runs it, long if wanted: TESTS_FAULTS is how many faults, TESTS_SEED gives their order, TESTS_MODE is the
//! delivery, both if it is not set.

#![allow(
    clippy::unwrap_used,
    reason = "clippy only sees #[test] functions as tests, not their helpers"
)]
#![allow(unreachable_pub, reason = "no crate comes after this one")]

#[path = "chaos/batches.rs"]
mod batches;
#[path = "chaos/bed.rs"]
mod bed;
#[path = "chaos/chance.rs"]
mod chance;
#[path = "chaos/diary.rs"]
mod diary;
#[path = "chaos/fault.rs"]
mod fault;
#[path = "chaos/instance.rs"]
mod instance;
#[path = "chaos/judge.rs"]
mod judge;
#[path = "chaos/load.rs"]
mod load;
#[path = "chaos/reference.rs"]
mod reference;
#[path = "chaos/rows.rs"]
mod rows;
#[path = "chaos/strike.rs"]
mod strike;
mod support;
#[path = "chaos/verdict.rs"]
mod verdict;

use std::collections::BTreeMap;
use std::time::Duration;

use bed::Bed;
use chance::Chance;
use diary::Diary;
use fault::Step;
use judge::Wrong;
use load::Load;
use reference::Reference;
use verdict::Verdict;

/// Until records are stored again after a fault. Long, as the machine may be busy.
const LIMIT: Duration = Duration::from_secs(120);

/// The reference is read after so many faults, so that PostgreSQL need not keep it all.
const OFTEN: usize = 10;

fn setting(name: &str, otherwise: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn every_change_is_stored_once_and_in_order_whatever_fails() {
    let only = std::env::var("TESTS_ONLY").unwrap_or_default();
    in_each_mode(if support::soak() { 300 } else { 15 }, &only);
}

#[test]
#[ignore = "an hour: tests/soak.sh runs it"]
fn frozen_and_thawed_again_and_again_nothing_is_stored_behind_a_successors_marker() {
    in_each_mode(50, "FreezeActive,FreezeHeld");
}

fn in_each_mode(faults: u64, only: &str) {
    let faults = setting("TESTS_FAULTS", faults);
    let seed = setting("TESTS_SEED", 1);
    let only: Vec<&str> = only.split(',').filter(|kind| !kind.is_empty()).collect();
    let mode =
        std::env::var("TESTS_MODE").unwrap_or_else(|_| "idempotent,transactional".to_owned());
    mode.split(',').for_each(|mode| hold_against_the_model(faults, seed, mode, &only));
}

fn hold_against_the_model(faults: u64, seed: u64, mode: &str, only: &[&str]) {
    let plan = fault::plan(&mut Chance::new(seed, 0), usize::try_from(faults).unwrap(), only);
    eprintln!("chaos: {faults} faults, seed {seed}, {mode}");

    let bed = Bed::start(mode);
    let (diary, mut reference) = (Diary::new(), Reference::default());
    let load = Load::start(&bed.url, seed);
    bed.wait_stored(&load, true);
    let mut rest = plan.as_slice();
    while let [step, after @ ..] = rest {
        rest = match after {
            [next, after @ ..] if next.on_top.is_some() => {
                together(&bed, &diary, step, next);
                after
            }
            _ => {
                run(&bed, &diary, step);
                after
            }
        };
        bed.wait_stored(&load, step.thorough);
        if step.number.is_multiple_of(OFTEN) {
            let at = bed.postgres.sql("select pg_current_wal_flush_lsn()");
            reference.read(&bed.postgres, &at).expect("PostgreSQL is there between faults");
        }
    }
    bed.wait_stored(&load, true);
    let committed = load.stop();
    let end = bed.wait_end();
    reference.read(&bed.postgres, &end).expect("PostgreSQL is there in the end");
    reference.check(&bed.postgres);
    let ends = bed.stop();
    let verdict = Verdict::read(&reference, &bed.kafka, &diary, mode);

    report(&plan, &diary, &reference, &verdict, committed, &ends);
    assert_eq!(
        verdict.count_without(&[]),
        0,
        "it is said above what is wrong; the logs are in {:?}",
        bed.instances.each_ref().map(|instance| instance.log_file())
    );
    assert_eq!(verdict.returns, 0, "batches are stored behind a successor's marker");
    assert!(reference.records.len() > 1000, "too little was written to tell anything");
}

fn run(bed: &Bed, diary: &Diary, step: &Step) {
    let kind = step.fault.kind();
    diary.during(step.number, &kind, || strike::strike(bed, step.number, step.fault));
}

/// The second comes while the first is under way, if they do not touch the same; else right after it.
fn together(bed: &Bed, diary: &Diary, first: &Step, second: &Step) {
    if first.fault.touches() & second.fault.touches() != 0 {
        run(bed, diary, first);
        run(bed, diary, second);
        return;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| run(bed, diary, first));
        std::thread::sleep(Duration::from_millis(second.on_top.unwrap_or(0)));
        run(bed, diary, second);
    });
}

fn report(
    plan: &[Step],
    diary: &Diary,
    reference: &Reference,
    verdict: &Verdict<'_>,
    committed: u64,
    ends: &[String],
) {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    plan.iter().for_each(|step| *kinds.entry(step.fault.kind()).or_default() += 1);
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    eprintln!("chaos: {}", kinds.join(", "));
    eprintln!("chaos: {}", ends.join("; "));
    eprintln!("{}", verdict.shown());
    eprintln!(
        "chaos: {} records of {} transactions ({committed} with an answer), {} stored: \
         {} lost, {} repeated, {} out of order, {} keys left with an old value, {} otherwise wrong, {} batches behind the marker of a successor; {} s",
        reference.records.len(),
        reference.transactions,
        verdict.stored,
        verdict.count(Wrong::Lost),
        verdict.count(Wrong::Repeated),
        verdict.count(Wrong::Disordered),
        verdict.count(Wrong::Stale),
        verdict.count_without(&[Wrong::Lost, Wrong::Repeated, Wrong::Disordered, Wrong::Stale]),
        verdict.returns,
        diary.seconds()
    );
}
