//! One place that settings come from, before it is laid over the others.

use figment::{
    Metadata, Profile, Provider,
    value::{Dict, Map, Tag, Value as Raw},
};

use super::{libpq, problem::Problem, table, url};

/// Where a value comes from; what is further down wins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Level {
    /// libpq's variables.
    Libpq,
    /// libpq's service file.
    Service,
    /// The configuration file.
    File,
    /// `PGSLUICE_…` variables.
    Environment,
    /// `--set`.
    CommandLine,
}

impl Level {
    const ALL: [Self; 5] =
        [Self::Libpq, Self::Service, Self::File, Self::Environment, Self::CommandLine];

    const fn name(self) -> &'static str {
        match self {
            Self::Libpq => "libpq",
            Self::Service => "service",
            Self::File => "file",
            Self::Environment => "environment",
            Self::CommandLine => "command line",
        }
    }
}

/// Where one value comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Origin {
    /// Its layer.
    pub level: Level,
    /// File, variable or option, for people.
    pub text: String,
}

impl Origin {
    /// What [`Entry::metadata`] said.
    pub(super) fn of(metadata: &Metadata) -> Option<Self> {
        let level = Level::ALL.into_iter().find(|level| level.name() == metadata.name)?;
        let text = metadata.source.as_ref().and_then(|source| source.custom())?.to_owned();
        Some(Self { level, text })
    }
}

/// Settings of one origin.
#[derive(Debug)]
pub(super) struct Entry {
    origin: Origin,
    dict: Dict,
}

impl Provider for &Entry {
    fn metadata(&self) -> Metadata {
        let source = figment::Source::Custom(self.origin.text.clone());
        Metadata::from(self.origin.level.name(), source)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

/// All settings of one level.
#[derive(Debug)]
pub(super) struct Layer {
    level: Level,
    entries: Vec<Entry>,
}

impl Layer {
    pub(super) const fn new(level: Level) -> Self {
        Self { level, entries: Vec::new() }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// A whole file.
    pub(super) fn add(&mut self, origin: String, dict: Dict) {
        self.entries.push(Entry { origin: Origin { level: self.level, text: origin }, dict });
    }

    /// One key.
    pub(super) fn put(&mut self, origin: String, path: &[String], raw: Raw) {
        let nested = path
            .iter()
            .rev()
            .fold(raw, |inner, name| Raw::Dict(Tag::Default, Dict::from([(name.clone(), inner)])));
        if let Some(dict) = nested.into_dict() {
            self.add(origin, dict);
        }
    }

    /// A key's value and origin.
    pub(super) fn get(&self, key: &str) -> Option<(&Raw, &str)> {
        self.entries.iter().rev().find_map(|entry| {
            let mut names = key.split('.');
            let first = entry.dict.get(names.next()?)?;
            let raw = names.try_fold(first, |raw, name| raw.as_dict()?.get(name))?;
            Some((raw, entry.origin.text.as_str()))
        })
    }

    /// libpq's parameters as keys; what is empty is as good as not there, as with libpq.
    pub(super) fn parameters(
        &mut self,
        parameters: Vec<(String, url::Parameter)>,
        problems: &mut Vec<Problem>,
    ) {
        for (origin, (name, value)) in parameters {
            if value.is_empty() {
                continue;
            }
            let wrong =
                |why| Problem { origin: origin.clone(), key: String::new(), why, meant: None };
            let (key, text) = match libpq::translate(&name, &value) {
                Ok(Some(pair)) => pair,
                Ok(None) => continue,
                Err(why) => {
                    problems.push(wrong(why));
                    continue;
                }
            };
            let Some(kind) = table::find(key).map(|key| key.kind) else { continue };
            let before = self.get(key).map(|(raw, _)| kind.read(raw));
            match (name.as_str(), before) {
                ("hostaddr", Some(before)) if before != kind.read(&Raw::from(text.as_str())) => {
                    let why = "says an address beside a host name, which is not supported: say the address as the host";
                    problems.push(wrong(why.into()));
                }
                ("fallback_application_name", Some(_)) => {}
                _ => match kind.literal(&text) {
                    Ok(raw) => self.put(origin, &path(key), raw),
                    Err(why) => problems.push(wrong(format!("has a {name} that {why}"))),
                },
            }
        }
    }

    /// Takes `postgres.url` apart, and `postgres.hosts` for another name of `postgres.host`.
    pub(super) fn settle(&mut self, problems: &mut Vec<Problem>) {
        self.rename_hosts();
        let Some((Raw::String(_, text), origin)) = self.get("postgres.url") else { return };
        let origin = origin.to_owned();
        let parameters = match url::parse(text) {
            Ok(parameters) => parameters,
            Err(why) => {
                let key = "postgres.url".into();
                return problems.push(Problem { origin, key, why, meant: None });
            }
        };
        let within = format!("postgres.url in {origin}");
        let mut parts = Self::new(self.level);
        // What the URI says later wins, so a parameter's last value is the only one to look at.
        let tagged = parameters.into_iter().map(|pair| (within.clone(), pair)).collect();
        parts.parameters(tagged, problems);
        for key in table::KEYS.iter() {
            let (Some((here, _)), Some((there, other))) = (parts.get(key.name), self.get(key.name))
            else {
                continue;
            };
            if key.kind.read(here) != key.kind.read(there) {
                let why =
                    format!("says something else than {} in {other}: leave one out", key.name);
                let (origin, key) = (origin.clone(), "postgres.url".into());
                problems.push(Problem { origin, key, why, meant: None });
            }
        }
        // Below what is said key by key, so that where both say the same, the key is the origin.
        parts.entries.append(&mut self.entries);
        self.entries = parts.entries;
    }

    fn rename_hosts(&mut self) {
        if self.get("postgres.host").is_some() {
            return; // and so `postgres.hosts` stays, and is reported as unknown
        }
        for entry in &mut self.entries {
            if let Some(Raw::Dict(_, section)) = entry.dict.get_mut("postgres")
                && let Some(hosts) = section.remove("hosts")
            {
                section.insert("host".into(), hosts);
            }
        }
    }
}

/// `a.b` → `[a, b]`.
pub(super) fn path(key: &str) -> Vec<String> {
    key.split('.').map(str::to_owned).collect()
}
