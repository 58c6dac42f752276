//! Which server is streamed from: of those that will do, the one on the newest timeline.
//!
//! A former primary that was started again, alone, takes writes as it ever did, and its rows are no
//! part of the stream: a promotion made another the primary.
//!
//! **Must stay true.** A server on an older timeline than was seen once is never streamed from, nor
//! is one of another cluster, also where it is the only one that answers.

mod elsewhere;

use tokio::time::timeout;

use super::{
    connect::{self, Candidates, Connection, Kind, TargetSession},
    session::Error,
    timeline::Timelines,
};
use crate::{lsn::Lsn, net, retry::Disposition};

/// What was seen of the cluster before.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Known {
    /// `None`: nothing yet.
    pub system_identifier: Option<u64>,
    /// The newest timeline; 0: none yet.
    pub timeline: u32,
}

/// Who a server is, by `IDENTIFY_SYSTEM` and `TIMELINE_HISTORY`.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Of the cluster.
    pub system_identifier: u64,
    /// The history of its timeline.
    pub timelines: Timelines,
    /// Where its WAL ended at login.
    pub wal_end: Lsn,
}

/// The server to stream from.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) identity: Identity,
    /// If it does not have the slot, where that may be: see [`elsewhere`].
    pub(super) elsewhere: Option<String>,
}

/// Logs in at the server to stream from; `slot` decides among several.
///
/// # Errors
/// None will do, and why.
pub(super) async fn open(
    options: &connect::Options,
    known: Known,
    slot: &str,
) -> Result<Opened, Error> {
    let several = options.hosts.len() > 1;
    let wanted = match options.target {
        // Where standbys are among them, the role alone does not tell which server has the slot.
        TargetSession::Standby
        | TargetSession::PreferStandby
        | TargetSession::Any
        | TargetSession::ReadOnly
            if several =>
        {
            return elsewhere::open(options, known, slot).await;
        }
        TargetSession::PreferStandby => TargetSession::Any,
        other => other,
    };
    let mut found = Connection::candidates(options, Kind::Replication, wanted).await;
    found.pass_others(wanted).await;
    let (newest, passed) = newest(options, found, known).await?;
    match newest {
        Some((connection, identity)) => Ok(Opened { connection, identity, elsewhere: None }),
        None => Err(Candidates { passed, ..Candidates::default() }.error().into()),
    }
}

type Passed = Vec<(connect::Host, connect::Error)>;

/// The one on the newest timeline, the first of several.
async fn newest(
    options: &connect::Options,
    found: Candidates,
    known: Known,
) -> Result<(Option<(Connection, Identity)>, Passed), Error> {
    let Candidates { fit, mut passed, .. } = found;
    let mut newest: Option<(Connection, Identity)> = None;
    for connection in fit {
        let Some((connection, identity)) = identified(options, connection, &mut passed).await?
        else {
            continue;
        };
        let timeline = identity.timelines.current();
        let spare = if let Some(error) = known.refuses(&connection, &identity) {
            passed.push((connection.host().clone(), error));
            Some(connection)
        } else if newest.as_ref().is_none_or(|(_, best)| best.timelines.current() < timeline) {
            newest.replace((connection, identity)).map(|(connection, _)| connection)
        } else {
            Some(connection)
        };
        if let Some(spare) = spare {
            spare.close().await;
        }
    }
    Ok((newest, passed))
}

/// Who it is; one that does not say is passed over.
async fn identified(
    options: &connect::Options,
    mut connection: Connection,
    passed: &mut Passed,
) -> Result<Option<(Connection, Identity)>, Error> {
    let host = connection.host().clone();
    let after = options.tcp.connect_timeout;
    match timeout(after, identify(&mut connection)).await {
        Ok(Ok(identity)) => return Ok(Some((connection, identity))),
        Ok(Err(Error::Connect(error))) if error.disposition() == Disposition::Retry => {
            passed.push((host, error));
        }
        Ok(Err(error)) => return Err(error),
        Err(_) => {
            let error = net::Error::Timeout { to: host.to_string(), after };
            passed.push((host, error.into()));
        }
    }
    Ok(None)
}

impl Known {
    fn refuses(self, server: &Connection, identity: &Identity) -> Option<connect::Error> {
        let (to, found) = (server.host().to_string(), identity.system_identifier);
        if let Some(known) = self.system_identifier.filter(|known| *known != found) {
            return Some(connect::Error::OtherCluster { to, found, known });
        }
        let (timeline, newest) = (identity.timelines.current(), self.timeline);
        let standby = server.parameter("in_hot_standby") == Some("on");
        (timeline < newest).then_some(connect::Error::OldTimeline { to, timeline, newest, standby })
    }
}

impl Identity {
    /// Asks again: it may have been promoted in between.
    pub(super) async fn learn(&mut self, replication: &mut Connection) -> Result<(), Error> {
        let (_, current, wal_end) = system(replication).await?;
        if current != self.timelines.current() {
            self.timelines = history(replication, current).await?;
        }
        self.wal_end = wal_end;
        Ok(())
    }
}

/// Asks a walsender.
pub(super) async fn identify(replication: &mut Connection) -> Result<Identity, Error> {
    let (system_identifier, current, wal_end) = system(replication).await?;
    let timelines = history(replication, current).await?;
    Ok(Identity { system_identifier, timelines, wal_end })
}

/// The timeline that the server writes to, or replays.
pub(super) async fn timeline(replication: &mut Connection) -> Result<u32, Error> {
    Ok(system(replication).await?.1)
}

/// System identifier, timeline, and the end of the WAL.
async fn system(replication: &mut Connection) -> Result<(u64, u32, Lsn), Error> {
    let rows = replication.simple_query("IDENTIFY_SYSTEM").await?;
    let text = |column| rows.first().and_then(|row| row.get(column)).and_then(Option::as_deref);
    let lacks = |what| move || Error::Identity { what };
    Ok((
        text(0).and_then(|text| text.parse().ok()).ok_or_else(lacks("no system identifier"))?,
        text(1).and_then(|text| text.parse().ok()).ok_or_else(lacks("no timeline"))?,
        text(2).and_then(|text| text.parse().ok()).ok_or_else(lacks("no WAL position"))?,
    ))
}

async fn history(replication: &mut Connection, current: u32) -> Result<Timelines, Error> {
    if current <= 1 {
        // Timeline 1 has no history: asking is an error.
        return Ok(Timelines::single(current));
    }
    let rows = replication.simple_query(&format!("TIMELINE_HISTORY {current}")).await?;
    let file = rows.first().and_then(|row| row.get(1)).and_then(Option::as_deref);
    let file = file.ok_or(Error::Identity { what: "no timeline history" })?;
    Ok(Timelines::parse(current, file.as_bytes())?)
}
