//! The task: one connection, made anew when it breaks.

use std::{collections::HashSet, time::Duration};

use futures_util::FutureExt as _;
use tokio::{
    select,
    sync::watch,
    time::{Instant, error::Elapsed, sleep, sleep_until, timeout},
};

use super::{
    super::now_ms,
    Aim, Options, PATIENCE, Source,
    beat::{Beat, Step},
    concern::{Concerns, Holder, Word},
    late,
    stall::Stall,
};
use crate::{
    ha, metrics,
    pg::{
        catalog,
        connect::{self, Sql},
        slot::{
            self, Health, Hold,
            heartbeat::{self, Heartbeat, Written},
        },
    },
    pipeline::Signs,
    retry::Backoff,
    status::{OldestTransaction, SlotHealth, Status},
};

/// Between two attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// With more WAL than a segment that is confirmed and kept all the same, it is worth a small record to let go of it.
const LET_GO: u64 = 16 << 20;

/// Why the connection is of no use. The stream says itself what it has: this is only for debugging.
#[derive(Debug, thiserror::Error)]
enum Gone {
    #[error(transparent)]
    Connect(#[from] connect::Error),
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    #[error("a statement failed")]
    Statement(#[from] tokio_postgres::Error),
    #[error("no answer came in time")]
    Silent(#[from] Elapsed),
    #[error("there is no slot")]
    NoSlot,
}

pub(super) struct Task {
    options: Options,
    postgres: connect::Options,
    slot: String,
    process: u64,
    signs: Signs,
    status: watch::Sender<Status>,
    beat: Beat,
    backoff: Backoff,
    concerns: Concerns,
    holder: Holder,
    stall: Stall,
    /// Of the session that [`Self::no_beat`] is about.
    session: u64,
    /// The role may not write them, or the server takes no writes.
    no_beat: bool,
    /// As it was last seen: a standby may be promoted meanwhile.
    in_recovery: Option<bool>,
    said: HashSet<String>,
}

impl Task {
    pub(super) fn new(
        options: &Options,
        postgres: connect::Options,
        slot: String,
        process: u64,
        signs: Signs,
        status: watch::Sender<Status>,
    ) -> Self {
        let late = late(options, &postgres);
        Self {
            beat: Beat::new(options.heartbeat, late, Instant::now()),
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            concerns: Concerns::new(slot.clone(), options.warn_retained),
            holder: Holder::default(),
            stall: Stall::default(),
            options: options.clone(),
            postgres,
            slot,
            process,
            signs,
            status,
            session: 0,
            no_beat: false,
            in_recovery: None,
            said: HashSet::new(),
        }
    }

    /// Until the supervisor is gone.
    pub(super) async fn run(mut self, mut aimed: watch::Receiver<Aim>) {
        loop {
            let aim = aimed.borrow_and_update().clone();
            self.turn_to(&aim);
            // Cancel-safe: a connection that is dropped is closed, and what it was asked is asked again.
            let gone = select! {
                biased;
                changed = aimed.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                gone = self.attend(&aim) => gone,
            };
            tracing::debug!("the slot cannot be looked at: {}", super::super::chain(&gone));
            self.stale();
            let pause = self.backoff.next(ha::random());
            select! {
                biased;
                changed = aimed.changed() => if changed.is_err() { return },
                () = sleep(pause) => {}
            }
        }
    }

    fn turn_to(&mut self, aim: &Aim) {
        let session = match aim {
            Aim::Active(source) => source.session,
            Aim::Away | Aim::Passive(_) => 0,
        };
        if std::mem::replace(&mut self.session, session) != session {
            self.beat.restart(Instant::now());
            (self.no_beat, self.in_recovery) = (false, None);
            self.pending();
        }
        if *aim == Aim::Away {
            self.stale();
        }
    }

    /// Looks at the slot and writes heartbeats, until the connection breaks.
    async fn attend(&mut self, aim: &Aim) -> Gone {
        let opened = match aim {
            Aim::Away => return std::future::pending().await,
            Aim::Passive(host) => connect::sql(&self.postgres, host).await,
            Aim::Active(source) => connect::sql(&self.postgres, &source.host).await,
        };
        let source = match aim {
            Aim::Active(source) => Some(&**source),
            Aim::Away | Aim::Passive(_) => None,
        };
        let attended = match opened {
            Ok(sql) => self.turns(&sql, source).await,
            Err(error) => Err(error.into()),
        };
        attended.err().unwrap_or(Gone::NoSlot)
    }

    async fn turns(&mut self, sql: &Sql, source: Option<&Source>) -> Result<(), Gone> {
        timeout(PATIENCE, sql.batch_execute(heartbeat::SETTINGS)).await??;
        let mut look_at = Instant::now();
        loop {
            // What came back while a statement was waited for is not late.
            if let Some((number, at)) = self.signs.returned().now_or_never() {
                self.returned(number, at);
            }
            if !self.options.interval.is_zero() && Instant::now() >= look_at {
                self.look(sql, source).await?;
                look_at = Instant::now() + self.options.interval;
            }
            let mut wake = Instant::now() + Duration::from_secs(5);
            if !self.options.interval.is_zero() {
                wake = wake.min(look_at);
            }
            if let Some(source) = source.filter(|source| self.beats(source)) {
                match self.beat.step(self.signs.moved(), Instant::now()) {
                    Step::Wait(at) => wake = wake.min(at),
                    Step::Write(number) => {
                        self.write(sql, source, number).await?;
                        continue;
                    }
                    Step::Late => {
                        self.say_late(sql).await?;
                        continue;
                    }
                }
            }
            self.pending();
            // Both are cancel-safe.
            select! {
                biased;
                (number, at) = self.signs.returned() => self.returned(number, at),
                () = sleep_until(wake) => {}
            }
        }
    }

    fn beats(&self, source: &Source) -> bool {
        let in_recovery = self.in_recovery.unwrap_or(source.in_recovery);
        !self.options.heartbeat.is_zero() && !in_recovery && !self.no_beat
    }

    async fn write(&mut self, sql: &Sql, source: &Source, number: u64) -> Result<(), Gone> {
        // From here on, as it may come back before the answer does.
        self.beat.written(Instant::now());
        let heartbeat = Heartbeat { slot: &self.slot, process: self.process, number };
        let written = heartbeat::write(sql, heartbeat, source.version_num, &source.role);
        let written = match timeout(PATIENCE, written).await {
            Ok(Ok(written)) => written,
            Ok(Err(error)) => {
                self.beat.not_written(Instant::now());
                return Err(error.into());
            }
            Err(silent) => {
                self.beat.not_written(Instant::now());
                return Err(silent.into());
            }
        };
        self.no_beat = !matches!(written, Written::Yes);
        match written {
            Written::Yes => return Ok(()),
            Written::ReadOnly => tracing::debug!("no heartbeats: the server takes no writes"),
            Written::MayNot(grant) => {
                let text = format!(
                    "no heartbeats are written: role {:?} may not call pg_logical_emit_message. While \
                     nothing of the publication is written, the slot may keep WAL: {grant}",
                    source.role
                );
                if self.said.insert(text.clone()) {
                    tracing::warn!("{text}");
                }
            }
        }
        self.beat.not_written(Instant::now());
        Ok(())
    }

    fn returned(&mut self, number: u64, at: Instant) {
        let Some((after, was_late)) = self.beat.returned(number, at) else { return };
        metrics::heartbeat(after);
        tracing::trace!(number, ms = after.as_millis(), "a heartbeat came back");
        if was_late {
            tracing::info!(seconds = after.as_secs(), "the late heartbeat has come back");
        }
        self.status.send_modify(|status| {
            let shown = status.heartbeat.get_or_insert_default();
            (shown.lag_seconds, shown.at_ms) = (Some(after.as_secs_f64()), Some(now_ms()));
            shown.pending_since_ms = None;
        });
    }

    /// Shows how old the one is that is under way.
    fn pending(&self) {
        let since = self.beat.under_way();
        let age = since.map_or(Duration::ZERO, |since| since.elapsed());
        metrics::heartbeat_pending(age);
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let pending = since.map(|_| now_ms().saturating_sub(age_ms));
        self.status.send_if_modified(|status| {
            if pending.is_none() && status.heartbeat.is_none() {
                return false;
            }
            let shown = status.heartbeat.get_or_insert_default();
            let other = shown.pending_since_ms.is_some() != pending.is_some();
            if other {
                shown.pending_since_ms = pending;
            }
            other
        });
    }

    async fn say_late(&self, sql: &Sql) -> Result<(), Gone> {
        let seconds = self.beat.under_way().map_or(0, |since| since.elapsed().as_secs());
        let begin = format!("a heartbeat that was written {seconds} s ago has not come back");
        if self.stall.said().is_some() {
            tracing::debug!("{begin}: a standby is waited for");
            return Ok(());
        }
        if self.signs.received() >= self.beat.number() {
            // What Kafka has is said by whoever meets it.
            if self.status.borrow().kafka_trouble.is_some() {
                tracing::debug!("{begin}: Kafka stores nothing");
                return Ok(());
            }
            tracing::warn!(
                "{begin}: it was received, and its position waits for what Kafka has not stored"
            );
            return Ok(());
        }
        let walsender = timeout(PATIENCE, slot::walsender(sql, &self.slot)).await??;
        tracing::warn!("{begin}: {}", walsender.explained());
        Ok(())
    }

    async fn look(&mut self, sql: &Sql, source: Option<&Source>) -> Result<(), Gone> {
        let looked = async {
            let health = slot::health(sql, &self.slot).await?;
            Ok::<_, catalog::Error>((health, slot::hold(sql, &self.slot).await?))
        };
        let (health, hold) = timeout(PATIENCE, looked).await??;
        let health = health.ok_or(Gone::NoSlot)?;
        self.backoff.reset();
        self.in_recovery = Some(hold.in_recovery);
        show(&self.status, &health, &hold, self.stall.said());
        let held = self.holder.holds(&health, &hold, Instant::now());
        if source.is_none() {
            return Ok(()); // who streams says it
        }
        let ours = health.unconfirmed_bytes > health.retained_bytes / 2;
        if hold.may_log_running && !hold.in_recovery && !ours && health.retained_bytes > LET_GO {
            timeout(PATIENCE, slot::log_running(sql)).await??;
            tracing::debug!("had the running transactions logged, so that the slot may move");
        }
        let stalled = self.stalled(sql, &health).await?;
        for word in self.concerns.judge(&health, &hold, held).into_iter().chain(stalled) {
            match word {
                Word::Warn(text) => tracing::warn!("{text}"),
                Word::Over(text) => tracing::info!("{text}"),
            }
        }
        Ok(())
    }

    /// Whether a standby is waited for. Only failover slots ever are.
    async fn stalled(&mut self, sql: &Sql, health: &Health) -> Result<Option<Word>, Gone> {
        if health.failover != Some(true) {
            return Ok(None);
        }
        let walsender = timeout(PATIENCE, slot::walsender(sql, &self.slot)).await??;
        let received = self.status.borrow().received.lsn;
        let at = (health.confirmed_flush.unwrap_or_default(), received);
        let word = self.stall.judge(&self.slot, at, &walsender, Instant::now());
        let said = self.stall.said().map(str::to_owned);
        metrics::slot_waits_for_standby(said.is_some());
        self.status.send_if_modified(|status| match &mut status.slot_health {
            Some(health) => {
                let other = health.waits != said;
                health.waits = said;
                other
            }
            None => false,
        });
        Ok(word)
    }

    fn stale(&self) {
        metrics::slot_stale(true);
        self.status.send_if_modified(|status| match &mut status.slot_health {
            Some(health) => !std::mem::replace(&mut health.stale, true),
            None => false,
        });
    }
}

fn show(status: &watch::Sender<Status>, health: &Health, hold: &Hold, waits: Option<&str>) {
    let oldest = hold.oldest.as_ref();
    metrics::slot_stale(false);
    metrics::slot(metrics::Slot {
        wal_status: health.wal_status.as_deref(),
        safe_wal: health.safe_wal_size,
        retained: health.retained_bytes,
        unconfirmed: health.unconfirmed_bytes,
        inactive_seconds: hold.inactive.unwrap_or(0),
        invalidation: health.invalidation_reason.as_deref(),
        oldest_age: oldest.map_or(0, |oldest| oldest.age),
        oldest_seconds: oldest.and_then(|oldest| oldest.seconds).unwrap_or(0),
    });
    let shown = SlotHealth {
        wal_status: health.wal_status.clone(),
        safe_wal_bytes: health.safe_wal_size,
        retained_bytes: health.retained_bytes,
        unconfirmed_bytes: health.unconfirmed_bytes,
        restart_lsn: health.restart_lsn.map(|lsn| lsn.to_string()),
        confirmed_flush_lsn: health.confirmed_flush.map(|lsn| lsn.to_string()),
        inactive_seconds: hold.inactive,
        invalidation_reason: health.invalidation_reason.clone(),
        oldest_transaction: oldest.map(|oldest| OldestTransaction {
            pid: oldest.pid,
            gid: oldest.gid.clone(),
            age: oldest.age,
            seconds: oldest.seconds,
        }),
        waits: waits.map(str::to_owned),
        at_ms: now_ms(),
        stale: false,
    };
    status.send_modify(|status| status.slot_health = Some(shown));
}
