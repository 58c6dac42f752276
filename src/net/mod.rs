//! Sockets, TLS and secrets: what the PostgreSQL side and the Kafka side both stand on.
//!
//! Host names are resolved again and files read again at every connect, so that a moved server, a
//! renewed certificate or a rotated password needs no restart.

use std::{
    io,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

mod secret;

pub use secret::{Secret, SecretSource};

/// How a TCP connection is made and kept.
#[derive(Clone, Debug)]
pub struct TcpOptions {
    /// Longest wait for one address to answer, TLS included.
    pub connect_timeout: Duration,
    /// Idle time before the first keepalive probe, and between probes.
    pub keepalive: Duration,
    /// `TCP_USER_TIMEOUT`: longest wait for sent bytes to be acknowledged.
    pub user_timeout: Duration,
}

/// How much of a server's certificate is checked. There is no `prefer`: nothing falls back to plain text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verify {
    /// Nothing: only eavesdropping is prevented (libpq's `require` without a root file).
    Nothing,
    /// That a trusted CA signed it.
    Ca,
    /// That, and that it is for this host name or IP address.
    Full,
}

/// One side's TLS.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// How much is checked.
    pub verify: Verify,
    /// PEM file of trusted CAs; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of the client's certificate chain and its key (PKCS#8, PKCS#1 or SEC1, not encrypted).
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name has no address (yet).
    #[error("no address is known for host {host}")]
    Resolve {
        /// Host name.
        host: String,
        /// The resolver's answer.
        source: io::Error,
    },
    /// Nobody answered.
    #[error("could not connect to {to}")]
    Connect {
        /// Host and port, or path.
        to: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Nobody answered in time.
    #[error("{to} did not answer within {}s", .after.as_secs())]
    Timeout {
        /// Host and port, or path.
        to: String,
        /// The limit.
        after: Duration,
    },
    /// A file of certificates or keys cannot be used.
    #[error("{} cannot be used: {why}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The system has no certificates of its own.
    #[error("the system has no trusted certificates; name a CA file")]
    NoSystemRoots,
    /// The other side's certificate is refused, or it speaks no TLS.
    #[error("TLS with {to} failed")]
    Tls {
        /// Host and port.
        to: String,
        /// rustls's reason.
        source: io::Error,
    },
}

impl Error {
    /// No `_` arm: a new variant does not compile until someone has judged it.
    #[must_use]
    pub const fn disposition(&self) -> crate::retry::Disposition {
        use crate::retry::{Disposition, Exit};
        match self {
            Self::Resolve { .. } | Self::Connect { .. } | Self::Timeout { .. } => {
                Disposition::Retry
            }
            Self::File { .. } | Self::NoSystemRoots => Disposition::Halt(Exit::Config),
            Self::Tls { .. } => Disposition::Halt(Exit::Permission),
        }
    }
}

/// A connection, plain or with TLS.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Plain(TcpStream),
}

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
    let _ = tls;
    let to = format!("{host}:{port}");
    let dial = tokio::time::timeout(tcp.connect_timeout, TcpStream::connect((host, port)));
    match dial.await {
        Ok(Ok(stream)) => {
            stream.set_nodelay(true).map_err(|source| Error::Connect { to, source })?;
            Ok(Stream::Plain(stream))
        }
        Ok(Err(source)) => Err(Error::Connect { to, source }),
        Err(_) => Err(Error::Timeout { to, after: tcp.connect_timeout }),
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
