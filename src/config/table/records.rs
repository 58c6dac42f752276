//! Records, batches, and the process itself.

use super::{GIB, KIB, Key, Kind::*, MIN, NONE, Preset::Is, key};

/// In the order of a first file.
pub(super) const KEYS: &[Key] = &[
    key("format.value", Words(&["row"]), Is("row"), "shape of a record's value"),
    key(
        "format.key",
        Words(&["auto", "json"]),
        Is("auto"),
        "one key column: its text, several: a JSON object; json: always an object",
    ),
    key("format.tombstones", Bool, Is("false"), "whether a delete is followed by a null value"),
    key("format.numeric", Words(&["string", "number"]), Is("string"), "how a numeric is written"),
    key("headers", Names, Is("[\"op\", \"id\"]"), "of op id table lsn xid ts"),
    key(
        "truncate",
        Text,
        Is("table"),
        "where a truncate goes: table (its topic), skip, or a topic's name",
    ),
    key("message.topic", Text, NONE, "topic of logical messages; none: they go nowhere, counted"),
    key(
        "message.prefixes",
        Names,
        Is("[]"),
        "prefixes of logical messages that are taken; none: all",
    ),
    key(
        "batch.linger",
        Span(0, MIN),
        Is("5ms"),
        "how long the first record of a batch waits for company",
    ),
    key("batch.max_bytes", Size(KIB, GIB), Is("1MiB"), "bytes in one batch, before compression"),
    key("batch.max_records", Whole(1, 1_000_000), Is("10000"), "records in one batch"),
    key(
        "batch.in_flight",
        Size(4 * KIB, 64 * GIB),
        Is("8MiB"),
        "bytes in open and unacknowledged batches, every copy counted; above it nothing is read",
    ),
    key(
        "admin.listen",
        Text,
        Is("127.0.0.1:8081"),
        "HTTP for /metrics /livez /readyz /status; \"\": off",
    ),
    key(
        "log.level",
        Text,
        Is("info"),
        "error warn info debug trace, or a filter such as info,pgsluice::sink=debug",
    ),
    key(
        "log.format",
        Words(&["auto", "text", "json"]),
        Is("auto"),
        "auto: text on a terminal, JSON elsewhere",
    ),
    key("run.drain", Span(0, 60 * MIN), Is("10s"), "longest wait for acks at shutdown"),
];
