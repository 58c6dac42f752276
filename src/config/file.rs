//! A configuration file: found, read, and parsed by its ending. TOML, YAML and JSON give the same.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use figment::{
    providers::{Format as _, Json, Toml, Yaml},
    value::{Dict, Tag, Value as Raw},
};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};

use super::{Problem, Sources};

/// Most that is read: nobody writes so much by hand.
const LARGEST: u64 = 4 << 20;

/// A value in which no key stands twice.
#[derive(Clone, Debug)]
pub(super) struct Tree(pub(super) Raw);

/// The file that is to be read; `None`: there is none, and none was named.
pub(super) fn find(sources: &Sources) -> Option<PathBuf> {
    sources.file.clone().or_else(|| sources.search.iter().find(|path| path.exists()).cloned())
}

/// Reads a file, or says why it cannot be used.
pub(super) fn read(path: &Path) -> Result<Dict, Problem> {
    let refuse = |why: String| Problem {
        origin: path.display().to_string(),
        key: String::new(),
        why,
        meant: None,
    };
    let text = text(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let tree = match ending.to_lowercase().as_str() {
        "toml" => Toml::from_str::<Tree>(&text).map_err(|error| error.to_string()),
        "yaml" | "yml" => Yaml::from_str::<Tree>(&text).map_err(|error| error.to_string()),
        "json" => Json::from_str::<Tree>(&text).map_err(|error| error.to_string()),
        _ => {
            return Err(refuse(
                "has no ending that says how to read it: .toml, .yaml or .json".into(),
            ));
        }
    };
    match tree.map_err(|why| refuse(format!("cannot be understood: {}", why.trim_end())))?.0 {
        Raw::Dict(_, dict) => Ok(dict),
        Raw::Empty(..) => Ok(Dict::new()), // a YAML file of comments
        other => Err(refuse(format!("holds {}, not keys with values", super::kind::what(&other)))),
    }
}

fn text(path: &Path) -> io::Result<String> {
    let length = fs::metadata(path)?.len();
    if length > LARGEST {
        return Err(io::Error::other(format!("it has {length} bytes, over {LARGEST}")));
    }
    let bytes = fs::read(path)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        io::Error::other(format!(
            "it is no UTF-8 from byte {} on",
            error.utf8_error().valid_up_to()
        ))
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Seen)
    }
}

struct Seen;

impl<'de> Visitor<'de> for Seen {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, yes: bool) -> Result<Tree, E> {
        Ok(Tree(Raw::from(yes)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree(Raw::from(number)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree(Raw::from(number)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Tree, E> {
        Ok(Tree(Raw::from(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree(Raw::from(text)))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree(Raw::Empty(Tag::Default, figment::value::Empty::Unit)))
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Tree, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Tree, D::Error> {
        Tree::deserialize(from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(Tree(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree(Raw::from(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
        let mut dict = Dict::new();
        while let Some((key, Tree(value))) = members.next_entry::<String, Tree>()? {
            if dict.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format!("the key {key} stands there twice")));
            }
        }
        Ok(Tree(Raw::from(dict)))
    }
}
