//! What a passive instance says, and that it stays one whatever PostgreSQL and Kafka do.

use std::time::Duration;

use crate::bed::{Bed, LIMIT, PORTS, is, kafka, said, status};
use crate::support::{Mode, Postgres, Proxy, eventually};

#[test]
fn it_says_who_is_active() {
    let bed = Bed::new("says");
    let mut first = bed.active("the first", &[]);
    let second = bed.passive("the second", &[]);
    let (code, body) = second.http("/readyz").unwrap();
    assert_eq!(code, 200, "{body}");
    let words =
        "passive: replication slot \"says\" is in use by \"the first\" at 127.0.0.1 since 20";
    assert!(body.starts_with(words), "{body}");
    let status = status(&second).unwrap();
    let pid = bed.sql("select active_pid from pg_replication_slots where slot_name = 'says'");
    assert_eq!(status["active"]["pid"].to_string(), pid);
    assert_eq!(status["active"]["application_name"], "the first");
    assert_eq!(status["active"]["address"], "127.0.0.1");
    assert!(status["active"]["since"].as_str().unwrap().ends_with('Z'), "{status}");
    assert_eq!(status["could_take_over"], true);
    assert_eq!(second.metric("pgsluice_role", &["role=\"passive\""]), 1.0);
    assert_eq!(second.metric("pgsluice_could_take_over", &[]), 1.0);
    assert_eq!(second.metric("pgsluice_active_info", &["\"the first\"", "127.0.0.1"]), 1.0);
    assert_eq!(said(&second, &["INFO", "passive: ", "the first"]).len(), 1, "{}", second.log());

    let third = bed.passive("the third", &[]);
    first.kill();
    eventually(LIMIT, "one of them streams", || {
        [&second, &third].iter().any(|sluice| {
            crate::bed::status(sluice).is_some_and(|status| status["role"] == "streaming")
        })
    });
    let streams = |sluice| crate::bed::status(sluice).unwrap()["role"] == "streaming";
    let (active, passive) = if streams(&second) { (&second, &third) } else { (&third, &second) };
    let name = if streams(&second) { "the second" } else { "the third" };
    eventually(LIMIT, "the other one knows", || {
        let status = crate::bed::status(passive).unwrap();
        status["active"]["application_name"] == name
    });
    assert_eq!(passive.metric("pgsluice_active_info", &["\"the first\""]), 0.0);
    assert!(crate::bed::status(active).unwrap()["active"].is_null());
    assert_eq!(active.metric("pgsluice_active_info", &[]), 0.0);
}

#[test]
fn it_waits_on_the_connections_that_it_has() {
    let bed = Bed::new("stays");
    let _first = bed.active("a", &[]);
    let second = bed.passive("b", &["slot.check_interval=100ms", "log.level=debug"]);
    let all = "select string_agg(pid::text, ',' order by pid) from pg_stat_activity
               where application_name = 'b' and datname = current_database()";
    let lock = "select count(*) from pg_stat_activity where wait_event = 'advisory'
                and application_name = 'b' and datname = current_database()";
    eventually(LIMIT, "it waits for the lock", || bed.sql(lock) == "1");
    eventually(LIMIT, "replication, catalog, lock, and what looks at the slot", || {
        bed.sql(all).split(',').count() == 4
    });
    let before = bed.sql(all);
    let looks = || said(&second, &["DEBUG", "still: "]).len();
    let seen = looks();
    eventually(LIMIT, "it has looked often", || looks() > seen + 10);
    assert_eq!(bed.sql(all), before);
    // What holds back vacuum is let go again and again.
    let snapshots = "select count(*) from pg_stat_activity where application_name = 'b'
                     and datname = current_database() and backend_xmin is not null
                     and now() - xact_start > '11 s'";
    let mut told = 0;
    eventually(Duration::from_secs(60), "one wait after the other", || {
        assert_eq!(bed.sql(snapshots), "0");
        let query = "select extract(epoch from query_start)::bigint from pg_stat_activity
                     where wait_event = 'advisory' and application_name = 'b'
                     and datname = current_database()";
        let at: i64 = bed.sql(query).parse().unwrap_or(0);
        if told == 0 {
            told = at;
        }
        at > told
    });
}

#[test]
fn it_can_take_over_after_postgresql_was_restarted_three_times() {
    let server = Box::leak(Box::new(Postgres::start(17, PORTS.postgres(1), &[])));
    let bed = Bed::on(server, "restarts");
    let mut first = bed.active("a", &[]);
    let second = bed.passive("b", &[]);
    for (round, how) in ["stop-fast", "kill", "stop-immediate"].iter().enumerate() {
        server.ctl(how);
        eventually(LIMIT, "it says that it could not", || {
            second.http("/readyz").is_ok_and(|(code, _)| code == 503)
        });
        server.ctl("start");
        // Either may be the active one now.
        eventually(LIMIT, "one streams, the other could take over", || {
            let roles = [&first, &second].map(|sluice| {
                let status = status(sluice)?;
                Some((status["role"].clone(), status["could_take_over"].clone()))
            });
            let is = |role: &str| {
                roles.iter().flatten().filter(|one| one.0 == role).cloned().collect::<Vec<_>>()
            };
            is("streaming").len() == 1 && is("passive").iter().any(|one| one.1 == true)
        });
        bed.sql(&format!("insert into t values ({round}, 'a')"));
        bed.wait_confirmed();
    }
    let mut other = second;
    if status(&first).unwrap()["role"] != "streaming" {
        std::mem::swap(&mut first, &mut other);
    }
    first.kill();
    is(&other, "streaming");
    bed.sql("insert into t values (3, 'a')");
    bed.wait_confirmed();
    assert_eq!(other.stop(LIMIT), 0, "{}", other.log());
    bed.verify(4);
    let _ = server.ctl("stop-fast");
}

#[test]
fn without_kafka_it_says_that_it_could_not_take_over() {
    let bed = Bed::new("nokafka");
    let _first = bed.active("a", &[]);
    let _ = kafka();
    let proxy = Proxy::start(PORTS.proxy(0), &format!("127.0.0.1:{}", PORTS.kafka(0) + 5));
    let brokers = format!("kafka.brokers={}", kafka().listener("proxied"));
    let second = bed.passive("b", &[&brokers, "slot.check_interval=200ms"]);
    for _ in 0..2 {
        proxy.set(Mode::Cut);
        eventually(LIMIT, "it says why", || {
            let ready = second.http("/readyz");
            ready.is_ok_and(|(code, body)| code == 503 && body.starts_with("kafka: "))
        });
        assert_eq!(status(&second).unwrap()["role"], "passive");
        assert_eq!(status(&second).unwrap()["could_take_over"], false);
        proxy.set(Mode::Pass);
        eventually(LIMIT, "it could again", || {
            second.http("/readyz").is_ok_and(|(code, _)| code == 200)
        });
    }
}
