//! The configuration file: found, read, and parsed by its ending.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use figment::{
    providers::{Format, Json, Toml, Yaml},
    value::{Dict, Empty, Tag, Value},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor},
};

use super::{Sources, problem::Problem};
use crate::net::read_file;

/// A configuration of ten thousand tables is a third of it; more is some other file.
const MOST_BYTES: u64 = 4 << 20;

/// The file to read: the one that is named, else the first that exists.
pub(super) fn find(sources: &Sources, problems: &mut Vec<Problem>) -> Option<PathBuf> {
    if sources.file.is_some() {
        return sources.file.clone();
    }
    sources
        .search
        .iter()
        .find(|path| match fs::exists(path) {
            Ok(there) => there,
            Err(error) => {
                problems.push(about(path, format!("cannot be read: {error}")));
                false
            }
        })
        .cloned()
}

/// Everything in it, by section.
pub(super) fn read(path: &Path) -> Result<Dict, Problem> {
    let text = text(path)?;
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let tree = match ending.to_lowercase().as_str() {
        "toml" => parse::<Toml, Tree>(path, &text)?,
        // An empty YAML document is null, and no reason to complain.
        "yaml" | "yml" if text.lines().all(blank) => Tree(Value::from(Dict::new())),
        "yaml" | "yml" => parse::<Yaml, Tree>(path, &text)?,
        "json" => parse::<Json, Tree>(path, &text)?,
        _ => {
            let why = "ends in none of .toml .yaml .yml .json, so its format is not known";
            return Err(about(path, why.into()));
        }
    };
    let found = super::kind::what(&tree.0);
    tree.0.into_dict().ok_or_else(|| about(path, format!("holds {found}, not sections")))
}

fn about(path: &Path, why: String) -> Problem {
    Problem { origin: path.display().to_string(), key: String::new(), why, meant: None }
}

fn blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#') || line == "---"
}

fn text(path: &Path) -> Result<String, Problem> {
    let bytes = read_file(path, MOST_BYTES)
        .map_err(|error| about(path, format!("cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = 1 + good.filter(|byte| **byte == b'\n').count();
        about(path, format!("is not UTF-8, in line {line}"))
    })?;
    // Editors of Windows begin a file with a byte order mark, which no format here allows.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn parse<F: Format, T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, Problem> {
    F::from_str(text).map_err(|error| about(path, format!("is no {}: {}", F::NAME, tidy(&error))))
}

/// The parser's words without the line that it quotes, which might hold a password.
fn tidy(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    let quoted = |line: &&str| {
        let line = line.trim_start();
        let line = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        !line.starts_with('|')
    };
    let lines: Vec<_> = text.lines().filter(quoted).map(str::trim).collect();
    lines.join("; ").replace("TOML parse error at", "at")
}

/// A value of any format. A name that is there twice is an error: which of them counts would be
/// anybody's guess.
pub(super) struct Tree(pub Value);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number, true, false, a list or a table")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree(Value::from(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree(Value::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree(Value::from(value)))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Tree, E> {
        Ok(Tree(Value::from(value)))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Tree, E> {
        Ok(Tree(Value::from(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree(Value::from(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree(Value::from(value)))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree(Value::Empty(Tag::Default, Empty::Unit)))
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Tree, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Tree, D::Error> {
        Tree::deserialize(inner)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(Tree(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree(Value::Array(Tag::Default, list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut dict = Dict::new();
        while let Some((name, Tree(value))) = entries.next_entry::<String, _>()? {
            if dict.contains_key(&name) {
                return Err(A::Error::custom(format_args!("duplicate key `{name}`")));
            }
            dict.insert(name, value);
        }
        Ok(Tree(Value::Dict(Tag::Default, dict)))
    }
}
