//! What becomes of rows: `[tables]`, `[topic]`, `[format]`, `headers`, `[batch]`, and the rest.

use std::net::SocketAddr;

use super::{Purpose, kind::quoted, settings::Settings};
use crate::{
    batch,
    encode::{self, Header, KeyFormat, Numeric},
    pipeline::{self, Timestamp},
    route::{self, Routes, Truncate, Unlisted},
    telemetry,
};

pub(super) struct Records {
    pub(super) route: route::Options,
    pub(super) encode: encode::Options,
    pub(super) batch: batch::Limits,
    pub(super) pipeline: pipeline::Options,
    pub(super) admin: Option<SocketAddr>,
}

pub(super) fn build(settings: &mut Settings) -> Records {
    Records {
        route: route(settings),
        encode: encode::Options {
            numeric: match settings.word("format.numeric").as_str() {
                "number" => Numeric::Number,
                _ => Numeric::String,
            },
            key: match settings.word("format.key").as_str() {
                "json" => KeyFormat::Json,
                _ => KeyFormat::Auto,
            },
            tombstones: settings.flag("format.tombstones"),
            headers: headers(settings),
        },
        batch: limits(settings),
        pipeline: pipeline::Options {
            drain: settings.span("run.drain"),
            timestamp: match settings.word("kafka.timestamp").as_str() {
                "commit" => Timestamp::Commit,
                _ => Timestamp::Sent,
            },
        },
        admin: admin(settings),
    }
}

/// `[log]`.
pub(super) fn log(settings: &mut Settings) -> telemetry::Options {
    let level = settings.word("log.level");
    if let Err(error) = telemetry::check(&level) {
        settings.refuse("log.level", format!("is {level:?}: {error}"));
    }
    let format = match settings.word("log.format").as_str() {
        "text" => telemetry::Format::Text,
        "json" => telemetry::Format::Json,
        _ => telemetry::Format::Auto,
    };
    telemetry::Options { level, format }
}

fn route(settings: &mut Settings) -> route::Options {
    let tables = settings.tables.iter().map(|(name, entry)| {
        let table = route::Table { topic: entry.topic.clone(), key: entry.key.clone() };
        (name.clone(), table)
    });
    let tables: std::collections::BTreeMap<_, _> = tables.collect();
    if !settings.is_set("topic.unlisted") {
        let default = if tables.is_empty() { "route" } else { "refuse" };
        settings.derive("topic.unlisted", default);
    }
    let unlisted = match settings.text("topic.unlisted").as_deref() {
        Some("route") => Unlisted::Route,
        Some("skip") => Unlisted::Skip,
        None if tables.is_empty() => Unlisted::Route,
        _ => Unlisted::Refuse,
    };
    let truncate = match settings.word("truncate").as_str() {
        "table" => Truncate::Table,
        "skip" => Truncate::Skip,
        topic => Truncate::Topic(topic.to_owned()),
    };
    let options = route::Options {
        tables,
        template: settings.word("topic.template"),
        unlisted,
        truncate,
        message_topic: settings.text("message.topic"),
        message_prefixes: settings.list("message.prefixes"),
    };
    check_routes(settings, &options);
    options
}

/// Each part by itself, so that all that is wrong is said.
fn check_routes(settings: &mut Settings, options: &route::Options) {
    let bare = route::Options { tables: Default::default(), ..options.clone() };
    let check = |part: route::Options| Routes::new(part).err().map(|error| error.to_string());
    let plain = || route::Options {
        template: "x".to_owned(),
        truncate: Truncate::Table,
        message_topic: None,
        ..bare.clone()
    };
    let parts = [
        ("topic.template", route::Options { template: options.template.clone(), ..plain() }),
        ("truncate", route::Options { truncate: options.truncate.clone(), ..plain() }),
        (
            "message.topic",
            route::Options { message_topic: options.message_topic.clone(), ..plain() },
        ),
    ];
    for (key, part) in parts {
        if let Some(why) = check(part) {
            settings.refuse(key, format!("cannot be used: {why}"));
        }
    }
    let mut sound = true;
    for (name, table) in &options.tables {
        if !name.contains('.') {
            let origin = settings.tables.get(name).map(|t| t.origin.clone()).unwrap_or_default();
            let key = format!("tables.{}", quoted(name));
            settings.refuse_at(&origin, &key, "has no schema: write \"schema.table\"");
            sound = false;
            continue;
        }
        let one = [(name.clone(), table.clone())].into();
        if let Some(why) = check(route::Options { tables: one, ..plain() }) {
            let origin = settings.tables.get(name).map(|t| t.origin.clone()).unwrap_or_default();
            settings.refuse_at(
                &origin,
                &format!("tables.{}", quoted(name)),
                format!("cannot be used: {why}"),
            );
            sound = false;
        }
    }
    if sound && let Some(why) = check(route::Options { tables: options.tables.clone(), ..plain() })
    {
        settings.refuse("tables", format!("cannot be used: {why}"));
    }
}

fn headers(settings: &mut Settings) -> Vec<Header> {
    let mut headers = Vec::new();
    for name in settings.list("headers") {
        let header = match name.as_str() {
            "op" => Header::Op,
            "id" => Header::Id,
            "table" => Header::Table,
            "lsn" => Header::Lsn,
            "xid" => Header::Xid,
            "ts" => Header::Ts,
            _ => {
                settings
                    .refuse("headers", format!("has {name:?}, not one of op id table lsn xid ts"));
                continue;
            }
        };
        if headers.contains(&header) {
            settings.refuse("headers", format!("has {name:?} twice"));
        }
        headers.push(header);
    }
    if !headers.contains(&Header::Id) && settings.purpose == Purpose::Run {
        settings.warn(
            "headers is without \"id\": a record that is sent again after a crash cannot be told \
             from the first (at-least-once)",
        );
    }
    headers
}

fn limits(settings: &mut Settings) -> batch::Limits {
    let limits = batch::Limits {
        max_bytes: settings.size_of("batch.max_bytes"),
        max_records: u32::try_from(settings.whole("batch.max_records")).unwrap_or(1),
        linger: settings.span("batch.linger"),
        in_flight: settings.size_of("batch.in_flight"),
    };
    if limits.in_flight < limits.max_bytes.saturating_mul(4) {
        settings.refuse(
            "batch.in_flight",
            "must be at least four times batch.max_bytes: one batch grows while another is sent, \
             and each is held twice while it is sent",
        );
    }
    limits
}

fn admin(settings: &mut Settings) -> Option<SocketAddr> {
    let text = settings.word("admin.listen");
    if text.is_empty() {
        return None;
    }
    let numeric = text.replacen("localhost:", "127.0.0.1:", 1);
    match numeric.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            let why = format!("is {text:?}, not an address and port such as 127.0.0.1:8081");
            settings.refuse("admin.listen", why);
            None
        }
    }
}
