//! Who may stream: one of any number of instances, and the next one at once when it is gone.
//!
//! PostgreSQL's slot decides, and nothing else does. Who finds it in use is passive: it keeps its
//! sessions open, with everything checked, so that a take-over is no more than `START_REPLICATION` and
//! what Kafka needs. It looks at the slot every `slot.check_interval`, whatever happens, and beside
//! that waits for a [`Lock`] which the active instance holds, and which is free in the moment in which
//! that one has gone.
//!
//! **Must stay true.** The lock only shortens the wait: who has it and finds the slot in use gives it
//! back, and who has the slot streams without it. An active instance is ended by another one only
//! where `slot.take_over_after` says so ([`Supersede`]).

mod lock;
mod supersede;
mod turn;

use std::time::Duration;

pub use self::{
    lock::Lock,
    supersede::Supersede,
    turn::{By, Taken, Turn},
};
use crate::pg::slot::Active;
pub(crate) use turn::random;

/// `slot.check_interval` and `slot.take_over_after`.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often a slot that is in use is looked at again.
    pub check_interval: Duration,
    /// An active instance that PostgreSQL has heard nothing of for so long is ended. `None`: never.
    pub take_over_after: Option<Duration>,
    /// Whether there is a [`Lock`]: always, but in the simulator.
    pub lock: bool,
}

/// Who is active, for a person.
#[must_use]
pub fn described(slot: &str, active: &Active) -> String {
    let Active { pid, application_name, address, since, .. } = active;
    let by = application_name.as_ref().map(|name| format!(" by {name:?}"));
    let at = address.as_ref().map(|address| format!(" at {address}"));
    let since = since.as_ref().map(|since| format!(" since {since}"));
    let [by, at, since] = [by, at, since].map(Option::unwrap_or_default);
    format!("replication slot {slot:?} is in use{by}{at}{since}: the PostgreSQL process {pid}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_of_the_active_one_what_may_be_seen() {
        let mut active = Active { pid: 7, ..Active::default() };
        let text = r#"replication slot "s" is in use: the PostgreSQL process 7"#;
        assert_eq!(described("s", &active), text);
        active.application_name = Some("pgsluice".into());
        active.address = Some("10.0.0.5".into());
        active.since = Some("2026-11-26T14:00:00Z".into());
        let by = r#"in use by "pgsluice" at 10.0.0.5 since 2026-11-26T14:00:00Z: the Post"#;
        assert!(described("s", &active).contains(by));
    }
}
