//! The lock only shortens the wait, whoever has it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};

use crate::bed::{Bed, LIMIT, is, said};
use crate::support::eventually;

/// Somebody else with a lock, until it is dropped.
struct Stranger {
    psql: Child,
    input: ChildStdin,
}

impl Stranger {
    /// Has it now.
    fn new(bed: &Bed) -> Self {
        let mut psql = bed.postgres().psql(bed.name);
        let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = psql.stdin.take().unwrap();
        let key = pgsluice::pg::lock::key(bed.name);
        writeln!(input, "select 'mine' from pg_advisory_lock({key});").unwrap();
        let mut line = String::new();
        BufReader::new(psql.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "mine\n");
        Self { psql, input }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = writeln!(self.input, "\\q");
        let _ = self.psql.wait();
    }
}

#[test]
fn a_stranger_that_has_the_lock_for_ever_keeps_nobody_from_taking_over() {
    let bed = Bed::new("stranger");
    let _stranger = Stranger::new(&bed);
    let mut first = bed.active("a", &[]);
    let mut second = bed.passive("b", &[]);
    bed.sql("insert into t values (0, 'a')");
    bed.wait_confirmed();
    first.kill();
    bed.sql("insert into t values (1, 'a')");
    is(&second, "streaming");
    bed.wait_confirmed();
    assert_eq!(said(&second, &["the slot is ours", "Polling"]).len(), 1, "{}", second.log());
    assert_eq!(second.stop(LIMIT), 0, "{}", second.log());
    bed.verify(2);
}

#[test]
fn a_lock_that_is_had_while_the_slot_is_in_use_is_given_back() {
    let bed = Bed::new("givenback");
    let stranger = Stranger::new(&bed);
    let debug = ["log.level=debug"];
    let mut first = bed.active("a", &debug);
    let second = bed.passive("b", &debug);
    let waits = "select count(*) from pg_stat_activity where wait_event = 'advisory'
                 and datname = current_database()";
    // The passive one is first in the queue, and does not give up its place in this moment.
    let first_is = "select application_name from pg_stat_activity where wait_event = 'advisory'
                    and datname = current_database() and now() - query_start < '5 s'
                    order by query_start limit 1";
    let again =
        "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'advisory'
                 and datname = current_database() and application_name = 'a'";
    eventually(LIMIT, "both wait for it, the passive one first", || {
        if bed.sql(waits) != "2" {
            return false;
        }
        let so = bed.sql(first_is) == "b";
        if !so {
            bed.sql(again);
        }
        so
    });
    drop(stranger);
    eventually(LIMIT, "the passive one had it, the active one has it", || {
        let all = [&first, &second].map(|sluice| said(sluice, &["the lock is ours"]).len());
        all[0] == 1
            && all[1] > 0
            && all[1] == said(&second, &["the lock is given back"]).len()
            && bed.sql(waits) == "1"
    });
    let had = said(&second, &["the lock is ours"]).len();
    first.kill();
    is(&second, "streaming");
    eventually(LIMIT, "now it is the other's", || {
        said(&second, &["the lock is ours"]).len() == had + 1
    });
}

#[test]
fn a_frozen_instance_loses_the_lock() {
    let bed = Bed::new("frozenlock");
    let first = bed.active("a", &["postgres.wal_sender_timeout=300s"]);
    let held = "select count(*) from pg_locks l join pg_database d on d.oid = l.database
                where l.locktype = 'advisory' and l.granted and d.datname = current_database()";
    eventually(LIMIT, "it has the lock", || bed.sql(held) == "1");
    first.pause();
    eventually(LIMIT, "it has lost the lock", || bed.sql(held) == "0");
    assert!(bed.is_read(), "and not the slot");
    first.resume();
    eventually(LIMIT, "it has the lock again", || bed.sql(held) == "1");
}
