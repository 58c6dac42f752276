//! The configuration as it is understood, as TOML, each value with where it came from.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use super::{
    kind::quoted,
    settings::Settings,
    table::{KEYS, Key, Preset},
};

/// `(line, origin)`s of one section.
type Lines = Vec<(String, String)>;

/// Every key. It can be read again, but for the secrets.
pub(super) fn listing(s: &Settings, found: Option<&Path>) -> String {
    let mut sections: BTreeMap<usize, (String, Lines)> = BTreeMap::new();
    let mut order: Vec<String> = vec![String::new()]; // TOML's keys without a section come first
    for key in KEYS.iter().filter(|key| key.name != "postgres.url") {
        let (section, name) = match key.name {
            "tables" | "topic.config" => (key.name, ""),
            name => name.rsplit_once('.').unwrap_or(("", name)),
        };
        let at = order.iter().position(|known| known == section).unwrap_or(order.len());
        if at == order.len() {
            order.push(section.to_owned());
        }
        let (_, lines) = sections.entry(at).or_insert_with(|| (section.to_owned(), Vec::new()));
        match key.name {
            "tables" => lines.extend(tables(s)),
            "topic.config" => {
                let all = s.topic_config.iter();
                lines.extend(
                    all.map(|(k, (v, o))| {
                        (format!("{} = {}", quoted(k), quoted(v)), o.text.clone())
                    }),
                );
            }
            _ => lines.push(line(s, key, name)),
        }
    }
    let mut text = found.map_or_else(
        || "# no configuration file\n".to_owned(),
        |path| format!("# configuration file: {}\n", path.display()),
    );
    for (section, lines) in sections.values().filter(|(_, lines)| !lines.is_empty()) {
        if !section.is_empty() {
            // An empty section may be an error, where it would quietly mean plain text.
            let empty = lines.iter().all(|(line, _)| line.starts_with('#'));
            let _ = write!(text, "\n{}[{section}]\n", if empty { "# " } else { "" });
        }
        for (line, origin) in lines {
            // A path may hold what would end the comment.
            let origin = origin.replace(char::is_control, "?");
            let _ = writeln!(text, "{line:<48}  # {origin}");
        }
    }
    text
}

fn line(s: &Settings, key: &Key, name: &str) -> (String, String) {
    if let Some(origin) = s.origin(key.name) {
        let value = s.value(key.name).map(|value| value.to_string()).unwrap_or_default();
        return (format!("{name} = {value}"), origin.text.clone());
    }
    match (s.computed.get(key.name), s.value(key.name), key.preset) {
        (Some(value), ..) => (format!("{name} = {value}"), "default".into()),
        (None, Some(value), _) => (format!("{name} = {value}"), "default".into()),
        (None, None, Preset::By(what)) => (format!("# {name} ="), format!("default: {what}")),
        (None, None, _) => (format!("# {name} ="), "not set".into()),
    }
}

fn tables(s: &Settings) -> impl Iterator<Item = (String, String)> + '_ {
    s.tables.iter().map(|(name, (table, origin))| {
        let topic = table.topic.as_deref().map(quoted);
        let key = table.key.as_ref().map(|columns| {
            let columns: Vec<_> = columns.iter().map(|column| quoted(column)).collect();
            format!("key = [{}]", columns.join(", "))
        });
        let value = match (topic, key) {
            (Some(topic), None) => topic,
            (Some(topic), Some(key)) => format!("{{ topic = {topic}, {key} }}"),
            (None, key) => format!("{{ {} }}", key.unwrap_or_default()),
        };
        (format!("{} = {value}", quoted(name)), origin.text.clone())
    })
}
