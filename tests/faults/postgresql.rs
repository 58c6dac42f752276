//! PostgreSQL: restarted, killed, its slot or publication dropped.

use crate::*;

/// Something happens to PostgreSQL under load. Each text is said once, and that it is over.
fn postgres_fault(name: &'static str, seed: u64, fault: impl Fn(&Case<'_>)) {
    support::postgres::alone(|| {
        let case = Case::new(name, mortal(), kafka());
        let (writer, watch, mut sluice) = (case.write(seed), case.watch(), case.start(&[]));
        let times = rounds(1, 10);
        for time in 1..=times {
            writer.wait_more(20, LIMIT);
            fault(&case);
            eventually(LIMIT, "it is connected again", || {
                case::said(&sluice, "INFO", "connected again").len() == time
            });
        }
        writer.wait_more(20, LIMIT);
        sluice.wait_ready(LIMIT);
        case.verify(&writer.stop());
        case::wait_calm(&sluice);
        watch.stop();
        case::assert_said_once(&sluice);
        assert_eq!(case::said(&sluice, "INFO", "connected again").len(), times);
        assert!(sluice.metric("pgsluice_reconnects_total", &["postgres"]) >= 1.0);
        assert_eq!(sluice.stop(LIMIT), 0);
    });
}

#[test]
fn postgresql_restarted_fast_is_not_held_up_and_loses_nothing() {
    postgres_fault("fast", 3, |case| {
        let begin = Instant::now();
        case.postgres.ctl("stop-fast");
        assert!(begin.elapsed() < Duration::from_secs(5), "it took {:?}", begin.elapsed());
        case.postgres.ctl("start");
    });
}

#[test]
fn postgresql_stopped_immediately_loses_nothing() {
    postgres_fault("immediate", 4, |case| {
        case.postgres.ctl("stop-immediate");
        case.postgres.ctl("start");
    });
}

#[test]
fn postgresql_killed_loses_nothing() {
    postgres_fault("pgkill", 5, |case| {
        case.postgres.ctl("kill");
        case.postgres.ctl("start");
    });
}

#[test]
fn a_terminated_walsender_loses_nothing() {
    postgres_fault("walsender", 6, |case| {
        let pid = case.slot("active_pid");
        case.postgres.sql(&format!("select pg_terminate_backend({pid})"));
    });
}

#[test]
fn stopped_while_postgresql_is_away_it_says_whether_something_comes_again() {
    support::postgres::alone(|| {
        let case = Case::new("gone", mortal(), kafka());
        let writer = case.write(17);
        let mut sluice = case.start(&[]);
        writer.wait_more(20, LIMIT);
        case.postgres.ctl("stop-immediate");
        sluice.wait_log(LIMIT, &["trying again"]);
        let code = sluice.stop(LIMIT);
        case.postgres.ctl("start");
        let said = case::said(&sluice, "ERROR", "will be sent again").len();
        assert!(matches!((code, said), (0, 0) | (75, 1)), "{code}: {}", sluice.log());
        let _sluice = case.start(&[]);
        writer.wait_more(20, LIMIT);
        case.verify(&writer.stop());
    });
}

#[test]
fn an_idle_postgresql_stops_fast() {
    support::postgres::alone(|| {
        let case = Case::new("idle", mortal(), kafka());
        let mut sluice = case.start(&[]);
        // WAL that is not ours: it has to be confirmed before the walsender ends.
        case.postgres.sql_in(case.name, "update marker set number = 1");
        let begin = Instant::now();
        case.postgres.ctl("stop-fast");
        assert!(begin.elapsed() < Duration::from_secs(5), "it took {:?}", begin.elapsed());
        case.postgres.ctl("start");
        sluice.wait_log(LIMIT, &["connected again"]);
        case.postgres.sql_in(case.name, "insert into a values (1, 1, 'x')");
        let records = kafka().dump_when(&case.topic(0), 1, LIMIT);
        assert_eq!(records.len(), 1);
        assert_eq!(sluice.stop(LIMIT), 0);
    });
}

#[test]
fn a_slot_that_is_dropped_ends_it_with_66_and_is_not_made_again() {
    let case = Case::new("slotdrop", postgres(), kafka());
    let mut sluice = case.start(&["slot.create=true", "slot.missing_timeout=0s"]);
    // In one go: it is back within a fraction of a second.
    case.postgres.sql(
        "do $$ begin
             perform pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = 'slotdrop';
             loop
                 begin
                     perform pg_drop_replication_slot('slotdrop');
                     exit;
                 exception when object_in_use then
                     perform pg_sleep(0.001);
                 end;
             end loop;
         end $$",
    );
    assert_eq!(sluice.wait(LIMIT), 66, "{}", sluice.log());
    let errors = case::said(&sluice, "ERROR", "\"slotdrop\" does not exist");
    assert_eq!(errors.len(), 1, "{}", sluice.log());
    assert_eq!(case.slot("1"), "");
}

/// A publication that PostgreSQL cannot see at the slot's position. Nothing else may write to this server.
fn dropped_publication(postgres: &Postgres) {
    let version = postgres.version();
    let case = Case::new("pubdrop", postgres, kafka());
    let mut sluice = case.start(&[]);
    postgres.sql_in(case.name, "insert into a values (1, 1, 'before')");
    kafka().wait(&case.topic(0), 1, LIMIT);
    postgres.sql_in(case.name, "drop publication p");
    let commit = postgres.sql_in(
        case.name,
        "insert into a values (2, 2, 'between') returning pg_current_wal_insert_lsn()",
    );
    postgres.sql_in(case.name, "create publication p for table a, b, c");
    postgres.sql_in(case.name, "insert into a values (3, 3, 'after')");
    assert_eq!(sluice.wait(LIMIT), 66, "{version}: {}", sluice.log());
    let errors = case::said(&sluice, "ERROR", "publication \"p\" does not exist at the WAL");
    assert_eq!(errors.len(), 1, "{version}: {}", sluice.log());
    // And again, as long as nobody does what the message says.
    let mut sluice = case.spawn(&[]);
    assert_eq!(sluice.wait(LIMIT), 66, "{version}: {}", sluice.log());
    assert_eq!(case.slot(&format!("confirmed_flush_lsn <= '{commit}'")), "t", "{version}");
    assert_eq!(kafka().count(&case.topic(0)), 1, "{version}");
}

#[test]
fn a_publication_that_was_dropped_and_made_again_ends_it_with_66_on_14_17_and_18() {
    dropped_publication(Postgres::shared(14, PORTS.postgres(2)));
    dropped_publication(Postgres::shared(18, PORTS.postgres(3)));
    support::postgres::alone(|| dropped_publication(mortal()));
}
