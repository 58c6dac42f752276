//! What a dashboard finds at `/metrics`.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::Pgsluice;
use crate::world::{LIMIT, World, kafka, postgres};

/// Every metric, with its type. Dashboards hold on to these names.
const METRICS: &[(&str, &str)] = &[
    ("pgsluice_active_info", "gauge"),
    ("pgsluice_already_stored_total", "counter"),
    ("pgsluice_batches_total", "counter"),
    ("pgsluice_build_info", "gauge"),
    ("pgsluice_commit_to_ack_seconds", "histogram"),
    ("pgsluice_could_take_over", "gauge"),
    ("pgsluice_heartbeat_pending_seconds", "gauge"),
    ("pgsluice_heartbeat_seconds", "histogram"),
    ("pgsluice_heartbeats_total", "counter"),
    ("pgsluice_in_flight_bytes", "gauge"),
    ("pgsluice_in_flight_limit_bytes", "gauge"),
    ("pgsluice_kafka_transactions_total", "counter"),
    ("pgsluice_keyless_relations_total", "counter"),
    ("pgsluice_lag_bytes", "gauge"),
    ("pgsluice_lag_seconds", "gauge"),
    ("pgsluice_open_transactions", "gauge"),
    ("pgsluice_phantoms_total", "counter"),
    ("pgsluice_foreign_offsets_total", "counter"),
    ("pgsluice_producer_resets_total", "counter"),
    ("pgsluice_received_bytes_total", "counter"),
    ("pgsluice_reconnects_total", "counter"),
    ("pgsluice_records_total", "counter"),
    ("pgsluice_retries_total", "counter"),
    ("pgsluice_role", "gauge"),
    ("pgsluice_rows_nowhere_total", "counter"),
    ("pgsluice_rows_total", "counter"),
    ("pgsluice_slot_inactive_seconds", "gauge"),
    ("pgsluice_slot_invalidated", "gauge"),
    ("pgsluice_slot_oldest_transaction_age", "gauge"),
    ("pgsluice_slot_oldest_transaction_seconds", "gauge"),
    ("pgsluice_slot_retained_bytes", "gauge"),
    ("pgsluice_slot_safe_wal_bytes", "gauge"),
    ("pgsluice_slot_stale", "gauge"),
    ("pgsluice_slot_unconfirmed_bytes", "gauge"),
    ("pgsluice_slot_waits_for_standby", "gauge"),
    ("pgsluice_slot_wal_status", "gauge"),
    ("pgsluice_split_transactions_total", "counter"),
    ("pgsluice_stale_timestamps_total", "counter"),
    ("pgsluice_stored_bytes_total", "counter"),
    ("pgsluice_take_overs_total", "counter"),
    ("pgsluice_throttled_seconds", "gauge"),
    ("pgsluice_transactions_total", "counter"),
];

/// What has no unit: it is counted, or says which.
const UNITLESS: &[&str] = &[
    "pgsluice_active_info",
    "pgsluice_build_info",
    "pgsluice_could_take_over",
    "pgsluice_open_transactions",
    "pgsluice_role",
    "pgsluice_slot_invalidated",
    "pgsluice_slot_oldest_transaction_age",
    "pgsluice_slot_stale",
    "pgsluice_slot_waits_for_standby",
    "pgsluice_slot_wal_status",
];

/// The type of each metric that has a sample, all of which must have been explained before.
#[track_caller]
fn scrape(process: &Pgsluice) -> BTreeMap<String, String> {
    let (status, body) = process.http("/metrics").unwrap();
    assert_eq!(status, 200);
    let (mut helped, mut types) = (BTreeSet::new(), BTreeMap::new());
    let mut found = BTreeMap::new();
    for line in body.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').expect(line);
            assert!(!text.trim().is_empty(), "{line}");
            assert!(helped.insert(name.to_owned()), "twice: {line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect(line);
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
        } else {
            let sample = line.split(['{', ' ']).next().unwrap();
            let whole = ["_bucket", "_sum", "_count"].iter().find_map(|part| {
                let name = sample.strip_suffix(part)?;
                types.get(name).filter(|kind| *kind == "histogram").map(|_| name)
            });
            let name = whole.unwrap_or(sample);
            assert!(helped.contains(name), "no HELP before {line}");
            let kind = types.get(name).unwrap_or_else(|| panic!("no TYPE before {line}"));
            let value = line.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
            found.insert(name.to_owned(), kind.clone());
        }
    }
    found
}

#[test]
fn every_metric_is_there_from_the_start_with_help_type_and_base_unit() {
    let metrics: BTreeMap<String, String> =
        METRICS.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect();
    for (name, kind) in METRICS.iter().filter(|(name, _)| !UNITLESS.contains(name)) {
        let counted = name.ends_with("_total");
        assert_eq!(counted, *kind == "counter", "{name} is a {kind}");
        assert!(counted || name.ends_with("_bytes") || name.ends_with("_seconds"), "{name}");
    }
    let pg = postgres(17);
    let world = World::published(pg, kafka(), "metrics", "create table t(id int primary key)");
    // It cannot connect: nothing has happened yet.
    let nowhere = "postgres.url=postgres://cdc_user@no-such-host.invalid/x?sslmode=disable";
    let mut process = world.spawn(&world.name, &[nowhere]);
    process.wait_log(LIMIT, &["no-such-host.invalid"]);
    assert_eq!(scrape(&process), metrics);
    assert_eq!(process.stop(LIMIT), 0);
    let mut process = world.spawn(&world.name, &[]);
    world.sql("insert into t values (1); update t set id = 2; truncate t");
    world.wait_confirmed(&world.name, &mut process);
    assert_eq!(scrape(&process), metrics);
    assert_eq!(process.metric("pgsluice_rows_total", &["\"c\""]), 1.0);
    assert!(process.metric("pgsluice_commit_to_ack_seconds_count", &[]) >= 1.0);
    assert_eq!(process.stop(LIMIT), 0);
}
