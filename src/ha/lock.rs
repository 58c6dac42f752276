//! The lock that an active instance holds and the passive ones wait for, kept by a task of its own.
//!
//! It is asked for and let go; whatever happens to its connection in between is mended there. That it
//! cannot be had is no trouble: then only polling tells of a free slot.
//!
//! **Must stay true.** The task runs on the thread of the main loop, and gives no sign of life to the
//! server while that loop makes no progress ([`Status::alive`]): who stands still loses the lock.

use std::time::Duration;

use tokio::{select, sync::watch, task::JoinHandle, time::sleep};

use super::turn::random;
use crate::{
    clock,
    pg::{
        connect::{self, Host},
        lock,
    },
    retry::Backoff,
    status::Status,
};

/// Pauses before it is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// See the module. Dropped, it is let go with its connection.
#[derive(Debug)]
pub struct Lock {
    /// Where it is wanted.
    wish: watch::Sender<Option<Host>>,
    ours: watch::Receiver<bool>,
    task: Option<JoinHandle<()>>,
}

impl Lock {
    /// The lock of a slot, which is not asked for yet. `status` tells whether the main loop lives.
    #[must_use]
    pub fn new(options: &connect::Options, slot: &str, status: watch::Receiver<Status>) -> Self {
        let (wish, wished) = watch::channel(None);
        let (held, ours) = watch::channel(false);
        let (options, slot) = (options.clone(), slot.to_owned());
        let keeper = Keeper { options, slot, status, wish: wished, ours: held };
        let task = Some(crate::sim::spawn(keeper.run()));
        Self { wish, ours, task }
    }

    /// One that nobody ever gets.
    #[must_use]
    pub fn none() -> Self {
        let (wish, _) = watch::channel(None);
        let (_, ours) = watch::channel(false);
        Self { wish, ours, task: None }
    }

    /// Asks for it on this server, from now on.
    pub fn ask(&self, host: &Host) {
        self.wish.send_if_modified(|wish| {
            let new = wish.as_ref() != Some(host);
            *wish = Some(host.clone());
            new
        });
    }

    /// Lets it go, for the next in the queue.
    pub fn let_go(&self) {
        self.wish.send_if_modified(|wish| wish.take().is_some());
    }

    /// Waits until it is ours. Cancel-safe.
    pub async fn ours(&mut self) {
        if self.ours.wait_for(|ours| *ours).await.is_err() {
            std::future::pending::<()>().await; // there is none
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

struct Keeper {
    options: connect::Options,
    slot: String,
    status: watch::Receiver<Status>,
    wish: watch::Receiver<Option<Host>>,
    ours: watch::Sender<bool>,
}

impl Keeper {
    /// Until nobody can ask for it any more.
    async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let host = match self.wish.wait_for(Option::is_some).await {
                Ok(wish) => wish.clone(),
                Err(_) => return,
            };
            let Some(host) = host else { continue };
            let result = self.keep(&host, &mut backoff).await;
            self.ours.send_replace(false);
            if let Err(error) = result {
                tracing::debug!(slot = self.slot, %error, "the lock cannot be kept, trying again");
                sleep(backoff.next(random())).await;
            }
        }
    }

    /// Gets and holds it as long as it is wanted, in one session; returns when it is wanted elsewhere.
    async fn keep(&mut self, host: &Host, backoff: &mut Backoff) -> Result<(), connect::Error> {
        let lock = lock::Lock::open(&self.options, host, &self.slot).await?;
        loop {
            if lock.wait().await? {
                backoff.reset();
                tracing::debug!(slot = self.slot, "the lock is ours");
                self.ours.send_replace(true);
                self.while_wished(&lock, |wish| wish.as_ref() == Some(host)).await?;
                lock.give_back().await?;
                self.ours.send_replace(false);
                tracing::debug!(slot = self.slot, "the lock is given back");
            }
            self.while_wished(&lock, Option::is_none).await?;
            if self.wish.borrow().as_ref() != Some(host) {
                return Ok(());
            }
        }
    }

    /// Gives signs of life as long as the wish stays so.
    async fn while_wished(
        &mut self,
        lock: &lock::Lock,
        stays: impl Fn(&Option<Host>) -> bool,
    ) -> Result<(), connect::Error> {
        loop {
            if !stays(&self.wish.borrow_and_update()) {
                return Ok(());
            }
            select! {
                biased;
                changed = self.wish.changed() => if changed.is_err() {
                    return std::future::pending().await; // this task is about to be ended
                },
                () = sleep(lock::PING) => if self.lives() {
                    lock.ping().await?;
                },
            }
        }
    }

    fn lives(&self) -> bool {
        let now_ms = i64::try_from(clock::unix().as_millis()).unwrap_or(i64::MAX);
        self.status.borrow().alive(now_ms).is_ok()
    }
}
