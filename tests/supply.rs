//! What we build on: no C library, one TLS provider, and nothing twice without a reason.
//!
//! `Cargo.lock` says what there is for every platform, cargo what is linked, licensed and doubled on this one. Advisories:
//! `tests/supply.sh`.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

/// What says `links = "…"`, and builds, by its build script and a C compiler, sources of its own into the binary.
const LINKS: &[(&str, &str)] = &[
    ("libmimalloc-sys", "the allocator: musl's costs a third of the rate"),
    ("ring", "cryptography, as rskafka and rustls-webpki bring it anyway"),
];

/// Bindings to what an operating system has itself.
const SYS: &[(&str, &str)] = &[
    ("core-foundation-sys", "macOS: the certificates of the system"),
    ("js-sys", "the web: never built"),
    ("libmimalloc-sys", "its own sources"),
    ("linux-raw-sys", "numbers of system calls; for tests"),
    ("security-framework-sys", "macOS: the certificates of the system"),
    ("web-sys", "the web: never built"),
    ("windows-sys", "Windows"),
];

/// Packages that find or build a C library when something is built with them.
const BUILD_TOOLS: &[&str] = &["bindgen", "cc", "cmake", "gcc", "meson", "pkg-config", "vcpkg"];

/// Who is built with them.
const BUILT_WITH: &[(&str, &str)] = &[
    (
        "generator",
        "of loom, which is only there when tests of crossbeam and the like set cfg(loom)",
    ),
    ("libmimalloc-sys", "cc: its own sources"),
    ("ring", "cc: its own sources"),
];

/// Other implementations of TLS, and the packages that bring one.
const OTHER_TLS: &[&str] = &[
    "aws-lc-fips-sys",
    "aws-lc-rs",
    "aws-lc-sys",
    "boring",
    "boring-sys",
    "gnutls",
    "mbedtls",
    "native-tls",
    "openssl",
    "openssl-sys",
    "rustls-graviola",
    "rustls-rustcrypto",
    "s2n-tls",
    "schannel-tls",
    "wolfssl",
];

/// What is built more than once, and for whom the older ones are.
const TWICE: &[(&str, &str)] = &[
    ("block-buffer", RSASL),
    ("cpufeatures", RSASL),
    ("crypto-common", RSASL),
    ("digest", RSASL),
    ("getrandom", "0.2 for ring and rskafka, 0.3 for metrics-util, 0.4 for postgres-protocol"),
    ("hashbrown", "0.16 for metrics-util, 0.17 for indexmap"),
    ("hmac", RSASL),
    ("rand", "0.8 for rskafka, 0.9 for metrics-util, 0.10 for postgres-protocol"),
    ("rand_chacha", "0.3 for rskafka, 0.9 for metrics-util"),
    ("rand_core", "one for each of rand"),
    ("sha2", RSASL),
    ("syn", "2 for tracing-attributes and thiserror 1, 3 for the others; only while building"),
    ("thiserror", "1 for rskafka"),
    ("thiserror-impl", "1 for rskafka"),
];

const RSASL: &str = "one for rsasl, which rskafka brings, one for postgres-protocol";

#[test]
fn no_crate_links_a_c_library() {
    let lock = lock();
    let sys = lock.keys().filter(|name| name.ends_with("-sys")).cloned();
    same("packages named -sys", sys, SYS);
    let tools = |of: &BTreeSet<String>| BUILD_TOOLS.iter().any(|tool| of.contains(*tool));
    let built = lock.iter().filter(|(_, package)| tools(&package.needs));
    same("packages built with a tool for C", built.map(|(name, _)| name.clone()), BUILT_WITH);
    let packages = packages();
    let links = packages.iter().filter(|package| !package["links"].is_null());
    same("packages that say links", links.map(|p| text(p, "name")), LINKS);
}

#[test]
fn there_is_one_tls_provider() {
    let lock = lock();
    let others: Vec<&&str> = OTHER_TLS.iter().filter(|name| lock.contains_key(**name)).collect();
    assert!(others.is_empty(), "besides ring there is {others:?}");
    assert_eq!(lock.get("ring").map(|ring| ring.versions), Some(1), "ring, once");
    assert_eq!(lock.get("rustls").map(|rustls| rustls.versions), Some(1), "rustls, once");
}

#[test]
fn what_is_there_twice_has_a_reason() {
    let args = ["tree", "-d", "-e", "normal,build", "--prefix", "none", "--depth", "0"];
    let printed = cargo(&args);
    let names = printed.lines().filter_map(|line| line.split_whitespace().next());
    same("packages in cargo tree -d", names.map(str::to_owned), TWICE);
}

#[test]
fn everything_comes_from_the_registry() {
    let sources =
        include_str!("../Cargo.lock").lines().filter(|line| line.starts_with("source = "));
    let other = sources
        .clone()
        .find(|line| *line != "source = \"registry+https://github.com/rust-lang/crates.io-index\"");
    assert!(sources.count() > 100, "that is not all of Cargo.lock");
    assert_eq!(other, None);
}

#[test]
fn every_licence_is_one_that_we_may_ship() {
    let (_, allowed) = include_str!("../.deny.toml").split_once("allow = [").expect("a list");
    let (allowed, _) = allowed.split_once(']').expect("the list ends");
    let allowed: Vec<&str> = allowed.split('"').skip(1).step_by(2).collect();
    for package in packages() {
        let licence = package["license"].as_str().unwrap_or_default().replace('/', " OR ");
        let mut parts = licence.split(" AND ").map(|part| part.trim_matches(['(', ')']));
        let ok = parts.all(|part| part.split(" OR ").any(|one| allowed.contains(&one)));
        assert!(ok, "{} is under {licence:?}", text(&package, "name"));
    }
}

/// Both ways: what is there and not listed is new, what is listed and not there is old.
#[track_caller]
fn same(what: &str, found: impl Iterator<Item = String>, listed: &[(&str, &str)]) {
    let found: BTreeSet<String> = found.collect();
    let listed: BTreeSet<String> = listed.iter().map(|(name, _)| (*name).to_owned()).collect();
    let new: Vec<_> = found.difference(&listed).collect();
    let old: Vec<_> = listed.difference(&found).collect();
    assert!(new.is_empty(), "{what}, and not on the list with a reason: {new:?}");
    assert!(old.is_empty(), "{what}, as the list says, and not there any more: {old:?}");
}

#[derive(Default)]
struct Package {
    versions: usize,
    /// Names, of whatever kind; a registry's package does not lock what only its tests need.
    needs: BTreeSet<String>,
}

/// `Cargo.lock`, by name: the union over versions and platforms.
fn lock() -> BTreeMap<String, Package> {
    let text = include_str!("../Cargo.lock");
    let mut packages = BTreeMap::<String, Package>::new();
    for package in text.split("[[package]]").skip(1) {
        let name = package.lines().find_map(|line| line.strip_prefix("name = "));
        let name = name.expect("a package has a name").trim_matches('"').to_owned();
        let entry = packages.entry(name).or_default();
        entry.versions += 1;
        let needs = package.split_once("dependencies = [").map_or("", |(_, list)| list);
        let needs = needs.lines().map(|line| line.trim().trim_matches([',', '"']));
        entry.needs.extend(needs.filter_map(|line| line.split(' ').next()).map(str::to_owned));
    }
    assert!(packages.len() > 100, "that is not all of Cargo.lock");
    packages
}

/// Every package that can be part of something on this platform, as `cargo metadata` has it.
fn packages() -> Vec<Value> {
    let metadata = cargo(&["metadata", "--format-version=1", "--filter-platform", &host()]);
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo prints JSON");
    let nodes = metadata["resolve"]["nodes"].as_array().expect("a list of nodes");
    let here: BTreeSet<&str> = nodes.iter().filter_map(|node| node["id"].as_str()).collect();
    let packages = metadata["packages"].as_array().expect("a list of packages").iter();
    packages.filter(|p| p["id"].as_str().is_some_and(|id| here.contains(id))).cloned().collect()
}

fn text(package: &Value, field: &str) -> String {
    package[field].as_str().expect("it is a text").to_owned()
}

fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().expect("rustc is there");
    let output = String::from_utf8(output.stdout).expect("rustc prints UTF-8");
    let host = output.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("rustc names its host").to_owned()
}

/// Offline: all that this platform needs was downloaded to build this test.
fn cargo(args: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(args)
        .args(["--locked", "--offline", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo is there");
    assert!(output.status.success(), "cargo: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}
