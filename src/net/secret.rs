//! Passwords: read as late as possible, never printed.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use super::read_text;

/// Longest file that is taken for a secret: PostgreSQL and Kafka take shorter ones than this.
const LONGEST: u64 = 64 << 10;

/// A password or key. `Debug` does not show it, and there is no `Display`.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, for the one place that sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a secret is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SecretSource {
    /// In the configuration.
    Text(Secret),
    /// In a file, read at every login; one newline at its end is not part of it.
    File(PathBuf),
}

impl SecretSource {
    /// The file, if it is in one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Text(_) => None,
            Self::File(path) => Some(path),
        }
    }

    /// The secret as it is now.
    ///
    /// # Errors
    /// The file cannot be read, is too long or is no UTF-8.
    pub fn read(&self) -> io::Result<Secret> {
        match self {
            Self::Text(secret) => Ok(secret.clone()),
            Self::File(path) => {
                let text = read_text(path, LONGEST)?;
                let line = text.strip_suffix('\n').unwrap_or(&text);
                Ok(Secret::new(line.strip_suffix('\r').unwrap_or(line).to_owned()))
            }
        }
    }
}
