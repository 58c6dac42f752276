//! The one source of chance: everything that is drawn in a history comes from its seed.
//!
//! Each draw belongs to something (a connection, a broker, the plan), so that one fault less in the plan
//! leaves the other draws as they are: only so can a failing history be made shorter.
#![allow(unsafe_code)] // `getrandom` is C's

use std::{cell::Cell, time::Duration};

/// Splitmix64.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// What is drawn for `what` of this seed.
    pub fn of(seed: u64, what: &str) -> Self {
        let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
        for byte in what.bytes() {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let mut chance = Self(state);
        chance.next();
        chance
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to before `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub fn ms(&mut self, first: u64, last: u64) -> Duration {
        Duration::from_millis(self.between(first, last))
    }

    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

thread_local! {
    static SYSTEM: Cell<u64> = const { Cell::new(1) };
}

/// From here on this thread's hash maps, and whatever else asks the system for chance, draw from this.
pub fn seed_system(seed: u64) {
    SYSTEM.with(|state| state.set(Chance::of(seed, "the system").next()));
}

/// In the place of the C library's: std takes the keys of its hash maps from here.
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    let mut state = SYSTEM.try_with(Cell::get).unwrap_or(1);
    for at in 0..length {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // SAFETY: the caller hands over a buffer of this length.
        unsafe { buffer.add(at).write((state >> 33) as u8) };
    }
    let _ = SYSTEM.try_with(|cell| cell.set(state));
    length as isize
}
