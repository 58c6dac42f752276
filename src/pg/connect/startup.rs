//! From a socket to a server that is ready for statements.

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::AsyncReadExt;

use super::{
    Connection, Error, Host, Kind, Options, ServerError, auth,
    wire::{Wire, text},
};
use crate::net::{self, Stream, tls};

/// What is reported back (`GUC_REPORT`) of what we pin, and how its value begins.
const PINNED: [(&str, &str); 4] = [
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
];

/// Since this version there is a timeout for whole transactions, which startup options of an older
/// server must not name.
const TRANSACTION_TIMEOUT: u32 = 170_000;

/// Connects and logs in, without a time limit of its own.
pub(super) async fn login(options: &Options, host: &Host, kind: Kind) -> Result<Connection, Error> {
    let mut wire = Wire::new(reach(options, host).await?, host.to_string());
    let pinned = pinned(options, kind);
    let mut parameters = vec![
        ("user", options.user.as_str()),
        ("database", options.database.as_str()),
        ("client_encoding", "UTF8"),
        ("application_name", options.application_name.as_str()),
        ("options", pinned.as_str()),
    ];
    if kind == Kind::Replication {
        parameters.push(("replication", "database"));
    }
    let mut packet = BytesMut::new();
    if frontend::startup_message(parameters, &mut packet).is_err() {
        let what = "role, database, application name or options";
        return Err(Error::Setting { what, why: "a zero byte is in it" });
    }
    wire.send(&packet).await?;
    auth::authenticate(&mut wire, options, host).await?;
    let mut connection = Connection::new(wire, host.clone());
    until_ready(&mut connection).await?;
    connection.wire.logged_in(options.max_message);
    for (name, wanted) in PINNED {
        let value = connection.parameter(name).unwrap_or_default();
        if !value.starts_with(wanted) {
            let (to, value) = (host.to_string(), value.to_owned());
            return Err(Error::Unpinned { to, name, value });
        }
    }
    if connection.server_version_num() >= TRANSACTION_TIMEOUT {
        connection.simple_query("SET transaction_timeout = 0").await?;
    }
    Ok(connection)
}

/// A socket, with TLS if it is to have it.
async fn reach(options: &Options, host: &Host) -> Result<Stream, Error> {
    let (name, port) = match host {
        Host::Unix(..) => return Ok(net::connect_unix(&host.socket(), &options.tcp).await?),
        Host::Tcp(name, port) => (name, *port),
    };
    #[cfg(feature = "sim")]
    if let Some(stream) = net::simulated(name, port).await {
        return Ok(stream?);
    }
    let socket = net::connect_plain(name, port, &options.tcp).await?;
    let Some(tls) = &options.tls else { return Ok(Stream::Plain(socket)) };
    let mut wire = Wire::new(Stream::Plain(socket), host.to_string());
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    wire.send(&request).await?;
    // One byte and no more: what somebody slips in behind it must not pass for what came by TLS.
    let answer = match wire.stream.read_u8().await {
        Ok(answer) => answer,
        Err(error) => return Err(Error::io(&wire.to, error)),
    };
    match (answer, wire.stream) {
        (b'S', Stream::Plain(socket)) => Ok(tls::handshake(socket, name, tls).await?),
        (b'N', _) => Err(Error::NoTls { to: wire.to }),
        // It could not even fork. Its words are not shown, as nobody knows yet who speaks.
        (b'E', _) => {
            let source = std::io::Error::other("it answered the request for TLS with an error");
            Err(Error::Broken { to: wire.to, source })
        }
        _ => Err(Error::Protocol { to: wire.to, what: "it does not know TLS requests".to_owned() }),
    }
}

/// A setting that 14 brought.
const SINCE_14: &str = "idle_session_timeout";

/// Everything that changes what a value looks like, and every timeout that could end us.
///
/// The user's own come first, so that ours win.
fn pinned(options: &Options, kind: Kind) -> String {
    let mut text = options.extra.clone().unwrap_or_default();
    let mut pin = |name: &str, value: &str| {
        text.push_str(" -c ");
        text.push_str(name);
        text.push('=');
        text.push_str(value);
    };
    for (name, value) in [
        ("DateStyle", "ISO"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("extra_float_digits", "1"),
        ("bytea_output", "hex"),
        ("client_min_messages", "warning"),
        ("statement_timeout", "0"),
        ("lock_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        (SINCE_14, "0"),
    ] {
        pin(name, value);
    }
    if kind == Kind::Replication {
        // Milliseconds, and kilobytes of which 64 are the least.
        let limit = i32::MAX.unsigned_abs();
        let timeout = options.wal_sender_timeout.as_millis().min(limit.into());
        let memory = (options.decoding_memory / 1024).clamp(64, limit.into());
        pin("wal_sender_timeout", &timeout.to_string());
        pin("logical_decoding_work_mem", &memory.to_string());
    }
    text.trim_start().to_owned()
}

/// What the server tells between login and its first `ReadyForQuery`.
async fn until_ready(connection: &mut Connection) -> Result<(), Error> {
    loop {
        let message = connection.wire.receive().await?;
        match message.tag {
            b'Z' => return Ok(()),
            b'K' => {
                if let Some((head, rest)) = message.body.split_first_chunk() {
                    connection.process_id = i32::from_be_bytes(*head);
                    let secret = rest.first_chunk().map_or(0, |key| i32::from_be_bytes(*key));
                    connection.secret_key = secret;
                }
            }
            b'E' => return Err(too_old(connection.wire.refused(&message.body))),
            // Minor protocol versions and options that we did not ask for.
            b'v' => {}
            tag if connection.aside(tag, &message.body) => {}
            tag => return Err(connection.wire.unexpected(tag)),
        }
    }
}

/// A server before 14 refuses the login itself, as it does not know every setting that is pinned.
fn too_old(error: Error) -> Error {
    const UNDEFINED_OBJECT: &str = "42704";
    match error {
        Error::Server { to, error, .. }
            if error.sqlstate == UNDEFINED_OBJECT && error.message.contains(SINCE_14) =>
        {
            Error::TooOld { to }
        }
        other => other,
    }
}

impl Connection {
    /// What a server may send at any time; `false` if this is something else.
    pub(super) fn aside(&mut self, tag: u8, body: &[u8]) -> bool {
        match tag {
            b'S' => {
                if let Some((name, rest)) = text(body)
                    && let Some((value, _)) = text(rest)
                {
                    self.parameters.insert(name.to_owned(), value.to_owned());
                }
            }
            b'N' if self.notices.len() < Self::MOST_NOTICES => {
                self.notices.push(ServerError::parse(body));
            }
            // Nobody listens.
            b'N' | b'A' => {}
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::options;
    use super::*;

    #[test]
    fn pins_after_what_the_user_wrote() {
        let mut options = options(Vec::new());
        options.extra = Some("-c DateStyle=SQL".to_owned());
        let text = pinned(&options, Kind::Sql);
        assert!(text.starts_with("-c DateStyle=SQL -c DateStyle=ISO "), "{text}");
        assert!(!text.contains("wal_sender_timeout"), "{text}");
    }

    #[test]
    fn sets_walsender_limits_only_where_there_is_one() {
        let mut options = options(Vec::new());
        options.wal_sender_timeout = std::time::Duration::from_secs(15);
        options.decoding_memory = 1;
        let text = pinned(&options, Kind::Replication);
        assert!(text.contains("-c wal_sender_timeout=15000 "), "{text}");
        assert!(text.ends_with("-c logical_decoding_work_mem=64"), "{text}");
        options.decoding_memory = u64::MAX;
        assert!(pinned(&options, Kind::Replication).ends_with("=2147483647"));
    }
}
