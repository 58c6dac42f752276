//! Our `quote_ident` against PostgreSQL's own, on the oldest and the newest: names in headers, hints and SQL are written by it.

mod support;

use pgsluice::schema::quote_ident;
use support::{Ports, Postgres};

/// What is quoted for another reason than being a word of SQL, and what is not quoted at all.
const ODD: &[&str] = &[
    "",
    "a",
    "A",
    "users",
    "Users",
    "uSers",
    "a1",
    "1a",
    "_",
    "_1",
    "$",
    "a$",
    "a b",
    " ",
    "a.b",
    "a-b",
    "a\"b",
    "\"",
    "\"\"",
    "'",
    "a'b",
    "\\",
    "a\\nb",
    "a\nb",
    "\t",
    "ä",
    "größe",
    "Größe",
    "名前",
    "\u{1f600}",
    "SELECT",
    "Select",
    "select_",
    "selects",
    "pg_catalog",
    "zone",
    "\u{7f}",
    "a{b}",
    "%s",
    "é\u{301}",
];

/// Words of SQL since 16 or 17: we quote them for every server.
const NEW_WORDS: &[&str] = &["json", "json_table", "merge_action", "system_user"];

fn as_postgresql_does(version: u8, port: u16) {
    let server = Postgres::start(version, port, &[]);
    let words = server.sql("select word from pg_get_keywords() order by 1");
    assert!(words.lines().count() > 400, "PostgreSQL {version} has more keywords than that");
    let new: &[&str] = if version >= 17 { NEW_WORDS } else { &[] };
    let names: Vec<&str> = words.lines().chain(ODD.iter().chain(new).copied()).collect();
    let literals: Vec<String> =
        names.iter().map(|name| format!("('{}')", name.replace('\'', "''"))).collect();
    // Hexadecimal, as psql prints a line feed as it is.
    let quoted = server.sql(&format!(
        "select encode(convert_to(quote_ident(name), 'UTF8'), 'hex') from (values {}) as _(name)",
        literals.join(",")
    ));
    let quoted: Vec<&str> = quoted.lines().collect();
    assert_eq!(quoted.len(), names.len());
    for (name, theirs) in names.into_iter().zip(quoted) {
        let ours: String = quote_ident(name).bytes().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(ours, theirs, "{name:?} on PostgreSQL {version}");
    }
}

#[test]
fn postgresql_14_quotes_the_same_names() {
    as_postgresql_does(14, Ports::QUOTE_IDENT.postgres(0));
}

#[test]
fn postgresql_18_quotes_the_same_names() {
    as_postgresql_does(18, Ports::QUOTE_IDENT.postgres(1));
}
