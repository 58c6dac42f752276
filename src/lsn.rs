//! Positions in the write-ahead log.
//!
//! PostgreSQL's own notation is kept everywhere a person reads one: `16/B374D848`.

use std::{fmt, str::FromStr};

/// A byte position in the write-ahead log (`pg_lsn`).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Lsn(u64);

impl Lsn {
    /// The position before the first byte; PostgreSQL's "invalid" LSN.
    pub const ZERO: Self = Self(0);

    /// Wraps a raw position.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw position in bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next byte; the end of the log stays the end.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Bytes from `earlier` to here, 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// What was given is not two hexadecimal halves with a slash.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is no LSN, which looks like 16/B374D848")]
pub struct NotAnLsn(String);

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(text: &str) -> Result<Self, NotAnLsn> {
        let half = |part: &str| {
            let plain =
                (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(part, 16).ok()).flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| NotAnLsn(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn reads_what_it_prints(raw: u64) {
            let lsn = Lsn::new(raw);
            proptest::prop_assert_eq!(lsn.to_string().parse(), Ok(lsn));
        }
    }

    #[test]
    fn prints_as_postgresql_does() {
        assert_eq!(Lsn::new(0x16_B374_D848).to_string(), "16/B374D848");
        assert_eq!(Lsn::ZERO.to_string(), "0/0");
    }

    #[test]
    fn refuses_what_is_no_lsn() {
        for text in ["", "/", "1/", "/1", "1", "1/2/3", "g/0", "+1/0", "0/123456789", " 0/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }
}
