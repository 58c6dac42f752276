//! The two clocks that say more than how long something took: the calendar's, and the one that goes on
//! while the machine sleeps. Both are read here and nowhere else, so that the simulator can turn them.

#[cfg(not(feature = "sim"))]
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(feature = "sim")]
pub use crate::sim::{boot, unix};

/// Since 1970. A clock before that is taken for 1970.
#[cfg(not(feature = "sim"))]
#[must_use]
pub fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Since the machine was started, the time included for which it was suspended.
#[cfg(not(feature = "sim"))]
#[must_use]
pub fn boot() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}
