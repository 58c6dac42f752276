//! A standby is promoted that does not have the slot: it is waited for, and then it is a gap, unless somebody brings it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use crate::pair::{LIMIT, Pair, host, kafka, paste, printed, shown, status};
use crate::support::{Postgres, eventually};

fn slots(on: &Postgres, name: &str) -> String {
    on.sql(&format!("select count(*) from pg_replication_slots where slot_name = '{name}'"))
}

/// By the role that streams, on a replication connection. Whether it was done.
fn replication(on: &Postgres, database: &str, statement: &str) -> bool {
    let at = format!("host=127.0.0.1 port={} user=cdc_user dbname={database}", on.port());
    let mut psql = Command::new("timeout");
    psql.args(["--kill-after=5", "60", "psql", "-XqAt", "-d"]);
    let ran = psql.args([&format!("{at} replication=database"), "-c", statement]).output();
    ran.unwrap().status.success()
}

/// A copy is temporary as long as the slot stands before what its standby keeps, and vanishes with the promotion.
#[test]
fn an_unplanned_promotion_with_a_copy_that_was_not_synchronised_ends_with_66() {
    kafka();
    let name = "unsynced";
    let make = format!("'{name}', 'pgoutput'");
    let mut open = None;
    let pair = Pair::new(name, 17, 2, &["hot_standby_feedback=off"], |a| {
        a.sql_in(name, &format!("select pg_create_logical_replication_slot({make})"));
        // The slot cannot pass what is open.
        let mut psql = a.psql(name).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = psql.stdin.take().unwrap();
        writeln!(input, "begin; insert into t values (99); select 'begun';").unwrap();
        let mut begun = String::new();
        BufReader::new(psql.stdout.take().unwrap()).read_line(&mut begun).unwrap();
        assert_eq!(begun.trim(), "begun");
        open = Some((psql, input));
        a.sql_in(name, "insert into t values (0)");
    });
    let (a, b) = (&pair.a, &pair.b);
    let mut sluice = pair.start(&[]);
    let line = sluice.wait_log(LIMIT, &["WARN", &host(b), "made without failover"]);
    let statement = printed(&line, "ALTER_REPLICATION_SLOT");
    assert!(!replication(a, name, statement), "somebody reads the slot, and it was altered");
    assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
    assert!(replication(a, name, statement), "{statement}");
    let mut sluice = pair.start(&["slot.missing_timeout=3s"]);
    let line = sluice.wait_log(LIMIT, &["WARN", &host(b), "hot_standby_feedback is off"]);
    assert_eq!(shown(&sluice, b)["ready"], false);
    paste(b, printed(&line, "ALTER SYSTEM"));
    eventually(LIMIT, "there is a temporary copy", || {
        b.sql("select pg_reload_conf()"); // which wakes its worker
        shown(&sluice, b)["temporary"] == true
    });
    sluice.wait_log(LIMIT, &["WARN", &host(b), "is temporary still, and would vanish"]);
    assert_eq!(shown(&sluice, b)["ready"], false);
    pair.insert(a, 1, 4);
    kafka().wait(&pair.topic(), 5, LIMIT);

    a.ctl("kill");
    b.ctl("promote");
    sluice.wait_log(LIMIT, &["WARN", &host(b), "does not exist", "is waited for", &host(a)]);
    assert_eq!(sluice.wait(LIMIT), 66, "{}", sluice.log());
    let log = sluice.log();
    let last = log.lines().last().unwrap_or_default();
    let accept = format!("pgsluice run --accept-gap {name}");
    for word in [
        &format!("does not exist on {} (timeline 2)", host(b)),
        "what was committed up to",
        &format!("seen last on {} (timeline 1)", host(a)),
        &accept,
    ] {
        assert!(last.contains(word), "{word} is not in: {last}");
    }
    assert_eq!(log.matches("is waited for").count(), 1, "{log}");
    assert_eq!(slots(b, name), "0");
    assert_eq!(pair.rows(), [0, 1, 2, 3, 4]);

    // One that never was is not waited for.
    let mut first = pair.spawn(&["slot.name=never", "slot.create=false"]);
    assert_eq!(first.wait(LIMIT), 66, "{}", first.log());
    assert!(!first.log().contains("is waited for"), "{}", first.log());
    let (mut psql, input) = open.unwrap();
    drop(input);
    let _ = psql.wait();
}

/// As Patroni does it: the slot's files are copied, and the server started again.
#[test]
fn a_slot_that_is_brought_later_is_used_and_one_that_is_made_anew_is_a_gap() {
    kafka();
    let name = "brought";
    let pair = Pair::new(name, 15, 3, &[], |_| {});
    let (a, b) = (&pair.a, &pair.b);
    let mut sluice = pair.start(&[]);
    sluice.wait_log(LIMIT, &["WARN", &host(b), "Patroni or pg_failover_slots"]);
    pair.insert(a, 0, 4);
    pair.wait_confirmed(a);
    a.ctl("stop-fast");
    b.ctl("promote");
    pair.insert(b, 10, 4);
    sluice.wait_log(LIMIT, &["WARN", &host(b), "does not exist", "slot.missing_timeout (30s)"]);
    let seen = status(&sluice);
    assert_eq!(seen["role"], "connecting");
    assert!(seen["reason"].as_str().unwrap().contains("is waited for"), "{seen}");
    b.ctl("stop-fast");
    let of = |server: &Postgres| server.folder().join("pg_replslot").join(name);
    let copied = Command::new("cp").arg("-a").args([of(a), of(b)]).status();
    assert!(copied.unwrap().success(), "its files are not copied");
    b.ctl("start");
    sluice.wait_log(LIMIT, &["INFO", "the slot that was missing is there"]);
    pair.insert(b, 20, 1);
    pair.wait_confirmed(b);
    assert_eq!(pair.rows(), [0, 1, 2, 3, 10, 11, 12, 13, 20]);

    b.drop_slots(name);
    pair.insert(b, 30, 1);
    eventually(LIMIT, "it is waited for again", || {
        sluice.log().matches("is waited for").count() == 2
    });
    b.sql_in(name, &format!("select pg_create_logical_replication_slot('{name}', 'pgoutput')"));
    assert_eq!(sluice.wait(LIMIT), 66, "{}", sluice.log());
    let log = sluice.log();
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains("in no topic") && last.contains("--accept-gap"), "{last}");
    assert_eq!(pair.rows(), [0, 1, 2, 3, 10, 11, 12, 13, 20]);
}
