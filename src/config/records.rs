//! What records look like, where they go, and how the loop runs: `[tables]`, `[topic]`, `[format]`,
//! `[batch]`, `[message]`, `[run]`, `[admin]`, `[log]`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
};

use super::{kind::quoted, settings::Settings};
use crate::{
    batch,
    encode::{self, Header, KeyFormat, Numeric},
    pipeline::{self, Timestamp},
    route::{self, Routes, Truncate, Unlisted},
    telemetry::{self, Format},
};

/// Room in flight, in batches: one is filled, one is sent, and the messenger copies what it sends.
const BATCHES_IN_FLIGHT: usize = 4;

/// All that lies between PostgreSQL and Kafka.
pub(super) struct Records {
    pub route: route::Options,
    pub encode: encode::Options,
    pub batch: batch::Limits,
    pub pipeline: pipeline::Options,
    pub admin: Option<SocketAddr>,
}

/// Builds and checks it.
pub(super) fn build(s: &mut Settings) -> Records {
    Records {
        route: route(s),
        encode: encode::Options {
            numeric: if s.word("format.numeric") == "number" {
                Numeric::Number
            } else {
                Numeric::String
            },
            key: if s.word("format.key") == "json" { KeyFormat::Json } else { KeyFormat::Auto },
            tombstones: s.on("format.tombstones"),
            headers: headers(s),
        },
        batch: batch(s),
        pipeline: pipeline::Options {
            drain: s.span("run.drain"),
            timestamp: if s.word("kafka.timestamp") == "commit" {
                Timestamp::Commit
            } else {
                Timestamp::Sent
            },
        },
        admin: listen(s),
    }
}

fn route(s: &mut Settings) -> route::Options {
    let tables: BTreeMap<_, _> =
        s.tables.iter().map(|(name, (table, _))| (name.clone(), table.clone())).collect();
    let default = if tables.is_empty() { "route" } else { "refuse" };
    let unlisted = s.text("topic.unlisted").unwrap_or_else(|| {
        s.computed.insert("topic.unlisted", quoted(default));
        default.to_owned()
    });
    let options = route::Options {
        tables,
        template: s.word("topic.template"),
        unlisted: match unlisted.as_str() {
            "route" => Unlisted::Route,
            "skip" => Unlisted::Skip,
            _ => Unlisted::Refuse,
        },
        truncate: match s.word("truncate") {
            word if word == "table" => Truncate::Table,
            word if word == "skip" => Truncate::Skip,
            topic => Truncate::Topic(topic),
        },
        message_topic: s.text("message.topic").filter(|topic| !topic.is_empty()),
        message_prefixes: s.list("message.prefixes"),
    };
    check(s, &options);
    options
}

/// `route` refuses the first thing that it cannot use, so it is asked about each by itself.
fn check(s: &mut Settings, options: &route::Options) {
    let plain = || route::Options {
        tables: BTreeMap::new(),
        template: "x".to_owned(),
        truncate: Truncate::Table,
        message_topic: None,
        ..options.clone()
    };
    let why = |part| Routes::new(part).err().map(|error| format!("cannot be used: {error}"));
    let template = route::Options { template: options.template.clone(), ..plain() };
    let truncate = route::Options { truncate: options.truncate.clone(), ..plain() };
    let message = route::Options { message_topic: options.message_topic.clone(), ..plain() };
    for (key, part) in
        [("topic.template", template), ("truncate", truncate), ("message.topic", message)]
    {
        if let Some(why) = why(part) {
            s.wrong(key, why);
        }
    }
    let mut sound = true;
    for (name, (table, origin)) in s.tables.clone() {
        let key = format!("tables.{}", quoted(&name));
        let columns = table.key.as_deref().unwrap_or_default();
        let distinct: BTreeSet<_> = columns.iter().collect();
        let wrong = if table.key.is_some() && columns.is_empty() {
            Some("has an empty list as its key: leave it out for the catalog's".into())
        } else if distinct.len() < columns.len() || columns.iter().any(String::is_empty) {
            Some("has a key with a column that is empty or there twice".into())
        } else {
            why(route::Options { tables: [(name, table)].into(), ..plain() })
        };
        if let Some(wrong) = wrong {
            s.wrong_at(&origin, &key, wrong);
            sound = false;
        }
    }
    let all = route::Options { tables: options.tables.clone(), ..plain() };
    if let (true, Some(why)) = (sound, why(all)) {
        s.wrong("tables", why);
    }
}

fn headers(s: &mut Settings) -> Vec<Header> {
    let mut all = Vec::new();
    for word in s.list("headers") {
        let header = match word.as_str() {
            "op" => Header::Op,
            "id" => Header::Id,
            "table" => Header::Table,
            "lsn" => Header::Lsn,
            "xid" => Header::Xid,
            "ts" => Header::Ts,
            _ => {
                s.wrong(
                    "headers",
                    format!("lists {}, which is none of op id table lsn xid ts", quoted(&word)),
                );
                continue;
            }
        };
        if all.contains(&header) {
            s.wrong("headers", format!("lists {word} twice"));
        }
        all.push(header);
    }
    if !all.contains(&Header::Id) {
        s.warn("headers has no id: a consumer cannot tell a record that is delivered again, so delivery is at-least-once".into());
    }
    all
}

fn batch(s: &mut Settings) -> batch::Limits {
    let limits = batch::Limits {
        max_bytes: s.size("batch.max_bytes"),
        max_records: s.whole("batch.max_records"),
        linger: s.span("batch.linger"),
        in_flight: s.size("batch.in_flight"),
    };
    if limits.in_flight / BATCHES_IN_FLIGHT < limits.max_bytes {
        let key = if s.is_set("batch.in_flight") { "batch.in_flight" } else { "batch.max_bytes" };
        let why = format!(
            "does not fit: batch.in_flight must be at least {BATCHES_IN_FLIGHT} times batch.max_bytes"
        );
        s.wrong(key, why);
    }
    limits
}

fn listen(s: &mut Settings) -> Option<SocketAddr> {
    let text = s.word("admin.listen");
    if text.is_empty() {
        return None;
    }
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    let local = local.map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let address = text.parse().ok().or(local);
    if address.is_none() {
        let why =
            format!("is {}, not address:port such as 127.0.0.1:8081 or [::]:8081", quoted(&text));
        s.wrong("admin.listen", why);
    }
    address
}

/// `[log]`.
pub(super) fn log(s: &mut Settings) -> telemetry::Options {
    let level = s.word("log.level");
    // To the filter's parser a word that is no level is a target, and a slip would log nothing.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let known = |part: &str| part.contains('=') || levels.contains(&part.to_lowercase().as_str());
    if !level.split(',').map(str::trim).all(known) {
        let why = format!(
            "is {}, not one of {} or a filter such as info,pgsluice::sink=debug",
            quoted(&level),
            levels.join(" ")
        );
        s.wrong("log.level", why);
    } else if let Err(error) = telemetry::check(&level) {
        s.wrong("log.level", format!("is {}: {error}", quoted(&level)));
    }
    let format = match s.word("log.format").as_str() {
        "text" => Format::Text,
        "json" => Format::Json,
        _ => Format::Auto,
    };
    telemetry::Options { level, format }
}
