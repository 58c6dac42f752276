//! The merged values, each with its default, for those who build options from them.

use std::{collections::BTreeMap, fs::File, io::Read as _, path::PathBuf, time::Duration};

use super::{
    Invalid, Problem, Purpose,
    kind::Value,
    layer::{Entry, Layer, TableEntry},
    table::{self, Preset},
};
use crate::net::{Secret, SecretSource};

/// Values, and what was found to be wrong with them.
pub(super) struct Settings {
    pub(super) purpose: Purpose,
    pub(super) entries: BTreeMap<&'static str, Entry>,
    pub(super) tables: BTreeMap<String, TableEntry>,
    pub(super) config: BTreeMap<String, (String, String)>,
    /// Defaults that depend on other keys, as they came out.
    pub(super) derived: BTreeMap<&'static str, String>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Settings {
    pub(super) fn new(layer: Layer, purpose: Purpose) -> Self {
        Self {
            purpose,
            entries: layer.entries,
            tables: layer.tables,
            config: layer.config,
            derived: BTreeMap::new(),
            problems: layer.problems,
            warnings: Vec::new(),
        }
    }

    /// Problems in the order of the keys, then warnings.
    pub(super) fn finish(self, looked_for: Vec<PathBuf>) -> Result<Vec<String>, Invalid> {
        let mut problems = self.problems;
        let place = |problem: &Problem| {
            table::KEYS.iter().position(|key| problem.key.starts_with(key.name))
        };
        problems.sort_by_key(|problem| (place(problem).unwrap_or(usize::MAX), problem.key.clone()));
        if problems.is_empty() { Ok(self.warnings) } else { Err(Invalid { problems, looked_for }) }
    }

    /// A value of `key` cannot be used.
    pub(super) fn refuse(&mut self, key: &str, why: impl Into<String>) {
        let origin = self.entries.get(key).map(|entry| entry.origin.clone()).unwrap_or_default();
        self.problems.push(Problem { origin, key: key.to_owned(), why: why.into(), meant: None });
    }

    /// The same for one of `[tables]`, whose origin is its own.
    pub(super) fn refuse_at(&mut self, origin: &str, key: &str, why: impl Into<String>) {
        let (origin, key) = (origin.to_owned(), key.to_owned());
        self.problems.push(Problem { origin, key, why: why.into(), meant: None });
    }

    pub(super) fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    /// What a default came out as that depends on other keys.
    pub(super) fn derive(&mut self, key: &'static str, value: impl Into<String>) {
        self.derived.insert(key, value.into());
    }

    pub(super) fn is_set(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Set, or its fixed default.
    pub(super) fn value(&self, key: &str) -> Option<Value> {
        if let Some(entry) = self.entries.get(key) {
            return Some(entry.value.clone());
        }
        match table::find(key)? {
            table::Key { preset: Preset::Is(text), kind, .. } => {
                kind.literal(text).and_then(|raw| kind.read(&raw)).ok()
            }
            _ => None,
        }
    }

    pub(super) fn text(&self, key: &str) -> Option<String> {
        match self.value(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A key that must be set, unless the purpose needs it not.
    pub(super) fn required(&mut self, key: &'static str, needed: bool) -> String {
        let text = self.text(key).filter(|text| !text.is_empty());
        if text.is_none() && needed {
            self.missing(key);
        }
        text.unwrap_or_default()
    }

    pub(super) fn missing(&mut self, key: &'static str) {
        if !self.problems.iter().any(|problem| problem.key == key) {
            let doc = table::find(key).map_or("", |key| key.doc);
            self.refuse(key, format!("is not set: {doc}"));
        }
    }

    pub(super) fn word(&self, key: &str) -> String {
        self.text(key).unwrap_or_default()
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        matches!(self.value(key), Some(Value::Bool(true)))
    }

    pub(super) fn span(&self, key: &str) -> Duration {
        match self.value(key) {
            Some(Value::Span(time)) => time,
            _ => Duration::ZERO,
        }
    }

    pub(super) fn size(&self, key: &str) -> u64 {
        match self.value(key) {
            Some(Value::Size(bytes)) => bytes,
            _ => 0,
        }
    }

    pub(super) fn size_of(&self, key: &str) -> usize {
        usize::try_from(self.size(key)).unwrap_or(usize::MAX)
    }

    pub(super) fn whole(&self, key: &str) -> i64 {
        match self.value(key) {
            Some(Value::Whole(number)) => number,
            _ => 0,
        }
    }

    pub(super) fn list(&self, key: &str) -> Vec<String> {
        match self.value(key) {
            Some(Value::List(items)) => items,
            _ => Vec::new(),
        }
    }

    /// A file that must be readable.
    pub(super) fn file(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = PathBuf::from(self.text(key)?);
        // A folder opens as well as a file does: only a byte shows it.
        if let Err(error) = File::open(&path).and_then(|mut file| file.read(&mut [0])) {
            self.refuse(key, format!("is {}, which cannot be read: {error}", path.display()));
        }
        Some(path)
    }

    /// A password that stands in the configuration or in a file.
    pub(super) fn secret(
        &mut self,
        text: &'static str,
        file: &'static str,
    ) -> Option<SecretSource> {
        let path = self.file(file);
        match (self.entries.get(text).map(|entry| entry.value.clone()), path) {
            (Some(Value::Secret(_)), Some(_)) => {
                // One from the environment does not stand against the other in the file: it wins.
                self.refuse(text, format!("and {file} are both set: keep one"));
                None
            }
            (Some(Value::Secret(secret)), None) => Some(SecretSource::Text(Secret::new(secret))),
            (_, path) => path.map(SecretSource::File),
        }
    }
}
