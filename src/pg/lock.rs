//! A lock on a session of its own, by which whoever waits for a slot hears at once that its reader has
//! gone.
//!
//! An advisory lock is let go in the moment in which its holder's connection ends. It only shortens a
//! wait: who streams, the slot alone decides. It is one of the database, as the slot is.
//!
//! **Must stay true.** Nobody waits for it in one statement for longer than [`WAIT`], as a statement
//! keeps a snapshot, which holds back vacuum. And a holder that stands still loses it: the kernel of
//! a frozen process goes on answering keepalives, so the server ends the session itself when
//! [`Lock::ping`] has not come for some seconds.

use std::time::Duration;

use ring::digest::{SHA256, digest};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use super::connect::{self, Host, Sql};
use crate::net;

/// Longest statement that waits for it.
pub const WAIT: Duration = Duration::from_secs(10);

/// The server ends a session of which it has heard nothing for so long.
const IDLE: Duration = Duration::from_secs(4);

/// How often to ping, held or not.
pub const PING: Duration = Duration::from_secs(1);

/// Longest wait for any other answer.
const ANSWER: Duration = Duration::from_secs(5);

/// A session for the lock of one slot.
#[derive(Debug)]
pub struct Lock {
    sql: Sql,
    host: Host,
    key: i64,
}

impl Lock {
    /// Logs in, and has the session ended soon should this process or its machine be gone.
    ///
    /// # Errors
    /// Why not.
    pub async fn open(
        options: &connect::Options,
        host: &Host,
        slot: &str,
    ) -> Result<Self, connect::Error> {
        let sql = connect::sql(options, host).await?;
        let lock = Self { sql, host: host.clone(), key: key(slot) };
        for (name, value) in [
            ("lock_timeout", WAIT.as_millis()),
            ("idle_session_timeout", IDLE.as_millis()),
            // Of one that waits: its place in the queue is not to be a dead one's.
            ("client_connection_check_interval", 1000),
            ("tcp_keepalives_idle", 2),
            ("tcp_keepalives_interval", 1),
            ("tcp_keepalives_count", 3),
            ("tcp_user_timeout", 5000),
        ] {
            // Not every system has all of them.
            match lock.run(&format!("SET {name} = {value}"), ANSWER).await {
                Err(error) if lock.sql.is_closed() => return Err(error),
                Err(error) => tracing::debug!(%error, name, "a setting stays as it is"),
                Ok(_) => {}
            }
        }
        Ok(lock)
    }

    /// Waits for it, for [`WAIT`] at most. Whether it is ours. Not cancel-safe: if it is dropped, the
    /// lock can only be dropped too.
    ///
    /// # Errors
    /// The connection.
    pub async fn wait(&self) -> Result<bool, connect::Error> {
        self.run(&format!("SELECT pg_advisory_lock({})", self.key), WAIT + ANSWER).await
    }

    /// Gives it back, for the next in the queue.
    ///
    /// # Errors
    /// The connection.
    pub async fn give_back(&self) -> Result<(), connect::Error> {
        self.run(&format!("SELECT pg_advisory_unlock({})", self.key), ANSWER).await.map(drop)
    }

    /// A sign of life, without which the server ends the session.
    ///
    /// # Errors
    /// The connection.
    pub async fn ping(&self) -> Result<(), connect::Error> {
        self.run("SELECT 1", ANSWER).await.map(drop)
    }

    /// `false`: it was given up after `lock_timeout`.
    async fn run(&self, sql: &str, after: Duration) -> Result<bool, connect::Error> {
        match timeout(after, self.sql.simple_query(sql)).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(error)) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(false),
            Ok(Err(error)) => Err(self.sql.judge(error)),
            Err(_) => Err(net::Error::Timeout { to: self.host.to_string(), after }.into()),
        }
    }
}

/// Of a slot: the same in every instance, and hardly ever another program's.
#[must_use]
pub fn key(slot: &str) -> i64 {
    let hash = digest(&SHA256, format!("pgsluice slot {slot}").as_bytes());
    hash.as_ref().first_chunk().map_or(0, |head| i64::from_be_bytes(*head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_has_the_same_key_for_a_slot() {
        assert_eq!(key("cdc_slot"), KEY_OF_CDC_SLOT);
        assert_ne!(key("cdc_slot"), key("cdc_slot2"));
    }

    /// `printf 'pgsluice slot cdc_slot' | sha256sum`
    const KEY_OF_CDC_SLOT: i64 = -1_100_884_444_608_136_555;
}
