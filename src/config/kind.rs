//! What a key takes, and how it is read from a file's value or from a line of text.

use std::{collections::BTreeMap, fmt, time::Duration};

use bytesize::ByteSize;
use figment::{
    providers::{Format, Toml},
    value::{Dict, Num, Value as Raw},
};

use super::problem::meant_word;

/// Words that mean something elsewhere, and why they are not taken here.
const NOT_TAKEN: &[(&str, &str)] = &[
    ("prefer", "which falls back to plain text when anybody on the way asks for it"),
    ("allow", "which takes plain text where it can have it"),
    ("zstd", "for which there is no encoder without a C library yet"),
    ("debezium", "which comes with a later version"),
    ("avro", "which comes with a later version"),
    ("GSSAPI", "which needs a C library"),
];

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Text.
    Text,
    /// A file's path.
    Path,
    /// Text that is never shown.
    Secret,
    /// `true` or `false`.
    Bool,
    /// A whole number between these.
    Whole(i64, i64),
    /// A time with its unit, between these milliseconds.
    Span(u64, u64),
    /// Bytes, with a unit or none, between these.
    Size(u64, u64),
    /// One of these words.
    Words(&'static [&'static str]),
    /// A list of texts; one text is a list of one.
    Names,
    /// A list of texts; one text is split at its commas.
    Commas,
    /// The same of port numbers.
    Ports,
    /// Any names with a text each.
    Map,
    /// Any names with a table's settings each.
    Tables,
}

/// A key's value, checked as far as it can be by itself.
#[derive(Clone, Eq, PartialEq)]
pub(super) enum Value {
    /// `Text`, `Path`, `Words`.
    Text(String),
    /// `Secret`.
    Secret(String),
    /// `Bool`.
    Bool(bool),
    /// `Whole`.
    Whole(i64),
    /// `Span`.
    Span(Duration),
    /// `Size`.
    Size(u64),
    /// `Names`, `Commas`, `Ports`.
    List(Vec<String>),
}

impl Kind {
    /// A line of text, from the environment or `--set`, as a file would hold it. Where the key takes
    /// text it stays as it is, so that the password `1e5` is no number.
    ///
    /// # Errors
    /// A list or a table that is none.
    pub(super) fn literal(self, text: &str) -> Result<Raw, String> {
        match self {
            Self::Bool => Ok(text.parse::<bool>().map_or_else(|_| Raw::from(text), Raw::from)),
            Self::Whole(..) => Ok(text.parse::<i64>().map_or_else(|_| Raw::from(text), Raw::from)),
            Self::Names | Self::Commas | Self::Ports if text.trim_start().starts_with('[') => {
                embedded(text)
            }
            Self::Map | Self::Tables if text.trim_start().starts_with('{') => embedded(text),
            Self::Map | Self::Tables => {
                Err("is not a table, such as {\"name\" = \"value\"}".into())
            }
            _ => Ok(Raw::from(text)),
        }
    }

    /// Reads a value out of a file.
    ///
    /// # Errors
    /// Why it is none of this kind, to be read behind the key.
    pub(super) fn read(self, raw: &Raw) -> Result<Value, String> {
        match (self, raw) {
            (Self::Secret, Raw::String(_, text)) => Ok(Value::Secret(text.clone())),
            (Self::Text | Self::Path, Raw::String(_, text)) => self.text(text),
            (Self::Words(words), Raw::Bool(_, yes)) if words.contains(&bool_word(*yes)) => {
                Ok(Value::Text(bool_word(*yes).to_owned()))
            }
            (Self::Words(words), Raw::String(_, text)) => word(text, words),
            (Self::Bool, Raw::Bool(_, yes)) => Ok(Value::Bool(*yes)),
            (Self::Whole(least, most), Raw::Num(_, number)) => whole(*number, least, most),
            (Self::Span(least, most), Raw::String(_, text)) => span(text, least, most),
            (Self::Span(least, most), Raw::Num(_, number)) => match number.to_u128() {
                Some(0) => span("0s", least, most),
                _ => Err(format!("has no unit: write \"{0}ms\" or \"{0}s\"", number_text(*number))),
            },
            (Self::Size(least, most), Raw::String(_, text)) => size(text, least, most),
            (Self::Size(least, most), Raw::Num(_, number)) => {
                size(&number_text(*number), least, most)
            }
            (Self::Commas | Self::Ports, Raw::String(_, text)) => {
                Ok(Value::List(text.split(',').map(|part| part.trim().to_owned()).collect()))
            }
            (Self::Names, Raw::String(_, text)) => Ok(Value::List(vec![text.clone()])),
            (Self::Ports, Raw::Num(_, number)) => Ok(Value::List(vec![number_text(*number)])),
            (Self::Names | Self::Commas | Self::Ports, Raw::Array(_, items)) => self.items(items),
            (_, raw) => Err(self.refuse(raw)),
        }
    }

    fn text(self, text: &str) -> Result<Value, String> {
        if text.contains('\0') {
            return Err("holds a NUL character".into());
        }
        if matches!(self, Self::Path) && text.is_empty() {
            return Err("is empty, not a path".into());
        }
        Ok(Value::Text(text.to_owned()))
    }

    fn items(self, items: &[Raw]) -> Result<Value, String> {
        let text = |item: &Raw| match (self, item) {
            (_, Raw::String(_, text)) => Ok(text.clone()),
            (Self::Ports, Raw::Num(_, number)) => Ok(number_text(*number)),
            (_, other) => Err(format!("has an item that is {}, not text", what(other))),
        };
        items.iter().map(text).collect::<Result<_, _>>().map(Value::List)
    }

    fn refuse(self, raw: &Raw) -> String {
        let hint = match (self, raw) {
            (Self::Text | Self::Secret | Self::Names, Raw::Num(..) | Raw::Bool(..)) => {
                ": put it in quotes"
            }
            (Self::Bool | Self::Whole(..), Raw::String(..)) => ": leave out the quotes",
            _ => "",
        };
        // From the environment there are no quotes to leave out.
        let hint = match (self, raw) {
            (Self::Bool, Raw::String(_, text)) if text.parse::<bool>().is_err() => "",
            (Self::Whole(..), Raw::String(_, text)) if text.parse::<i64>().is_err() => "",
            _ => hint,
        };
        format!("is {}, not {self}{hint}", what(raw))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text | Self::Secret => "text",
            Self::Path => "a path",
            Self::Bool => "true or false",
            Self::Whole(..) => "a whole number",
            Self::Span(..) => "a time such as \"5ms\" or \"10s\"",
            Self::Size(..) => "a size such as \"1MiB\" or a number of bytes",
            Self::Words(words) => return write!(f, "one of {}", words.join(" ")),
            Self::Names | Self::Commas => "text or a list of texts",
            Self::Ports => "a port or a list of ports",
            Self::Map | Self::Tables => "a table",
        })
    }
}

/// A value as TOML writes it. A secret is `"***"`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Secret(_) => f.write_str("\"***\""),
            Self::Bool(yes) => write!(f, "{yes}"),
            Self::Whole(number) => write!(f, "{number}"),
            Self::Span(time) => write!(f, "\"{}\"", humantime::format_duration(*time)),
            Self::Size(bytes) => write!(f, "\"{}\"", size_text(*bytes)),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(|item| quoted(item)).collect();
                write!(f, "[{}]", items.join(", "))
            }
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A TOML string: JSON's escapes are TOML's too, but for DEL.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// Exact: `1MiB`, `1500B`.
fn size_text(bytes: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let whole = units.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}

/// A list or table in TOML's words or in JSON's.
fn embedded(text: &str) -> Result<Raw, String> {
    let toml = Toml::from_str::<super::file::Tree>(&format!("it = {text}\n"));
    let tree = toml.map(|tree| tree.0.into_dict().and_then(|mut dict: Dict| dict.remove("it")));
    match (tree, serde_json::from_str::<super::file::Tree>(text)) {
        (Ok(Some(raw)), _) => Ok(raw),
        (_, Ok(tree)) => Ok(tree.0),
        _ => Err("is neither TOML nor JSON".into()),
    }
}

const fn bool_word(yes: bool) -> &'static str {
    if yes { "true" } else { "false" }
}

fn word(text: &str, words: &[&str]) -> Result<Value, String> {
    if words.contains(&text) {
        return Ok(Value::Text(text.to_owned()));
    }
    if let Some((_, why)) = NOT_TAKEN.iter().find(|(known, _)| *known == text) {
        return Err(format!("is {}, {why}: take one of {}", quoted(text), words.join(" ")));
    }
    let near = meant_word(text, words).map(|near| format!("; did you mean {near}?"));
    let near = near.unwrap_or_default();
    Err(format!("is {}, not one of {}{near}", quoted(text), words.join(" ")))
}

fn whole(number: Num, least: i64, most: i64) -> Result<Value, String> {
    let exact = number.to_i128().or_else(|| number.to_u128().and_then(|n| i128::try_from(n).ok()));
    let Some(exact) = exact else {
        return Err(format!("is {}, not a whole number", number_text(number)));
    };
    match i64::try_from(exact) {
        Ok(value) if (least..=most).contains(&value) => Ok(Value::Whole(value)),
        _ => Err(format!("is {exact}; it must be from {least} to {most}")),
    }
}

fn span(text: &str, least: u64, most: u64) -> Result<Value, String> {
    let trimmed = text.trim();
    if !trimmed.is_empty() && trimmed != "0" && trimmed.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("has no unit: write \"{trimmed}ms\" or \"{trimmed}s\""));
    }
    let time = if trimmed == "0" { Ok(Duration::ZERO) } else { humantime::parse_duration(trimmed) };
    let Ok(time) = time else {
        return Err(format!("is {}, not a time such as \"5ms\" or \"10s\"", quoted(text)));
    };
    let range = Duration::from_millis(least)..=Duration::from_millis(most);
    if range.contains(&time) {
        return Ok(Value::Span(time));
    }
    let [least, most] = [range.start(), range.end()].map(|t| humantime::format_duration(*t));
    Err(format!("is {}; it must be from {least} to {most}", quoted(text)))
}

fn size(text: &str, least: u64, most: u64) -> Result<Value, String> {
    let Ok(ByteSize(bytes)) = text.trim().parse::<ByteSize>() else {
        return Err(format!(
            "is {}, not a size such as \"1MiB\" or a number of bytes",
            quoted(text)
        ));
    };
    if (least..=most).contains(&bytes) {
        return Ok(Value::Size(bytes));
    }
    let [least, most] = [least, most].map(size_text);
    Err(format!("is {}; it must be from {least} to {most}", quoted(text)))
}

fn number_text(number: Num) -> String {
    let whole = number.to_i128().map(|n| n.to_string());
    let whole = whole.or_else(|| number.to_u128().map(|n| n.to_string()));
    whole.unwrap_or_else(|| number.to_f64().map_or_else(String::new, |n| n.to_string()))
}

/// What a file holds, for people; never the value itself, which might be a secret.
pub(super) const fn what(raw: &Raw) -> &'static str {
    match raw {
        Raw::String(..) | Raw::Char(..) => "text",
        Raw::Bool(..) => "true or false",
        Raw::Num(..) => "a number",
        Raw::Empty(..) => "null",
        Raw::Dict(..) => "a table",
        Raw::Array(..) => "a list",
    }
}

/// Settings of a [`Kind::Map`]: Kafka's numbers and booleans may stand without quotes, and its
/// dotted names without quotes, which TOML reads as tables in tables.
pub(super) fn flat(dict: &Dict) -> Result<BTreeMap<String, (String, figment::value::Tag)>, String> {
    let mut all = BTreeMap::new();
    for (name, raw) in dict {
        match raw {
            Raw::String(tag, text) => drop(all.insert(name.clone(), (text.clone(), *tag))),
            Raw::Num(tag, number) => drop(all.insert(name.clone(), (number_text(*number), *tag))),
            Raw::Bool(tag, yes) => drop(all.insert(name.clone(), (yes.to_string(), *tag))),
            Raw::Dict(_, inner) => {
                all.extend(flat(inner)?.into_iter().map(|(last, v)| (format!("{name}.{last}"), v)));
            }
            other => return Err(format!("has {} under {}, not text", what(other), quoted(name))),
        }
    }
    Ok(all)
}
