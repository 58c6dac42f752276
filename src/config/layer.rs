//! One source of values, flat: key to value, with where it came from.

use std::collections::BTreeMap;

use figment::value::{Dict, Value as Raw};

use super::{
    Problem,
    kind::{Kind, Value, flat, quoted, what},
    problem::meant,
    table::{self, KEYS},
    url,
};

/// A value and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) value: Value,
    pub(super) origin: String,
}

/// What is said of one table.
#[derive(Clone, Debug, Default)]
pub(super) struct TableEntry {
    pub(super) topic: Option<String>,
    pub(super) key: Option<Vec<String>>,
    pub(super) origin: String,
}

/// Values of one source, or of several, the later ones over the earlier.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    pub(super) entries: BTreeMap<&'static str, Entry>,
    pub(super) tables: BTreeMap<String, TableEntry>,
    /// `topic.config`: name to value and origin.
    pub(super) config: BTreeMap<String, (String, String)>,
    pub(super) problems: Vec<Problem>,
}

impl Layer {
    /// Values of `upper` win.
    pub(super) fn put(&mut self, upper: Self) {
        self.entries.extend(upper.entries);
        self.tables.extend(upper.tables);
        self.config.extend(upper.config);
        self.problems.extend(upper.problems);
    }

    /// Every key of a file.
    pub(super) fn of_file(dict: &Dict, origin: &str) -> Self {
        let mut layer = Self::default();
        layer.walk(dict, "", origin);
        layer.expand_url();
        layer
    }

    fn walk(&mut self, dict: &Dict, section: &str, origin: &str) {
        for (name, raw) in dict {
            let path = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
            let inner = format!("{path}.");
            if let Some(key) = table::find(&path) {
                self.take(key, raw, origin);
            } else if KEYS.iter().any(|key| key.name.starts_with(&inner)) {
                match raw {
                    Raw::Dict(_, dict) => self.walk(dict, &path, origin),
                    other => {
                        let why = format!("is {}, not a section of keys", what(other));
                        self.refuse(origin, &path, why);
                    }
                }
            } else {
                self.unknown(origin, &path);
            }
        }
    }

    /// One key of `--set` or of a variable, whose value is text.
    pub(super) fn set(&mut self, path: &str, text: &str, origin: &str) {
        if let Some(name) = path.strip_prefix("tables.") {
            return self.set_table(name, text, origin);
        }
        if let Some(name) = path.strip_prefix("topic.config.") {
            let name = name.trim_matches('"').to_owned();
            self.config.insert(name, (text.to_owned(), origin.to_owned()));
            return;
        }
        let Some(key) = table::find(path) else { return self.unknown(origin, path) };
        match key.kind.literal(text) {
            Ok(raw) => self.take(key, &raw, origin),
            Err(why) => self.refuse(origin, path, why),
        }
    }

    /// `public.users`, `"public.users"`, each with `.topic` or `.key` behind it if that is meant.
    fn set_table(&mut self, name: &str, text: &str, origin: &str) {
        let (table, field) = match name.strip_prefix('"').and_then(|rest| rest.rsplit_once('"')) {
            Some((table, "" | ".topic")) => (table, "topic"),
            Some((table, ".key")) => (table, "key"),
            Some(_) => return self.unknown(origin, &format!("tables.{name}")),
            None => match name.rsplit_once('.') {
                Some((table, field @ ("topic" | "key"))) if table.contains('.') => (table, field),
                _ => (name, "topic"),
            },
        };
        let path = format!("tables.{}", quoted(table));
        let raw = match text.trim_start().starts_with(['{', '[']) {
            true if field == "topic" => Kind::Tables.literal(text),
            _ => Ok(Raw::from(text)),
        };
        let entry = self.tables.remove(table).unwrap_or_default();
        match (field, raw) {
            ("key", _) => match Kind::Names.literal(text).and_then(|raw| Kind::Names.read(&raw)) {
                Ok(Value::List(key)) => self.put_table(table, Some(key), None, entry, origin),
                Ok(_) => {}
                Err(why) => self.refuse(origin, &path, why),
            },
            (_, Ok(Raw::String(_, topic))) => {
                self.put_table(table, None, Some(topic), entry, origin);
            }
            (_, Ok(Raw::Dict(_, dict))) => self.table(table, &Raw::from(dict), origin),
            (_, Ok(other)) => self.table(table, &other, origin),
            (_, Err(why)) => self.refuse(origin, &path, why),
        }
    }

    fn put_table(
        &mut self,
        table: &str,
        key: Option<Vec<String>>,
        topic: Option<String>,
        entry: TableEntry,
        origin: &str,
    ) {
        let entry = TableEntry {
            key: key.or(entry.key),
            topic: topic.or(entry.topic),
            origin: origin.to_owned(),
        };
        self.tables.insert(table.to_owned(), entry);
    }

    fn take(&mut self, key: &'static table::Key, raw: &Raw, origin: &str) {
        match (key.kind, raw) {
            (Kind::Tables, Raw::Dict(_, dict)) => {
                for (name, raw) in dict {
                    self.table(name, raw, origin);
                }
            }
            (Kind::Map, Raw::Dict(_, dict)) => match flat(dict) {
                Ok(all) => {
                    let all = all.into_iter();
                    self.config.extend(all.map(|(k, (v, _))| (k, (v, origin.to_owned()))));
                }
                Err(why) => self.refuse(origin, key.name, why),
            },
            (Kind::Tables | Kind::Map, other) => {
                let why = format!("is {}, not {}", what(other), key.kind);
                self.refuse(origin, key.name, why);
            }
            (kind, raw) => match kind.read(raw) {
                Ok(value) => {
                    let origin = origin.to_owned();
                    self.entries.insert(key.name, Entry { value, origin });
                }
                Err(why) => self.refuse(origin, key.name, why),
            },
        }
    }

    /// `"public.users" = "topic"`, or `{ topic, key }`; without quotes TOML reads the dot as a
    /// table in a table, which is meant all the same.
    fn table(&mut self, name: &str, raw: &Raw, origin: &str) {
        let path = format!("tables.{}", quoted(name));
        match raw {
            Raw::String(_, topic) => {
                let (topic, origin) = (Some(topic.clone()), origin.to_owned());
                self.tables.insert(name.to_owned(), TableEntry { topic, key: None, origin });
            }
            Raw::Dict(_, dict) if !name.contains('.') => {
                for (table, raw) in dict {
                    self.table(&format!("{name}.{table}"), raw, origin);
                }
            }
            Raw::Dict(_, dict) => self.long_table(name, dict, origin),
            other => {
                let why = format!("is {}, not a topic or {{ topic, key }}", what(other));
                self.refuse(origin, &path, why);
            }
        }
    }

    fn long_table(&mut self, name: &str, dict: &Dict, origin: &str) {
        let path = format!("tables.{}", quoted(name));
        let mut entry = TableEntry { origin: origin.to_owned(), ..TableEntry::default() };
        for (field, raw) in dict {
            let read = match (field.as_str(), raw) {
                ("topic", Raw::String(_, topic)) => {
                    entry.topic = Some(topic.clone());
                    Ok(())
                }
                ("topic", other) => Err(format!("is {}, not text", what(other))),
                ("key", raw) => match Kind::Names.read(raw) {
                    Ok(Value::List(names)) if !names.is_empty() => {
                        entry.key = Some(names);
                        Ok(())
                    }
                    Ok(_) => Err("is an empty list: leave it out for the table's own key".into()),
                    Err(why) => Err(why),
                },
                _ => Err("is no key of a table: there are topic and key".to_owned()),
            };
            if let Err(why) = read {
                self.refuse(origin, &format!("{path}.{field}"), why);
            }
        }
        self.tables.insert(name.to_owned(), entry);
    }

    /// `postgres.url` stands for single keys; one that is said twice must be the same.
    pub(super) fn expand_url(&mut self) {
        let Some(Entry { value: Value::Text(text), origin }) = self.entries.remove("postgres.url")
        else {
            return;
        };
        let parts = match url::parse(&text) {
            Ok(parts) => parts,
            Err(why) => return self.refuse(&origin, "postgres.url", why),
        };
        for (name, text) in parts {
            let Some(key) = table::find(name) else { continue };
            match key.kind.literal(&text).and_then(|raw| key.kind.read(&raw)) {
                Err(why) => {
                    self.refuse(&origin, "postgres.url", format!("has a {name} that {why}"))
                }
                Ok(value) => match self.entries.get(name) {
                    Some(single) if single.value != value => {
                        let why = format!("and {name} are both given, and differ: keep one");
                        self.refuse(&origin, "postgres.url", why);
                    }
                    _ => {
                        let origin = format!("{origin}, postgres.url");
                        self.entries.insert(name, Entry { value, origin });
                    }
                },
            }
        }
    }

    pub(super) fn refuse(&mut self, origin: &str, key: &str, why: String) {
        let (origin, key) = (origin.to_owned(), key.to_owned());
        self.problems.push(Problem { origin, key, why, meant: None });
    }

    fn unknown(&mut self, origin: &str, path: &str) {
        let problem = Problem {
            origin: origin.to_owned(),
            key: path.to_owned(),
            why: "is no key".to_owned(),
            meant: meant(path),
        };
        self.problems.push(problem);
    }
}
