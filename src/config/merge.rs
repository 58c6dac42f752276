//! Lays file, variables and `--set` over each other; every value keeps its origin.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Profile, Provider as _,
    value::{Dict, Tag, Value as Raw},
};

use super::{
    Sources, credential, file,
    kind::Kind,
    layer::{Layer, Level, Origin, path},
    libpq,
    problem::Problem,
    table,
};

/// All settings, the winning ones only.
pub(super) struct Merged {
    figment: Figment,
    /// By section.
    pub dict: Dict,
    /// `~/.pgpass`.
    pub passfile: Option<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY`.
    pub credentials: Option<OsString>,
}

impl Merged {
    /// Where a value came from.
    pub(super) fn origin(&self, tag: Tag) -> Origin {
        let known = self.figment.get_metadata(tag).and_then(Origin::of);
        known.unwrap_or_else(|| Origin { level: Level::File, text: String::new() })
    }
}

/// Reads every source.
pub(super) fn merge(
    sources: &Sources,
    found: Option<&Path>,
    problems: &mut Vec<Problem>,
) -> Merged {
    let mut from_file = Layer::new(Level::File);
    match found.map(|path| (path, file::read(path))) {
        Some((path, Ok(dict))) => from_file.add(path.display().to_string(), dict),
        Some((_, Err(problem))) => problems.push(problem),
        None => {}
    }
    let mut above = [from_file, environment(sources, problems), command_line(sources, problems)];
    above.iter_mut().for_each(|layer| layer.settle(problems));
    let libpq = libpq_variables(sources, problems);
    let wanted = above.iter().rev().chain([&libpq]).find_map(|layer| layer.get("postgres.service"));
    let service = service(sources, wanted, problems);
    let [from_file, environment, command_line] = above;
    let layers = [libpq, service, from_file, environment, command_line];
    let entries = layers.iter().flat_map(Layer::entries);
    let figment = entries.fold(Figment::new(), Figment::merge);
    let mut profiles = figment.data().unwrap_or_default();
    let dict = profiles.remove(&Profile::Default).unwrap_or_default();
    let passfile = var(sources, "HOME").map(|home| PathBuf::from(home).join(".pgpass"));
    let credentials = var(sources, credential::VARIABLE).cloned();
    Merged { figment, dict, passfile, credentials }
}

fn var<'a>(sources: &'a Sources, name: &str) -> Option<&'a OsString> {
    sources.vars.get(&OsString::from(name)).filter(|value| !value.is_empty())
}

fn libpq_variables(sources: &Sources, problems: &mut Vec<Problem>) -> Layer {
    let mut layer = Layer::new(Level::Libpq);
    let mut parameters = Vec::new();
    for (name, parameter) in libpq::VARIABLES {
        match var(sources, name).map(|value| value.to_str()) {
            Some(Some(text)) => {
                parameters.push(((*name).to_owned(), ((*parameter).to_owned(), text.to_owned())));
            }
            Some(None) => problems.push(not_utf8(name)),
            None => {}
        }
    }
    layer.parameters(parameters, problems);
    layer
}

fn service(sources: &Sources, wanted: Option<(&Raw, &str)>, problems: &mut Vec<Problem>) -> Layer {
    let mut layer = Layer::new(Level::Service);
    let Some((Raw::String(_, name), origin)) = wanted else { return layer };
    let files: Vec<_> = match var(sources, "PGSERVICEFILE") {
        Some(file) => vec![PathBuf::from(file)],
        None => {
            let home =
                var(sources, "HOME").map(|home| PathBuf::from(home).join(".pg_service.conf"));
            let system =
                var(sources, "PGSYSCONFDIR").map(|dir| PathBuf::from(dir).join("pg_service.conf"));
            let debian = || PathBuf::from("/etc/postgresql-common/pg_service.conf");
            home.into_iter().chain([system.unwrap_or_else(debian)]).collect()
        }
    };
    match libpq::service(name, &files) {
        Ok((path, parameters)) => {
            let within = format!("service {name} in {}", path.display());
            let tagged = parameters.into_iter().map(|pair| (within.clone(), pair)).collect();
            layer.parameters(tagged, problems);
        }
        Err(why) => {
            let (origin, key) = (origin.to_owned(), "postgres.service".to_owned());
            problems.push(Problem { origin, key, why, meant: None });
        }
    }
    layer
}

fn environment(sources: &Sources, problems: &mut Vec<Problem>) -> Layer {
    let mut layer = Layer::new(Level::Environment);
    for (name, value) in &sources.vars {
        let name = name.to_string_lossy();
        let Some(rest) = name.strip_prefix("PGSLUICE_") else { continue };
        if is_of_kubernetes(rest) {
            continue;
        }
        let Some(text) = value.to_str() else {
            problems.push(not_utf8(&name));
            continue;
        };
        let path: Vec<_> = rest.split("__").map(str::to_lowercase).collect();
        let whole = |map: &str| path.join(".").starts_with(&format!("{map}."));
        if whole("tables") || whole("topic.config") {
            let why = "cannot name one entry, as variables have no lower case: give the whole table, such as {\"name\" = \"value\"}, or use --set";
            problems.push(Problem {
                origin: name.into_owned(),
                key: String::new(),
                why: why.into(),
                meant: None,
            });
            continue;
        }
        put(&mut layer, &name, path, text, problems);
    }
    layer
}

/// Kubernetes sets variables for every service; that of a service named `pgsluice` or `pgsluice-x`
/// begin like ours: `PGSLUICE_SERVICE_HOST`, `PGSLUICE_X_PORT_8081_TCP_ADDR`.
fn is_of_kubernetes(rest: &str) -> bool {
    let padded = format!("_{rest}_");
    let service = padded.contains("_SERVICE_HOST_") || padded.contains("_SERVICE_PORT_");
    let port = padded.ends_with("_PORT_") || padded.contains("_PORT_") && padded.contains("_TCP_");
    !rest.contains("__") && (service || port)
}

fn command_line(sources: &Sources, problems: &mut Vec<Problem>) -> Layer {
    let mut layer = Layer::new(Level::CommandLine);
    for (key, text) in &sources.set {
        match segments(key) {
            Some(path) => put(&mut layer, "--set", path, text, problems),
            None => problems.push(Problem {
                origin: "--set".into(),
                key: key.clone(),
                why: "is no key: names with dots between, or in double quotes".into(),
                meant: None,
            }),
        }
    }
    layer
}

fn put(
    layer: &mut Layer,
    origin: &str,
    path: Vec<String>,
    text: &str,
    problems: &mut Vec<Problem>,
) {
    let key = path.join(".");
    let inner = path.first().is_some_and(|first| first == "tables").then(|| path.get(1..));
    let literal = match (table::find(&key), inner.flatten()) {
        (Some(key), _) => key.kind.literal(text),
        (None, Some([_])) if text.trim_start().starts_with('{') => Kind::Map.literal(text),
        (None, Some([_, last])) if last == "key" => Kind::Names.literal(text),
        _ => Ok(Raw::from(text)),
    };
    match literal {
        Ok(raw) => layer.put(origin.to_owned(), &path, raw),
        Err(why) => problems.push(Problem { origin: origin.to_owned(), key, why, meant: None }),
    }
}

fn not_utf8(name: &str) -> Problem {
    let (origin, key) = (name.to_owned(), String::new());
    Problem { origin, key, why: "is not UTF-8".into(), meant: None }
}

/// A key as `--set` takes it: `a.b`, `tables."public.users".topic`, and as shorthand what has no
/// quotes behind `tables.` or `topic.config.` is one name.
fn segments(key: &str) -> Option<Vec<String>> {
    for map in ["tables", "topic.config"] {
        let name = key.strip_prefix(map).and_then(|rest| rest.strip_prefix('.'));
        if let Some(name) = name.filter(|name| !name.is_empty() && !name.contains('"')) {
            return Some(path(map).into_iter().chain([name.to_owned()]).collect());
        }
    }
    let mut all = Vec::new();
    let mut rest = key;
    loop {
        let (name, behind) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.find('.').and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, "")),
        };
        if name.is_empty() || name.contains('"') {
            return None;
        }
        all.push(name.to_owned());
        if behind.is_empty() {
            return Some(all);
        }
        rest = behind.strip_prefix('.')?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_keys_apart_at_their_dots_but_not_in_quotes() {
        for (key, parts) in [
            ("a", vec!["a"]),
            ("a.b.c", vec!["a", "b", "c"]),
            ("tables.public.users", vec!["tables", "public.users"]),
            ("tables.\"public.users\".topic", vec!["tables", "public.users", "topic"]),
            ("topic.config.cleanup.policy", vec!["topic", "config", "cleanup.policy"]),
        ] {
            assert_eq!(segments(key).unwrap(), parts, "{key}");
        }
        for key in ["", ".", "a.", ".a", "a..b", "a\"b", "\"a", "\"a\"b"] {
            assert_eq!(segments(key), None, "{key}");
        }
    }

    #[test]
    fn leaves_variables_alone_that_kubernetes_sets() {
        for name in [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_HTTP",
            "PORT",
            "PORT_8081_TCP",
            "PORT_8081_TCP_ADDR",
            "EAST_SERVICE_HOST",
            "EAST_PORT",
            "EAST_PORT_8081_TCP_PROTO",
        ] {
            assert!(is_of_kubernetes(name), "{name}");
        }
        for name in ["POSTGRES__PORT", "TRUNCATE", "KAFKA_BROKERS", "POSTGRES__SERVICE_HOST"] {
            assert!(!is_of_kubernetes(name), "{name}");
        }
    }
}
