//! Why there is no connection to PostgreSQL, or no longer one.

use std::{fmt, io, path::PathBuf};

use super::{Host, ServerError, TargetSession};
use crate::{
    net,
    pg::sqlstate::{self, During},
    retry::{Disposition, Exit},
};

/// Why a server cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not reached, not trusted, or a file for it cannot be read.
    #[error(transparent)]
    Net(net::Error),
    /// Who it is cannot be known.
    #[error("the certificate of PostgreSQL is not trusted: postgres.sslrootcert is to name its CA")]
    Untrusted(#[source] net::Error),
    /// Reached, and lost.
    #[error("the connection to PostgreSQL at {to} broke")]
    Broken {
        /// Server.
        to: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The server's own words.
    #[error("PostgreSQL at {to}: {error}")]
    Server {
        /// Server.
        to: String,
        /// What was being done.
        during: During,
        /// Its words.
        error: Box<ServerError>,
    },
    /// It speaks another language, or is broken.
    #[error("{to} does not speak PostgreSQL's protocol: {what}")]
    Protocol {
        /// Server.
        to: String,
        /// What was wrong.
        what: String,
    },
    /// It does not know all that is set at login.
    #[error("PostgreSQL at {to} is too old: 14 or later is needed")]
    TooOld {
        /// Server.
        to: String,
    },
    /// TLS was asked for, and there is none.
    #[error("PostgreSQL at {to} does not offer TLS (its ssl is off)")]
    NoTls {
        /// Server.
        to: String,
    },
    /// It asks for a login that we do not have or are not allowed.
    #[error("PostgreSQL at {to} asks for a login by {method}, which {why}")]
    Method {
        /// Server.
        to: String,
        /// Method of its `pg_hba.conf`.
        method: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// It asks for a password, and none is known.
    #[error("PostgreSQL at {to} asks for the password of {user:?}, and none is configured")]
    NoPassword {
        /// Server.
        to: String,
        /// Role.
        user: String,
    },
    /// It was readable at start.
    #[error("postgres.password_file {} cannot be read", .path.display())]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// It did not prove that it knows the password.
    #[error("PostgreSQL at {to} did not prove itself by SCRAM")]
    Scram {
        /// Server.
        to: String,
        /// What was wrong.
        source: io::Error,
    },
    /// `channel_binding = require` cannot be kept.
    #[error("channel binding is required, but {why} at {to}")]
    Binding {
        /// Server.
        to: String,
        /// What is in the way.
        why: &'static str,
    },
    /// A configured value cannot be sent.
    #[error("{what} cannot be used: {why}")]
    Setting {
        /// Which.
        what: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// Something between us and PostgreSQL does not pass startup options on, or the role's wins.
    #[error(
        "PostgreSQL at {to} has {name} = {value:?} in spite of the startup options (a pooler?)"
    )]
    Unpinned {
        /// Server.
        to: String,
        /// Setting.
        name: &'static str,
        /// As the server reports it.
        value: String,
    },
    /// It is up, but not what is wanted.
    #[error("PostgreSQL at {to} is not {wanted}{}", instead(*.wanted))]
    Role {
        /// Server.
        to: String,
        /// `target_session_attrs`.
        wanted: TargetSession,
    },
    /// It was left behind by a promotion.
    #[error(
        "PostgreSQL at {to} is on timeline {timeline}, and timeline {newest} {}",
        left_behind(*.standby)
    )]
    OldTimeline {
        /// Server.
        to: String,
        /// Its timeline.
        timeline: u32,
        /// The newest that was seen.
        newest: u32,
        /// Whether it is a standby.
        standby: bool,
    },
    /// It is none of ours.
    #[error(
        "PostgreSQL at {to} is another cluster (system identifier {found}) than the one that was \
         streamed from ({known}): if that is meant, start pgsluice anew"
    )]
    OtherCluster {
        /// Server.
        to: String,
        /// Its system identifier.
        found: u64,
        /// That of the last session.
        known: u64,
    },
    /// None of several would do.
    #[error("no PostgreSQL server will do: {}", Attempts(.0))]
    Hosts(
        /// Each, and why not.
        Vec<(Host, Self)>,
    ),
}

impl Error {
    /// No `_` arm: a new variant does not compile until someone has judged it.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Net(error) | Self::Untrusted(error) => error.disposition(),
            Self::Server { during, error, .. } => sqlstate::disposition(&error.sqlstate, *during),
            Self::Broken { .. }
            | Self::Role { .. }
            | Self::OldTimeline { .. }
            | Self::OtherCluster { .. }
            | Self::Hosts(_) => Disposition::Retry,
            Self::Protocol { .. }
            | Self::TooOld { .. }
            | Self::NoTls { .. }
            | Self::Unpinned { .. } => Disposition::Halt(Exit::Unavailable),
            Self::Method { .. }
            | Self::NoPassword { .. }
            | Self::Scram { .. }
            | Self::Binding { .. } => Disposition::Halt(Exit::Permission),
            Self::Setting { .. } | Self::PasswordFile { .. } => Disposition::Halt(Exit::Config),
        }
    }

    /// The server's own words, if that is what it is.
    #[must_use]
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Server { error, .. } => Some(error),
            _ => None,
        }
    }

    /// An error of an established connection.
    pub(in crate::pg) fn io(to: &str, source: io::Error) -> Self {
        match net::tls::judge(to.to_owned(), source) {
            net::Error::Connect { to, source } => Self::Broken { to, source },
            refused => refused.into(),
        }
    }

    /// An error of tokio-postgres, whose own text has no place and no SQLSTATE.
    #[must_use]
    pub fn sql(to: &Host, error: tokio_postgres::Error) -> Self {
        let to = to.to_string();
        match error.as_db_error() {
            Some(error) => {
                Self::Server { to, during: During::Sql, error: Box::new(ServerError::from(error)) }
            }
            None => Self::Broken { to, source: io::Error::other(error) },
        }
    }
}

impl From<net::Error> for Error {
    fn from(error: net::Error) -> Self {
        if error.is_untrusted() { Self::Untrusted(error) } else { Self::Net(error) }
    }
}

/// What to do about a server of the wrong role.
const fn instead(wanted: TargetSession) -> &'static str {
    match wanted {
        TargetSession::Standby => {
            ", but a primary: to stream from it where no standby has the slot, set \
             postgres.target_session_attrs to prefer-standby; or name a standby in postgres.url"
        }
        TargetSession::Any
        | TargetSession::ReadWrite
        | TargetSession::ReadOnly
        | TargetSession::Primary
        | TargetSession::PreferStandby => "",
    }
}

const fn left_behind(standby: bool) -> &'static str {
    if standby {
        "was seen: it is a standby that has not replayed the promotion yet, or follows a former \
         primary. It is waited for until it follows the new one"
    } else {
        "was streamed from: it is a former primary, and what is written there now is no part of the \
         stream. Let it follow the new primary (pg_rewind), or name that one in postgres.url"
    }
}

struct Attempts<'a>(&'a [(Host, Error)]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (_, error)) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if at == 0 { "" } else { "; " })?;
            // `main` follows one chain of causes, and these are several.
            let mut cause = std::error::Error::source(error);
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
        }
        Ok(())
    }
}
