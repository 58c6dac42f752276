//! On which timeline a standby is, asked beside the stream.
//!
//! A standby may be promoted, or follow the promotion of the server that it gets its WAL from, and
//! **its walsender streams on in silence**: not one message of the stream tells on which timeline a
//! transaction was written. A row whose record bears the timeline of before would be taken, at the next
//! start, for one that a former primary wrote and lost, and be stored again. So whatever was read is
//! decoded only when the server has said, *after* it was read, that it is still where it was: it
//! replays no record of another timeline before it is there.
//!
//! A question is `IDENTIFY_SYSTEM`, as no function of SQL tells the timeline that a standby replays;
//! so it takes a walsender of its own.

use tokio::time::timeout;

use super::{
    connect::{self, Connection, Host, Kind},
    session::Error,
    which,
};
use crate::net;

/// A connection for this question.
#[derive(Debug)]
pub struct Witness {
    connection: Connection,
    limit: std::time::Duration,
    /// How often something had been read when it was asked last.
    seen: u64,
}

impl Witness {
    pub(super) async fn open(options: &connect::Options, host: &Host) -> Result<Self, Error> {
        let connection = Connection::open_at(options, host, Kind::Replication).await?;
        Ok(Self { connection, limit: options.tcp.connect_timeout, seen: 0 })
    }

    /// Whether nothing was read since it was asked last: `reads` counts.
    #[must_use]
    pub const fn knows(&self, reads: u64) -> bool {
        self.seen == reads
    }

    /// Asks whether the server is still on `timeline`, which tells of all that was read by now.
    ///
    /// # Errors
    /// It is not, or does not answer. Not cancel-safe: if it is dropped, so must the witness be.
    pub async fn ask(&mut self, timeline: u32, reads: u64) -> Result<(), Error> {
        let (to, after) = (self.connection.host().to_string(), self.limit);
        let asked = timeout(after, still_on(&mut self.connection, timeline)).await;
        asked.map_err(|_| connect::Error::from(net::Error::Timeout { to, after }))??;
        self.seen = reads;
        Ok(())
    }
}

/// Whether a server is still on this timeline.
pub(super) async fn still_on(connection: &mut Connection, from: u32) -> Result<(), Error> {
    let to = which::timeline(connection).await?;
    if to == from {
        return Ok(());
    }
    let host = connection.host().to_string();
    let rows = connection.simple_query("SELECT pg_is_in_recovery()").await?;
    let promoted = rows.first().and_then(|row| row.first()) == Some(&Some("f".to_owned()));
    Err(Error::Switched { host, from, to, promoted })
}
