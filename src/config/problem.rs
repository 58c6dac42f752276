//! What is wrong with a configuration: everything at once, each with its place, its reason and the
//! key that was probably meant.

use std::{error, fmt, path::PathBuf};

use super::table::KEYS;
use crate::retry::{Disposition, Exit};

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// File, environment variable or option that it came from; empty if nothing said it at all.
    pub origin: String,
    /// The key, as it would be written behind `--set`; empty if it is about a whole file.
    pub key: String,
    /// The reason, to be read behind the key. Never shows a secret.
    pub why: String,
    /// The key that was probably meant.
    pub meant: Option<&'static str>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.origin.is_empty() {
            write!(f, "{}: ", self.origin)?;
        }
        if !self.key.is_empty() {
            write!(f, "{} ", self.key)?;
        }
        f.write_str(&self.why)?;
        self.meant.map_or(Ok(()), |key| write!(f, "; did you mean {key}?"))
    }
}

/// A configuration that cannot be used: every reason, in the order of the keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Invalid {
    /// At least one.
    pub problems: Vec<Problem>,
    /// Where a file was looked for in vain.
    pub looked_for: Vec<PathBuf>,
}

impl Invalid {
    /// Only a person can heal it.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        Disposition::Halt(Exit::Config)
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [one] => write!(f, "the configuration cannot be used: {one}")?,
            many => {
                write!(f, "the configuration cannot be used, for {} reasons:", many.len())?;
                for problem in many {
                    write!(f, "\n  {problem}")?;
                }
            }
        }
        if !self.looked_for.is_empty() {
            let paths: Vec<_> = self.looked_for.iter().map(|p| p.display().to_string()).collect();
            write!(f, "\nno configuration file was found: neither {}", paths.join(" nor "))?;
            f.write_str("; name one with --config")?;
        }
        Ok(())
    }
}

impl error::Error for Invalid {}

/// What people call a key elsewhere.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("dbname", "postgres.database"),
    ("username", "postgres.user"),
    ("dsn", "postgres.url"),
    ("uri", "postgres.url"),
    ("bootstrap_servers", "kafka.brokers"),
    ("bootstrap.servers", "kafka.brokers"),
    ("buffer_size", "batch.in_flight"),
    ("debug", "log.level"),
    ("port", "postgres.port"),
];

/// The key that was probably meant by one that does not exist.
pub(super) fn meant(unknown: &str) -> Option<&'static str> {
    let bare = unknown.replace('"', "").to_lowercase().replace('-', "_");
    let last = bare.rsplit('.').next().unwrap_or(&bare);
    let names = || KEYS.iter().map(|key| key.name);
    // The right name in the wrong section, or in none, is a likelier slip than two wrong letters.
    let same = names().find(|name| *name == bare).or_else(|| {
        let mut twins = names().filter(|name| name.rsplit('.').next() == Some(last));
        let section = bare.split('.').next().unwrap_or_default();
        let near =
            |name: &str| strsim::jaro_winkler(section, name.split('.').next().unwrap_or(name));
        let first = twins.next()?;
        Some(twins.fold(first, |best, name| if near(name) > near(best) { name } else { best }))
    });
    let other = || OTHER_NAMES.iter().find(|(name, _)| *name == last || *name == bare);
    same.or_else(|| other().map(|(_, key)| *key)).or_else(|| {
        // What differs more in length alone cannot be near enough, and a very long key would cost
        // as much memory as the two lengths multiplied.
        let length = bare.chars().count();
        let alike = |name: &&str| 10 * name.len().min(length) >= 7 * name.len().max(length);
        let scored = names()
            .filter(alike)
            .map(|name| (strsim::normalized_damerau_levenshtein(&bare, name), name));
        let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
        (best.0 >= 0.7).then_some(best.1)
    })
}

/// `word`, if one of `words` is near enough to have been meant.
pub(super) fn meant_word<'a>(word: &str, words: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    let scored = words.iter().map(|w| (strsim::jaro_winkler(&word, &w.to_lowercase()), *w));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (best.0 >= 0.75).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_key_that_was_meant() {
        for (wrong, right) in [
            ("kafka.broker", "kafka.brokers"),
            ("kafak.brokers", "kafka.brokers"),
            ("batch.max-bytes", "batch.max_bytes"),
            ("brokers", "kafka.brokers"),
            ("kafka.linger", "batch.linger"),
            ("postgres.dbname", "postgres.database"),
            ("kafka.bootstrap_servers", "kafka.brokers"),
            ("slot.nmae", "slot.name"),
            ("publication.names", "publication.name"),
            ("\"kafka.brokers\"", "kafka.brokers"),
            ("kafka.ca", "kafka.tls.ca"),
        ] {
            assert_eq!(meant(wrong), Some(right), "{wrong}");
        }
        assert_eq!(meant("weather.forecast_of_tomorrow"), None);
    }

    #[test]
    fn finds_the_word_that_was_meant() {
        assert_eq!(meant_word("murmur", &["fnv1a", "murmur2"]), Some("murmur2"));
        assert_eq!(meant_word("quux", &["fnv1a", "murmur2"]), None);
    }
}
