//! `pgsluice config`: every value with where it came from, as TOML. Secrets are `***`.

use std::{fmt::Write as _, path::Path};

use super::{
    kind::{Kind, Value, quoted},
    settings::Settings,
    table::{KEYS, Key, Preset},
};

/// The whole configuration, readable as a file.
pub(super) fn listing(settings: &Settings, found: Option<&Path>) -> String {
    let mut out = match found {
        Some(path) => format!("# from {} and what stands over it\n", path.display()),
        None => "# without a file\n".to_owned(),
    };
    // TOML wants the keys without a section first.
    for key in KEYS.iter().filter(|key| section(key.name).is_empty()) {
        line(&mut out, settings, key);
    }
    let mut open = "";
    for key in KEYS.iter().filter(|key| !section(key.name).is_empty()) {
        if section(key.name) != open {
            open = section(key.name);
            let _ = writeln!(out, "\n[{open}]");
        }
        line(&mut out, settings, key);
    }
    if !settings.tables.is_empty() {
        out.push_str("\n[tables]\n");
    }
    for (name, table) in &settings.tables {
        let topic = table.topic.as_ref().map(|topic| format!("topic = {}", quoted(topic)));
        let key = table.key.as_ref().map(|key| {
            let names: Vec<_> = key.iter().map(|name| quoted(name)).collect();
            format!("key = [{}]", names.join(", "))
        });
        let value = match (&table.topic, key) {
            (Some(topic), None) => quoted(topic),
            (_, key) => {
                let parts: Vec<_> = topic.into_iter().chain(key).collect();
                format!("{{ {} }}", parts.join(", "))
            }
        };
        let _ = writeln!(out, "{} = {value} # {}", quoted(name), table.origin);
    }
    out
}

fn section(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(section, _)| section)
}

fn line(out: &mut String, settings: &Settings, key: &Key) {
    let last = key.name.rsplit('.').next().unwrap_or(key.name);
    let _ = match (settings.entries.get(key.name), key.preset) {
        _ if matches!(key.kind, Kind::Tables) => return,
        _ if matches!(key.kind, Kind::Map) => {
            let pairs: Vec<_> = settings
                .config
                .iter()
                .map(|(name, (value, _))| format!("{} = {}", quoted(name), quoted(value)))
                .collect();
            let origin = settings.config.values().next().map_or("default", |(_, from)| from);
            writeln!(out, "{last} = {{ {} }} # {origin}", pairs.join(", "))
        }
        (Some(entry), _) => writeln!(out, "{last} = {} # {}", entry.value, entry.origin),
        (None, Preset::Is(_)) => match settings.value(key.name) {
            Some(value) => writeln!(out, "{last} = {value} # default"),
            None => writeln!(out, "# {last} = # default"),
        },
        (None, Preset::By(words)) => match settings.derived.get(key.name) {
            Some(value) => writeln!(out, "{last} = {} # default", Value::Text(value.clone())),
            None => writeln!(out, "# {last} = # default: {words}"),
        },
        (None, Preset::Required) => writeln!(out, "# {last} = # must be set"),
    };
}
