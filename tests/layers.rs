//! The architecture as a test: which module names which, and what each must never contain.
//!
//! The map is the header of `src/lib.rs`; here is what it promises. Comments and what is only compiled for tests do not count.

use std::{fs, path::Path};

const WORDS: &[&str] = &["lsn", "retry", "metrics", "varint", "clock", "lease", "failpoint", "sim"];
const MEANING: &[&str] = &["schema"];
const TRAVELLERS: &[&str] = &["change", "progress", "stored"];
/// What both ends stand on: sockets, TLS, secrets.
const NET: &[&str] = &["net"];
const STATUS: &[&str] = &["status"];
/// The three rooms between which data passes; they never name each other.
const SOURCE: &[&str] = &["pg"];
const SHAPE: &[&str] = &["route", "encode"];
const SINK: &[&str] = &["batch", "sink"];
const RUN: &[&str] = &["pipeline", "ha", "app", "tail"];
const CONFIG: &[&str] = &["config"];
const SHELL: &[&str] = &["telemetry", "admin", "notify", "shell", "cli"];

/// Each module and whom it may name besides itself; bottom first.
const MAY_NAME: &[(&str, &[&[&str]])] = &[
    ("lsn", &[]),
    ("retry", &[]),
    ("metrics", &[]),
    ("varint", &[]),
    ("clock", &[&["sim"]]),
    ("lease", &[&["clock", "sim"]]),
    ("failpoint", &[]),
    ("sim", &[]),
    ("schema", &[&["lsn"]]),
    ("change", &[WORDS, MEANING]),
    ("progress", &[WORDS, MEANING]),
    ("stored", &[WORDS, MEANING]),
    ("status", &[&["lsn"]]),
    ("net", &[&["retry", "sim"]]),
    ("pg", &[WORDS, MEANING, TRAVELLERS, NET]),
    ("route", &[WORDS, MEANING, TRAVELLERS]),
    ("encode", &[WORDS, MEANING, TRAVELLERS, &["route"]]),
    ("batch", &[WORDS, MEANING, TRAVELLERS]),
    ("sink", &[WORDS, MEANING, TRAVELLERS, NET, &["batch"]]),
    ("pipeline", &[WORDS, MEANING, TRAVELLERS, NET, STATUS, SOURCE, SHAPE, SINK]),
    ("ha", &[WORDS, MEANING, NET, STATUS, SOURCE]),
    ("app", &[WORDS, MEANING, TRAVELLERS, NET, STATUS, SOURCE, SHAPE, SINK, &["pipeline", "ha"]]),
    ("tail", &[WORDS, MEANING, TRAVELLERS, NET, STATUS, SOURCE, SHAPE, SINK, &["pipeline", "app"]]),
    // The `Options` of everyone below, and of the two of the shell that have keys.
    ("config", &[WORDS, MEANING, NET, SOURCE, SHAPE, SINK, RUN, &["telemetry", "admin"]]),
    ("telemetry", &[WORDS]),
    ("admin", &[WORDS, STATUS]),
    ("notify", &[STATUS]),
    (
        "shell",
        &[WORDS, STATUS, NET, SOURCE, SHAPE, SINK, RUN, CONFIG, &["telemetry", "admin", "notify"]],
    ),
    ("cli", &[WORDS, STATUS, NET, SOURCE, SHAPE, SINK, RUN, CONFIG, SHELL]),
];

/// Files that decide and never do: time, chance and bytes come in as arguments.
const PLAIN: &[&str] = &[
    "src/lsn.rs",
    "src/retry.rs",
    "src/metrics.rs",
    "src/varint.rs",
    "src/schema.rs",
    "src/change.rs",
    "src/progress.rs",
    "src/stored.rs",
    "src/status.rs",
    "src/route",
    "src/encode",
    "src/batch",
    "src/pg/reader.rs",
    "src/pg/copy_data.rs",
    "src/pg/pgoutput.rs",
    "src/pg/relations.rs",
    "src/pg/timeline.rs",
    "src/pg/sqlstate.rs",
    "src/sink/partition.rs",
    "src/sink/kafka/wire",
    "src/sink/kafka/codes.rs",
    "src/sink/kafka/metadata.rs",
];

/// Where, what, and why it is no breach.
const EXCUSED: &[(&str, &str, &str)] = &[
    (
        "src/tail.rs",
        "KeyFormat::Json",
        "an option of the encoder by its name; nothing is written by tail itself",
    ),
    (
        "src/pipeline/records.rs",
        "ALTER TABLE {} REPLICA IDENTITY FULL",
        "what a person is to type; nothing here sends it",
    ),
];

#[test]
fn each_module_names_only_those_below_it() {
    let mut wrong = Vec::new();
    for file in sources() {
        let module = file.module();
        let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| *name == module) else {
            if !matches!(module, "main" | "lib") {
                wrong.push(format!("{}: {module} is not listed here", file.path));
            }
            continue;
        };
        for name in file.names_modules() {
            if name != module && !allowed.iter().any(|group| group.contains(&name.as_str())) {
                wrong.push(format!("{}: crate::{name}", file.path));
            }
        }
    }
    none(&wrong);
}

#[test]
fn every_module_of_the_crate_has_its_place() {
    let lib = sources().into_iter().find(|file| file.path == "src/lib.rs").expect("there is one");
    let module = |line: &str| {
        let line = line.trim().strip_suffix(';')?;
        let name = line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ")?;
        Some(name.to_owned())
    };
    let mut declared: Vec<String> = lib.code.lines().filter_map(module).collect();
    let mut listed: Vec<&str> = MAY_NAME.iter().map(|(name, _)| *name).collect();
    declared.sort_unstable();
    listed.sort_unstable();
    assert_eq!(listed, declared);
}

#[test]
fn what_decides_does_no_io_and_has_no_clock() {
    let mut wrong = Vec::new();
    let files = sources();
    for file in files.iter().filter(|file| PLAIN.iter().any(|place| file.is_in(place))) {
        for word in ["async", "await", "tokio", "rand", "File", "TcpStream", "UnixStream"] {
            file.forbid_name(word, &mut wrong);
        }
        for call in ["Instant::now", "SystemTime::now"] {
            file.forbid_text(&file.code, call, &mut wrong);
        }
        for module in names_after(&file.code, "std::") {
            if matches!(module.as_str(), "fs" | "net" | "env" | "process" | "thread") {
                wrong.push(format!("{}: std::{module}", file.path));
            }
        }
    }
    for file in files
        .iter()
        .filter(|file| matches!(file.module(), "schema" | "change" | "progress" | "stored"))
    {
        file.forbid_name("tracing", &mut wrong);
    }
    none(&wrong);
}

/// Tokio's can be turned by the simulator; who waits by the one and looks at the other goes round in circles.
#[test]
fn who_waits_has_one_clock() {
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|file| matches!(file.module(), "pipeline" | "sink")) {
        file.forbid_text(&file.code, "std::time::Instant::now", &mut wrong);
    }
    none(&wrong);
}

#[test]
fn the_source_does_not_know_where_its_changes_go() {
    none(&words(&["pg"], &["kafka", "topic", "topics", "json"]));
}

#[test]
fn the_sink_does_not_know_where_its_records_come_from() {
    let words = words(
        &["batch", "sink"],
        &["relation", "relations", "slot", "slots", "pg", "postgres", "postgresql", "publication"],
    );
    none(&words);
}

#[test]
fn the_shape_knows_neither_end() {
    none(&words(&["route", "encode"], &["sink", "rskafka", "postgres", "broker", "socket"]));
}

#[test]
fn who_runs_it_speaks_neither_sql_nor_json_nor_a_protocol() {
    const SQL: &[&str] = &[
        "SELECT",
        "INSERT",
        "UPDATE",
        "DELETE",
        "CREATE",
        "ALTER",
        "DROP",
        "FROM",
        "WHERE",
        "BEGIN",
        "COMMIT",
        "COPY",
        "START_REPLICATION",
        "IDENTIFY_SYSTEM",
    ];
    let mut wrong = words(RUN, &["json"]);
    for file in sources().iter().filter(|file| RUN.contains(&file.module())) {
        for text in &file.strings {
            for word in text.split(|c: char| !(c.is_alphanumeric() || c == '_')) {
                if SQL.contains(&word) {
                    wrong.push(format!("{}: {word} in {text:?}", file.path));
                }
            }
        }
        for tag in &file.bytes {
            if tag.starts_with(|c: char| c.is_ascii_alphabetic()) {
                wrong.push(format!("{}: b'{tag}'", file.path));
            }
        }
    }
    none(&wrong);
}

#[test]
fn unsafe_code_is_in_one_file() {
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|file| file.path != "src/net/lowat.rs") {
        file.forbid_name("unsafe", &mut wrong);
        file.forbid_name("unsafe_code", &mut wrong);
    }
    none(&wrong);
}

/// Each of `forbidden` in the names and texts of `modules`: `SlotLost` and `slot_lost` both have the word slot, `jsonb` is not json.
fn words(modules: &[&str], forbidden: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|file| modules.contains(&file.module())) {
        let texts = file.strings.iter().map(String::as_str).chain([file.code.as_str()]);
        for word in texts.flat_map(words_of) {
            if forbidden.contains(&word.as_str()) {
                wrong.push(format!("{}: the word {word}", file.path));
            }
        }
    }
    wrong.dedup();
    wrong
}

#[track_caller]
fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "not as the map in src/lib.rs has it:\n{}", wrong.join("\n"));
}

/// A file of `src/`, without what does not count.
struct Source {
    /// From the crate's root, with slashes.
    path: String,
    /// Texts and characters are empty in it.
    code: String,
    strings: Vec<String>,
    /// What stood in `b'…'`.
    bytes: Vec<String>,
}

impl Source {
    /// `src/pg/frame.rs` belongs to `pg`.
    fn module(&self) -> &str {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        path.split('/').next().unwrap_or(path).trim_end_matches(".rs")
    }

    /// Whether it is this file, or in this folder, or the folder's own file.
    fn is_in(&self, place: &str) -> bool {
        self.path
            .strip_prefix(place)
            .is_some_and(|rest| matches!(rest, "" | ".rs") || rest.starts_with('/'))
    }

    /// Every module of the crate that it names, by `crate::` or by enough `super::`.
    fn names_modules(&self) -> Vec<String> {
        let depth = self.path.trim_end_matches("/mod.rs").matches('/').count();
        let up = "super::".repeat(depth);
        let mut names = names_after(&self.code, "crate::");
        names.extend(names_after(&self.code, &up).into_iter().filter(|name| name != "super"));
        names
    }

    fn forbid_name(&self, word: &str, wrong: &mut Vec<String>) {
        let mut names = self.code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        if names.any(|name| name == word) {
            wrong.push(format!("{}: {word}", self.path));
        }
    }

    fn forbid_text(&self, code: &str, text: &str, wrong: &mut Vec<String>) {
        if code.contains(text) {
            wrong.push(format!("{}: {text}", self.path));
        }
    }
}

/// Every file of `src/` but those of tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut sources) = (vec![root.join("src")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs")
                && !path.ends_with("tests.rs")
                && !path.parent().is_some_and(|folder| folder.ends_with("tests"))
            {
                sources.push(source(root, &path));
            }
        }
    }
    assert!(sources.len() > 20, "that is not all of src");
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn source(root: &Path, path: &Path) -> Source {
    let text = fs::read_to_string(path).expect("a source is text");
    let name = path.strip_prefix(root).expect("it is below").to_string_lossy().replace('\\', "/");
    let mut file = parse(name, &text);
    for (_, what, _) in EXCUSED.iter().filter(|(at, ..)| *at == file.path) {
        let texts = file.strings.iter_mut().chain([&mut file.code]);
        let mut found: Vec<_> = texts.filter(|text| text.contains(what)).collect();
        assert!(
            !found.is_empty(),
            "{path} needs no excuse for {what} any more",
            path = path.display()
        );
        found.iter_mut().for_each(|text| **text = text.replace(what, ""));
    }
    file
}

/// Leaves out comments and each item under `#[cfg(test)]`.
fn parse(path: String, text: &str) -> Source {
    let mut file = Source { path, code: String::new(), strings: Vec::new(), bytes: Vec::new() };
    let (mut test, mut depth) = (false, 0_usize);
    for token in tokens(text) {
        match token {
            Token::Code(code) => {
                for c in code.chars() {
                    if !test {
                        file.code.push(c);
                        test = c == ']' && file.code.ends_with("#[cfg(test)]");
                        continue;
                    }
                    depth = if c == '{' { depth + 1 } else { depth - usize::from(c == '}') };
                    test = depth > 0 || !matches!(c, '}' | ';');
                }
            }
            Token::String(text) if !test => file.strings.push(text.to_owned()),
            Token::Byte(byte) if !test => file.bytes.push(byte.to_owned()),
            Token::String(_) | Token::Byte(_) | Token::Other => {}
        }
    }
    file
}

/// A piece of Rust, as far as we have to tell pieces apart.
enum Token<'a> {
    Code(&'a str),
    /// What is between the quotes.
    String(&'a str),
    /// What is in `b'…'`.
    Byte(&'a str),
    /// A comment or a character.
    Other,
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut start, mut at, mut before) = (Vec::new(), 0, 0, ' ');
    while let Some(c) = text[at..].chars().next() {
        if let Some((length, token)) = literal(&text[at..], before) {
            tokens.extend([Token::Code(&text[start..at]), token]);
            (at, before) = (at + length, ' ');
            start = at;
        } else {
            (at, before) = (at + c.len_utf8(), c);
        }
    }
    tokens.push(Token::Code(&text[start..]));
    tokens
}

/// What begins here and is no code, with its length; `before` is the character before it.
fn literal(text: &str, before: char) -> Option<(usize, Token<'_>)> {
    let until = |end: &str| text.find(end).unwrap_or(text.len());
    match text.as_bytes() {
        [b'/', b'/', ..] => Some((until("\n"), Token::Other)),
        [b'/', b'*', ..] => Some((until("*/") + 2, Token::Other)),
        [b'"', ..] => {
            let length = closed(text, '"')?;
            Some((length, Token::String(&text[1..length - 1])))
        }
        [b'b', b'\'', ..] if !is_name(before) => {
            let length = closed(&text[1..], '\'')? + 1;
            Some((length, Token::Byte(&text[2..length - 1])))
        }
        [b'\'', b'\\', ..] => Some((closed(text, '\'')?, Token::Other)),
        [b'\'', ..] => {
            let c = text[1..].chars().next()?; // else it is a lifetime
            text[1 + c.len_utf8()..].starts_with('\'').then_some((c.len_utf8() + 2, Token::Other))
        }
        [b'r', b'"' | b'#', ..] if before == 'b' || !is_name(before) => {
            let quoted = text[1..].trim_start_matches('#');
            let hashes = text.len() - 1 - quoted.len();
            let quoted = quoted.strip_prefix('"')?; // else it is a raw name
            let length = quoted.find(&format!("\"{}", "#".repeat(hashes)))?;
            Some((length + 3 + 2 * hashes, Token::String(&quoted[..length])))
        }
        _ => None,
    }
}

/// The length of a literal with its quotes.
fn closed(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().skip(1).find_map(|(at, c)| {
        let end = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        end.then_some(at + 1)
    })
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Lower-case words: a name in its humps.
fn words_of(text: &str) -> Vec<String> {
    let (mut words, mut word, mut before) = (Vec::new(), String::new(), ' ');
    for c in text.chars() {
        let hump = c.is_uppercase() && before.is_lowercase();
        if (hump || !c.is_alphanumeric()) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
        before = c;
    }
    words.push(word);
    words
}

/// The first name of every `root::name` and of every branch of `root::{name, name::x}`.
fn names_after(code: &str, root: &str) -> Vec<String> {
    let name = |text: &str| -> String { text.chars().take_while(|c| is_name(*c)).collect() };
    let mut names = Vec::new();
    for (at, _) in code.match_indices(root) {
        if code[..at].ends_with(|c| is_name(c) || c == ':') {
            continue;
        }
        let after = &code[at + root.len()..];
        let Some(list) = after.strip_prefix('{') else {
            names.push(name(after));
            continue;
        };
        let (mut depth, mut at_start) = (1, true);
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => at_start = true,
                _ if at_start && is_name(c) => {
                    names.push(name(&list[at..]));
                    at_start = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    names
}

#[test]
fn the_test_itself_sees_what_it_must() {
    let text = r##"
use crate::{a::{b, c}, d, e::F}; // crate::g
/* crate::h */ const X: &str = "crate::i \" {"; const C: char = '"'; fn f<'a>(x: &'a str) -> u8 { b'w' }
#[cfg(test)]
mod tests { use crate::j; fn g() { let s = "}"; } }
const R: &str = r#"crate::k " "#; fn h() { crate::l::m(); super::super::n::o(); }
#[cfg(test)] use crate::p;
fn q() { let c = '\''; crate::r() }
"##;
    let file = parse("src/x/y.rs".to_owned(), text);
    assert_eq!(file.names_modules(), ["a", "d", "e", "l", "r", "n"]);
    assert_eq!(file.strings, ["crate::i \\\" {", "crate::k \" "]);
    assert_eq!(file.bytes, ["w"]);
    assert_eq!(words_of("SlotLost to_jsonb"), ["slot", "lost", "to", "jsonb"]);
}
