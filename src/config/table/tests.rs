//! The list against the example, and against itself.

use std::collections::BTreeSet;

use figment::{
    providers::{Format as _, Toml},
    value::{Dict, Value as Raw},
};

use super::*;

const EXAMPLE: &str = include_str!("../../../config/example.toml");

/// The example with every key that is commented out put in force.
fn uncommented() -> Dict {
    let is_setting = |line: &str| {
        let name = line.split(" = ").next().unwrap_or_default();
        let bare = !name.is_empty()
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        let section = line.starts_with('[') && line.contains(']');
        line.contains(" = ") && (bare || name.starts_with('"')) || section
    };
    let strip = |line: &'static str| {
        line.strip_prefix("# ").filter(|line| is_setting(line)).unwrap_or(line)
    };
    let text: Vec<_> = EXAMPLE.lines().map(strip).collect();
    Toml::from_str::<super::super::file::Tree>(&text.join("\n")).unwrap().0.into_dict().unwrap()
}

fn find_in<'a>(dict: &'a Dict, name: &str) -> Option<&'a Raw> {
    let mut names = name.split('.');
    let first = dict.get(names.next()?)?;
    names.try_fold(first, |raw, name| raw.as_dict()?.get(name))
}

#[test]
fn the_example_holds_every_key_with_a_value_that_it_takes() {
    let all = uncommented();
    for key in KEYS.iter() {
        let raw = find_in(&all, key.name).unwrap_or_else(|| panic!("no {}", key.name));
        if matches!(key.kind, Kind::Map | Kind::Tables) {
            continue;
        }
        let value = key.kind.read(raw).unwrap_or_else(|why| panic!("{} {why}", key.name));
        if let Preset::Is(text) = key.preset {
            let default = key.kind.read(&key.kind.literal(text).unwrap()).unwrap();
            assert_eq!(value, default, "{}: the example shows another default", key.name);
        }
    }
}

#[test]
fn the_example_holds_no_key_that_does_not_exist() {
    fn walk(prefix: &str, dict: &Dict) {
        for (name, raw) in dict {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match (find(&path), raw) {
                (Some(_), _) => {}
                (None, Raw::Dict(_, inner)) => walk(&path, inner),
                (None, _) => panic!("{path} is not a key"),
            }
        }
    }
    walk("", &uncommented());
}

#[test]
fn names_every_key_once_and_every_default_is_taken() {
    let mut seen = BTreeSet::new();
    for key in KEYS.iter() {
        assert!(seen.insert(key.name), "{} is there twice", key.name);
        if let (Preset::Is(text), false) =
            (key.preset, matches!(key.kind, Kind::Map | Kind::Tables))
        {
            let read = key.kind.literal(text).and_then(|raw| key.kind.read(&raw));
            assert!(read.is_ok(), "{}: {read:?}", key.name);
        }
    }
}
