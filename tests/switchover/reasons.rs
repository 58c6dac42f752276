//! Why the stream could not go on at a standby, one reason after the other: each is said with what mends it, and is mended by that.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Stdio},
};

use crate::pair::{LIMIT, Pair, host, kafka, paste, printed, shown, status};
use crate::support::{Pgsluice, Postgres, eventually, eventually_some};

const NAME: &str = "reasons";

/// What `/status` gives as the reason, once it has this word; it stands in the log too.
#[track_caller]
fn reason(sluice: &mut Pgsluice, standby: &Postgres, word: &str) -> String {
    let reason = eventually_some(LIMIT, &format!("/status says {word:?}"), || {
        let shown = shown(sluice, standby);
        let reason = shown["reason"].as_str().unwrap_or_default();
        (shown["ready"] == false && reason.contains(word)).then(|| reason.to_owned())
    });
    sluice.wait_log(LIMIT, &["WARN", &host(standby), "could not go on", &reason]);
    reason
}

/// A statement of that text, from this word on to the end of the first that ends so.
#[track_caller]
fn part<'a>(text: &'a str, from: &str, end: &str) -> &'a str {
    let text = printed(text, from);
    text.split_inclusive(end).next().unwrap()
}

/// The copy is good, and follows: what is written from now on is in it.
#[track_caller]
fn is_good(pair: &Pair, sluice: &Pgsluice, primary: &Postgres, standby: &Postgres, row: u32) {
    pair.insert(primary, row, 1);
    let now = primary.sql("select pg_current_wal_insert_lsn()");
    pair.wait_confirmed(primary);
    let of = format!("from pg_replication_slots where slot_name = '{NAME}'");
    eventually(LIMIT, "the copy follows", || {
        primary.sql("select pg_log_standby_snapshot()");
        standby.sql("select pg_reload_conf()"); // which wakes its worker
        standby.sql(&format!("select confirmed_flush_lsn >= '{now}' and synced {of}")) == "t"
    });
    pair.wait_could_go_on(sluice, primary, standby);
    assert!(shown(sluice, standby)["reason"].is_null(), "{}", shown(sluice, standby));
}

fn set(on: &Postgres, name: &str, value: &str) {
    on.sql(&format!("alter system set {name} = '{value}'"));
    on.sql("select pg_reload_conf()");
}

/// A transaction that is left open.
fn open(on: &Postgres) -> Child {
    let mut psql = on.psql(NAME).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let input = psql.stdin.as_mut().unwrap();
    writeln!(input, "begin; insert into t values (99); select 'begun';").unwrap();
    let mut begun = String::new();
    BufReader::new(psql.stdout.take().unwrap()).read_line(&mut begun).unwrap();
    assert_eq!(begun.trim(), "begun");
    psql
}

#[test]
fn each_reason_is_said_with_what_mends_it() {
    kafka();
    let mut begun = None;
    let pair = Pair::new(NAME, 18, 4, &["sync_replication_slots=off"], |a| {
        let make = format!("'{NAME}', 'pgoutput', failover => true");
        a.sql_in(NAME, &format!("select pg_create_logical_replication_slot({make})"));
        begun = Some(open(a)); // the slot cannot pass it
    });
    let (a, b) = (&pair.a, &pair.b);
    let mut sluice = pair.start(&["slot.health_interval=200ms"]);

    not_synchronised(&pair, &mut sluice, begun.unwrap());
    not_waited_for(&pair, &mut sluice);
    not_there(&pair, &mut sluice);

    // It is one that is waited for, too.
    set(b, "primary_slot_name", "");
    let text = reason(&mut sluice, b, "primary_slot_name is not set");
    let sql = printed(&text, "ALTER SYSTEM");
    assert!(sql.contains(&format!("= 'standby_{}';", b.port())), "{sql}");
    paste(b, sql);
    is_good(&pair, &sluice, a, b, 4);

    // Only who may see all settings knows it. There may be a password in it, which is not ours.
    a.sql("grant pg_read_all_settings to cdc_user");
    let conninfo = b.sql("show primary_conninfo");
    set(b, "primary_conninfo", &conninfo.replace("dbname=postgres", ""));
    let text = reason(&mut sluice, b, "primary_conninfo has no dbname");
    b.sql(&b.sql(part(&text, "SELECT format", "); ")));
    paste(b, printed(&text, "SELECT pg_reload_conf"));
    is_good(&pair, &sluice, a, b, 5);

    a_former_primary(&pair, &mut sluice);
    let log = sluice.log();
    assert_eq!(sluice.stop(LIMIT), 0, "{log}");
    assert_eq!(pair.rows(), [99, 1, 2, 3, 4, 5, 6, 7], "{log}");
}

/// There is no copy, as nobody makes one; and then one that is not kept, as a transaction is older than it.
fn not_synchronised(pair: &Pair, sluice: &mut Pgsluice, mut begun: Child) {
    let (a, b) = (&pair.a, &pair.b);
    let text = reason(sluice, b, "sync_replication_slots is off");
    assert_eq!(shown(sluice, b)["present"], false);
    paste(b, printed(&text, "ALTER SYSTEM"));
    let text = reason(sluice, b, "temporary still");
    assert_eq!(shown(sluice, b)["temporary"], true);
    assert!(text.contains("transactions that are open must end"), "{text}");
    writeln!(begun.stdin.take().unwrap(), "commit;").unwrap();
    assert!(begun.wait().unwrap().success());
    eventually(LIMIT, "it is kept", || {
        paste(a, printed(&text, "SELECT"));
        b.sql("select pg_reload_conf()"); // which wakes its worker
        shown(sluice, b)["ready"] == true
    });
    is_good(pair, sluice, a, b, 1);
    sluice.wait_log(LIMIT, &["INFO", &host(b), "could go on", "again"]);
}

/// It has all, by chance: rows may be in Kafka only.
fn not_waited_for(pair: &Pair, sluice: &mut Pgsluice) {
    let (a, b) = (&pair.a, &pair.b);
    set(a, "synchronized_standby_slots", "");
    let line = sluice.wait_log(LIMIT, &["WARN", &host(b), "may be streamed before it does"]);
    let sql = printed(&line, "ALTER SYSTEM");
    let advice = |sluice: &Pgsluice| shown(sluice, b)["advice"].as_str().map(str::to_owned);
    eventually(LIMIT, "/status says so", || advice(sluice).is_some_and(|it| it.contains(sql)));
    paste(a, sql);
    eventually(LIMIT, "it is waited for", || advice(sluice).is_none());
    assert_eq!(a.sql("show synchronized_standby_slots"), format!("standby_{}", b.port()));
    is_good(pair, sluice, a, b, 2);
}

/// Another one is waited for, of which there is no slot: the stream stands still.
fn not_there(pair: &Pair, sluice: &mut Pgsluice) {
    let (a, b) = (&pair.a, &pair.b);
    let ours = format!("standby_{}", b.port());
    let gone = "alter system set synchronized_standby_slots";
    // What is no slot is refused here, and is none after it was dropped.
    a.sql("select pg_create_physical_replication_slot('gone', true)");
    a.sql(&format!("{gone} = '{ours}, gone'"));
    a.sql("select pg_reload_conf()");
    a.sql("select pg_drop_replication_slot('gone')");
    pair.insert(a, 3, 1);
    let line = sluice.wait_log(LIMIT, &["WARN", "stands still", "\"gone\"", "no slot here"]);
    let waits = status(sluice)["slot_health"]["waits"].clone();
    assert!(waits.as_str().is_some_and(|waits| line.contains(waits)), "{waits}");
    assert_eq!(sluice.metric("pgsluice_slot_waits_for_standby", &[]), 1.0);
    let sql = printed(&line, "ALTER SYSTEM");
    assert!(sql.contains(&format!("= '{ours}';")), "{sql}");
    paste(a, sql);
    sluice.wait_log(LIMIT, &["INFO", "moves again"]);
    pair.wait_confirmed(a);
    pair.wait_could_go_on(sluice, a, b);
}

/// Its own slots keep every copy out, also those that are other pipelines'.
fn a_former_primary(pair: &Pair, sluice: &mut Pgsluice) {
    let (a, b) = (&pair.a, &pair.b);
    let other = "select pg_create_logical_replication_slot('other', 'pgoutput', failover => true)
                 where not exists (select from pg_replication_slots where slot_name = 'other')";
    a.sql_in(NAME, other);
    pair.wait_could_go_on(sluice, a, b);
    a.ctl("stop-fast");
    b.ctl("promote");
    b.sql_in(NAME, other); // as if its copy had been good
    pair.insert(b, 6, 1);
    pair.wait_confirmed(b);
    a.follow(b);
    let text = reason(sluice, a, "of its own");
    assert!(text.contains(&format!("{NAME:?} and \"other\"")), "{text}");
    paste(a, part(&text, "SELECT pg_drop", ";"));
    // Now it is another's alone.
    let text = eventually_some(LIMIT, "/status says so", || {
        let shown = shown(sluice, a)["reason"].clone();
        shown.as_str().filter(|it| it.contains("it has \"other\" of its own")).map(str::to_owned)
    });
    assert_eq!(shown(sluice, a)["present"], false, "{text}");
    paste(a, printed(&text, "SELECT pg_drop"));
    let line = sluice.wait_log(LIMIT, &["WARN", &host(a), "may be streamed before it does"]);
    paste(b, printed(&line, "ALTER SYSTEM"));
    is_good(pair, sluice, b, a, 7);
}
