//! `[postgres]` → the options of `pg`, with those of `[publication]` and `[slot]`.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use super::{
    kind::{Value, quoted},
    layer::Level,
    settings::Settings,
    slot::{ha, publication, slot},
};
use crate::{
    ha,
    net::{Secret, SecretSource, TcpOptions, TlsOptions, Verify},
    pg::{
        connect::{self, ChannelBinding, Host, TargetSession},
        slot::{PublicationOptions, SlotOptions},
        stream,
    },
};

/// `NAMEDATALEN - 1`: PostgreSQL cuts longer names.
const NAME_BYTES: usize = 63;

/// All that PostgreSQL's side takes.
pub(super) struct Postgres {
    pub connect: connect::Options,
    pub publication: PublicationOptions,
    pub slot: SlotOptions,
    pub stream: stream::Options,
    pub ha: ha::Options,
    pub retry_max: Duration,
}

/// Builds and checks it.
pub(super) fn build(s: &mut Settings) -> Postgres {
    let hosts = hosts(s);
    let tls = tls(s, &hosts);
    let (password, passfile) = password(s);
    let user = name(s, "postgres.user");
    Postgres {
        connect: connect::Options {
            target: target(s, hosts.len()),
            hosts,
            database: database(s, &user),
            user,
            password,
            passfile,
            channel_binding: binding(s, tls.is_some()),
            tls,
            allow_md5: s.on("postgres.allow_md5"),
            allow_cleartext: s.on("postgres.allow_cleartext"),
            tcp: TcpOptions {
                connect_timeout: s.span("postgres.connect_timeout"),
                keepalive: s.span("postgres.keepalive"),
                user_timeout: s.span("postgres.user_timeout"),
            },
            application_name: s.word("postgres.application_name"),
            wal_sender_timeout: wal_sender_timeout(s),
            decoding_memory: s.size("postgres.decoding_memory"),
            extra: s.text("postgres.options").filter(|text| !text.trim().is_empty()),
            max_message: s.size("postgres.max_message"),
        },
        publication: publication(s),
        slot: slot(s),
        stream: stream::Options {
            read_buffer: s.size("postgres.read_buffer"),
            low_watermark: low_watermark(s),
            status_interval: status_interval(s),
        },
        ha: ha(s),
        retry_max: s.span("postgres.retry_max"),
    }
}

fn hosts(s: &mut Settings) -> Vec<Host> {
    let mut hosts = s.list("postgres.host");
    if hosts.is_empty() {
        s.wrong("postgres.host", "is an empty list");
    }
    // An empty host is libpq's way to say: the default.
    hosts.iter_mut().filter(|host| host.is_empty()).for_each(|host| *host = "localhost".into());
    let mut ports = Vec::new();
    let texts = s.list("postgres.port");
    let given = texts.len();
    for text in texts {
        match text.parse::<u16>() {
            _ if text.is_empty() => ports.push(5432),
            Ok(port) if port > 0 => ports.push(port),
            _ => s.wrong(
                "postgres.port",
                format!("is {}, not a port from 1 to 65535", quoted(&text)),
            ),
        }
    }
    if given == 1 {
        ports.resize(hosts.len(), ports.first().copied().unwrap_or(5432));
    } else if given != hosts.len() {
        let why = format!(
            "has {given} ports for {} hosts: give one for all, or one for each",
            hosts.len()
        );
        s.wrong("postgres.port", why);
    }
    let all = hosts.into_iter().zip(ports);
    all.map(|(host, port)| {
        if host.starts_with('/') { Host::Unix(host.into(), port) } else { Host::Tcp(host, port) }
    })
    .collect()
}

/// Where what is sent does not leave this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address
        .map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |a| a.to_canonical().is_loopback())
}

fn tls(s: &mut Settings, hosts: &[Host]) -> Option<TlsOptions> {
    let near = |host: &Host| {
        matches!(host, Host::Unix(..)) || matches!(host, Host::Tcp(name, _) if is_loopback(name))
    };
    let loopback = hosts.iter().all(near);
    // Who names a certificate does not mean plain text.
    let named = s.is_set("postgres.sslrootcert") || s.is_set("postgres.sslcert");
    let default = if loopback && !named { "disable" } else { "verify-full" };
    let mode = s.text("postgres.sslmode").unwrap_or_else(|| {
        s.computed.insert("postgres.sslmode", quoted(default));
        default.to_owned()
    });
    let client = pair(s, "postgres.sslcert", "postgres.sslkey");
    let system = s.text("postgres.sslrootcert").is_some_and(|path| path == "system");
    let ca = if system { None } else { s.file("postgres.sslrootcert") };
    let verify = match (mode.as_str(), &ca) {
        ("disable", _) => {
            if !loopback {
                s.warn("postgres.sslmode is disable: everything, rows too, crosses the network in plain text".into());
            }
            return None;
        }
        ("require", None) => Verify::Nothing,
        // As libpq does where there is a root file.
        ("require" | "verify-ca", _) => Verify::Ca,
        _ => Verify::Full,
    };
    if mode != "verify-full" && !loopback {
        s.warn(format!("postgres.sslmode is {mode}: only verify-full makes sure that the server is the one meant"));
    }
    if mode != "verify-full" && ca.is_none() && (system || verify == Verify::Ca) {
        // The system's CAs sign for anybody, so without the name nothing would be proved.
        let why = format!(
            "is {mode}, but the system's CAs sign for anybody: use verify-full, or name a CA file in postgres.sslrootcert"
        );
        s.wrong("postgres.sslmode", why);
    }
    Some(TlsOptions { verify, ca, client })
}

/// A certificate and its key, both or none.
pub(super) fn pair(
    s: &mut Settings,
    cert: &'static str,
    key: &'static str,
) -> Option<(PathBuf, PathBuf)> {
    match (s.file(cert), s.file(key)) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => {
            s.wrong(cert, format!("needs {key} too"));
            None
        }
        (None, Some(_)) => {
            s.wrong(key, format!("needs {cert} too"));
            None
        }
    }
}

/// A secret from one of two keys. Of two layers the upper one wins; in one layer it is a mistake.
pub(super) fn secret(
    s: &mut Settings,
    text: &'static str,
    file: &'static str,
) -> Option<SecretSource> {
    let level = |s: &Settings, key| s.origin(key).map(|origin| origin.level as u8);
    let (from_text, from_file) = (level(s, text), level(s, file));
    if from_text.is_some() && from_text == from_file {
        s.wrong(text, format!("and {file} are both set: leave one out"));
    }
    if from_file > from_text {
        let source = SecretSource::File(s.text(file)?.into());
        if let Err(error) = source.read() {
            let path = quoted(&s.word(file));
            s.wrong(file, format!("is {path}, which cannot be read: {error}"));
        }
        return Some(source);
    }
    s.text(text).map(|text| SecretSource::Text(Secret::new(text)))
}

fn password(s: &mut Settings) -> (Option<SecretSource>, Option<PathBuf>) {
    let [text, file, pass] = ["postgres.password", "postgres.password_file", "postgres.passfile"];
    let level = |s: &Settings, key| s.origin(key).map(|origin| origin.level);
    let upper =
        [text, file].iter().filter_map(|key| level(s, key)).max_by_key(|level| *level as u8);
    let passfile = level(s, pass);
    if upper.is_some() && upper == passfile && passfile != Some(Level::Libpq) {
        s.wrong(pass, "is set beside another password: leave one out");
    }
    // What a file says of the password is not taken back by PGPASSWORD.
    if passfile.map(|level| level as u8) > upper.map(|level| level as u8) {
        return (None, s.file(pass));
    }
    let password = secret(s, text, file);
    let home = s.passfile.clone().filter(|path| password.is_none() && path.exists());
    if let Some(path) = &home {
        s.computed.insert(pass, quoted(&path.to_string_lossy()));
    }
    (password, home)
}

/// A name that PostgreSQL takes as it is.
fn name(s: &mut Settings, key: &'static str) -> String {
    let name = s.word(key);
    if s.is_set(key) {
        check_name(s, key, &name);
    }
    name
}

pub(super) fn check_name(s: &mut Settings, key: &str, name: &str) {
    if name.is_empty() {
        s.wrong(key, "is empty");
    } else if name.len() > NAME_BYTES {
        let why = format!(
            "has the name {}, which is {} bytes long; PostgreSQL takes {NAME_BYTES}",
            quoted(name),
            name.len()
        );
        s.wrong(key, why);
    }
}

fn database(s: &mut Settings, user: &str) -> String {
    if s.is_set("postgres.database") {
        return name(s, "postgres.database");
    }
    s.computed.insert("postgres.database", quoted(user));
    user.to_owned()
}

fn target(s: &mut Settings, hosts: usize) -> TargetSession {
    let default = if hosts > 1 { "primary" } else { "any" };
    let word = s.text("postgres.target_session_attrs").unwrap_or_else(|| {
        s.computed.insert("postgres.target_session_attrs", quoted(default));
        default.to_owned()
    });
    match word.as_str() {
        "read-write" => TargetSession::ReadWrite,
        "read-only" => TargetSession::ReadOnly,
        "primary" => TargetSession::Primary,
        "standby" => TargetSession::Standby,
        "prefer-standby" => TargetSession::PreferStandby,
        _ => TargetSession::Any,
    }
}

fn binding(s: &mut Settings, tls: bool) -> ChannelBinding {
    match s.word("postgres.channel_binding").as_str() {
        "disable" => ChannelBinding::Disable,
        "require" => {
            if !tls {
                s.wrong(
                    "postgres.channel_binding",
                    "is require, which needs TLS: set postgres.sslmode",
                );
            }
            ChannelBinding::Require
        }
        _ => ChannelBinding::Prefer,
    }
}

fn wal_sender_timeout(s: &mut Settings) -> Duration {
    let time = s.span("postgres.wal_sender_timeout");
    if time > Duration::ZERO && time < Duration::from_secs(1) {
        s.wrong("postgres.wal_sender_timeout", "must be 0s, for never, or at least 1s");
    }
    time
}

pub(super) const LONGEST_STATUS: Duration = Duration::from_secs(10);

fn status_interval(s: &mut Settings) -> Duration {
    let third = s.span("postgres.wal_sender_timeout") / 3;
    let most = if third.is_zero() { LONGEST_STATUS } else { LONGEST_STATUS.min(third) };
    if !s.is_set("postgres.status_interval") {
        s.computed.insert("postgres.status_interval", Value::Span(most).to_string());
        return most;
    }
    let time = s.span("postgres.status_interval");
    if time > most {
        s.wrong("postgres.status_interval", "must be at most a third of postgres.wal_sender_timeout, or the walsender gives up on us");
    }
    time
}

fn low_watermark(s: &mut Settings) -> usize {
    let bytes: usize = s.size("postgres.low_watermark");
    let most = s.size::<usize>("postgres.read_buffer") / 2;
    if bytes > most {
        if !s.is_set("postgres.low_watermark") {
            s.computed.insert("postgres.low_watermark", Value::Size(most as u64).to_string());
            return most;
        }
        s.wrong("postgres.low_watermark", "must be at most half of postgres.read_buffer");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn knows_what_does_not_leave_this_machine() {
        for host in
            ["localhost", "LOCALHOST", "127.0.0.1", "127.8.8.8", "::1", "[::1]", "::ffff:127.0.0.1"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "10.0.0.1", "::2", "db", "0.0.0.0"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
