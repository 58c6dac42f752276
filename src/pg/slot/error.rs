//! Why publication or slot cannot be used.
//!
//! A message is all that a stranger has: it names the object, and the SQL that mends it as it can be
//! pasted. One that tells of a gap says what is lost, and how to go on all the same.

use super::Published;
use crate::{
    lsn::Lsn,
    pg::{
        catalog::{self, Server},
        connect,
    },
    retry::{Disposition, Exit},
};

/// Why the publication or the slot cannot be used, with the SQL that mends it where SQL can.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// pgoutput sends too little before 14.
    #[error(
        "PostgreSQL {} is too old: 14 or later is needed", .version_num / 10_000
    )]
    TooOld {
        /// `server_version_num`.
        version_num: u32,
    },
    /// The WAL does not hold what decoding needs.
    #[error(
        "wal_level is {found}, and logical replication needs logical: \
         ALTER SYSTEM SET wal_level = logical; then restart PostgreSQL{}",
        if *.standby { ". This server is a standby: its primary needs the same" } else { "" }
    )]
    WalLevel {
        /// `wal_level` as it is.
        found: String,
        /// Whether the server is in recovery.
        standby: bool,
    },
    /// The WAL that a standby gets does not hold what decoding needs.
    #[error(
        "this server is a standby, and its primary's WAL does not hold what logical replication \
         needs ({said}): on the primary, ALTER SYSTEM SET wal_level = logical; then restart it"
    )]
    PrimaryWalLevel {
        /// PostgreSQL's own words.
        said: String,
    },
    /// Standbys decode from 16 on.
    #[error("this server is a standby, and PostgreSQL {major} streams from a primary only")]
    Standby {
        /// Its version.
        major: u32,
    },
    /// PostgreSQL would refuse it, or cut it short.
    #[error("{name:?} is no name of a {what}: {why}")]
    Name {
        /// Slot, publication or operation.
        what: &'static str,
        /// As configured.
        name: String,
        /// The rule.
        why: &'static str,
    },
    /// Nothing can be streamed without it.
    #[error(
        "publication {name:?} does not exist in database {database:?}: {}{sql}{}",
        if *.standby { ON_THE_PRIMARY } else { "" },
        if *.slot_exists { YOUNGER_THAN_SLOT } else { "" }
    )]
    PublicationMissing {
        /// Its name.
        name: String,
        /// Where it was looked for.
        database: String,
        /// What makes it.
        sql: String,
        /// Whether the slot is there already, older than any publication made now.
        slot_exists: bool,
        /// Whether this server is a standby, which takes no writes.
        standby: bool,
    },
    /// A publication cannot be made of tables that are not there.
    #[error(
        "publication {name:?} cannot be made: {tables} does not exist (publication.tables takes \
         schema.table, as it is, without quotes)"
    )]
    NoSuchTable {
        /// The publication.
        name: String,
        /// Tables, as configured.
        tables: String,
    },
    /// Somebody who may has to do it.
    #[error("role {role:?} may not make {what} ({said}); have a role run that may: {sql}")]
    MayNot {
        /// Ours.
        role: String,
        /// Publication or slot, by name.
        what: String,
        /// PostgreSQL's own words. No `source`: what is to be run stands last.
        said: String,
        /// What to run.
        sql: String,
    },
    /// Tables that are configured, and of which nothing would ever come.
    #[error("{}", .tables.join(" and "))]
    NotPublished {
        /// A sentence a table, with the SQL.
        tables: Vec<String>,
    },
    /// There is a gap, or it was never made.
    #[error(
        "replication slot {name:?} does not exist{}. If it did, what was committed since it was \
         dropped is lost to the stream. To begin with what is committed from now on, set \
         slot.create = true, or run: {sql}",
        on(.place.as_deref())
    )]
    SlotMissing {
        /// Its name.
        name: String,
        /// What makes it.
        sql: String,
        /// Where it was looked for. `None`: it was there a moment ago.
        place: Option<Box<Place>>,
    },
    /// A slot that is of no use to us, and that we leave alone.
    #[error("replication slot {name:?} {why}: choose another slot.name")]
    WrongSlot {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is a gap.
    #[error(
        "replication slot {name:?} is lost ({reason}): what was committed after {confirmed} cannot \
         be had from PostgreSQL any more. To begin with what is committed from now on, accepting \
         that gap: {sql} and then, once: pgsluice run --accept-gap {name}"
    )]
    SlotLost {
        /// Its name.
        name: String,
        /// PostgreSQL's reason.
        reason: String,
        /// Up to where it was read.
        confirmed: String,
        /// What drops it and makes a new one.
        sql: String,
    },
    /// There will be a gap: what is written up to that position is never sent.
    #[error(
        "replication slot {name:?} stands at {confirmed}, beyond the end of the server's WAL at \
         {wal_end}: the server was put back to an earlier state, or the slot was told so by somebody \
         else. What is committed before {confirmed} is lost to the stream. To begin with what is \
         committed from now on, accepting that gap: {sql} and then, once: pgsluice run --accept-gap \
         {name}"
    )]
    SlotAhead {
        /// Its name.
        name: String,
        /// Its position.
        confirmed: Lsn,
        /// The server's.
        wal_end: Lsn,
        /// What drops it and makes a new one.
        sql: String,
    },
    /// Somebody else reads it: the other instance, or our own last connection.
    #[error("replication slot {name:?} is in use by the PostgreSQL process {pid}")]
    Busy {
        /// Its name.
        name: String,
        /// `active_pid`.
        pid: i32,
    },
    /// A standby's copy, of use after a promotion.
    #[error(
        "replication slot {name:?} is a copy that this standby keeps of its primary's: it can be \
         read once this server is promoted"
    )]
    Synced {
        /// Its name.
        name: String,
    },
    /// Seen in the middle of its creation.
    #[error("replication slot {name:?} is still being created")]
    Unfinished {
        /// Its name.
        name: String,
    },
    /// Another may be dropped.
    #[error(
        "replication slot {name:?} cannot be made, as all of {} are taken: drop one that nobody reads, or \
         raise max_replication_slots there, and restart it",
        if *.standby { "this server's, a standby," } else { "PostgreSQL's" }
    )]
    NoFreeSlot {
        /// Its name.
        name: String,
        /// Whether this server is a standby: its primary's slots do not count.
        standby: bool,
        /// PostgreSQL's own words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// `slot.failover = "on"`.
    #[error("slot.failover is on, but {why}: set it to auto or off")]
    NoFailover {
        /// What stands against it.
        why: String,
    },
    /// pgoutput looks it up as of the WAL that it reads.
    #[error(
        "publication {name:?} does not exist at the WAL position that the slot has reached: it was \
         made, renamed, or dropped and made again later than the slot. PostgreSQL cannot decode \
         what was committed in between for it. To go on with what is committed from now on, \
         accepting that gap: see that the publication is there, drop the slot, make a new one, and \
         then, once: pgsluice run --accept-gap with its name"
    )]
    PublicationTooYoung {
        /// Its name.
        name: String,
    },
    /// The catalog did not answer.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The walsender did not make a slot.
    #[error(transparent)]
    Walsender(#[from] connect::Error),
}

/// A server without the slot.
#[derive(Clone, Debug)]
pub struct Place {
    /// The server.
    pub server: Server,
    /// What would be streamed.
    pub published: Published,
    /// Where it is.
    pub host: String,
    /// Where else the slot is or may be, in words; `None`: nowhere.
    pub elsewhere: Option<String>,
}

fn on(place: Option<&Place>) -> String {
    let place = place.filter(|place| !place.host.is_empty());
    place.map(|place| format!(" on {}", place.host)).unwrap_or_default()
}

const ON_THE_PRIMARY: &str = "run on the primary, as this server is a standby: ";

const YOUNGER_THAN_SLOT: &str = "; and then a new slot, as the one that is there is older than this \
     publication would be, and PostgreSQL reads a slot only with publications that are older";

impl Error {
    /// `role` may not make `what` by running `sql`.
    pub(super) fn may_not(
        role: &str,
        what: String,
        sql: &str,
        refusal: &tokio_postgres::Error,
    ) -> Self {
        let said = match refusal.as_db_error() {
            Some(error) => error.message().to_owned(),
            None => refusal.to_string(),
        };
        Self::MayNot { role: role.to_owned(), what, said, sql: sql.to_owned() }
    }

    /// What to do about it.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::TooOld { .. }
            | Self::WalLevel { .. }
            | Self::PrimaryWalLevel { .. }
            | Self::PublicationMissing { .. }
            | Self::WrongSlot { .. } => Disposition::Halt(Exit::Unavailable),
            Self::Name { .. }
            | Self::NoSuchTable { .. }
            | Self::NotPublished { .. }
            | Self::NoFailover { .. } => Disposition::Halt(Exit::Config),
            Self::MayNot { .. } => Disposition::Halt(Exit::Permission),
            Self::SlotMissing { .. }
            | Self::SlotLost { .. }
            | Self::SlotAhead { .. }
            | Self::PublicationTooYoung { .. } => Disposition::Halt(Exit::Gap),
            // A standby may be promoted, and a slot set free.
            Self::Standby { .. }
            | Self::Busy { .. }
            | Self::Synced { .. }
            | Self::Unfinished { .. }
            | Self::NoFreeSlot { .. } => Disposition::Retry,
            Self::Catalog(error) => error.disposition(),
            Self::Walsender(error) => error.disposition(),
        }
    }
}
