//! A → B → A, as it is done by hand: the primary is stopped, its standby promoted, and the former primary follows it.

use std::time::Instant;

use crate::pair::{LIMIT, Pair, Writer, host, kafka, paste, printed, shown};
use crate::support::{Pgsluice, Postgres, eventually};

fn records(sluice: &Pgsluice) -> f64 {
    sluice.metric("pgsluice_records_total", &[])
}

/// `from` is stopped under load, and `to` promoted. Gives the new writer.
fn switch(
    pair: &Pair,
    sluice: &Pgsluice,
    writer: Writer,
    from: &Postgres,
    to: &Postgres,
    meanwhile: impl FnOnce(),
) -> Writer {
    let begin = Instant::now();
    from.ctl("stop-fast");
    let stopped = records(sluice);
    let next = writer.stop();
    to.ctl("promote");
    let promoted = begin.elapsed();
    let writer = Writer::start(pair, to, next);
    meanwhile();
    eventually(LIMIT, "rows of the new primary are stored", || records(sluice) > stopped + 10.0);
    println!(
        "{} {} → {}: promoted after {promoted:?}, streaming after {:?}",
        pair.name,
        from.port(),
        to.port(),
        begin.elapsed()
    );
    writer
}

fn there_and_back(version: u8, name: &'static str, at: u16) {
    let pair = Pair::new(name, version, at, &[], |_| {});
    let (a, b) = (&pair.a, &pair.b);
    let mut sluice = pair.start(&[]);
    assert_eq!(a.sql("select failover from pg_replication_slots where slot_type = 'logical'"), "t");
    pair.wait_could_go_on(&sluice, a, b);
    assert!(shown(&sluice, b)["behind_bytes"].is_u64(), "{}", shown(&sluice, b));
    let writer = Writer::start(&pair, a, 0);
    eventually(LIMIT, "rows are stored", || records(&sluice) > 50.0);
    let writer = switch(&pair, &sluice, writer, a, b, || {});

    // The former primary's own slot keeps every copy out.
    a.follow(b);
    let line = sluice.wait_log(LIMIT, &["WARN", &host(a), "of its own", "copies no slot"]);
    assert_eq!(shown(&sluice, a)["ready"], false);
    assert_eq!(sluice.metric("pgsluice_standby_slot_ready", &[&host(a)]), 0.0);
    let sql = printed(&line, "SELECT pg_drop_replication_slot");
    assert_eq!(sql, format!("SELECT pg_drop_replication_slot('{name}');"));
    paste(a, sql);
    pair.wait_could_go_on(&sluice, b, a);
    sluice.wait_log(LIMIT, &["INFO", &host(a), "could go on", "again"]);

    // Nothing makes walsenders wait for it yet.
    let line = sluice.wait_log(LIMIT, &["WARN", &host(a), "synchronized_standby_slots"]);
    let sql = printed(&line, "ALTER SYSTEM");
    assert!(sql.contains(&format!("= 'standby_{}';", a.port())), "{sql}");
    paste(b, sql);
    eventually(LIMIT, "it is set", || {
        b.sql("show synchronized_standby_slots") == format!("standby_{}", a.port())
    });

    // As it was the primary before, it has a setting that names its standby, which is not one yet.
    let writer = switch(&pair, &sluice, writer, b, a, || {
        let held = format!("standby_{}", b.port());
        let words = ["WARN", "stands still", &held, "nobody reads"];
        if version == 17 {
            eventually(LIMIT, "what is waited for is said", || {
                sluice.log().lines().any(|line| words.iter().all(|word| line.contains(word)))
            });
        }
        b.follow(a);
    });
    pair.wait_could_go_on(&sluice, a, b); // its slot was a copy once, and is one again
    writer.stop();
    pair.wait_confirmed(a);
    let all = a.sql_in(name, "select id from t order by id");
    let all: Vec<u32> = all.lines().map(|id| id.parse().unwrap()).collect();
    assert!(all.len() > 70, "{}", all.len());
    assert_eq!(pair.rows(), all, "{}", sluice.log());
    if sluice.log().contains("stands still") {
        sluice.wait_log(LIMIT, &["moves again"]);
    }
    let log = sluice.log();
    assert_eq!(log.matches("of its own").count(), 1, "{log}");
    assert_eq!(log.matches("may be streamed before").count(), 1, "{log}");
    assert_eq!(sluice.stop(LIMIT), 0, "{log}");
}

#[test]
fn a_planned_switchover_and_back_loses_and_repeats_nothing_17() {
    kafka();
    there_and_back(17, "planned_17", 0);
}

#[test]
fn a_planned_switchover_and_back_loses_and_repeats_nothing_18() {
    kafka();
    there_and_back(18, "planned_18", 1);
}
