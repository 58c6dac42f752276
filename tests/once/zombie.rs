//! Frozen for longer than `wal_sender_timeout`, and thawed when another instance is at work.

use crate::support::eventually;
use crate::world::{
    BASE, End, FIRST, LIMIT, SECOND, World, at_once, is, is_each_once, kafka, postgres, stored,
};

#[test]
fn a_frozen_instance_is_superseded_and_owes_nothing_when_it_is_thawed() {
    postgres();
    kafka();
    at_once(["idempotent", "transactional"], |mode| {
        thawed(&World::new(&format!("zombie_{mode}"), End::Killed, &["t"]), mode);
    });
}

fn thawed(world: &World, mode: &str) {
    let mode = format!("kafka.delivery={mode}");
    let sets = ["postgres.wal_sender_timeout=2s", &mode];
    let other = world.again();
    let mut first = world.start(&sets);
    world.write(BASE);
    world.wait_confirmed(&mut first);
    let mut second = other.start(&sets);
    is(&second, "passive");

    // Stored, and PostgreSQL does not hear of it.
    world.proxy.hold();
    let before = stored(&first);
    world.write(FIRST);
    eventually(LIMIT, "the rows are stored", || stored(&first) == before + FIRST.len());
    first.pause();
    world.wait_confirmed(&mut second);
    first.resume();
    world.proxy.cut_once();
    world.proxy.let_go();
    is(&first, "passive");
    world.write(SECOND);
    world.wait_confirmed(&mut second);

    // What it had not confirmed is the other's.
    assert_eq!(first.stop(LIMIT), 0, "{}", first.log());
    assert_eq!(second.stop(LIMIT), 0, "{}", second.log());
    is_each_once(&world.rows(&world.topic("t")), 0..SECOND.end, world);
}
