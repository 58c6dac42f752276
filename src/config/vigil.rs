//! What `[slot]` says of the time beside the stream.

use std::time::Duration;

use super::settings::Settings;
use crate::app::vigil::Options;

/// More often than this nobody gains by it, and the WAL and the group grow.
const LEAST: Duration = Duration::from_millis(100);

/// Builds and checks it.
pub(super) fn build(s: &mut Settings) -> Options {
    for key in ["slot.heartbeat", "slot.health_interval", "slot.standby_interval"] {
        let time = s.span(key);
        if !time.is_zero() && time < LEAST {
            s.wrong(key, "is less than 100ms; 0s turns it off");
        }
    }
    Options {
        heartbeat: s.span("slot.heartbeat"),
        interval: s.span("slot.health_interval"),
        warn_retained: s.size("slot.warn_retained"),
        standbys: s.span("slot.standby_interval"),
    }
}
