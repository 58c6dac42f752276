//! The servers, the proxies and the two instances.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::LIMIT;
use crate::instance::Instance;
use crate::load::Load;
use crate::rows::{self, TABLES};
use crate::support::{Kafka, Ports, Postgres, Proxy, eventually, eventually_some, kafka::LATEST};

const PORTS: Ports = Ports::CHAOS;

/// See the module.
pub struct Bed {
    /// 17.
    pub postgres: Postgres,
    /// Three brokers, of which two must have stored what is stored.
    pub kafka: Kafka,
    /// As the load goes to the database, without a proxy.
    pub url: String,
    /// The active and the passive one, whichever is which.
    pub instances: [Arc<Instance>; 2],
    over: Arc<AtomicBool>,
    nurse: Option<JoinHandle<()>>,
}

impl Bed {
    /// Starts all of it.
    pub fn start(mode: &str) -> Self {
        let postgres = Postgres::start(17, PORTS.postgres(0), &[]);
        let proxied = format!("proxied={}", PORTS.proxy(0));
        let settings = [proxied.as_str(), "broker.session.timeout.ms=3000"];
        let kafka = Kafka::start("chaos", PORTS.kafka(0), 3, &settings, LATEST);
        let url = rows::create(&postgres, &kafka);
        let instances =
            ["a", "b"].map(|name| Arc::new(instance(name, mode, &postgres, &kafka, &url)));
        let over = Arc::new(AtomicBool::new(false));
        let nurse = {
            let (over, instances) = (Arc::clone(&over), instances.clone());
            std::thread::spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    instances.iter().for_each(|instance| instance.tend());
                    std::thread::sleep(Duration::from_millis(20));
                }
            })
        };
        Self { postgres, kafka, url, instances, over, nurse: Some(nurse) }
    }

    /// Fails if something has gone wrong that must not, whatever happens.
    #[track_caller]
    pub fn check(&self) {
        self.instances.iter().for_each(|instance| instance.check());
    }

    /// The instance that streams, and the other one. Perhaps none does: then after a while this one.
    pub fn active(&self, otherwise: usize) -> (&Instance, &Instance) {
        let [a, b] = &self.instances;
        for _ in 0..30 {
            if a.role().as_deref() == Some("streaming") {
                return (a, b);
            }
            if b.role().as_deref() == Some("streaming") {
                return (b, a);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        if otherwise.is_multiple_of(2) { (a, b) } else { (b, a) }
    }

    /// Whether the slot's position fulfils this, if PostgreSQL answers.
    pub fn confirmed(&self, condition: &str) -> bool {
        let slot = "from pg_replication_slots where slot_name = 'chaos'";
        let asked = format!("select confirmed_flush_lsn {condition} {slot}");
        self.postgres.try_sql("postgres", &asked).is_ok_and(|answer| answer == "t")
    }

    /// Waits until records that were written from now on are stored, or, thoroughly, all until now and some more.
    #[track_caller]
    pub fn wait_stored(&self, load: &Load, thorough: bool) {
        let ask = |sql: &str| {
            let answer = || self.postgres.try_sql("postgres", sql).ok();
            eventually_some(LIMIT, "PostgreSQL answers", answer)
        };
        let from = load.committed();
        eventually(LIMIT, "rows are written", || {
            self.check();
            assert!(load.alive(), "the load has ended; its reason is above");
            load.committed() > from + 5
        });
        let position = if thorough {
            ask("select pg_current_wal_lsn()")
        } else {
            ask("select confirmed_flush_lsn from pg_replication_slots where slot_name = 'chaos'")
        };
        let more = if thorough { ">=" } else { ">" };
        eventually(LIMIT, "records are stored", || {
            self.check();
            self.confirmed(&format!("{more} '{position}'"))
        });
    }

    /// Waits until all that was written is stored. Nothing writes any more.
    #[track_caller]
    pub fn wait_end(&self) -> String {
        let end = self.postgres.sql("select pg_current_wal_lsn()");
        eventually(LIMIT, "all is confirmed", || {
            self.check();
            self.confirmed(&format!(">= '{end}'"))
        });
        end
    }

    /// Ends the instances; how often each code was met.
    #[track_caller]
    pub fn stop(&self) -> Vec<String> {
        let (active, passive) = self.active(0);
        // Who streamed before does not know whether its last records were sent again by the other one.
        let codes = [(passive, passive.stop(&[0, 75])), (active, active.stop(&[0]))];
        let each = codes.map(|(it, codes)| {
            format!("{}: {} processes, ended with {codes:?}", it.name, it.started())
        });
        each.into()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(nurse) = self.nurse.take() {
            let _ = nurse.join();
        }
    }
}

/// `a` speaks plainly to Kafka, `b` with TLS and a login, each through proxies that the brokers name to it.
fn instance(
    name: &'static str,
    mode: &str,
    postgres: &Postgres,
    kafka: &Kafka,
    url: &str,
) -> Instance {
    let second = u16::from(name == "b");
    let brokers: Vec<Proxy> = (0..3)
        .map(|broker| {
            let own = format!("127.0.0.1:{}", PORTS.kafka(0) + 10 * broker + 5 + second);
            Proxy::start(PORTS.proxy(10 * second + broker), &own)
        })
        .collect();
    let proxy = Proxy::start(0, &format!("127.0.0.1:{}", postgres.port()));
    let own = format!(":{}/", postgres.port());
    assert!(url.contains(&own), "{url} names its port");
    let url = url.replace(&own, &format!(":{}/", proxy.port()));
    let listener = if second == 0 { "proxied" } else { "proxied_sasl_ssl" };
    let secret = format!(
        "[kafka.tls]\nca = \"{}/ca.pem\"\n\
         [kafka.sasl]\nmechanism = \"SCRAM-SHA-512\"\nuser = \"sluice\"\npassword = \"sluice-secret\"\n",
        Kafka::certificates()
    );
    let tables =
        TABLES.iter().map(|table| format!("\"public.{}\" = \"{}\"\n", table.name, table.topic()));
    let config = format!(
        "[postgres]\nurl = \"{url}\"\napplication_name = \"chaos-{name}\"\n\
         wal_sender_timeout = \"3s\"\nconnect_timeout = \"2s\"\nretry_max = \"1s\"\n\
         [publication]\nname = \"p\"\n\
         [slot]\nname = \"chaos\"\ncheck_interval = \"200ms\"\n\
         [kafka]\nbrokers = \"{}\"\ndelivery = \"{mode}\"\n\
         request_timeout = \"2s\"\nconnect_timeout = \"2s\"\nretry_max = \"500ms\"\n\
         {}[tables]\n{}[admin]\nlisten = \"127.0.0.1:{}\"\n",
        kafka.listener(listener),
        if second == 0 { "" } else { &secret },
        tables.collect::<String>(),
        PORTS.admin(second)
    );
    Instance::new(name, config, proxy, brokers)
}
