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
    let lasts = |ms| std::thread::sleep(Duration::from_millis(ms)); // as long as the fault is to last
    let (active, passive) = bed.active(number);
    match fault {
        Fault::KillActive => active.kill(),
        Fault::KillPassive => passive.kill(),
        Fault::FreezeActive { ms } => {
            active.signal("STOP");
            lasts(ms);
            active.signal("CONT");
        }
        Fault::TermActive => {
            let before = active.signal("TERM");
            eventually(LIMIT, "it has ended and is started again", || {
                bed.check();
                active.started() > before
            });
        }
        Fault::KillHeld { bytes, ms } => kill_held(bed, active, bytes, ms),
        Fault::Held { ms } => {
            active.kafka.iter().for_each(Proxy::hold);
            lasts(ms);
            active.kafka.iter().for_each(Proxy::let_go);
        }
        Fault::KillWhilePaused { broker, ms } => {
            bed.kafka.ctl(&broker.to_string(), "pause");
            lasts(ms / 2);
            active.kill();
            lasts(ms / 2);
            bed.kafka.ctl(&broker.to_string(), "resume");
        }
        Fault::TerminateWalsender => {
            let all = "from pg_replication_slots where slot_name = 'chaos' and active";
            let sql = format!("select pg_terminate_backend(active_pid) {all}");
            let _ = bed.postgres.try_sql("postgres", &sql);
        }
        Fault::PostgresFast => restart_postgres(bed, "stop-fast"),
        Fault::PostgresImmediate => restart_postgres(bed, "stop-immediate"),
        Fault::PostgresKill => restart_postgres(bed, "kill"),
        Fault::BrokerKill { broker } => {
            bed.kafka.ctl(&broker.to_string(), "kill");
            bed.kafka.ctl(&broker.to_string(), "start");
        }
        Fault::BrokerPause { broker, ms } => {
            bed.kafka.ctl(&broker.to_string(), "pause");
            lasts(ms);
            bed.kafka.ctl(&broker.to_string(), "resume");
        }
        Fault::Lead { broker } => {
            for table in &TABLES {
                // A broker that has not caught up yet does not lead: that is no fault then.
                let words = [bed.kafka.brokers(), "lead", &table.topic(), &broker.to_string()];
                let _ = try_run("kafka-topics", &words, &[]);
            }
        }
        Fault::BrokersRestart => {
            bed.kafka.ctl("all", "stop");
            bed.kafka.ctl("all", "start");
        }
        Fault::Reset { side } => proxies(active, side).for_each(Proxy::cut_once),
        Fault::BlackHole { side, ms } => {
            set(active, side, Mode::BlackHole);
            lasts(ms);
            set(active, side, Mode::Pass);
        }
        Fault::Cut { side, sent, bytes } => {
            set(active, side, if sent { Mode::CutAfterSent(bytes) } else { Mode::CutAfter(bytes) });
            // Where little is sent it takes too long.
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_secs(5)
                && proxies(active, side).all(|proxy| proxy.mode() != Mode::Cut)
            {
                lasts(10);
            }
            set(active, side, Mode::Pass);
        }
        Fault::Slow { side, rate, ms } => {
            set(active, side, Mode::Slow(rate));
            lasts(ms);
            set(active, side, Mode::Pass);
        }
    }
    format!("{fault:?} ({} was active)", active.name)
}

/// Its last Produce is on its way when it dies, for so long that another is at work when it arrives.
fn kill_held(bed: &Bed, active: &Instance, bytes: usize, ms: u64) {
    active.kafka.iter().for_each(Proxy::hold);
    let begin = Instant::now();
    let held = || active.kafka.iter().map(Proxy::held).sum::<usize>();
    // It may have nothing more to say, while a server is away.
    while held() < bytes && begin.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(5));
    }
    active.kill();
    let begin = Instant::now();
    let at = bed.postgres.try_sql("postgres", "select pg_current_wal_lsn()");
    if let Ok(at) = at {
        while begin.elapsed() < Duration::from_secs(10) && !bed.confirmed(&format!("> '{at}'")) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    std::thread::sleep(Duration::from_millis(ms));
    active.kafka.iter().for_each(Proxy::let_go);
}

fn restart_postgres(bed: &Bed, how: &str) {
    bed.postgres.ctl(how);
    bed.postgres.ctl("start");
}

fn proxies(instance: &Instance, side: Side) -> impl Iterator<Item = &Proxy> {
    let postgres = matches!(side, Side::Postgres | Side::Both).then_some(&instance.postgres);
    let kafka: &[Proxy] = if matches!(side, Side::Postgres) { &[] } else { &instance.kafka };
    postgres.into_iter().chain(kafka)
}

fn set(instance: &Instance, side: Side, mode: Mode) {
    proxies(instance, side).for_each(|proxy| proxy.set(mode));
}
