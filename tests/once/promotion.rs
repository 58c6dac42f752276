//! A standby that is promoted without the last that its primary wrote: the new timeline fills the same positions with
//! other rows, and what the old one had there stays in the topics.

use crate::support::{Pgsluice, Postgres, eventually};
use crate::world::{
    LIMIT, PORTS, at_once, give_admin, kafka, ours, postgres, rows_of, stored, take_admin,
};

const PHANTOMS: usize = 50;

/// A primary, its standby, and the port of `admin.listen`.
struct Pair {
    name: &'static str,
    primary: Postgres,
    standby: Postgres,
    admin: u16,
}

impl Pair {
    fn new(name: &'static str, port: u16) -> Self {
        let primary = Postgres::start(17, PORTS.postgres(port), &[]);
        primary.database(name);
        primary.sql("create role cdc_user login replication");
        primary
            .sql_in(name, "create table t(id int primary key); create publication p for table t");
        let quick = ["wal_retrieve_retry_interval=200ms"];
        let standby = Postgres::standby(&primary, PORTS.postgres(port + 1), &quick);
        // Else the slot would wait for the standby, and nothing could be lost.
        primary.sql_in(name, "alter system set synchronized_standby_slots = ''");
        primary.sql("select pg_reload_conf()");
        let slot = format!("'{name}', 'pgoutput', false, false, true");
        primary.sql_in(name, &format!("select pg_create_logical_replication_slot({slot})"));
        Self { name, primary, standby, admin: take_admin() }
    }

    fn topic(&self) -> String {
        format!("{}.public.t", self.name)
    }

    fn start(&self) -> Pgsluice {
        let mut sluice = self.spawn(&[&self.primary, &self.standby]);
        sluice.wait_ready(LIMIT);
        sluice
    }

    fn spawn(&self, servers: &[&Postgres]) -> Pgsluice {
        let Self { name, admin, .. } = self;
        let hosts: Vec<_> = servers.iter().map(|one| format!("127.0.0.1:{}", one.port())).collect();
        let hosts = hosts.join(",");
        let config = format!(
            "[postgres]\nurl = \"postgres://cdc_user@{hosts}/{name}\"\n\
             target_session_attrs = \"primary\"\nretry_max = \"500ms\"\n\
             [publication]\nname = \"p\"\n[slot]\nname = \"{name}\"\ncheck_interval = \"100ms\"\n\
             [kafka]\nbrokers = \"{}\"\n[topic]\ntemplate = \"{name}.{{schema}}.{{table}}\"\n\
             create = true\npartitions = 3\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n",
            kafka().brokers(),
        );
        Pgsluice::spawn(&config, &["run", "--set", "log.format=text"])
    }

    /// Waits until the slot there has passed all that is written there.
    #[track_caller]
    fn wait_confirmed(&self, on: &Postgres) {
        let now = on.sql("select pg_current_wal_insert_lsn()");
        let of = format!("from pg_replication_slots where slot_name = '{}'", self.name);
        let sql = format!("select confirmed_flush_lsn >= '{now}' {of}");
        eventually(LIMIT, "all is confirmed", || on.sql(&sql) == "t");
    }

    fn insert(&self, on: &Postgres, from: usize, count: usize) {
        let one = |id| format!("begin; insert into t values ({id}); commit;");
        on.sql_in(self.name, &(from..from + count).map(one).collect::<String>());
    }

    /// Until the standby has the slot for good.
    fn wait_synced(&self) {
        eventually(LIMIT, "the standby has the slot", || {
            self.primary.sql("select pg_log_standby_snapshot()");
            self.standby.sql("select pg_reload_conf()"); // which wakes its worker
            let synced =
                "select synced and not temporary from pg_replication_slots where slot_name";
            self.standby.sql(&format!("{synced} = '{}'", self.name)) == "t"
        });
    }

    /// From now on the standby gets nothing more.
    fn part(&self) {
        let now = self.primary.sql("select pg_current_wal_lsn()");
        eventually(LIMIT, "the standby has all", || {
            self.standby.sql(&format!("select pg_last_wal_replay_lsn() >= '{now}'")) == "t"
        });
        self.standby.sql("alter system set primary_conninfo = 'host=127.0.0.1 port=1'");
        self.standby.sql("select pg_reload_conf()");
        eventually(LIMIT, "the standby is on its own", || {
            self.standby.sql("select count(*) from pg_stat_wal_receiver") == "0"
        });
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        give_admin(self.admin);
    }
}

#[test]
fn a_promotion_that_loses_wal_loses_no_row_of_the_new_timeline_and_counts_the_others() {
    postgres();
    kafka();
    at_once([("promoted", 1, false), ("promoted_killed", 3, true)], |(name, port, killed)| {
        let pair = Pair::new(name, port);
        let mut sluice = pair.start();
        pair.insert(&pair.primary, 0, 4);
        pair.wait_synced();
        pair.insert(&pair.primary, 4, 4);
        eventually(LIMIT, "they are stored", || stored(&sluice) == 8);
        pair.part();
        pair.insert(&pair.primary, 100, PHANTOMS);
        eventually(LIMIT, "the phantoms are stored", || stored(&sluice) == 8 + PHANTOMS);
        if killed {
            sluice.kill();
        }
        pair.primary.ctl("kill");
        pair.standby.ctl("promote");
        pair.insert(&pair.standby, 1000, 20);
        if killed {
            sluice = pair.start();
        }
        pair.wait_confirmed(&pair.standby);
        let words = ["WARN", "its predecessor wrote them", &format!("records={PHANTOMS}")];
        sluice.wait_log(LIMIT, &words);
        assert_eq!(sluice.metric("pgsluice_phantoms_total", &[]) as usize, PHANTOMS);
        assert!(!sluice.log().contains("WAL ends before"), "{}", sluice.log());
        let records = ours(&pair.topic());
        let rows: Vec<u32> = (0..8).chain(100..150).chain(1000..1020).collect();
        assert_eq!(rows_of(&records), rows, "{}", sluice.log());
        // The test is about nothing unless the positions overlap.
        let id = |row: u32| -> &str {
            records
                .iter()
                .find(|one| rows_of(&[(*one).clone()]) == [row])
                .unwrap()
                .header("id")
                .unwrap()
        };
        let commit = |id: &str| id.split('-').nth(2).unwrap().to_owned();
        assert!(commit(id(1000)) < commit(id(149)), "{} {}", id(1000), id(149));
        assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
    });
}

/// The former primary is started again, alone, and takes writes as ever.
#[test]
fn of_a_former_primary_no_row_is_sent() {
    postgres();
    kafka();
    let pair = Pair::new("former", 5);
    let (old, new) = (&pair.primary, &pair.standby);
    let mut sluice = pair.start();
    pair.insert(old, 0, 4);
    pair.wait_synced();
    pair.insert(old, 4, 4);
    pair.wait_confirmed(old);
    old.ctl("kill");
    new.ctl("promote");
    pair.insert(new, 1000, 4);
    pair.wait_confirmed(new);
    old.ctl("start");

    let mut rows: Vec<u32> = (0..8).chain(1000..1004).collect();
    for round in 0..5 {
        pair.insert(old, 100 + round, 1);
        new.sql("select pg_terminate_backend(active_pid) from pg_replication_slots where active");
        pair.insert(new, 2000 + round, 1);
        pair.wait_confirmed(new);
        rows.push(u32::try_from(2000 + round).unwrap());
    }
    let at = format!("127.0.0.1:{}", old.port());
    sluice.kill();

    // Whoever knows nothing of it learns it from Kafka, and shuts nobody out.
    let mut late = pair.start();
    pair.insert(new, 3000, 1);
    pair.wait_confirmed(new);
    rows.push(3000);
    assert_eq!(late.stop(LIMIT), 0, "{}", late.log());
    new.ctl("kill");
    for servers in [&[old][..], &[old, new][..]] {
        let mut misled = pair.spawn(servers);
        misled.wait_log(LIMIT, &["WARN", "is on timeline 1, and Kafka knows of timeline 2"]);
        pair.insert(old, 200 + servers.len(), 1);
        misled
            .wait_log(LIMIT, &["WARN", &at, "is on timeline 1, and timeline 2 was streamed from"]);
        let (code, body) = misled.http("/readyz").unwrap();
        assert_eq!(code, 503, "{body}");
        assert_eq!(misled.stop(LIMIT), 0, "{}", misled.log());
    }
    assert_eq!(rows_of(&ours(&pair.topic())), rows);
    new.ctl("start");
    let mut again = pair.start();
    pair.insert(new, 4000, 1);
    pair.wait_confirmed(new);
    rows.push(4000);
    assert_eq!(rows_of(&ours(&pair.topic())), rows, "{}", again.log());
    assert_eq!(again.stop(LIMIT), 0, "{}", again.log());
}
