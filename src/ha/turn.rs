//! How an instance gets the slot: at once, or when its turn comes.

use std::time::Duration;

use tokio::{
    select,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{Lock, Options, Supersede};
use crate::{
    lease::Lease,
    net,
    pg::{
        connect,
        session::{self, Session},
        slot::{Active, Ended, PublicationOptions, SlotOptions},
    },
    retry::Backoff,
};

/// How often everything is checked again, not only the slot.
const CHECK: Duration = Duration::from_secs(30);

/// For how long a slot is looked at closely that should be free in a moment: a walsender notices the
/// end of its client a little later than the holder of the lock.
const GRACE: Duration = Duration::from_millis(500);

/// Between two of those looks, at most.
const CLOSE: Duration = Duration::from_millis(50);

/// Pauses before the lock is asked for again, which was had in vain.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What an instance needs to wait for the slot, and to take it.
#[derive(Debug)]
pub struct Turn<'a> {
    /// `[slot]`, as far as it is about several instances.
    pub options: &'a Options,
    /// Of ordinary logins.
    pub postgres: &'a connect::Options,
    /// What is streamed.
    pub publication: &'a PublicationOptions,
    /// The slot.
    pub slot: &'a SlotOptions,
    /// The tables of `[tables]`.
    pub mapped: &'a [String],
    /// Held from now on, if it can be had.
    pub lock: &'a mut Lock,
    /// Of the active instance.
    pub supersede: &'a mut Supersede,
}

/// How it was noticed that the slot is free.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum By {
    /// It was so from the beginning.
    Start,
    /// By the lock.
    Lock,
    /// By looking at it.
    Polling,
    /// The one that had it was ended.
    Force,
}

/// The slot is ours: `START_REPLICATION` was answered.
#[derive(Debug)]
pub struct Taken {
    /// From before it was asked for.
    pub lease: Lease,
    /// How it was noticed.
    pub by: By,
    /// When that was.
    pub noticed: Instant,
}

impl Turn<'_> {
    /// Takes the slot, as soon as nobody reads it. `seen` is told who does, each time that it is looked
    /// at. Not cancel-safe: if it is dropped, the session can only be dropped too.
    ///
    /// # Errors
    /// The session is of no use any more, or the slot is not.
    pub async fn take(
        &mut self,
        session: &mut Session,
        seen: &mut dyn FnMut(&Active),
    ) -> Result<Taken, session::Error> {
        let taken = match session.ready.active_pid {
            None => self.start(session, By::Start, Instant::now()).await?,
            Some(_) => None,
        };
        let taken = match taken {
            Some(taken) => taken,
            None => self.wait(session, seen).await?,
        };
        self.lock.ask(session.host());
        Ok(taken)
    }

    async fn wait(
        &mut self,
        session: &mut Session,
        seen: &mut dyn FnMut(&Active),
    ) -> Result<Taken, session::Error> {
        let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut checked = Instant::now();
        let (mut ask_at, mut asked) = (Some(checked), checked);
        loop {
            let all = checked.elapsed() >= CHECK;
            if all {
                checked = Instant::now();
            }
            let noticed = Instant::now();
            match self.look(session, all).await? {
                None => {
                    if let Some(taken) = self.start(session, By::Polling, noticed).await? {
                        return Ok(taken);
                    }
                }
                Some(active) => {
                    seen(&active);
                    if self.end(session, &active).await?
                        && let Some(taken) = self.closely(session, By::Force).await?
                    {
                        return Ok(taken);
                    }
                }
            }
            let look_at = Instant::now() + self.options.check_interval;
            loop {
                // All are cancel-safe: a change of a watched value, and sleeps.
                select! {
                    biased;
                    () = self.lock.ours(), if ask_at.is_none() => {
                        if let Some(taken) = self.closely(session, By::Lock).await? {
                            return Ok(taken);
                        }
                        self.lock.let_go();
                        if asked.elapsed() > LONGEST_PAUSE {
                            pauses.reset();
                        }
                        ask_at = Some(Instant::now() + pauses.next(random()).max(FIRST_PAUSE));
                    }
                    () = sleep_until(ask_at.unwrap_or(look_at)), if ask_at.is_some() => {
                        self.lock.ask(session.host());
                        (ask_at, asked) = (None, Instant::now());
                    }
                    () = sleep_until(look_at) => break,
                }
            }
        }
    }

    /// Who reads the slot. `None`: nobody does.
    async fn look(
        &self,
        session: &mut Session,
        all: bool,
    ) -> Result<Option<Active>, session::Error> {
        let (publication, slot, mapped) = (self.publication, self.slot, self.mapped);
        let host = session.host().to_string();
        let looked = async {
            session.look_again(&slot.name, all.then_some((publication, slot, mapped))).await?;
            session.active().await
        };
        let after = self.postgres.tcp.connect_timeout;
        match timeout(after, looked).await {
            Ok(looked) => looked,
            Err(_) => Err(connect::Error::from(net::Error::Timeout { to: host, after }).into()),
        }
    }

    async fn start(
        &self,
        session: &mut Session,
        by: By,
        noticed: Instant,
    ) -> Result<Option<Taken>, session::Error> {
        let lease = Lease::new(self.postgres.wal_sender_timeout);
        let started = session.start_now(&self.slot.name, &self.publication.names).await?;
        Ok(started.then_some(Taken { lease, by, noticed }))
    }

    /// Takes the slot that should be free in a moment.
    async fn closely(
        &self,
        session: &mut Session,
        by: By,
    ) -> Result<Option<Taken>, session::Error> {
        let noticed = Instant::now();
        let mut pause = Duration::from_millis(1);
        let mut free = true; // as it mostly is, one question is saved
        loop {
            if free && let Some(taken) = self.start(session, by, noticed).await? {
                return Ok(Some(taken));
            }
            if noticed.elapsed() + pause > GRACE {
                return Ok(None);
            }
            sleep(pause).await;
            pause = (pause * 2).min(CLOSE);
            free = self.look(session, false).await?.is_none();
        }
    }

    /// Ends an active instance that PostgreSQL has heard nothing of for `slot.take_over_after`. Whether
    /// it was told to end.
    async fn end(
        &mut self,
        session: &mut Session,
        active: &Active,
    ) -> Result<bool, session::Error> {
        let Some(after) = self.options.take_over_after else { return Ok(false) };
        if active.since.is_none() {
            self.say("see when PostgreSQL last heard of", "pg_monitor", session);
            return Ok(false);
        }
        let at = session.ready.confirmed_flush;
        let Some(silent) = self.supersede.silent(active, at, after, Instant::now()) else {
            return Ok(false);
        };
        match session.end(&self.slot.name, active.pid).await? {
            Ended::Gone => return Ok(true),
            Ended::MayNot => {
                self.say("end", "pg_signal_backend", session);
                return Ok(false);
            }
            Ended::Told => {}
        }
        self.supersede.ended(at);
        tracing::warn!(
            silent_ms = silent.as_millis(),
            pid = active.pid,
            "slot.take_over_after: {}; PostgreSQL has heard nothing of it, and was told to end it",
            super::described(&self.slot.name, active)
        );
        Ok(true)
    }

    /// Once.
    fn say(&mut self, what: &str, right: &'static str, session: &Session) {
        if self.supersede.said.insert(right) {
            tracing::warn!(
                "slot.take_over_after has no effect: our role may not {what} the active instance; \
                 have it run by a superuser: GRANT {right} TO {}",
                session.ready.server.role
            );
        }
    }
}

/// Chance for the pauses.
pub(crate) fn random() -> u32 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    let drawn = RandomState::new().build_hasher().finish(); // each has keys of its own
    u32::try_from(drawn & u64::from(u32::MAX)).unwrap_or(0)
}
