//! What `/status`, `/readyz`, the metric of the role and systemd are told of a session.

use tokio::sync::watch;

use crate::{
    clock,
    lsn::Lsn,
    metrics,
    pipeline::Progress,
    status::{Reach, Role, Status},
};

pub(super) fn set_role(status: &watch::Sender<Status>, role: Role, reason: Option<String>) {
    metrics::role(role.as_str());
    if role != Role::Passive {
        metrics::active(None);
    }
    status.send_modify(|status| {
        if status.role != role {
            status.since_ms = now_ms();
        }
        (status.role, status.reason, status.progress_ms) = (role, reason, now_ms());
        status.active = status.active.take().filter(|_| role == Role::Passive);
        metrics::could_take_over(status.could_take_over() == Some(true));
    });
}

/// Puts one report of the loop there.
pub(super) fn show(status: &watch::Sender<Status>, progress: &Progress) {
    if progress.draining {
        set_role(status, Role::Draining, None);
    }
    let reach = |lsn: Lsn| Reach { lsn, lag_bytes: progress.received.since(lsn) };
    status.send_modify(|status| {
        status.progress_ms = now_ms();
        status.received = reach(progress.received);
        status.stored = reach(progress.stored);
        status.confirmed = reach(progress.confirmed);
        status.lag_seconds = progress.lag.as_secs_f64();
        status.kafka_trouble.clone_from(&progress.kafka_trouble);
    });
}

/// The clock of [`Status`].
pub(crate) fn now_ms() -> i64 {
    i64::try_from(clock::unix().as_millis()).unwrap_or(i64::MAX)
}
