//! A failing history made shorter: faults that it can do without are left out, one after the other, and
//! then time, writes and the second process.

use pgsluice::sim::Bug;

use super::{plan::Plan, world::run};

/// The shortest plan found that still breaks a promise.
pub fn shrink(plan: &Plan, bug: Option<Bug>) -> Plan {
    let fails = |plan: &Plan| run(plan, bug, false).broken().is_some();
    let mut best = plan.clone();
    loop {
        let smaller = candidates(&best).into_iter().find(&fails);
        match smaller {
            Some(smaller) => best = smaller,
            None => return best,
        }
    }
}

/// Plans that are a little smaller, the smallest first.
fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut all = Vec::new();
    let half = plan.faults.len() / 2;
    if half > 0 {
        all.push(Plan { faults: plan.faults[half..].to_vec(), ..plan.clone() });
        all.push(Plan { faults: plan.faults[..half].to_vec(), ..plan.clone() });
    }
    for at in 0..plan.faults.len() {
        let mut faults = plan.faults.clone();
        faults.remove(at);
        all.push(Plan { faults, ..plan.clone() });
    }
    if plan.instances == 2 {
        all.push(Plan { instances: 1, ..plan.clone() });
    }
    let last = plan.faults.last().map_or(0, |fault| fault.at);
    for length in [plan.length / 2, plan.length - plan.length / 8] {
        if length > last && length >= 200 && length < plan.length {
            all.push(Plan { length, ..plan.clone() });
        }
    }
    if plan.pause < 800 {
        all.push(Plan { pause: plan.pause * 2, ..plan.clone() });
    }
    all
}
