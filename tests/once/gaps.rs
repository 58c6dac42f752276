//! A slot that stands elsewhere than where we left it, or is not there: named if it is a gap, and no word of one where it
//! is none.

use crate::support::{Pgsluice, eventually};
use crate::world::{
    BASE, End, FIRST, LIMIT, SECOND, World, at_once, both, is_each_once, kafka, postgres,
};

const COULD_NOT_BE_CHECKED: &str = "could not be checked";

/// Ends with 66, with all of these words in its last line.
#[track_caller]
fn refuses(mut sluice: Pgsluice, words: &[&str]) {
    let code = sluice.wait(LIMIT);
    let log = sluice.log();
    assert_eq!(code, 66, "{log}");
    let last = log.lines().last().unwrap_or_default();
    for word in words {
        assert!(last.contains(word), "{word} is not in: {last}");
    }
}

/// Waits until nobody reads the slot.
fn wait_free(world: &World) {
    let slot = &world.slot;
    let active = format!("select active from pg_replication_slots where slot_name = '{slot}'");
    eventually(LIMIT, "the slot is free", || world.sql(&active) == "f");
}

fn drop_slot(world: &World) {
    wait_free(world);
    world.sql(&format!("select pg_drop_replication_slot('{}')", world.slot));
}

fn advance(world: &World) {
    wait_free(world);
    let slot = &world.slot;
    world.sql(&format!("select pg_replication_slot_advance('{slot}', pg_current_wal_lsn())"));
}

fn forget_group(world: &World) {
    let system = world.sql("select system_identifier from pg_control_system()");
    kafka().topics("forget", &[&format!("pgsluice-{system}-{}", world.slot)]);
}

fn stands_at(world: &World) -> String {
    let of = format!("from pg_replication_slots where slot_name = '{}'", world.slot);
    world.sql(&format!("select confirmed_flush_lsn {of}"))
}

/// It says where the gap is, again and again, until it is accepted once.
fn is_a_gap(world: &World, known: &str, rows: std::ops::Range<u32>) {
    let at = stands_at(world);
    let accept = format!("pgsluice run --accept-gap {}", world.slot);
    let words = [world.slot.as_str(), &at, known, "in no topic", &accept];
    refuses(world.spawn(&[], &[]), &words);
    refuses(world.spawn(&[], &[]), &words);
    let mut sluice = world.spawn_as(&["run", "--accept-gap", &world.slot], &[], &[]);
    sluice.wait_ready(LIMIT);
    assert!(sluice.log().contains("a gap is accepted"), "{}", sluice.log());
    sluice.kill();
    world.write(SECOND);
    let (_, log) = world.drain(&[]);
    assert!(!log.contains(COULD_NOT_BE_CHECKED) && !log.contains("accepted"), "{log}");
    let all: Vec<u32> = rows.chain(SECOND).collect();
    assert_eq!(world.rows(&world.topic("t")), all, "{}", world.name);
}

#[test]
fn a_slot_dropped_and_made_again_is_a_gap() {
    both("remade", &["t"], |world| {
        world.first(&[]);
        world.write(100..120);
        drop_slot(world);
        world.make_slot();
        is_a_gap(world, "", 0..FIRST.end);
    });
}

#[test]
fn a_slot_advanced_by_hand_is_a_gap() {
    both("advanced", &["t"], |world| {
        world.first(&[]);
        let known = stands_at(world);
        world.write(100..120);
        advance(world);
        let known = if world.end == End::Stopped { known } else { String::new() };
        is_a_gap(world, &known, 0..FIRST.end);
    });
}

/// By the one that had it, whatever it was to accept when it was started, and by another that has seen nothing of it.
#[test]
fn a_slot_advanced_meanwhile_is_a_gap_at_a_reconnect_and_at_a_take_over() {
    postgres();
    kafka();
    at_once(["moved_reconnect", "moved_take_over"], |name| {
        let world = World::new(name, End::Killed, &["t"]);
        let other = world.again();
        let mut first = world.spawn_as(&["run", "--accept-gap", &world.slot], &[], &[]);
        first.wait_ready(LIMIT);
        world.write(BASE);
        world.wait_confirmed(&mut first);
        let frozen = if name == "moved_take_over" {
            let second = other.start(&[]);
            second.pause();
            first.kill();
            second
        } else {
            first.pause();
            first
        };
        let slot = &world.slot;
        world.sql(&format!(
            "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '{slot}'"
        ));
        wait_free(&world);
        world.write(FIRST);
        advance(&world);
        frozen.resume();
        let accept = format!("pgsluice run --accept-gap {slot}");
        refuses(frozen, &[slot, &stands_at(&world), "in no topic", &accept]);
    });
}

/// Positions that no record tells of: of another database, and of rows that go nowhere.
#[test]
fn an_idle_pipeline_raises_no_alarm() {
    let nowhere = [r#"tables."public.t".key=["id"]"#, "topic.unlisted=skip"];
    both("idle", &["t", "u"], |world| {
        let other = world.name.as_str();
        postgres().sql(&format!("drop table if exists {other}; create table {other}(id int)"));
        let others =
            || postgres().sql(&format!("insert into {other} select generate_series(1, 1000)"));
        let mut sluice = world.start(&nowhere);
        world.write(BASE);
        for _ in 0..3 {
            others();
            world.wait_confirmed(&mut sluice);
            world.sql("insert into u values ((select coalesce(max(id), 99) + 1 from u), 0, '')");
            world.wait_confirmed(&mut sluice);
        }
        match world.end {
            End::Stopped => assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log()),
            End::Killed => sluice.kill(),
        }
        others();
        for _ in 0..2 {
            let (_, log) = world.drain(&nowhere);
            assert!(!log.contains(COULD_NOT_BE_CHECKED), "{log}");
        }
        is_each_once(&world.rows(&world.topic("t")), BASE, world);
    });
}

/// Without names every position is noted.
#[test]
fn without_ids_a_gap_is_noticed_and_nothing_else() {
    let nameless = [r#"headers=["op"]"#];
    both("nameless_gap", &["t"], |world| {
        world.first(&nameless);
        let (_, log) = world.drain(&nameless);
        assert!(!log.contains(COULD_NOT_BE_CHECKED), "{log}");
        world.write(100..104);
        drop_slot(world);
        world.make_slot();
        refuses(world.spawn(&nameless, &[]), &["--accept-gap"]);
        refuses(world.spawn(&[], &[]), &["--accept-gap"]);
        let mut sluice = world.spawn_as(&["run", "--accept-gap", &world.slot], &[], &[]);
        sluice.wait_ready(LIMIT);
        assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
        // What names told then is not known without them.
        let (_, log) = world.drain(&nameless);
        assert!(!log.contains(COULD_NOT_BE_CHECKED), "it was noted at the stop: {log}");
    });
}

/// What tells of the newest positions is gone, or cannot be read any more: it goes on, and says so.
#[test]
fn where_the_newest_records_may_be_gone_there_is_no_alarm() {
    postgres();
    kafka();
    let names = ["deleted", "emptied_gap", "compacted_gap", "group_deleted", "nameless_later"];
    at_once(names, |name| {
        let world = World::new(name, End::Killed, &["t", "u"]);
        let topic = world.topic("t");
        if name == "compacted_gap" {
            kafka().topic_with(&topic, 2, &["cleanup.policy=compact"]);
        }
        let mut sluice = world.start(&[]);
        world.write(BASE);
        world.wait_confirmed(&mut sluice);
        // Of this only a record tells, in a topic of its own.
        world.sql("insert into t select i, 0, '' from generate_series(1000, 1050) i");
        world.wait_confirmed(&mut sluice);
        sluice.kill();
        let at = stands_at(&world);
        match name {
            "deleted" => kafka().topic(&topic, 3),
            "emptied_gap" => drop(kafka().topics("empty", &[&topic])),
            "group_deleted" => forget_group(&world),
            _ => {}
        }
        world.write(100..104); // else there may be nothing to pass over
        advance(&world);
        assert_ne!(at, stands_at(&world), "the slot was moved");
        let sets: &[&str] = if name == "nameless_later" { &[r#"headers=["op"]"#] } else { &[] };
        let (_, log) = world.drain(sets);
        let said = log.matches(COULD_NOT_BE_CHECKED).count();
        assert_eq!(said, 1, "{name}: {log}");
        let (_, log) = world.drain(sets);
        assert!(!log.contains(COULD_NOT_BE_CHECKED), "{name}: {log}");
    });
}

#[test]
fn slot_create_makes_no_slot_where_there_was_one() {
    let at_once = "slot.missing_timeout=0s";
    let create = ["slot.create=true", at_once];
    both("gone", &["t"], |world| {
        world.first(&create);
        world.write(100..120);
        drop_slot(world);
        let accept = format!("pgsluice run --accept-gap {}", world.slot);
        refuses(
            world.spawn(&create, &[]),
            &["does not exist", "what was committed up to", &accept],
        );
        refuses(
            world.spawn(&[at_once], &[]),
            &["does not exist", "what was committed up to", &accept],
        );
        let known = "select count(*) from pg_replication_slots where slot_name";
        assert_eq!(world.sql(&format!("{known} = '{}'", world.slot)), "0");
        let mut sluice = world.spawn_as(&["run", "--accept-gap", &world.slot], &create, &[]);
        sluice.wait_ready(LIMIT);
        world.write(SECOND);
        world.wait_confirmed(&mut sluice);
        sluice.kill();
        world.drain(&create);
        let all: Vec<u32> = (0..FIRST.end).chain(SECOND).collect();
        assert_eq!(world.rows(&world.topic("t")), all, "{}", world.name);
    });
}

/// One of both is enough.
#[test]
fn slot_create_makes_none_where_only_the_group_or_only_records_tell_of_one() {
    postgres();
    kafka();
    at_once(["only_group", "only_records"], |name| {
        let world = World::new(name, End::Stopped, &["t"]);
        world.first(&[]);
        match name {
            "only_group" => drop(kafka().topics("empty", &[&world.topic("t")])),
            _ => forget_group(&world),
        }
        drop_slot(&world);
        let create = ["slot.create=true", "slot.missing_timeout=0s"];
        let accept = format!("pgsluice run --accept-gap {}", world.slot);
        refuses(
            world.spawn(&create, &[]),
            &["does not exist", "what was committed up to", &accept],
        );
    });
}

#[test]
fn slot_create_makes_the_first_one() {
    postgres();
    kafka();
    let world = World::new("first_slot", End::Stopped, &["t"]);
    drop_slot(&world);
    let mut sluice = world.start(&["slot.create=true"]);
    world.write(BASE);
    world.wait_confirmed(&mut sluice);
    assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
    is_each_once(&world.rows(&world.topic("t")), BASE, &world);
}

#[test]
fn a_gap_is_accepted_by_the_slots_name_only() {
    let world = World::new("misnamed", End::Stopped, &["t"]);
    let mut sluice = world.spawn_as(&["run", "--accept-gap", "another"], &[], &[]);
    assert_eq!(sluice.wait(LIMIT), 64, "{}", sluice.log());
    assert!(sluice.log().contains(&world.slot), "{}", sluice.log());
}
