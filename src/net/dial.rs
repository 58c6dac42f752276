//! From a host name to a connected socket.

use std::{io, net::SocketAddr, path::Path};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, UnixStream, lookup_host},
    time::{Instant, timeout, timeout_at},
};

use super::{Error, Stream, Tcp, TcpOptions, TlsOptions, tls};

/// What the kernel takes off us beyond what it sends at once. It would be megabytes else, which over a
/// slow link look as if nothing moved: a request was given up before its last byte had left, and again.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 128 * 1024;

/// Connects by TCP, and by TLS if asked to. Every address of `host` is tried.
///
/// # Errors
/// No address, no answer, or no trust; see [`Error`].
pub async fn connect(
    host: &str,
    port: u16,
    tcp: &TcpOptions,
    tls: Option<&TlsOptions>,
) -> Result<Stream, Error> {
    let whole = async {
        #[cfg(feature = "sim")]
        if let Some(socket) = simulated(host, port).await {
            return socket;
        }
        let socket = connect_plain(host, port, tcp).await?;
        match tls {
            Some(tls) => tls::handshake(socket, host, tls).await,
            None => Ok(Stream::Plain(socket)),
        }
    };
    let late = |_| Error::Timeout { to: name(host, port), after: tcp.connect_timeout };
    timeout(tcp.connect_timeout, whole).await.map_err(late)?
}

/// Connects by TCP alone, for a protocol that asks before it speaks TLS.
///
/// # Errors
/// No address or no answer.
pub async fn connect_plain(host: &str, port: u16, tcp: &TcpOptions) -> Result<Tcp, Error> {
    let deadline = Instant::now() + tcp.connect_timeout;
    let late = |_| Error::Timeout { to: name(host, port), after: tcp.connect_timeout };
    let addresses = timeout_at(deadline, resolve(host, port)).await.map_err(late)??;
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let mut last = Error::Resolve { host: host.to_owned(), source: io::ErrorKind::NotFound.into() };
    for address in addresses {
        // A fair share each, so that one that swallows packets does not hide the ones behind it.
        let share = deadline.saturating_duration_since(Instant::now()) / left.max(1);
        left = left.saturating_sub(1);
        last = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => match prepare(&socket, tcp) {
                Ok(()) => return Ok(Tcp::new(socket)),
                Err(source) => Error::Connect { to: name(host, port), source },
            },
            Ok(Err(source)) => Error::Connect { to: name(host, port), source },
            Err(elapsed) => late(elapsed),
        };
    }
    Err(last)
}

/// A connection of the simulated world; `None`: there is none.
#[cfg(feature = "sim")]
pub(crate) async fn simulated(host: &str, port: u16) -> Option<Result<Stream, Error>> {
    let dialed = crate::sim::dial(host, port)?.await;
    let refused = |source| Error::Connect { to: name(host, port), source };
    Some(dialed.map(Stream::Simulated).map_err(refused))
}

/// Connects to the Unix socket `path`.
///
/// # Errors
/// No answer.
pub async fn connect_unix(path: &Path, tcp: &TcpOptions) -> Result<Stream, Error> {
    let to = path.display().to_string();
    match timeout(tcp.connect_timeout, UnixStream::connect(path)).await {
        Ok(Ok(socket)) => Ok(Stream::Unix(socket)),
        Ok(Err(source)) => Err(Error::Connect { to, source }),
        Err(_) => Err(Error::Timeout { to, after: tcp.connect_timeout }),
    }
}

/// How a server is named in errors: with brackets where the host has colons itself.
#[must_use]
pub fn name(host: &str, port: u16) -> String {
    let host = bare(host);
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// An IPv6 literal may come in brackets, as in a URL.
pub(super) fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    match lookup_host((bare(host), port)).await {
        Ok(addresses) => Ok(addresses.collect()),
        Err(source) => Err(Error::Resolve { host: host.to_owned(), source }),
    }
}

fn prepare(socket: &TcpStream, tcp: &TcpOptions) -> io::Result<()> {
    // Requests larger than a segment would wait 40 ms for an acknowledgement otherwise.
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    if !tcp.keepalive.is_zero() {
        let probes = TcpKeepalive::new().with_time(tcp.keepalive).with_interval(tcp.keepalive);
        socket.set_tcp_keepalive(&probes)?;
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if !tcp.user_timeout.is_zero() {
        socket.set_tcp_user_timeout(Some(tcp.user_timeout))?;
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_notsent_lowat(UNSENT)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;

    fn options(connect_timeout: Duration) -> TcpOptions {
        TcpOptions {
            connect_timeout,
            keepalive: Duration::from_secs(30),
            user_timeout: Duration::from_secs(60),
        }
    }

    #[test]
    fn brackets_exactly_what_has_colons() {
        assert_eq!(name("db", 5432), "db:5432");
        assert_eq!(name("::1", 5432), "[::1]:5432");
        assert_eq!(name("[::1]", 5432), "[::1]:5432");
    }

    #[tokio::test]
    async fn sets_the_options_of_the_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tcp = options(Duration::from_secs(5));
        let Stream::Plain(stream) = connect("127.0.0.1", port, &tcp, None).await.unwrap() else {
            panic!("that is no plain stream")
        };
        let socket = SockRef::from(stream.socket());
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(60)));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT);
    }

    #[tokio::test]
    async fn tries_every_address_of_a_name() {
        // `localhost` is often ::1 first, where nobody listens here.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        connect("localhost", port, &options(Duration::from_secs(5)), None).await.unwrap();
    }

    #[tokio::test]
    async fn takes_an_ipv6_literal_with_and_without_brackets() {
        let Ok(listener) = TcpListener::bind("[::1]:0").await else { return }; // no IPv6 here
        let port = listener.local_addr().unwrap().port();
        for host in ["::1", "[::1]"] {
            connect(host, port, &options(Duration::from_secs(5)), None).await.unwrap();
        }
    }

    #[tokio::test]
    async fn waits_for_a_name_that_is_not_known_yet() {
        let tcp = options(Duration::from_secs(20));
        let error = connect("no-such-host.invalid", 1, &tcp, None).await.unwrap_err();
        assert_eq!(error.disposition(), crate::retry::Disposition::Retry);
        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
    }

    #[tokio::test]
    async fn gives_up_on_a_server_that_is_silent_in_tls() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = TlsOptions { verify: crate::net::Verify::Nothing, ca: None, client: None };
        let tcp = options(Duration::from_millis(100));
        let error = connect("127.0.0.1", port, &tcp, Some(&tls)).await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
    }

    #[tokio::test]
    async fn names_the_server_that_refused() {
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().port()
        };
        let tcp = options(Duration::from_secs(5));
        let error = connect("127.0.0.1", port, &tcp, None).await.unwrap_err();
        assert_eq!(error.to_string(), format!("could not connect to 127.0.0.1:{port}"));
    }
}
