//! Killed after each single message of a transaction.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::support::{Mode, Pgsluice, eventually};
use crate::world::{End, LIMIT, World, at_once, kafka, lines_of, ours, postgres, stored};

/// From one kill to the next, in bytes: less than the shortest message (46) takes on the wire, also if a keepalive (23)
/// comes before it.
const STEP: u64 = 20;
/// What the seven messages take at the most.
const ALL_BYTES: u64 = 700;
/// Kills at the most.
const MOST: u64 = 200;

/// After how many bytes it is killed next, by several at once, until it was killed after each count of messages.
#[derive(Default)]
pub struct Sweep {
    turn: AtomicU64,
    seen: Mutex<BTreeSet<usize>>,
}

impl Sweep {
    /// `None` when all were seen, and what comes behind the last of them.
    pub fn next(&self) -> Option<u64> {
        let at = self.turn.fetch_add(1, Ordering::SeqCst) * STEP;
        let over = at >= ALL_BYTES && self.seen().len() == 8 || at >= MOST * STEP;
        // Every time round in other places: keepalives move what is hit.
        (!over).then_some(1 + at % ALL_BYTES + 7 * (at / ALL_BYTES))
    }

    /// It was killed after so many messages.
    pub fn saw(&self, messages: Option<usize>) {
        self.seen().extend(messages);
    }

    #[track_caller]
    pub fn check(&self) {
        assert_eq!(*self.seen(), (0..=7).collect(), "after how many messages it was killed");
    }

    fn seen(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seven messages, in the order of [`told`].
pub fn transaction(world: &World, id: u32) {
    let [second, third, last] = [id + 1, id + 2, id + 3];
    world.sql(&format!(
        "insert into t values ({id}, 1, 'a'); insert into t values ({second}, 1, 'a');
         insert into t values ({third}, 1, 'a'); update t set a = 'b' where id = {id};
         delete from t where id = {second}; update t set id = {last} where id = {third};
         select pg_logical_emit_message(true, 'app', 'message {id}')"
    ));
}

pub fn told(id: u32) -> Vec<String> {
    let [second, third, last] = [id + 1, id + 2, id + 3];
    vec![
        format!("c {id}"),
        format!("c {second}"),
        format!("c {third}"),
        format!("u {id}"),
        format!("d {second}"),
        format!("d {third}"),
        format!("u {last}"),
    ]
}

#[test]
fn killed_after_each_message_of_a_transaction_each_row_is_stored_once() {
    postgres();
    kafka();
    let sweep = Sweep::default();
    at_once(0..4, |number| {
        let world = World::new(&format!("crash_{number}"), End::Killed, &["t"]);
        let messages = format!("message.topic={}", world.topic("m"));
        let sets = [messages.as_str(), "topic.partitions=1"];
        let mut expected = Vec::new();
        for id in (0..).step_by(10) {
            let Some(bytes) = sweep.next() else { break };
            let mut sluice = world.start(&sets);
            // So that the table is described.
            transaction(&world, id);
            world.wait_confirmed(&mut sluice);
            sweep.saw(killed_when_stored(&world, bytes, sluice, id + 5));
            expected.extend([id, id + 5].into_iter().flat_map(told));
        }
        world.drain(&sets);
        let told = lines_of(&ours(&world.topic("t")));
        assert_eq!(told, expected, "{}", world.name);
        assert_eq!(ours(&world.topic("m")).len() * 7, expected.len(), "{}", world.name);
    });
    sweep.check();
}

/// Waits until what came is stored, and kills.
fn killed_when_stored(world: &World, bytes: u64, sluice: Pgsluice, id: u32) -> Option<usize> {
    let updates = |sluice: &Pgsluice| sluice.metric("pgsluice_rows_total", &["op=\"u\""]) as u64;
    let (before, updated) = (stored(&sluice), updates(&sluice));
    killed_after(
        world,
        bytes,
        sluice,
        || transaction(world, id),
        |sluice, rows| {
            // The second update changes the key: two records.
            let records = rows + usize::from(updates(sluice) - updated == 2);
            eventually(LIMIT, "what came is stored", || stored(sluice) == before + records);
        },
    )
}

/// Lets so many bytes of what is written through, and kills after `then`, which is told how many messages came. Gives
/// back the same; `None` if all came as a whole and was confirmed.
pub fn killed_after(
    world: &World,
    bytes: u64,
    mut sluice: Pgsluice,
    write: impl FnOnce(),
    then: impl FnOnce(&Pgsluice, usize),
) -> Option<usize> {
    let count = |sluice: &Pgsluice, name: &str| sluice.metric(name, &[]) as u64;
    let received = count(&sluice, "pgsluice_received_bytes_total");
    let rows = count(&sluice, "pgsluice_rows_total");
    world.proxy.set(Mode::HoleAfter(bytes));
    write();
    let now = world.sql("select pg_current_wal_insert_lsn()");
    let mut whole = false;
    eventually(LIMIT, "so many bytes have come", || {
        let came = count(&sluice, "pgsluice_received_bytes_total") >= received + bytes;
        whole = !came && world.confirmed(&now);
        whole || came
    });
    let rows = (count(&sluice, "pgsluice_rows_total") - rows) as usize;
    then(&sluice, rows);
    sluice.kill();
    world.proxy.cut_once();
    (!whole).then_some(rows)
}
