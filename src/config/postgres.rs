//! `[postgres]`, `[publication]`, `[slot]`.

use std::{path::PathBuf, time::Duration};

use super::{Purpose, settings::Settings};
use crate::{
    net::{TcpOptions, TlsOptions, Verify},
    pg::{
        connect::{self, ChannelBinding, Host, TargetSession},
        slot::{Failover, PublicationOptions, SlotOptions},
        stream,
    },
};

pub(super) struct Postgres {
    pub(super) connect: connect::Options,
    pub(super) publication: PublicationOptions,
    pub(super) slot: SlotOptions,
    pub(super) check_interval: Duration,
    pub(super) retry_max: Duration,
    pub(super) stream: stream::Options,
}

pub(super) fn build(settings: &mut Settings, home: Option<PathBuf>) -> Postgres {
    let hosts = hosts(settings);
    let tls = tls(settings, &hosts);
    let user = settings.required("postgres.user", true);
    let database = settings.text("postgres.database").filter(|name| !name.is_empty());
    if database.is_none() {
        settings.derive("postgres.database", user.clone());
    }
    let channel_binding = match settings.word("postgres.channel_binding").as_str() {
        "disable" => ChannelBinding::Disable,
        "require" => ChannelBinding::Require,
        _ => ChannelBinding::Prefer,
    };
    if channel_binding == ChannelBinding::Require && tls.is_none() {
        settings.refuse("postgres.channel_binding", "is require, which needs TLS: set sslmode");
    }
    let password = settings.secret("postgres.password", "postgres.password_file");
    let wal_sender_timeout = settings.span("postgres.wal_sender_timeout");
    let connect = connect::Options {
        hosts,
        target: target(settings),
        database: database.unwrap_or_else(|| user.clone()),
        user,
        passfile: passfile(settings, home),
        password,
        tls,
        channel_binding,
        allow_md5: settings.flag("postgres.allow_md5"),
        allow_cleartext: settings.flag("postgres.allow_cleartext"),
        tcp: tcp(settings, "postgres"),
        application_name: settings.word("postgres.application_name"),
        wal_sender_timeout,
        decoding_memory: settings.size("postgres.decoding_memory"),
        extra: settings.text("postgres.options"),
        max_message: u32::try_from(settings.size("postgres.max_message")).unwrap_or(u32::MAX >> 1),
    };
    Postgres {
        connect,
        publication: publication(settings),
        slot: slot(settings),
        check_interval: settings.span("slot.check_interval"),
        retry_max: settings.span("postgres.retry_max"),
        stream: stream::Options {
            read_buffer: settings.size_of("postgres.read_buffer"),
            low_watermark: settings.size_of("postgres.low_watermark"),
            status_interval: status_interval(settings, wal_sender_timeout),
        },
    }
}

/// Sockets of either section.
pub(super) fn tcp(settings: &Settings, section: &str) -> TcpOptions {
    let span = |key: &str| settings.span(&format!("{section}.{key}"));
    TcpOptions {
        connect_timeout: span("connect_timeout"),
        keepalive: span("keepalive"),
        user_timeout: span("user_timeout"),
    }
}

/// At most a third of the timeout, as the manual of `wal_sender_timeout` leaves no more to chance.
fn status_interval(settings: &mut Settings, timeout: Duration) -> Duration {
    const LONGEST: Duration = Duration::from_secs(10);
    let most = if timeout.is_zero() { LONGEST } else { (timeout / 3).min(LONGEST) };
    if !settings.is_set("postgres.status_interval") {
        settings.derive("postgres.status_interval", humantime::format_duration(most).to_string());
        return most;
    }
    let asked = settings.span("postgres.status_interval");
    if asked > most {
        let most = humantime::format_duration(most);
        let why = format!("must be at most a third of wal_sender_timeout, and 10s: {most}");
        settings.refuse("postgres.status_interval", why);
    }
    asked
}

fn hosts(settings: &mut Settings) -> Vec<Host> {
    let names = settings.list("postgres.host");
    let mut ports = Vec::new();
    for text in settings.list("postgres.port") {
        match text.parse::<u16>() {
            Ok(port) if port > 0 => ports.push(port),
            _ => settings.refuse("postgres.port", format!("has {text:?}, which is no port")),
        }
    }
    if ports.len() > 1 && ports.len() != names.len() {
        let why = format!(
            "has {} ports for {} hosts: give one, or one for each",
            ports.len(),
            names.len()
        );
        settings.refuse("postgres.port", why);
    }
    if names.iter().any(String::is_empty) || names.is_empty() {
        settings.refuse("postgres.host", "has an empty name in it");
    }
    let first = ports.first().copied().unwrap_or(5432);
    let host = |(index, name): (usize, &String)| {
        let port = ports.get(index).copied().unwrap_or(first);
        if name.starts_with('/') {
            Host::Unix(PathBuf::from(name), port)
        } else {
            let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
            Host::Tcp(bare.to_owned(), port)
        }
    };
    names.iter().enumerate().map(host).collect()
}

/// Whether a name surely is this machine.
pub(super) fn loopback(name: &str) -> bool {
    name == "localhost"
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn tls(settings: &mut Settings, hosts: &[Host]) -> Option<TlsOptions> {
    let local = hosts.iter().all(|host| match host {
        Host::Tcp(name, _) => loopback(name),
        Host::Unix(..) => true,
    });
    if !settings.is_set("postgres.sslmode") {
        settings.derive("postgres.sslmode", if local { "disable" } else { "verify-full" });
    }
    let mode = settings.text("postgres.sslmode");
    let mode = mode.unwrap_or_else(|| if local { "disable" } else { "verify-full" }.to_owned());
    let system = settings.text("postgres.sslrootcert").is_some_and(|path| path == "system");
    let ca = if system { None } else { settings.file("postgres.sslrootcert") };
    let cert = settings.file("postgres.sslcert");
    let key = settings.file("postgres.sslkey");
    let verify = match mode.as_str() {
        "disable" => {
            if !local {
                settings.warn(
                    "postgres.sslmode = \"disable\": rows and logins go over the network in plain text",
                );
            }
            return None;
        }
        // libpq: with a root file, `require` checks as `verify-ca` does.
        "require" if ca.is_some() => Verify::Ca,
        "require" => Verify::Nothing,
        "verify-ca" => Verify::Ca,
        _ => Verify::Full,
    };
    if verify != Verify::Full {
        settings.warn(format!(
            "postgres.sslmode = {mode:?} does not check whom it talks to: verify-full does"
        ));
    }
    let client = pair(settings, cert, key, "postgres.sslcert", "postgres.sslkey");
    Some(TlsOptions { verify, ca, client })
}

/// A client's certificate is of no use without its key.
pub(super) fn pair(
    settings: &mut Settings,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    cert_key: &'static str,
    key_key: &'static str,
) -> Option<(PathBuf, PathBuf)> {
    match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (Some(_), None) => {
            settings.refuse(key_key, format!("is not set, and {cert_key} needs it"));
            None
        }
        (None, Some(_)) => {
            settings.refuse(cert_key, format!("is not set, and {key_key} needs it"));
            None
        }
        (None, None) => None,
    }
}

fn passfile(settings: &mut Settings, home: Option<PathBuf>) -> Option<PathBuf> {
    if settings.is_set("postgres.passfile") {
        return settings.file("postgres.passfile");
    }
    let usual = home?.join(".pgpass");
    usual.is_file().then(|| {
        settings.derive("postgres.passfile", usual.display().to_string());
        usual
    })
}

fn target(settings: &Settings) -> TargetSession {
    match settings.word("postgres.target_session_attrs").as_str() {
        "read-write" => TargetSession::ReadWrite,
        "read-only" => TargetSession::ReadOnly,
        "primary" => TargetSession::Primary,
        "standby" => TargetSession::Standby,
        "prefer-standby" => TargetSession::PreferStandby,
        _ => TargetSession::Any,
    }
}

fn publication(settings: &mut Settings) -> PublicationOptions {
    let names = settings.list("publication.name");
    if names.is_empty() {
        settings.missing("publication.name");
    } else if let Some(bad) = names.iter().find(|name| name.is_empty() || name.len() > 63) {
        let why = format!("has {bad:?}: a name has 1 to 63 bytes");
        settings.refuse("publication.name", why);
    }
    let operations = settings.list("publication.operations");
    for word in &operations {
        let word = word.to_lowercase();
        if !["insert", "update", "delete", "truncate"].contains(&word.as_str()) {
            let why = format!("has {word:?}, not one of insert update delete truncate");
            settings.refuse("publication.operations", why);
        }
    }
    PublicationOptions {
        names,
        create: settings.flag("publication.create"),
        tables: settings.list("publication.tables"),
        operations,
        via_partition_root: settings.flag("publication.via_partition_root"),
    }
}

fn slot(settings: &mut Settings) -> SlotOptions {
    let name = settings.required("slot.name", settings.purpose == Purpose::Run);
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if !name.is_empty() && (name.len() > 63 || !name.bytes().all(fits)) {
        let why = format!("is {name:?}: 1 to 63 lower-case letters, digits and underscores");
        settings.refuse("slot.name", why);
    }
    SlotOptions {
        name,
        create: settings.flag("slot.create"),
        failover: match settings.word("slot.failover").as_str() {
            "true" => Failover::On,
            "false" => Failover::Off,
            _ => Failover::Auto,
        },
    }
}
