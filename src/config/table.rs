//! Every key there is, once: its name, what it takes, its default and what it does.
//!
//! What checks a configuration, suggests the key that was meant, prints the configuration and
//! compares `config/example.toml` all read this list.

mod records;
mod sink;
mod source;

use std::sync::LazyLock;

use super::kind::Kind;

/// What a key is when nothing sets it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Preset {
    /// This, as `--set` would take it.
    Is(&'static str),
    /// It depends on other keys; in words.
    By(&'static str),
    /// It must be set.
    Required,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Sections and key, with dots between.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its default.
    pub preset: Preset,
    /// What it does, in one sentence.
    pub doc: &'static str,
}

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

const fn key(name: &'static str, kind: Kind, preset: Preset, doc: &'static str) -> Key {
    Key { name, kind, preset, doc }
}

const NONE: Preset = Preset::By("none");
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// A millisecond, a second and a minute, in the unit of `Kind::Span`.
const MS: u64 = 1;
const S: u64 = 1000;
const MIN: u64 = 60 * S;

/// In the order of a first file.
pub(super) static KEYS: LazyLock<Vec<Key>> =
    LazyLock::new(|| [source::KEYS, sink::KEYS, records::KEYS].concat());

/// libpq's, without `prefer` and `allow`, which fall back to plain text when somebody asks them to.
pub(super) const SSLMODES: &[&str] = &["disable", "require", "verify-ca", "verify-full"];

#[cfg(test)]
mod tests;
