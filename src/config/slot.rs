//! `[publication]` and `[slot]` → the options of `pg::slot` and `ha`.

use std::{collections::BTreeSet, time::Duration};

use super::{
    kind::{Value, quoted},
    postgres::{LONGEST_STATUS, check_name},
    settings::Settings,
};
use crate::{
    ha,
    pg::slot::{Failover, PublicationOptions, SlotOptions},
};

pub(super) fn publication(s: &mut Settings) -> PublicationOptions {
    let names = s.list("publication.name");
    if s.is_set("publication.name") && names.is_empty() {
        s.wrong("publication.name", "is an empty list");
    }
    let mut seen = BTreeSet::new();
    for name in &names {
        check_name(s, "publication.name", name);
        if !seen.insert(name) {
            s.wrong("publication.name", format!("lists {} twice", quoted(name)));
        }
    }
    let tables = s.list("publication.tables");
    for table in &tables {
        if !table
            .split_once('.')
            .is_some_and(|(schema, name)| !schema.is_empty() && !name.is_empty())
        {
            s.wrong(
                "publication.tables",
                format!("lists {}, which is no schema.table", quoted(table)),
            );
        }
    }
    let operations = s.list("publication.operations");
    let known = ["insert", "update", "delete", "truncate"];
    for operation in operations.iter().filter(|operation| !known.contains(&operation.as_str())) {
        s.wrong(
            "publication.operations",
            format!("lists {}, which is none of {}", quoted(operation), known.join(" ")),
        );
    }
    let create = s.on("publication.create");
    let via_partition_root = s.on("publication.via_partition_root");
    PublicationOptions { names, create, tables, operations, via_partition_root }
}

pub(super) fn slot(s: &mut Settings) -> SlotOptions {
    let name = s.word("slot.name");
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if s.is_set("slot.name") {
        check_name(s, "slot.name", &name);
        if !name.chars().all(good) {
            let why = format!(
                "is {}; PostgreSQL takes lower-case letters, digits and underscores",
                quoted(&name)
            );
            s.wrong("slot.name", why);
        }
    }
    let failover = match s.word("slot.failover").as_str() {
        "true" => Failover::On,
        "false" => Failover::Off,
        _ => Failover::Auto,
    };
    SlotOptions { name, create: s.on("slot.create"), failover }
}

pub(super) fn ha(s: &mut Settings) -> ha::Options {
    ha::Options {
        check_interval: s.span("slot.check_interval"),
        take_over_after: take_over_after(s),
        lock: true,
    }
}

/// Before the walsender gives up by itself, and not because one status came late.
fn take_over_after(s: &mut Settings) -> Option<Duration> {
    let after = s.span("slot.take_over_after");
    let timeout = s.span("postgres.wal_sender_timeout");
    // What is wrong with it is said where it belongs.
    let status = if s.is_set("postgres.status_interval") {
        s.span("postgres.status_interval")
    } else {
        (timeout / 3).min(LONGEST_STATUS)
    };
    let status = if status.is_zero() { LONGEST_STATUS } else { status };
    if after.is_zero() {
        return None;
    }
    if after < 2 * status {
        let least = Value::Span(2 * status);
        let why =
            format!("must be 0s, for never, or at least {least}, two postgres.status_interval");
        s.wrong("slot.take_over_after", why);
    } else if !timeout.is_zero() && after >= timeout {
        let most = Value::Span(timeout);
        let why =
            format!("must be less than postgres.wal_sender_timeout ({most}), which ends it anyway");
        s.wrong("slot.take_over_after", why);
    }
    Some(after)
}
