//! One type for the three ways to reach a server.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};
use tokio_rustls::client::TlsStream;

use super::{endpoint, tcp::Tcp};

/// A connection, plain or with TLS. Reads and writes are cancel-safe as `AsyncRead::poll_read` is.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Plain(Tcp),
    /// TLS over TCP.
    Tls(Box<TlsStream<Tcp>>),
    /// A Unix socket, on which nobody speaks TLS.
    Unix(UnixStream),
    /// A connection of the simulated world.
    #[cfg(feature = "sim")]
    Simulated(Box<dyn crate::sim::Socket>),
}

impl Stream {
    /// Whether others on the network can read along.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The server's own certificate, in DER; `None` without TLS.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        match self {
            Self::Tls(stream) => {
                let (_, session) = stream.get_ref();
                session.peer_certificates()?.first().map(AsRef::as_ref)
            }
            Self::Plain(_) | Self::Unix(_) => None,
            #[cfg(feature = "sim")]
            Self::Simulated(_) => None,
        }
    }

    /// What SCRAM binds itself to ([RFC 5929] §4): a hash of the server's certificate. `None` without
    /// TLS, or with a certificate for which no hash is defined (Ed25519).
    ///
    /// [RFC 5929]: https://www.rfc-editor.org/rfc/rfc5929#section-4
    #[must_use]
    pub fn server_end_point(&self) -> Option<Vec<u8>> {
        endpoint::hash(self.peer_certificate()?)
    }

    /// From now on the reader is woken under load for about `bytes`, and after 2 ms for anything.
    /// 0 turns that off. Unix sockets do not do it: Linux does not look at it there.
    ///
    /// # Errors
    /// The system's.
    pub fn set_low_watermark(&mut self, bytes: usize) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.set_low_watermark(bytes),
            Self::Tls(stream) => stream.get_mut().0.set_low_watermark(bytes),
            Self::Unix(_) => Ok(()),
            #[cfg(feature = "sim")]
            Self::Simulated(_) => Ok(()),
        }
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
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(feature = "sim")]
            Self::Simulated(stream) => Pin::new(stream).poll_read(cx, buf),
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
            Self::Tls(stream) => {
                let done = Pin::new(&mut **stream).poll_write(cx, buf);
                done.map_err(|error| last_word(stream, error))
            }
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(feature = "sim")]
            Self::Simulated(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => {
                let done = Pin::new(&mut **stream).poll_write_vectored(cx, bufs);
                done.map_err(|error| last_word(stream, error))
            }
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            #[cfg(feature = "sim")]
            Self::Simulated(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            #[cfg(feature = "sim")]
            Self::Simulated(_) => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => {
                let done = Pin::new(&mut **stream).poll_flush(cx);
                done.map_err(|error| last_word(stream, error))
            }
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(feature = "sim")]
            Self::Simulated(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(feature = "sim")]
            Self::Simulated(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Why a write failed: what the other side said before it ended TLS, if it said anything.
fn last_word(stream: &mut TlsStream<Tcp>, error: io::Error) -> io::Error {
    let (tcp, session) = stream.get_mut();
    // What else came stays in the session, for whoever reads it.
    while let Ok(1..) = session.read_tls(&mut &*tcp) {
        if let Err(said) = session.process_new_packets() {
            return io::Error::new(io::ErrorKind::InvalidData, said);
        }
    }
    error
}
