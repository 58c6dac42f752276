//! Publication and slot: found or made, and every reason why they cannot be used named at once,
//! with the SQL that mends it.
//!
//! [`prepare`] is run at each start and at each reconnect, on an ordinary connection. It assumes a
//! role with `REPLICATION LOGIN` and no other right, and never asks for `rolreplication`, as managed
//! services grant replication by a role of theirs.
//!
//! **Must stay true.** The publication is made before the slot: PostgreSQL reads a slot only with
//! publications that are older than its position. What exists is never altered. And a slot that was
//! there once is not made again by itself, as that would hide a gap: at a reconnect the caller asks
//! with `create = false`.

mod active;
mod command;
mod error;
pub mod heartbeat;
mod hold;
mod identity;
mod name;
mod publication;
mod standby;
mod state;
mod synced;
mod walsender;
mod young;

use tokio_postgres::Client;

pub use self::{
    active::{Active, Ended, active, end},
    command::{count_of, create_temporary, start_replication},
    error::{Error, Place},
    hold::{Hold, Oldest, hold, log_running},
    publication::{Published, prepare as prepare_publication},
    standby::with_snapshots,
    state::{Health, create_on_standby, health},
    synced::{Sight, Unready, look as look_at_copy},
    walsender::{Named, Walsender, walsender},
    young::{Report, publication_too_young},
};
use super::catalog::{self, Server};
use crate::lsn::Lsn;

/// What is streamed.
#[derive(Clone, Debug)]
pub struct PublicationOptions {
    /// Names of publications, at least one.
    pub names: Vec<String>,
    /// Make the first one if it is missing.
    pub create: bool,
    /// Tables of a publication that is made, as written (`schema.table`); empty: FOR ALL TABLES.
    pub tables: Vec<String>,
    /// `publish` of a publication that is made; empty: all.
    pub operations: Vec<String>,
    /// `publish_via_partition_root` of a publication that is made.
    pub via_partition_root: bool,
}

/// Whether a slot that is made can be synchronised to standbys (PostgreSQL 17+).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failover {
    /// Where the server can.
    Auto,
    /// Yes, or refuse.
    On,
    /// No.
    Off,
}

/// Which slot is read.
#[derive(Clone, Debug)]
pub struct SlotOptions {
    /// Its name.
    pub name: String,
    /// Make it if it is missing.
    pub create: bool,
    /// How it is made.
    pub failover: Failover,
}

/// A table by its name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Table {
    /// Schema, as it is, not quoted.
    pub namespace: String,
    /// Table, as it is, not quoted.
    pub name: String,
}

impl Table {
    /// `schema.table`, as `[tables]` has it.
    #[must_use]
    pub fn qualified(&self) -> String {
        format!("{}.{}", self.namespace, self.name)
    }

    /// As SQL takes it, even if a part is a keyword.
    #[must_use]
    pub fn sql(&self) -> String {
        let namespace = match self.namespace.as_str() {
            // The schema of nearly everybody reads better without quotes.
            "public" => "public".to_owned(),
            other => command::quoted(other),
        };
        format!("{namespace}.{}", command::quoted(&self.name))
    }
}

/// All is in place: the stream can be started.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The server.
    pub server: Server,
    /// Below it nothing is sent again.
    pub confirmed_flush: Lsn,
    /// From here on the server reads its WAL.
    pub restart_lsn: Lsn,
    /// The publications and their tables.
    pub published: Published,
    /// Whether the slot was made just now.
    pub slot_created: bool,
    /// Who reads the slot now.
    pub active_pid: Option<i32>,
    /// What a person should know, with the SQL that mends it; those of `published` are among them.
    pub warnings: Vec<String>,
}

impl Ready {
    /// The slot was looked at again.
    pub(super) fn learn(&mut self, health: &Health) {
        self.confirmed_flush = health.confirmed_flush.unwrap_or_default();
        self.restart_lsn = health.restart_lsn.unwrap_or_default();
        self.active_pid = health.active_pid;
    }
}

/// Checks the server, the publications and the slot, and makes what is missing where the options
/// say so. `mapped` are the tables (`schema.table`, not quoted) that the configuration names.
///
/// A slot's creation may wait for any time. Who gives up has to end the connection, by aborting the
/// task that drives it: dropping this future and the client leaves PostgreSQL at work.
pub async fn prepare(
    client: &Client,
    publications: &PublicationOptions,
    options: &SlotOptions,
    mapped: &[String],
) -> Result<Ready, Error> {
    let ready = look(client, publications, options, mapped).await?;
    let name = options.name.clone();
    ready.active_pid.map_or(Ok(ready), |pid| Err(Error::Busy { name, pid }))
}

/// The same for who may wait: a slot that somebody reads is fine, see [`Ready::active_pid`].
pub async fn look(
    client: &Client,
    publications: &PublicationOptions,
    options: &SlotOptions,
    mapped: &[String],
) -> Result<Ready, Error> {
    name::check_slot(&options.name)?;
    let (server, mut warnings) = check_server(client).await?;
    let found = state::find(client, &options.name).await?;
    if let Some(slot) = &found {
        slot.check_idle_or_not(&options.name, &server)?;
    }
    let exists = found.is_some();
    let mut published = prepare_publication(client, &server, publications, mapped, exists).await?;
    let slot = match found {
        Some(slot) => slot,
        None if options.create => make(client, &server, options).await?,
        None => {
            let (name, sql) = (options.name.clone(), state::create_sql(&options.name));
            let (host, elsewhere) = (String::new(), None); // as far as is known here
            let place = Some(Box::new(Place { server, published, host, elsewhere }));
            return Err(Error::SlotMissing { name, sql, place });
        }
    };
    warnings.append(&mut published.warnings);
    warnings.extend(slot.warnings(options));
    if server.in_recovery {
        warnings.extend(standby::warnings(client, &options.name).await?);
    }
    Ok(Ready {
        server,
        confirmed_flush: slot.health.confirmed_flush.unwrap_or_default(),
        restart_lsn: slot.health.restart_lsn.unwrap_or_default(),
        published,
        slot_created: !exists,
        active_pid: slot.health.active_pid,
        warnings,
    })
}

async fn make(
    client: &Client,
    server: &Server,
    options: &SlotOptions,
) -> Result<state::Slot, Error> {
    let name = options.name.clone();
    state::create(client, server, options).await?;
    // Dropped in the same moment: whoever did it will know.
    let slot = state::find(client, &name).await?.ok_or_else(|| missing(&name))?;
    slot.check(&name, server)?;
    Ok(slot)
}

/// Whether the slot could be read now: one cheap query, for an instance that waits for its turn.
pub async fn available(client: &Client, server: &Server, name: &str) -> Result<(), Error> {
    match state::find(client, name).await? {
        Some(slot) => slot.check(name, server),
        None => Err(missing(name)),
    }
}

/// The same for who may wait: the slot's health, if it can be read now or once it is let go.
pub async fn readable(client: &Client, server: &Server, name: &str) -> Result<Health, Error> {
    match state::find(client, name).await? {
        Some(slot) => slot.check_idle_or_not(name, server).map(|()| slot.health),
        None => Err(missing(name)),
    }
}

/// There is no such slot.
#[must_use]
pub fn missing(name: &str) -> Error {
    Error::SlotMissing { name: name.to_owned(), sql: state::create_sql(name), place: None }
}

/// What every stream needs of the server, that of `tail` too, with what is worth a warning.
pub async fn check_server(client: &Client) -> Result<(Server, Vec<String>), Error> {
    // Reading a publication's tables locks them for a moment, and a table that is being rewritten
    // would hold us up for as long, in silence.
    client
        .batch_execute("SET lock_timeout = '10s'")
        .await
        .map_err(catalog::Error::asking("a lock_timeout"))?;
    let server = Server::read(client).await?;
    if server.major() < OLDEST {
        return Err(Error::TooOld { version_num: server.version_num });
    }
    if server.wal_level != "logical" {
        let (found, standby) = (server.wal_level, server.in_recovery);
        return Err(Error::WalLevel { found, standby });
    }
    if server.in_recovery && server.major() < STANDBYS_DECODE {
        return Err(Error::Standby { major: server.major() });
    }
    let mut warnings = Vec::new();
    if server.major() > NEWEST {
        warnings.push(format!(
            "PostgreSQL {} is newer than {NEWEST}, the newest that this version was tested with",
            server.major(),
        ));
    }
    Ok((server, warnings))
}

/// pgoutput's messages, `options` of a walsender and `client_connection_check_interval`.
const OLDEST: u32 = 14;
/// The first version of which standbys decode.
pub const STANDBYS_DECODE: u32 = 16;
const NEWEST: u32 = 18;
