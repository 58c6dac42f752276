//! The merged values, walked against the list of keys.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use figment::value::{Dict, Value as Raw};

use super::{
    Purpose, credential,
    kind::{Kind, Value, flat, quoted, what},
    layer::Origin,
    merge::Merged,
    problem::{Problem, meant},
    table::{self, KEYS, Preset},
};
use crate::{net, route::Table};

/// Every key that is set and sound, and all that is wrong so far.
#[derive(Debug)]
pub(super) struct Settings {
    set: BTreeMap<&'static str, (Value, Origin)>,
    /// What a default that depends on other keys came to, as TOML.
    pub computed: BTreeMap<&'static str, String>,
    /// `[tables]`.
    pub tables: BTreeMap<String, (Table, Origin)>,
    /// `[topic.config]`.
    pub topic_config: BTreeMap<String, (String, Origin)>,
    /// `~/.pgpass`.
    pub passfile: Option<PathBuf>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Settings {
    /// Walks all values; unknown keys and wrong types are reported, required keys asked for.
    pub(super) fn read(merged: &Merged, purpose: Purpose, problems: Vec<Problem>) -> Self {
        let mut all = Self {
            set: BTreeMap::new(),
            computed: BTreeMap::new(),
            tables: BTreeMap::new(),
            topic_config: BTreeMap::new(),
            passfile: merged.passfile.clone(),
            problems,
            warnings: Vec::new(),
        };
        // What a file would have said that could not be read is not missing.
        let unread = all.problems.iter().any(|problem| problem.key.is_empty());
        all.section("", &merged.dict, merged);
        for key in KEYS.iter().filter(|key| matches!(key.preset, Preset::Required)) {
            let unused =
                purpose == Purpose::Tail && ["slot.name", "kafka.brokers"].contains(&key.name);
            let is_wrong = |problem: &Problem| match problem.key.as_str() {
                "postgres.url" | "postgres.service" => key.name.starts_with("postgres."),
                wrong => key.name.starts_with(wrong),
            };
            if !unread
                && !unused
                && !all.set.contains_key(key.name)
                && !all.problems.iter().any(is_wrong)
            {
                all.problem(None, key.name, format!("is not set: {}", key.doc));
            }
        }
        all
    }

    fn section(&mut self, prefix: &str, dict: &Dict, merged: &Merged) {
        for (name, raw) in dict {
            let path = join(prefix, name);
            let origin = merged.origin(raw.tag());
            let is_section = KEYS.iter().any(|key| key.name.starts_with(&format!("{path}.")));
            match (table::find(&path), raw) {
                // A section of YAML with nothing in it is null.
                (None | Some(_), Raw::Empty(..))
                    if is_section || path == "tables" || path == "topic.config" =>
                {
                    self.no_keys(&origin, &path);
                }
                (Some(key), Raw::Dict(_, tables)) if matches!(key.kind, Kind::Tables) => {
                    self.read_tables(tables, merged);
                }
                (Some(key), Raw::Dict(_, dict)) if matches!(key.kind, Kind::Map) => {
                    self.read_map(key.name, dict, merged, &origin);
                }
                (Some(key), _) => match read(key.kind, raw, merged) {
                    Ok(value) => drop(self.set.insert(key.name, (value, origin))),
                    Err(why) => self.problem(Some(&origin), key.name, why),
                },
                (None, Raw::Dict(_, inner)) if is_section => {
                    if inner.is_empty() {
                        self.no_keys(&origin, &path);
                    }
                    self.section(&path, inner, merged);
                }
                (None, other) if is_section => {
                    let why = format!("is {}, not a section of keys", what(other));
                    self.problem(Some(&origin), &path, why);
                }
                (None, Raw::Dict(_, inner)) if !inner.is_empty() => {
                    self.section(&path, inner, merged)
                }
                (None, _) => self.unknown(&origin, path),
            }
        }
    }

    /// An empty section is fine, but for these, which would quietly mean plain text, or no login.
    fn no_keys(&mut self, origin: &Origin, path: &str) {
        if ["kafka.tls", "kafka.sasl"].contains(&path) {
            self.problem(Some(origin), path, "is empty: set its keys or leave it out".into());
        }
    }

    fn unknown(&mut self, origin: &Origin, key: String) {
        let meant = meant(&key);
        let (origin, why) = (origin.text.clone(), "is not a key".to_owned());
        self.problems.push(Problem { origin, key, why, meant });
    }

    fn read_map(&mut self, key: &'static str, dict: &Dict, merged: &Merged, origin: &Origin) {
        match flat(dict) {
            Ok(all) => {
                let located =
                    all.into_iter().map(|(name, (text, tag))| (name, (text, merged.origin(tag))));
                self.topic_config = located.collect();
            }
            Err(why) => self.problem(Some(origin), key, why),
        }
    }

    fn read_tables(&mut self, tables: &Dict, merged: &Merged) {
        for (name, raw) in tables {
            let origin = merged.origin(raw.tag());
            let path = join("tables", name);
            let parts = name.split_once('.').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
            if !parts {
                let why = "must name schema and table, in quotes: \"public.users\"";
                self.problem(Some(&origin), &path, why.into());
                continue;
            }
            match raw {
                Raw::String(_, topic) => {
                    let table = Table { topic: Some(topic.clone()), key: None };
                    self.tables.insert(name.clone(), (table, origin));
                }
                Raw::Dict(_, inner) => {
                    let table = self.table(&path, inner, merged);
                    self.tables.insert(name.clone(), (table, origin));
                }
                other => {
                    let why =
                        format!("is {}, not a topic or a table of topic and key", what(other));
                    self.problem(Some(&origin), &path, why);
                }
            }
        }
    }

    fn table(&mut self, path: &str, dict: &Dict, merged: &Merged) -> Table {
        let mut table = Table::default();
        for (name, raw) in dict {
            let key = join(path, name);
            let origin = merged.origin(raw.tag());
            let read = match name.as_str() {
                "topic" => Kind::Text.read(raw),
                "key" => Kind::Names.read(raw),
                _ => {
                    let near = super::problem::meant_word(name, &["topic", "key"]);
                    let near =
                        near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                    Err(format!("is not a key; a table has topic and key{near}"))
                }
            };
            match read {
                Ok(Value::Text(topic)) => table.topic = Some(topic),
                Ok(Value::List(columns)) => table.key = Some(columns),
                Ok(_) => {}
                Err(why) => self.problem(Some(&origin), &key, why),
            }
        }
        table
    }

    fn problem(&mut self, origin: Option<&Origin>, key: &str, why: String) {
        let origin = origin.map(|origin| origin.text.clone()).unwrap_or_default();
        self.problems.push(Problem { origin, key: key.to_owned(), why, meant: None });
    }

    /// Reports a key, where it was set.
    pub(super) fn wrong(&mut self, key: &str, why: impl Into<String>) {
        let origin = self.origin(key).cloned();
        self.problem(origin.as_ref(), key, why.into());
    }

    /// Reports something of one table or setting.
    pub(super) fn wrong_at(&mut self, origin: &Origin, key: &str, why: impl Into<String>) {
        self.problem(Some(origin), key, why.into());
    }

    /// Something that is allowed and should be said aloud.
    pub(super) fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }

    /// All problems, in the order of the keys, and all warnings.
    pub(super) fn finish(mut self) -> (Vec<Problem>, Vec<String>) {
        let place = |problem: &Problem| {
            let key = problem.meant.unwrap_or(&problem.key);
            let at = KEYS.iter().position(|known| key.starts_with(known.name));
            // What concerns a whole file comes first, what resembles nothing last.
            if key.is_empty() { 0 } else { at.map_or(usize::MAX, |at| at + 1) }
        };
        self.problems.sort_by_key(place);
        (self.problems, self.warnings)
    }

    /// Where a key was set, if it was.
    pub(super) fn origin(&self, key: &str) -> Option<&Origin> {
        self.set.get(key).map(|(_, origin)| origin)
    }

    /// Whether a key was set.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.set.contains_key(key)
    }

    /// A key's value, else its default.
    pub(super) fn value(&self, key: &str) -> Option<Value> {
        if let Some((value, _)) = self.set.get(key) {
            return Some(value.clone());
        }
        let key = table::find(key)?;
        let Preset::Is(text) = key.preset else { return None };
        key.kind.literal(text).and_then(|raw| key.kind.read(&raw)).ok()
    }

    /// A text, path or word.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        match self.value(key)? {
            Value::Text(text) | Value::Secret(text) => Some(text),
            _ => None,
        }
    }

    /// The text of a key that has a default.
    pub(super) fn word(&self, key: &str) -> String {
        self.text(key).unwrap_or_default()
    }

    /// Whether it is on.
    pub(super) fn on(&self, key: &str) -> bool {
        matches!(self.value(key), Some(Value::Bool(true)))
    }

    /// A whole number.
    pub(super) fn whole<T: TryFrom<i64> + Default>(&self, key: &str) -> T {
        let Some(Value::Whole(number)) = self.value(key) else { return T::default() };
        T::try_from(number).unwrap_or_default()
    }

    /// A time.
    pub(super) fn span(&self, key: &str) -> Duration {
        let Some(Value::Span(time)) = self.value(key) else { return Duration::ZERO };
        time
    }

    /// Bytes.
    pub(super) fn size<T: TryFrom<u64> + Default>(&self, key: &str) -> T {
        let Some(Value::Size(bytes)) = self.value(key) else { return T::default() };
        T::try_from(bytes).unwrap_or_default()
    }

    /// A list.
    pub(super) fn list(&self, key: &str) -> Vec<String> {
        let Some(Value::List(items)) = self.value(key) else { return Vec::new() };
        items
    }

    /// A file that has to be there: it is read once, so that a wrong path is said at start.
    pub(super) fn file(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = PathBuf::from(self.text(key)?);
        if let Err(error) = net::read_file(&path, net::LONGEST) {
            self.wrong(
                key,
                format!("is {}, which cannot be read: {error}", quoted(&path.to_string_lossy())),
            );
        }
        Some(path)
    }
}

fn read(kind: Kind, raw: &Raw, merged: &Merged) -> Result<Value, String> {
    match (kind, kind.read(raw)?) {
        (Kind::Path, Value::Text(path)) => {
            credential::expand(path, merged.credentials.as_deref()).map(Value::Text)
        }
        (_, value) => Ok(value),
    }
}

/// A key below a section, in quotes if it holds anything but letters, digits, `_` and `-`.
fn join(prefix: &str, name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let plain = !name.is_empty() && name.chars().all(bare);
    let name = if plain { name.to_owned() } else { quoted(name) };
    if prefix.is_empty() { name } else { format!("{prefix}.{name}") }
}
