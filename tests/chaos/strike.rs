//! How each fault is done. Each has ended, and what it broke is whole again, when its function comes back.

use std::time::{Duration, Instant};

use crate::LIMIT;
use crate::bed::Bed;
use crate::fault::{Fault, Side};
use crate::instance::Instance;
use crate::rows::TABLES;
use crate::support::{Mode, Proxy, eventually, try_run};

/// Lets it happen. What it was in the end.
pub fn strike(bed: &Bed, number: usize, fault: Fault) -> String {
    let more = match fault {
        Fault::KillActive
        | Fault::KillPassive
        | Fault::KillBoth
        | Fault::FreezeActive { .. }
        | Fault::FreezeHeld { .. }
        | Fault::TermActive
        | Fault::KillHeld { .. }
        | Fault::KillWhilePaused { .. } => process(bed, number, fault),
        Fault::TerminateWalsender
        | Fault::PostgresFast
        | Fault::PostgresImmediate
        | Fault::PostgresKill
        | Fault::PostgresPause { .. } => postgres(bed, fault),
        Fault::BrokerKill { .. }
        | Fault::BrokerPause { .. }
        | Fault::Lead { .. }
        | Fault::BrokersRestart => kafka(bed, fault),
        Fault::Held { .. }
        | Fault::Reset { .. }
        | Fault::BlackHole { .. }
        | Fault::Cut { .. }
        | Fault::Slow { .. } => network(bed.active(number).0, fault),
    };
    format!("{fault:?}{more}")
}

/// As long as the fault is to last.
fn lasts(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

fn process(bed: &Bed, number: usize, fault: Fault) -> String {
    let (active, passive) = bed.active(number);
    let mut more = String::new();
    match fault {
        Fault::KillActive => active.kill(),
        Fault::KillPassive => passive.kill(),
        Fault::KillBoth => [active, passive].iter().for_each(|instance| instance.kill()),
        Fault::FreezeActive { ms } => {
            active.signal("STOP");
            lasts(ms);
            active.signal("CONT");
        }
        Fault::FreezeHeld { bytes, ms } => {
            let held = held(bed, active, bytes, 0, || _ = active.signal("STOP"));
            more = format!(", {held} bytes were held");
            lasts(ms);
            active.signal("CONT");
        }
        Fault::KillHeld { bytes, ms } => {
            let held = held(bed, active, bytes, ms, || active.kill());
            more = format!(", {held} bytes were held");
        }
        Fault::KillWhilePaused { broker, ms } => {
            bed.kafka.ctl(&broker.to_string(), "pause");
            lasts(ms / 2);
            active.kill();
            lasts(ms / 2);
            bed.kafka.ctl(&broker.to_string(), "resume");
        }
        _ => {
            let before = active.signal("TERM");
            eventually(LIMIT, "it has ended and is started again", || {
                bed.check();
                active.started() > before
            });
        }
    }
    format!(", {} was active{more}", active.name)
}

/// Its last Produce is on its way at its `end`, until another is at work and this much longer. How many bytes.
fn held(bed: &Bed, active: &Instance, bytes: usize, ms: u64, end: impl FnOnce()) -> usize {
    active.kafka.iter().for_each(Proxy::hold);
    let begin = Instant::now();
    let held = || active.kafka.iter().map(Proxy::held).sum::<usize>();
    // It may have nothing more to say, while a server is away.
    while held() < bytes && begin.elapsed() < Duration::from_secs(2) {
        lasts(5);
    }
    end();
    let begin = Instant::now();
    let at = bed.postgres.try_sql("postgres", "select pg_current_wal_lsn()");
    if let Ok(at) = at {
        while begin.elapsed() < Duration::from_secs(10) && !bed.confirmed(&format!("> '{at}'")) {
            lasts(50);
        }
    }
    lasts(ms);
    active.kafka.iter().for_each(Proxy::let_go);
    held()
}

fn postgres(bed: &Bed, fault: Fault) -> String {
    let restart = |how| {
        bed.postgres.ctl(how);
        bed.postgres.ctl("start");
    };
    match fault {
        Fault::PostgresFast => restart("stop-fast"),
        Fault::PostgresImmediate => restart("stop-immediate"),
        Fault::PostgresKill => restart("kill"),
        Fault::PostgresPause { ms } => {
            bed.postgres.ctl("pause");
            lasts(ms);
            bed.postgres.ctl("resume");
        }
        _ => {
            let all = "from pg_replication_slots where slot_name = 'chaos' and active";
            let sql = format!("select pg_terminate_backend(active_pid) {all}");
            let _ = bed.postgres.try_sql("postgres", &sql);
        }
    }
    String::new()
}

fn kafka(bed: &Bed, fault: Fault) -> String {
    match fault {
        Fault::BrokerKill { broker } => {
            bed.kafka.ctl(&broker.to_string(), "kill");
            bed.kafka.ctl(&broker.to_string(), "start");
        }
        Fault::BrokerPause { broker, ms } => {
            bed.kafka.ctl(&broker.to_string(), "pause");
            lasts(ms);
            bed.kafka.ctl(&broker.to_string(), "resume");
        }
        Fault::BrokersRestart => {
            // One that waits in vain for the others to let it go is killed.
            if !bed.kafka.try_ctl("all", "stop") {
                for id in ["1", "2", "3"] {
                    bed.kafka.try_ctl(id, "kill");
                }
            }
            bed.kafka.ctl("all", "start");
        }
        Fault::Lead { broker } => {
            for table in &TABLES {
                // A broker that has not caught up yet does not lead: that is no fault then.
                let words = [bed.kafka.brokers(), "lead", &table.topic(), &broker.to_string()];
                let _ = try_run("kafka-topics", &words, &[]);
            }
        }
        _ => unreachable!("no fault of Kafka"),
    }
    String::new()
}

fn network(active: &Instance, fault: Fault) -> String {
    match fault {
        Fault::Held { ms } => {
            active.kafka.iter().for_each(Proxy::hold);
            lasts(ms);
            active.kafka.iter().for_each(Proxy::let_go);
            let held = active.kafka.iter().map(Proxy::held).sum::<usize>();
            return format!(", {} was active, {held} bytes were held", active.name);
        }
        Fault::Reset { side } => proxies(active, side).for_each(Proxy::cut_once),
        Fault::BlackHole { side, ms } => {
            set(active, side, Mode::BlackHole);
            lasts(ms);
            set(active, side, Mode::Pass);
        }
        Fault::Slow { side, rate, ms } => {
            set(active, side, Mode::Slow(rate));
            lasts(ms);
            set(active, side, Mode::Pass);
        }
        Fault::Cut { side, sent, bytes } => {
            set(active, side, if sent { Mode::CutAfterSent(bytes) } else { Mode::CutAfter(bytes) });
            // Where little is sent it takes too long.
            let begin = Instant::now();
            let whole = || proxies(active, side).all(|proxy| proxy.mode() != Mode::Cut);
            while begin.elapsed() < Duration::from_secs(5) && whole() {
                lasts(10);
            }
            set(active, side, Mode::Pass);
        }
        _ => unreachable!("no fault of the network"),
    }
    format!(", {} was active", active.name)
}

fn proxies(instance: &Instance, side: Side) -> impl Iterator<Item = &Proxy> {
    let postgres = matches!(side, Side::Postgres | Side::Both).then_some(&instance.postgres);
    let kafka: &[Proxy] = if matches!(side, Side::Postgres) { &[] } else { &instance.kafka };
    postgres.into_iter().chain(kafka)
}

fn set(instance: &Instance, side: Side, mode: Mode) {
    proxies(instance, side).for_each(|proxy| proxy.set(mode));
}
