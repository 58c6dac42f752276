//! Several servers, standbys among them: which of them has the slot?
//!
//! A slot lives on one server. Where a standby or any server will do, the one that has the slot is
//! streamed from, and a preference only decides between several. Where none has it that could be
//! streamed from, and one that may have it does not answer, or is behind, or of another role, that
//! is no gap yet: it is waited for, as nothing is lost while the slot is there. With
//! `prefer-standby` a primary without the slot is so no substitute for a standby that is away.
//!
//! **Must stay true.** Timelines come first: those of all that answer count, whatever their role.

use futures_util::future::join_all;
use tokio::time::timeout;

use super::{Error, Identity, Known, Opened, Passed, identified};
use crate::{
    net,
    pg::{
        connect::{self, Candidates, Connection, Kind, TargetSession},
        slot,
    },
    retry::Disposition,
};

/// A server that answers.
struct Server {
    connection: Connection,
    identity: Identity,
    /// Whether it is of the role that is wanted.
    wanted: bool,
    /// Whether the slot is there, and no copy that cannot be read.
    has: bool,
    /// Why it cannot be streamed from.
    refused: Option<connect::Error>,
}

/// As [`super::open`].
pub(super) async fn open(
    options: &connect::Options,
    known: Known,
    slot: &str,
) -> Result<Opened, Error> {
    let target = options.target;
    let wanted = match target {
        TargetSession::PreferStandby => TargetSession::Standby,
        other => other,
    };
    let found = Connection::candidates(options, Kind::Replication, wanted).await;
    let (mut servers, mut passed) = asked(options, found, known, slot).await?;
    let fits = |one: &Server| {
        one.refused.is_none() && (one.wanted || target == TargetSession::PreferStandby)
    };
    // The first that has it, then the first of the role that is wanted.
    let rank = |one: &Server| (one.has, one.wanted && one.decodes());
    let mut best: Option<usize> = None;
    for (at, one) in servers.iter().enumerate().filter(|(_, one)| fits(one)) {
        if best.and_then(|best| servers.get(best)).is_none_or(|best| rank(one) > rank(best)) {
            best = Some(at);
        }
    }
    let chosen = best.map(|at| servers.remove(at));
    let elsewhere = match &chosen {
        Some(chosen) if !chosen.has => {
            let hosts = options.hosts.iter().filter(|host| *host != chosen.connection.host());
            let places: Vec<_> = hosts.filter_map(|host| place(host, &servers, &passed)).collect();
            (!places.is_empty()).then(|| places.join("; "))
        }
        _ => None,
    };
    for one in servers {
        let host = one.connection.host().clone();
        let role = || connect::Error::Role { to: host.to_string(), wanted };
        passed.push((host.clone(), one.refused.unwrap_or_else(role)));
        one.connection.close().await;
    }
    match chosen {
        Some(Server { connection, identity, .. }) => Ok(Opened { connection, identity, elsewhere }),
        None => Err(Candidates { passed, ..Candidates::default() }.error().into()),
    }
}

/// Each server that answers, and why the others do not. All are asked at the same time, and judged in
/// their order.
async fn asked(
    options: &connect::Options,
    found: Candidates,
    known: Known,
    slot: &str,
) -> Result<(Vec<Server>, Passed), Error> {
    let Candidates { fit, others, mut passed } = found;
    let all = fit.into_iter().map(|one| (one, true));
    let all = all.chain(others.into_iter().map(|one| (one, false)));
    let answers = join_all(all.map(async |(connection, wanted)| {
        let mut passed = Vec::new();
        (identified(options, connection, &mut passed).await, passed, wanted)
    }));
    let mut servers = Vec::new();
    for (one, mut away, wanted) in answers.await {
        passed.append(&mut away);
        let Some((connection, identity)) = one? else { continue };
        let refused = known.refuses(&connection, &identity);
        servers.push(Server { connection, identity, wanted, has: false, refused });
    }
    let ours = servers.iter().filter(|one| one.refused.is_none());
    let newest = ours.map(|one| one.identity.timelines.current()).max().unwrap_or_default();
    let known = Known { timeline: known.timeline.max(newest), ..known };
    let answers = join_all(servers.into_iter().map(async |mut one: Server| {
        let has = has(options, &mut one.connection, slot).await;
        (one, has)
    }));
    let mut asked = Vec::new();
    for (mut one, has) in answers.await {
        if one.refused.is_none() {
            one.refused = known.refuses(&one.connection, &one.identity);
        }
        match has {
            Ok(has) => asked.push(Server { has, ..one }),
            Err(error) if error.disposition() == Disposition::Retry => {
                passed.push((one.connection.host().clone(), error));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok((asked, passed))
}

impl Server {
    /// Standbys do from 16 on.
    fn decodes(&self) -> bool {
        let standby = self.connection.parameter("in_hot_standby") == Some("on");
        !standby || self.connection.server_version_num() >= slot::STANDBYS_DECODE * 10_000
    }
}

/// Whether the slot is there.
async fn has(
    options: &connect::Options,
    connection: &mut Connection,
    slot: &str,
) -> Result<bool, connect::Error> {
    let after = options.tcp.connect_timeout;
    let to = connection.host().to_string();
    match timeout(after, connection.simple_query(&slot::count_of(slot))).await {
        Ok(rows) => Ok(rows?.first().and_then(|row| row.first()) == Some(&Some("1".to_owned()))),
        Err(_) => Err(net::Error::Timeout { to, after }.into()),
    }
}

/// Whether the slot is on a host that is not to be streamed from, or may be.
fn place(
    host: &connect::Host,
    servers: &[Server],
    passed: &[(connect::Host, connect::Error)],
) -> Option<String> {
    if let Some(one) = servers.iter().find(|one| one.connection.host() == host) {
        return match (&one.refused, one.has) {
            (_, false) => None,
            (None, true) => Some(format!(
                "it is on {host}, which is a primary: to stream from there, set \
                 postgres.target_session_attrs to prefer-standby or primary"
            )),
            (Some(error @ connect::Error::OldTimeline { standby: true, .. }), true) => {
                Some(format!("it is on {host}, which is waited for: {error}"))
            }
            // What a former primary has is no part of the stream any more.
            (Some(_), true) => None,
        };
    }
    let why = match passed.iter().find(|(one, _)| one == host) {
        Some((_, error)) => error.to_string(),
        None => "it does not answer".to_owned(),
    };
    Some(format!("it may be on {host}, which is waited for: {why}"))
}
