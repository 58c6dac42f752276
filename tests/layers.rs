//! The architecture as a test: which module may name which, what each must never contain, which
//! crates may compile C, and where `unsafe` may be.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A module, and what it may name besides itself. Bottom first.
const MAY_NAME: &[(&str, &[&str])] = &[
    // 0: words.
    ("lsn", &[]),
    ("retry", &[]),
    ("metrics", &[]),
    // 1: meaning.
    ("schema", &["lsn"]),
    // 2: travellers.
    ("change", WORDS),
    ("progress", WORDS),
    ("status", WORDS),
    // What source and sink both stand on.
    ("net", &["retry"]),
    // 3a: source.
    ("pg", &["lsn", "retry", "metrics", "schema", "change", "progress", "status", "net"]),
    // 3b: shape.
    ("route", &["lsn", "retry", "metrics", "schema", "change", "progress", "status"]),
    ("encode", &["lsn", "retry", "metrics", "schema", "change", "progress", "status", "route"]),
    // 3c: sink.
    ("batch", &["lsn", "retry", "metrics", "schema", "change", "progress", "status"]),
    (
        "sink",
        &["lsn", "retry", "metrics", "schema", "change", "progress", "status", "net", "batch"],
    ),
    // 4: run.
    ("pipeline", BELOW_RUN),
    ("ha", BELOW_RUN),
    ("app", BELOW_RUN),
    ("tail", BELOW_RUN),
    // 5: ops.
    (
        "config",
        &[
            "retry",
            "net",
            "pg",
            "route",
            "encode",
            "batch",
            "sink",
            "pipeline",
            "ha",
            "app",
            "telemetry",
        ],
    ),
];

/// Layers 0 and 1.
const WORDS: &[&str] = &["lsn", "retry", "metrics", "schema"];

/// Layers 0 to 3. What a module of layer 4 may name of its own layer: see [`RUN`].
const BELOW_RUN: &[&str] = &[
    "lsn", "retry", "metrics", "schema", "change", "progress", "status", "net", "pg", "route",
    "encode", "batch", "sink",
];

/// Layer 4: each may name those to its left.
const RUN: &[&str] = &["pipeline", "ha", "app", "tail"];

/// Layer 6, which may name all.
const SHELL: &[&str] = &["admin", "telemetry", "shell", "cli", "main", "lib"];

/// Modules, and the words that their code must not contain, whatever the case and the plural.
const NEVER: &[(&[&str], &[&str])] = &[
    (&["lsn", "retry", "metrics", "schema", "change", "progress", "status"], IO),
    (&["schema", "change", "progress"], &["tracing", "instant", "systemtime"]),
    (&["route", "encode", "batch"], IO),
    (&["pg"], &["kafka", "topic", "serde_json"]),
    (&["batch", "sink"], &["relation", "slot", "pg", "pgoutput", "postgres", "postgresql"]),
    (RUN, &["pg_catalog", "start_replication", "serde_json"]),
];

/// What waits or reaches out of the process.
const IO: &[&str] = &["async", "await", "tokio", "thread", "socket", "net", "fs"];

#[test]
fn every_module_names_only_what_lies_below_it() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let module = module_of(&path);
        if SHELL.contains(&module.as_str()) {
            continue;
        }
        let Some((_, below)) = MAY_NAME.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{module} is not listed in MAY_NAME"));
            continue;
        };
        let left = RUN.iter().take_while(|name| **name != module);
        let left: Vec<_> = left.filter(|_| RUN.contains(&module.as_str())).collect();
        for used in names_after_crate(&code(&text)) {
            let allowed =
                used == module || below.contains(&used.as_str()) || left.contains(&&used.as_str());
            if !allowed {
                wrong.push(format!("{}: crate::{used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "not allowed:\n{}", wrong.join("\n"));
}

#[test]
fn nobody_below_the_shell_names_the_configuration() {
    for (module, below) in MAY_NAME {
        assert!(!below.contains(&"config"), "{module}");
    }
}

#[test]
fn no_layer_contains_what_is_not_its_own() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let module = module_of(&path);
        let code = code(&text);
        let never = NEVER.iter().filter(|(modules, _)| modules.contains(&module.as_str()));
        let never: BTreeSet<_> = never.flat_map(|(_, words)| *words).copied().collect();
        for (at, line) in code.lines().enumerate() {
            for word in words(line).filter(|word| never.contains(word.as_str())) {
                wrong.push(format!("{}:{}: {word}", path.display(), at + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "not of this layer:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_is_in_one_module_only() {
    for (path, text) in sources() {
        let words = code(&text);
        let mut words = words.split(|c: char| !c.is_alphanumeric() && c != '_');
        let has = words.any(|word| word == "unsafe" || word == "unsafe_code");
        assert!(!has || path.ends_with("src/net/lowat.rs"), "unsafe in {}", path.display());
    }
}

/// Crates that compile C of their own, which goes into the binary. Nothing is looked for outside.
const C_OF_OURS: &[&str] = &["ring", "libmimalloc-sys"];

/// Crates by the name of a C library that only declare the kernel's own interface.
const ONLY_DECLARE: &[&str] = &["linux-raw-sys"];

/// What a build script compiles or finds C with.
const COMPILERS: &[&str] =
    &["cc", "cmake", "pkg-config", "vcpkg", "bindgen", "nasm-rs", "autotools"];

#[test]
fn no_crate_links_a_c_library_but_rings_and_mimallocs_own_sources() {
    fn text_of(value: &serde_json::Value) -> String {
        value.as_str().unwrap_or_default().to_owned()
    }
    let metadata = metadata();
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let name_of: BTreeMap<String, String> = list(&metadata["packages"])
        .iter()
        .map(|package| (text_of(&package["id"]), text_of(&package["name"])))
        .collect();
    let mut wrong = BTreeSet::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let name = name_of[&text_of(&node["id"])].as_str();
        let builds_c = list(&node["deps"]).iter().any(|on| {
            let at_build = list(&on["dep_kinds"]).iter().any(|kind| kind["kind"] == "build");
            at_build && COMPILERS.contains(&name_of[&text_of(&on["pkg"])].as_str())
        });
        let known = C_OF_OURS.contains(&name) || ONLY_DECLARE.contains(&name);
        if !known && (builds_c || name.ends_with("-sys")) {
            wrong.insert(name.to_owned());
        }
    }
    for name in C_OF_OURS {
        assert!(name_of.values().any(|known| known == name), "{name} is not used any more");
    }
    assert!(wrong.is_empty(), "these compile or link C: {wrong:?}");
}

#[test]
fn there_is_one_tls_provider() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock is committed");
    let names: BTreeSet<_> =
        lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    assert!(names.contains("ring"));
    for other in ["aws-lc-rs", "aws-lc-sys", "openssl", "openssl-sys", "native-tls", "boring"] {
        assert!(!names.contains(other), "{other} is a second one");
    }
}

#[test]
fn the_table_has_no_cycle() {
    let at: BTreeMap<_, _> =
        MAY_NAME.iter().enumerate().map(|(at, (name, _))| (*name, at)).collect();
    for (module, below) in MAY_NAME {
        for name in below.iter().filter(|name| at.contains_key(*name)) {
            assert!(at[name] < at[module], "{module} may name {name}, which lies above it");
        }
    }
}

#[test]
fn finds_names_in_every_form_of_use() {
    let text =
        "use crate::a::B; use crate::{b::{C, D}, c, d::E as F,}; crate::e::f(); x::crate_::g";
    assert_eq!(names_after_crate(text), ["a", "b", "c", "d", "e"]);
    let text =
        "a // crate::b\n/* crate::c */ \"//\" crate::d\n#[cfg(test)]\nmod tests { crate::e }";
    assert_eq!(names_after_crate(&code(text)), ["d"]);
}

/// The package graph as Cargo resolves it, for the targets that are built and released.
fn metadata() -> serde_json::Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version=1", "--locked", "--offline"]);
    command.args(["--filter-platform", "x86_64-unknown-linux-musl"]);
    let output = command.current_dir(root()).output().expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata failed: {said}");
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

/// The first name of every `crate::name` and of every branch of `crate::{name, name::x}`.
fn names_after_crate(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for after in text.split("crate::").skip(1) {
        let (mut depth, mut at_start) = (0_u32, true);
        for (at, c) in after.char_indices() {
            match c {
                '{' => (depth, at_start) = (depth + 1, depth == 0),
                '}' if depth <= 1 => break,
                '}' => depth -= 1,
                ',' if depth == 1 => at_start = true,
                c if c.is_whitespace() => {}
                _ if at_start => {
                    let rest = after.get(at..).unwrap_or_default();
                    let name = rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next();
                    names.push(name.unwrap_or_default().to_owned());
                    at_start = false;
                }
                _ => {}
            }
            if depth == 0 && !at_start {
                break;
            }
        }
    }
    names
}

/// A source without its comments and without its tests, which stand last. Lines stay where they are.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    while let Some(c) = rest.chars().next() {
        let (skip, keep) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), "")
        } else if rest.starts_with("/*") {
            (rest.find("*/").map_or(rest.len(), |end| end + 2), "")
        } else if c == '"' {
            let end = string_end(rest);
            (end, rest.get(..end).unwrap_or_default())
        } else if rest.starts_with("'\"'") {
            (3, "' '")
        } else {
            (c.len_utf8(), rest.get(..c.len_utf8()).unwrap_or_default())
        };
        let skipped = rest.get(..skip).unwrap_or(rest);
        out.push_str(keep);
        if keep.is_empty() {
            out.extend(skipped.chars().filter(|c| *c == '\n'));
        }
        rest = rest.get(skip..).unwrap_or_default();
    }
    out
}

/// The names in a line, whole and at their underscores, in lower case and without a plural's s.
fn words(line: &str) -> impl Iterator<Item = String> {
    let line = line.to_lowercase();
    let names = line.split(|c: char| !(c.is_alphanumeric() || c == '_')).map(str::to_owned);
    let names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
    let parts: Vec<_> = names.iter().flat_map(|name| name.split('_')).map(str::to_owned).collect();
    let all: BTreeSet<_> = names.into_iter().chain(parts).collect();
    let single = |word: &String| word.strip_suffix('s').map(str::to_owned);
    let singles: Vec<_> = all.iter().filter_map(single).collect();
    all.into_iter().chain(singles)
}

/// Where the string literal ends that `text` begins with.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return at + 1,
            _ => escaped = false,
        }
    }
    text.len()
}

/// `src/pg/frame.rs` belongs to `pg`.
fn module_of(path: &Path) -> String {
    let below = path.strip_prefix(root().join("src")).expect("below src");
    let first = below.components().next().expect("a name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("src is readable") {
            let path = entry.expect("entry is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).expect("source is text");
                all.push((path, text));
            }
        }
    }
    assert!(!all.is_empty());
    all
}
