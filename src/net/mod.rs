//! Sockets, TLS and secrets: what the PostgreSQL side and the Kafka side both stand on.
//!
//! Host names are resolved again and files read again at every connect, so that a moved server, a
//! renewed certificate or a rotated password needs no restart.

use std::{io, path::PathBuf, time::Duration};

mod dial;
mod endpoint;
mod file;
mod lowat;
mod pem;
mod secret;
mod stream;
mod tcp;
pub mod tls;
mod verify;

#[cfg(feature = "sim")]
pub(crate) use dial::simulated;
pub use dial::{connect, connect_plain, connect_unix, name};
pub use file::{LONGEST, read_file, read_text};
pub use secret::{Secret, SecretSource};
pub use stream::Stream;
pub use tcp::Tcp;

/// How a TCP connection is made and kept.
#[derive(Clone, Debug)]
pub struct TcpOptions {
    /// Longest wait for a connection, over all addresses of the name, TLS included.
    pub connect_timeout: Duration,
    /// Idle time before the first keepalive probe, and between probes; zero: no probes.
    pub keepalive: Duration,
    /// `TCP_USER_TIMEOUT`: longest wait for sent bytes to be acknowledged; zero: the system's.
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
    /// Nobody answered, or the connection broke while it was being made.
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
    /// Whether the other side's certificate is of no authority that is trusted here.
    #[must_use]
    pub fn is_untrusted(&self) -> bool {
        use rustls::{CertificateError::UnknownIssuer, Error::InvalidCertificate};
        let Self::Tls { source, .. } = self else { return false };
        let reason = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        matches!(reason, Some(InvalidCertificate(UnknownIssuer)))
    }

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
