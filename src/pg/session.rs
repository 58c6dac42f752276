//! From the options to a started stream: log in, check, start, in this order.
//!
//! Two connections: one for replication, which becomes the stream, and one for ordinary SQL on the
//! same server, as a walsender that streams answers nothing else. Whoever waits for a slot that
//! another one reads keeps both open, and looks after them by [`Session::look_again`].

use super::{
    catalog::{self, RelationFacts},
    connect::{self, Connection, Host, Kind, Sql},
    relations::Questions,
    slot::{self, Active, Ended, PublicationOptions, Ready, SlotOptions},
    stream::{self, ReplicationStream},
    timeline::{self, Timelines},
    which::{self, Identity, Known, Opened},
    witness::Witness,
};
use crate::{
    lsn::Lsn,
    retry::{Disposition, Exit},
};

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or no login.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// Publication or slot.
    #[error(transparent)]
    Slot(#[from] slot::Error),
    /// A question to the catalog.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The timeline's history.
    #[error(transparent)]
    Timeline(#[from] timeline::Error),
    /// `IDENTIFY_SYSTEM` without an answer that we can use.
    #[error("PostgreSQL did not say who it is: {what}")]
    Identity {
        /// What is missing.
        what: &'static str,
    },
    /// A standby that is no longer what it was when it was logged in to.
    #[error(
        "PostgreSQL at {host} went from timeline {from} to {to}: {}",
        if *.promoted { "it was promoted, and is a primary now" } else { "it follows a promotion" }
    )]
    Switched {
        /// The server.
        host: String,
        /// Its timeline at login.
        from: u32,
        /// Its timeline now.
        to: u32,
        /// Whether it is a primary now; else the server that it follows, or another one above that,
        /// was promoted.
        promoted: bool,
    },
}

impl Error {
    /// No `_` arm: a new variant does not compile until someone has judged it.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Connect(error) => error.disposition(),
            Self::Slot(error) => error.disposition(),
            Self::Catalog(error) => error.disposition(),
            Self::Timeline(error) => error.disposition(),
            Self::Identity { .. } => Disposition::Halt(Exit::Unavailable),
            Self::Switched { .. } => Disposition::Retry,
        }
    }
}

/// Logged in and checked; nothing streams yet.
pub struct Session {
    replication: Connection,
    catalog: Catalog,
    /// Of a standby.
    witness: Option<Witness>,
    /// What was found.
    pub ready: Ready,
    /// Who the server is.
    pub identity: Identity,
}

impl Session {
    /// Logs in twice and checks that everything is in place; `known` is what earlier sessions saw,
    /// `mapped` are the tables of `[tables]`. Somebody may read the slot: see [`Ready::active_pid`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn open(
        postgres: &connect::Options,
        publications: &PublicationOptions,
        slot: &SlotOptions,
        mapped: &[String],
        known: Known,
    ) -> Result<Self, Error> {
        let Opened { connection: mut replication, identity, elsewhere } =
            which::open(postgres, known, &slot.name).await?;
        let mut catalog = Catalog::new(postgres, &replication);
        let client = catalog.client().await?;
        // On a standby a slot is made by the walsender.
        let standby = replication.parameter("in_hot_standby") == Some("on");
        let look = SlotOptions { create: slot.create && !standby, ..slot.clone() };
        let mut looked = slot::look(client, publications, &look, mapped).await;
        if let Err(slot::Error::SlotMissing { place: Some(place), .. }) = &looked
            && standby
            && slot.create
        {
            slot::create_on_standby(&mut replication, postgres, &place.server, slot).await?;
            looked = slot::look(client, publications, &look, mapped).await;
            looked = looked.map(|ready| Ready { slot_created: true, ..ready });
        }
        let ready = looked.map_err(|error| named(error, replication.host(), elsewhere))?;
        let witness = match ready.server.in_recovery {
            true => Some(Witness::open(postgres, replication.host()).await?),
            false => None,
        };
        Ok(Self { replication, catalog, witness, ready, identity })
    }

    /// The same through a temporary slot that PostgreSQL drops with the connection: for `tail`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn open_temporary(
        postgres: &connect::Options,
        publications: &PublicationOptions,
        slot: &str,
        waiting: impl FnOnce(),
    ) -> Result<Self, Error> {
        let mut replication = Connection::open(postgres, Kind::Replication).await?;
        let identity = which::identify(&mut replication).await?;
        let mut catalog = Catalog::new(postgres, &replication);
        let client = catalog.client().await?;
        let (server, mut warnings) = slot::check_server(client).await?;
        let mut published =
            slot::prepare_publication(client, &server, publications, &[], false).await?;
        warnings.append(&mut published.warnings);
        let ready = Ready {
            server,
            confirmed_flush: Lsn::ZERO,
            restart_lsn: Lsn::ZERO,
            published,
            slot_created: true,
            active_pid: None,
            warnings,
        };
        waiting();
        let create = slot::create_temporary(slot, ready.server.version_num);
        let creation = replication.simple_query(&create);
        match ready.server.in_recovery {
            true => slot::with_snapshots(postgres, creation).await?,
            false => creation.await?,
        };
        Ok(Self { replication, catalog, witness: None, ready, identity })
    }

    /// `START_REPLICATION … 0/0`: the slot decides where. Only [`Self::stream`] may follow.
    ///
    /// `false`: another one reads the slot, and it may be tried again. Not cancel-safe: if it is
    /// dropped, the session can only be dropped too.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn start(&mut self, slot: &str, publications: &[String]) -> Result<bool, Error> {
        let command = slot::start_replication(slot, publications);
        match self.replication.start_copy_both(&command).await {
            Ok(()) => Ok(true),
            Err(error) if is_busy(&error) => Ok(false),
            Err(error) => Err(refused(error, slot)),
        }
    }

    /// The same, for a session that was opened some time ago: what has changed since is learnt.
    ///
    /// # Errors
    /// The server refuses, or cannot be asked.
    pub async fn start_now(&mut self, slot: &str, publications: &[String]) -> Result<bool, Error> {
        self.identify_again().await?;
        if !self.start(slot, publications).await? {
            return Ok(false);
        }
        // Nobody else can move it now.
        let client = self.catalog.client().await?;
        let health = slot::readable(client, &self.ready.server, slot).await?;
        self.ready.learn(&health);
        Ok(true)
    }

    /// Who is to be asked before anything is decoded that the stream brings, if the server is a standby.
    pub const fn witness(&mut self) -> Option<Witness> {
        self.witness.take()
    }

    /// What came after [`Self::start`], and what answers questions beside it.
    #[must_use]
    pub fn stream(
        self,
        publications: &[String],
        start: stream::Start<'_>,
    ) -> (ReplicationStream, Catalog, Timelines) {
        let (mut socket, received) = self.replication.into_parts();
        if start.options.low_watermark > 1 {
            // Only costs CPU if it cannot be set.
            let _ = socket.set_low_watermark(start.options.low_watermark);
        }
        let begun = self.ready.confirmed_flush;
        let stream = ReplicationStream::new(socket, &received, publications, begun, start);
        (stream, self.catalog, self.identity.timelines)
    }

    /// For who waits: whether both connections are good, and who reads the slot. With `options` the
    /// server and the publications are checked again, too.
    ///
    /// Not cancel-safe: if it is dropped, the session can only be dropped too.
    ///
    /// # Errors
    /// As in [`Self::open`].
    pub async fn look_again(
        &mut self,
        slot: &str,
        options: Option<(&PublicationOptions, &SlotOptions, &[String])>,
    ) -> Result<(), Error> {
        self.identify_again().await?;
        let client = self.catalog.client().await?;
        if let Some((publications, slot, mapped)) = options {
            self.ready = slot::look(client, publications, slot, mapped).await?;
            return Ok(());
        }
        let health = slot::readable(client, &self.ready.server, slot).await?;
        self.ready.learn(&health);
        Ok(())
    }

    /// Who reads the slot, if it is read, as far as our role may see it.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn active(&mut self) -> Result<Option<Active>, Error> {
        let Some(pid) = self.ready.active_pid else { return Ok(None) };
        Ok(slot::active(self.catalog.client().await?, pid).await?)
    }

    /// Has the process ended that reads the slot.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn end(&mut self, slot: &str, pid: i32) -> Result<Ended, Error> {
        Ok(slot::end(self.catalog.client().await?, slot, pid).await?)
    }

    /// The server.
    #[must_use]
    pub const fn host(&self) -> &Host {
        self.replication.host()
    }

    /// It may have been promoted in between. Of a standby, that needs another look at all of it.
    async fn identify_again(&mut self) -> Result<(), Error> {
        if let Some(witness) = &mut self.witness {
            witness.ask(self.identity.timelines.current(), 0).await?;
        }
        self.identity.learn(&mut self.replication).await
    }
}

/// Whether another one reads the slot.
fn is_busy(error: &connect::Error) -> bool {
    const OBJECT_IN_USE: &str = "55006";
    error.server().is_some_and(|server| server.sqlstate == OBJECT_IN_USE)
}

/// A missing slot, with where it was looked for.
fn named(error: slot::Error, at: &Host, other: Option<String>) -> slot::Error {
    match error {
        slot::Error::SlotMissing { name, sql, place: Some(mut place) } => {
            (place.host, place.elsewhere) = (at.to_string(), other);
            slot::Error::SlotMissing { name, sql, place: Some(place) }
        }
        error => error,
    }
}

/// A slot that was there when it was looked at, and is not when it is to be read.
fn refused(error: connect::Error, slot: &str) -> Error {
    const UNDEFINED_OBJECT: &str = "42704"; // Publications are looked up later, by the first row.
    match error.server() {
        Some(server) if server.sqlstate == UNDEFINED_OBJECT => slot::missing(slot).into(),
        _ => error.into(),
    }
}

/// Ordinary SQL on the server that streams. The connection is made anew when it broke.
#[derive(Debug)]
pub struct Catalog {
    options: connect::Options,
    host: Host,
    sql: Option<Sql>,
}

impl Catalog {
    fn new(options: &connect::Options, beside: &Connection) -> Self {
        Self { options: options.clone(), host: beside.host().clone(), sql: None }
    }

    /// What a Relation message leaves open.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn ask(&mut self, questions: &Questions) -> Result<RelationFacts, Error> {
        if self.sql.is_some() {
            let client = self.client().await?;
            match catalog::relation_facts(client, questions.oid, &questions.types).await {
                Ok(facts) => return Ok(facts),
                Err(error) if error.disposition() == Disposition::Retry => self.sql = None,
                Err(error) => return Err(error.into()),
            }
        }
        let client = self.client().await?;
        Ok(catalog::relation_facts(client, questions.oid, &questions.types).await?)
    }

    /// Where the server's WAL ends now, as far as it may be sent. `None`: it is a standby, whose end
    /// says little about what its primary wrote.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn wal_end(&mut self) -> Result<Option<Lsn>, Error> {
        Ok(catalog::wal_end(self.client().await?).await?)
    }

    async fn client(&mut self) -> Result<&tokio_postgres::Client, Error> {
        if self.sql.as_ref().is_none_or(|sql| sql.is_closed()) {
            self.sql = Some(connect::sql(&self.options, &self.host).await?);
        }
        match &self.sql {
            Some(sql) => Ok(sql),
            None => Err(Error::Identity { what: "no connection" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::{connect::ServerError, sqlstate::During};

    #[test]
    fn a_slot_that_vanishes_before_it_is_read_is_as_missing_as_any() {
        let refusal = |body: &[u8]| {
            let error = Box::new(ServerError::parse(body));
            let (to, during) = ("db:5432".to_owned(), During::Streaming);
            refused(connect::Error::Server { to, during, error }, "s")
        };
        let gone = refusal(b"SERROR\0C42704\0Mreplication slot \"s\" does not exist\0\0");
        assert!(matches!(gone, Error::Slot(slot::Error::SlotMissing { .. })), "{gone}");
        let busy = refusal(b"SERROR\0C55006\0Mreplication slot \"s\" is active\0\0");
        assert!(matches!(busy, Error::Connect(ref error) if is_busy(error)), "{busy}");
    }
}
