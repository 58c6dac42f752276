//! What Kafka does not remember, and what is too much to be read back: nothing is lost by it.

use std::{collections::BTreeSet, sync::OnceLock};

use crate::support::{Kafka, Postgres, eventually, kafka::LATEST, kafka::one_at_a_time};
use crate::topics::foreign;
use crate::world::{ALL, End, LIMIT, PORTS, World, both, is_each_once, kafka, ours_in, rows_of};

/// Producer and transactional ids, after two seconds without a record. Kafka's defaults are a day and a week.
const FORGETFUL: [&str; 4] = [
    "transactional.id.expiration.ms=2000",
    "transaction.remove.expired.transaction.cleanup.interval.ms=200",
    "producer.id.expiration.ms=2000",
    "producer.id.expiration.check.interval.ms=200",
];

#[test]
fn with_ids_that_the_broker_forgot_each_row_is_stored_once() {
    // Where nobody else writes: whoever has to tell how far the server is uses its ids.
    static QUIET: OnceLock<Postgres> = OnceLock::new();
    let quiet = QUIET.get_or_init(|| Postgres::start(17, PORTS.postgres(8), &[]));
    one_at_a_time(|| {
        let kafka = Kafka::start("once-forgetful", PORTS.kafka(1), 1, &FORGETFUL, LATEST);
        let world = World::on(quiet, "forgotten", End::Killed, &["t"]);
        let brokers = format!("kafka.brokers={}", kafka.brokers());
        let sets = [brokers.as_str()];

        // Of one that is dead.
        world.first(&sets);
        let mut forgotten = 0;
        let mut wait_forgotten = || {
            eventually(LIMIT, "the transactional id is forgotten", || {
                let now = times_forgotten(&kafka, &world.slot);
                now > forgotten
            });
            forgotten = times_forgotten(&kafka, &world.slot);
        };
        wait_forgotten();
        let (left_out, log) = world.second(&sets);
        assert_eq!(left_out, world.unconfirmed());
        let words = ["WARN", "Kafka has given another producer id"];
        assert!(log.lines().any(|line| words.iter().all(|word| line.contains(word))), "{log}");

        // Of one that lives, and has had nothing to do.
        let mut sluice = world.start(&sets);
        wait_forgotten();
        world.write(ALL.end..ALL.end + 20);
        world.wait_confirmed(&mut sluice);
        assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
        let rows = rows_of(&ours_in(&kafka, &world.topic("t")));
        is_each_once(&rows, 0..ALL.end + 20, &world);
    });
}

/// How often the broker has dropped the transactional id that ends so from its own topic: the plain one of a slot, not
/// that for transactions, which is older and forgotten first.
fn times_forgotten(kafka: &Kafka, slot: &str) -> usize {
    let all = kafka.dump("__transaction_state");
    let is_it = |key: &String| key.ends_with(&format!("-{slot}"));
    all.iter().filter(|one| one.value.is_none() && one.key.as_ref().is_some_and(is_it)).count()
}

#[test]
fn where_too_little_may_be_read_back_no_row_is_lost_and_it_is_said() {
    both("bound", &["t"], |world| {
        let topic = world.topic("t");
        world.first(&[]);
        foreign(&topic, 100_000, &[]); // some megabytes in front of what is ours
        let (left_out, log) = world.second(&["kafka.read_back=1MiB"]);
        assert_eq!(left_out, 0, "{log}");
        let mut all = kafka().dump(&topic);
        all.retain(|record| record.header("id").is_some());
        let names: BTreeSet<_> = all.iter().map(|one| one.header("id").unwrap()).collect();
        assert_eq!(names.len(), ALL.len(), "each has one name, however often it is stored");
        let rows: BTreeSet<u32> = rows_of(&all).into_iter().collect();
        assert_eq!(rows, ALL.collect());
        assert_eq!(all.len(), ALL.len() + world.unconfirmed());
        let words = ["WARN", "not all could be read back, see kafka.read_back"];
        assert!(log.lines().any(|line| words.iter().all(|word| line.contains(word))), "{log}");
    });
}
