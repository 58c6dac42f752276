//! The database itself is the reference: every value must come out as its own `to_json` prints it.
//!
//! Each case is a type and some expressions of it. The server is asked for the text output, which
//! is what pgoutput sends, and for `to_json`; our encoder gets the text and what the catalog says of
//! the type, and has to print the same bytes. So does a whole row.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::collections::BTreeMap;

use pgsluice::{
    change::{Before, Row, Span},
    encode::{self, Encoder, Image, KeyFormat, Numeric, Source},
    schema::{Column, PgType, Relation, ReplicaIdentity},
};
use support::{Ports, Postgres};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, SimpleQueryRow};

/// Every value of it, and arrays of them.
struct Case {
    kind: &'static str,
    /// SQL expressions, cast to `kind`.
    values: &'static [&'static str],
    reference: Reference,
}

/// What a value is compared with.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Reference {
    ToJson,
    /// The exceptions: composites, and types with a cast of their own to json.
    Text,
}

const fn case(kind: &'static str, values: &'static [&'static str]) -> Case {
    Case { kind, values, reference: Reference::ToJson }
}

const fn text(kind: &'static str, values: &'static [&'static str]) -> Case {
    Case { kind, values, reference: Reference::Text }
}

/// Types that a user makes, some of them with names that want quotes.
const SCHEMA: &str = r#"
    create schema "Other";
    create type "Other"."Mood" as enum ('sad', 'a"b', 'ü', 'with space', '', 'NULL', 'it''s\');
    create domain whole as int check (value > -10);
    create domain wholer as whole;
    create domain label as text;
    create domain price as numeric(10,2);
    create domain moment as timestamptz;
    create domain day as date;
    create domain flag as bool;
    create domain document as jsonb;
    create domain labels as text[];
    create domain wholes as whole[];
    create domain moments as moment[];
    create domain feeling as "Other"."Mood";
    create type pair as (a int, "B b" text);
    create type pairs as (first pair, more int[]);
    create type span as range (subtype = float8);
    create domain span_domain as span;
    create extension hstore;
    create extension citext;
    create extension ltree;
    create extension cube;
"#;

const TEXTS: &[&str] = &[
    "''",
    "'a'",
    "' '",
    "'NULL'",
    "'null'",
    "'\"'",
    "'\\'",
    "'\\\"'",
    "'{a,b}'",
    "'a,b;c'",
    "e'\\n'",
    "e'\\u0001\\u0002\\u0003\\u0004\\u0005\\u0006\\u0007\\u0008\\t\\n\\u000b\\u000c\\r\\u000e\\u000f'",
    "(select string_agg(chr(i), '') from generate_series(16, 767) i)",
    "(select string_agg(chr(i), 'x') from generate_series(1, 255) i)",
    "e'\\u2028\\u2029\\u0080\\ufeff\\U0001F600\\U0010FFFF'",
    "repeat('a\"\\é', 250000)",
];

const CASES: &[Case] = &[
    case("bool", &["true", "false"]),
    case("int2", &["-32768", "0", "32767"]),
    case("int4", &["'-2147483648'", "0", "2147483647"]),
    case("int8", &["'-9223372036854775808'", "9007199254740993", "9223372036854775807"]),
    case("float4", FLOATS),
    case("float4", &["'1e-45'", "'3.4028235e38'"]),
    case("float8", FLOATS),
    case("float8", &["'5e-324'", "'2.2250738585072014e-308'", "'-1.7976931348623157e308'"]),
    case("money", &["'-92233720368547758.08'", "0", "1234.5"]),
    case("text", TEXTS),
    case("varchar", TEXTS),
    case("varchar(3)", &["'abc'", "''"]),
    case("char(5)", &["''", "'a'", "'ab\"cd'"]),
    case("name", &["''", "'pg_class'", "'Ü\"'"]),
    case("\"char\"", &["'a'", "'\"'", "''"]),
    case("bytea", &["''", "'\\x00ff5c'", "decode(repeat('ab', 1000), 'hex')"]),
    case("date", DATES),
    case("timestamp", TIMES),
    case("timestamp(0)", TIMES),
    case("timestamptz", TIMES),
    case(
        "timestamptz",
        &["'2026-03-29 02:30:00 Europe/Berlin'", "'1850-01-01 00:00 Europe/Berlin'"],
    ),
    case("time", &["'00:00'", "'24:00'", "'23:59:59.999999'", "'12:00:00.1'"]),
    case("timetz", &["'24:00-15:59:59'", "'12:00+05:30'", "'00:00+00'"]),
    case(
        "interval",
        &[
            "'1 year -2 days 03:04:05.6'",
            "'-1 second'",
            "'0'",
            "'178000000 years'",
            "'-178000000 years'",
            "'1 mon 1 day'",
        ],
    ),
    case("json", JSONS),
    case("json", &["'{\"a\":1, \"a\" :2}'", "e'[1,\\n\\t2 ]'", "' 1.50E+00400 '", r#"'"\u0000"'"#]),
    case("jsonb", JSONS),
    case("jsonpath", &["'$.\"a b\"[*] ? (@ > 1)'"]),
    case("xml", &["'<a b=\"c\">&amp;\\ü</a>'"]),
    case("uuid", &["'00000000-0000-0000-0000-000000000000'", "gen_random_uuid()"]),
    case("inet", &["'192.168.0.1/24'", "'::ffff:1.2.3.4'", "'::/0'"]),
    case("cidr", &["'10.0.0.0/8'", "'2001:db8::/32'"]),
    case("macaddr", &["'08:00:2b:01:02:03'"]),
    case("macaddr8", &["'08:00:2b:01:02:03:04:05'"]),
    case("bit(3)", &["b'101'"]),
    case("varbit", &["b''", "b'1011'"]),
    case("point", &["'(1,-2.5)'", "'(NaN,Infinity)'"]),
    case("line", &["'{1,2,3}'"]),
    case("lseg", &["'[(1,2),(3,4)]'"]),
    case("box", &["'(1,2),(3,4)'", "'(0,0),(0,0)'"]),
    case("path", &["'[(1,2),(3,4)]'", "'((1,2),(3,4))'"]),
    case("polygon", &["'((1,2),(3,4),(5,6))'"]),
    case("circle", &["'<(1,2),3>'"]),
    case("int4range", &["'empty'", "'[1,5)'", "'(,)'", "'[1,]'"]),
    case("int8range", &["'[1,9223372036854775807)'"]),
    case("numrange", &["'[1.50,2.0]'", "'(,Infinity]'"]),
    case("daterange", &["'[2026-01-01,infinity]'", "'[0044-03-15 BC,)'"]),
    case("tsrange", &["'[2026-01-01 10:00,2026-01-02]'"]),
    case("tstzrange", &["'[2026-01-01 10:00+02,)'"]),
    case("int4multirange", &["'{}'", "'{[1,2],[5,9)}'"]),
    case("tstzmultirange", &["'{[2026-01-01 10:00+02,2026-01-02 00:00+00)}'"]),
    case("oid", &["0", "4294967295"]),
    case("xid", &["'4294967295'"]),
    case("xid8", &["'18446744073709551615'"]),
    case("cid", &["'7'"]),
    case("tid", &["'(4294967295,65535)'"]),
    case("pg_lsn", &["'0/0'", "'FFFFFFFF/FFFFFFFF'"]),
    case("pg_snapshot", &["'10:20:10,14,15'"]),
    case("regclass", &["'pg_class'", "0"]),
    case("regtype", &["'\"Other\".\"Mood\"'", "'timestamp with time zone'"]),
    case("regproc", &["'pg_catalog.now'"]),
    case("refcursor", &["'a\"b'"]),
    case("int2vector", &["'1 -2 3'", "''", "'7'"]),
    case("oidvector", &["'1 4294967295'", "''"]),
    case("tsvector", &["$$'a b':1A,2 'it''s':3 'c\\\\d' '\"'$$", "''"]),
    case("tsquery", &["$$'fat' & !('rat' | 'ca t':*A)$$"]),
    case("\"Other\".\"Mood\"", MOODS),
    case("whole", &["-9", "7"]),
    case("wholer", &["7"]),
    case("label", &["''", "'a\"b'", "e'\\u2028'"]),
    case("moment", TIMES),
    case("day", DATES),
    case("flag", &["true", "false"]),
    case("document", JSONS),
    case("labels", &["'{}'", r#"'{a,NULL,"b\"c","NULL"}'"#, "'[3:4]={x,y}'"]),
    case("wholes", &["'{1,NULL,3}'", "'{{1},{2}}'"]),
    case("moments", &["'{2026-11-23 10:00:00.5+01,infinity,0044-03-15 00:00+00 BC}'"]),
    case("feeling", MOODS),
    case("span", &["'[1e20,NaN]'", "'empty'"]),
    case("span_domain", &["'[1,2)'"]),
    case("citext", TEXTS),
    case("ltree", &["'Top.Science'", "''"]),
    case("cube", &["'(1,2),(3,4)'"]),
    // Arrays that the cases above do not make by themselves.
    case("int4[]", &["'{}'", "'{{1,2},{3,NULL}}'", "'[0:1]={1,2}'", "'[-2:-1][5:5]={{1},{2}}'"]),
    case("int4[]", &["'{{{{{{1}}}}}}'", "'{{{{{{1,2}}},{{{3,NULL}}}}}}'"]),
    case(
        "text[]",
        &["'{}'", "array[[' ', ''], [null, 'null']]", "array[array[e'\\n\\t'], array['{}']]"],
    ),
    case("jsonb[]", &["'{}'", r#"array[['"a\"b\\"'::jsonb, '{"a": [1, "}"]}'], [null, 'null']]"#]),
    case("box[]", &["'{}'", "'{(1,2),(3,4);(5,6),(7,8)}'", "array[[null, box '(1,2),(3,4)']]"]),
    case("labels[]", &[r#"array['{a,"b\"\\c"}'::labels, null, '{}', '{"{","}",NULL}']"#]),
    case("wholes[]", &["array['{1,2}'::wholes, '{}']"]),
    case("moments[]", &["array['{2026-11-23 10:00:00.5+01,infinity}'::moments]"]),
    // The exceptions.
    text("pair", &["row(1, 'a\"b')", "row(null, null)", "row(1, e'(\\\\,)\\n')"]),
    text("pairs", &["row(row(1, 'x y'), '{1,NULL}')"]),
    text("hstore", &[r#"'a=>1, "b c"=>NULL, d=>"\"q\""'"#, "''"]),
];

/// Compared twice: as numbers with `to_json` itself, as strings with `to_json` of their text.
const NUMERICS: &[Case] = &[
    case(
        "numeric",
        &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "0",
            "12.50",
            "-0.000000000000000000001",
            "1e1000",
            "repeat('9', 131072)::numeric",
            "('-0.' || repeat('1', 16383))::numeric",
        ],
    ),
    case("numeric(10,2)", &["0", "-12345678.9"]),
    case("price", &["12.5", "-0.01"]),
    case("numeric[]", &["'{}'", "'{{1.50,NaN},{NULL,-Infinity}}'"]),
];

const FLOATS: &[&str] = &[
    "'NaN'",
    "'Infinity'",
    "'-Infinity'",
    "'-0'",
    "0",
    "0.1",
    "1e20",
    "1e-7",
    "123456.789",
    "1e15",
    "1e16",
];

const DATES: &[&str] = &[
    "'infinity'",
    "'-infinity'",
    "'4713-01-01 BC'",
    "'0044-03-15 BC'",
    "'0001-01-01'",
    "'2026-11-23'",
    "'9999-12-31'",
    "'10000-01-01'",
    "'5874897-12-31'",
];

const TIMES: &[&str] = &[
    "'infinity'",
    "'-infinity'",
    "'4713-01-01 00:00:00+00 BC'",
    "'0044-03-15 12:00:00.5+00 BC'",
    "'0001-01-01 00:00:00+00'",
    "'2026-11-23 10:00:00.123456+00'",
    "'2026-11-23 10:00:00+00'",
    "'9999-12-31 23:59:59.999999+00'",
    "'10000-01-01 00:00:00.1+00'",
    "'294276-12-31 23:59:59+00'",
];

const JSONS: &[&str] = &[
    "'null'",
    "'true'",
    "'1'",
    "'12345678901234567890.123456789e10'",
    "'\"a\\\"\\u2028\\n\"'",
    "'{}'",
    "'[]'",
    "'{\"a\": [1, {\"b\": null}], \"é😀\": \"\\\\\"}'",
    "(repeat('[', 100) || repeat(']', 100))::json",
];

const MOODS: &[&str] = &["'sad'", "'a\"b'", "'ü'", "'with space'", "''", "'NULL'", "'it''s\\'"];

/// Expressions of `i`, for a few thousand values by chance.
const BULK: &[(&str, &str)] = &[
    ("int8", "(random() * 1.8e19 - 9e18)::int8"),
    ("float8", "(random() - 0.5) * 10 ^ ((random() * 600 - 300)::int)"),
    ("float4", "((random() - 0.5) * 10 ^ ((random() * 60 - 30)::int))::float4"),
    ("date", "date '0001-01-01' + (random() * 6e6 - 1.6e6)::int"),
    ("timestamp", "timestamp 'epoch' + (random() * 2e11 - 1e11) * interval '1 second'"),
    ("timestamptz", "timestamptz 'epoch' + (random() * 2e11 - 1e11) * interval '1 second'"),
    (
        "interval",
        "(random() * 2e9 - 1e9) * interval '1 second' + (i % 40 - 20) * interval '1 month'",
    ),
    (
        "text",
        "array_to_string(array(select chr(1 + (random() * i)::int) from generate_series(1, i % 40)), '')",
    ),
    (
        "text[]",
        "array(select nullif(chr(1 + (random() * i)::int) || repeat('\"\\', k % 3), '!') \
         from generate_series(1, i % 9) k)",
    ),
    (
        "jsonb",
        "jsonb_build_object(chr(32 + i % 200), random(), 'k', array[chr(1 + i), null, '\"'])",
    ),
];

#[tokio::test]
async fn every_type_is_as_postgresql_14_prints_it() {
    compare_all(14, 0).await;
}

#[tokio::test]
async fn every_type_is_as_postgresql_18_prints_it() {
    compare_all(18, 1).await;
}

async fn compare_all(version: u8, port: u16) {
    let server = Postgres::shared(version, Ports::VALUES.postgres(port));
    let client = connect(&server.database("to_json")).await;
    client.batch_execute(SCHEMA).await.unwrap();
    let types = Types::load(&client).await;
    for case in CASES {
        case.compare(&client, &types, Numeric::String).await;
    }
    for case in NUMERICS {
        case.compare(&client, &types, Numeric::Number).await;
        let text = Case { reference: Reference::Text, ..*case };
        text.compare(&client, &types, Numeric::String).await;
    }
    if version >= 17 {
        let case = case("interval", &["'infinity'", "'-infinity'"]);
        case.compare(&client, &types, Numeric::String).await;
    }
    for (kind, expression) in BULK {
        let bulk = format!(
            "select setseed(0.5); select v, to_json(v)::text from \
             (select ({expression})::{kind} from generate_series(1, 3000) i offset 0) t (v)"
        );
        types.compare(&client, kind, &bulk, Numeric::Number).await;
    }
    rows(&client, &types).await;
}

/// With the output styles that the replication connection asks for.
async fn connect(url: &str) -> Client {
    let mut config: tokio_postgres::Config = url.parse().unwrap();
    config.options(
        "-c DateStyle=ISO -c IntervalStyle=postgres -c TimeZone=UTC -c extra_float_digits=1 \
         -c bytea_output=hex",
    );
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn ask(client: &Client, sql: &str) -> Vec<SimpleQueryRow> {
    let messages =
        client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

impl Case {
    async fn compare(&self, client: &Client, types: &Types, numeric: Numeric) {
        let Self { kind, values, reference } = self;
        let as_text = if kind.ends_with("[]") { "v::text[]" } else { "v::text" };
        let json = match reference {
            Reference::ToJson => "v",
            Reference::Text => as_text,
        };
        let rows: Vec<String> = values.iter().map(|v| format!("(({v})::{kind})")).collect();
        let rows = rows.join(", ");
        let sql = format!("select v, to_json({json})::text from (values {rows}) t (v)");
        types.compare(client, kind, &sql, numeric).await;
        if kind.ends_with("[]") || self.is_array(types) {
            return; // An array of these would have to be of one shape.
        }
        let json = match reference {
            Reference::ToJson => "v",
            Reference::Text => "v::text[]",
        };
        let one: Vec<String> = values.iter().map(|v| format!("({v})::{kind}")).collect();
        let one = one.join(", ");
        let sql = format!(
            "select v, to_json({json})::text from (values (array[{one}, null]::{kind}[]), \
             (array[array[{one}], array[{one}]]::{kind}[]), \
             (array_fill(({})::{kind}, array[2, 1], array[0, -7])::{kind}[])) t (v)",
            values.first().unwrap()
        );
        types.compare(client, &format!("{kind}[]"), &sql, numeric).await;
    }

    fn is_array(&self, types: &Types) -> bool {
        matches!(types.names.get(self.kind), Some(oid) if types.is_domain_over_array(*oid))
    }
}

/// What the catalog says of every type.
struct Types {
    kinds: BTreeMap<u32, Type>,
    names: BTreeMap<String, u32>,
}

struct Type {
    base: u32,
    element: u32,
    delimiter: u8,
}

impl Types {
    async fn load(client: &Client) -> Self {
        let sql = "select oid, format_type(oid, null), typbasetype, \
                   case when typsubscript = 'array_subscript_handler'::regproc then typelem else 0 end, \
                   typdelim from pg_type";
        let (mut kinds, mut names) = (BTreeMap::new(), BTreeMap::new());
        for row in ask(client, sql).await {
            let number = |at| row.get(at).unwrap().parse::<u32>().unwrap();
            let delimiter = row.get(4).unwrap().as_bytes()[0];
            kinds.insert(number(0), Type { base: number(2), element: number(3), delimiter });
            names.insert(row.get(1).unwrap().to_owned(), number(0));
        }
        Self { kinds, names }
    }

    /// As the source does it: the built-in ones from our own table, a domain is what it is over.
    fn kind(&self, oid: u32) -> PgType {
        PgType::builtin(oid).unwrap_or_else(|| {
            let found = self.kinds.get(&oid).unwrap();
            match (found.base, found.element) {
                (0, 0) => PgType::Text,
                (0, element) => {
                    PgType::Array { element: self.kind(element).into(), delimiter: found.delimiter }
                }
                (base, _) => self.kind(base),
            }
        })
    }

    fn is_domain_over_array(&self, oid: u32) -> bool {
        self.kinds.get(&oid).is_some_and(|found| {
            found.base != 0 && matches!(self.kind(found.base), PgType::Array { .. })
        })
    }

    /// Compares the two columns that `sql` gives: a value of the type `name`, and its JSON.
    async fn compare(&self, client: &Client, name: &str, sql: &str, numeric: Numeric) {
        let oid = format!("select '{name}'::regtype::oid");
        let oid = ask(client, &oid).await[0].get(0).unwrap().parse().unwrap();
        let kind = self.kind(oid);
        let mut compared = 0;
        for row in ask(client, sql).await.iter().filter(|row| row.len() == 2) {
            let (Some(text), Some(json)) = (row.get(0), row.get(1)) else { continue };
            compared += 1;
            let mut ours = Vec::new();
            encode::write_value(&kind, numeric, text.as_bytes(), &mut ours)
                .unwrap_or_else(|error| panic!("{name} {error}: {}", start(text)));
            let ours = String::from_utf8(ours).unwrap();
            assert!(ours == json, "{name}: {} in place of {}", start(&ours), start(json));
        }
        assert!(compared > 0, "{name}: nothing was compared");
    }
}

/// Enough of a long text to know it by.
fn start(text: &str) -> String {
    text.chars().take(500).collect()
}

/// A table with a column of every type, and a row for each of the values and one of NULLs.
async fn rows(client: &Client, types: &Types) {
    let cases = CASES.iter().chain(NUMERICS);
    let cases: Vec<&Case> = cases.filter(|case| case.reference == Reference::ToJson).collect();
    let name = |at: usize| format!("c{at} \"\\é\n");
    let quoted = |at: usize| format!("\"{}\"", name(at).replace('"', "\"\""));
    let columns: Vec<String> = cases
        .iter()
        .enumerate()
        .map(|(at, case)| format!("{} {}", quoted(at), case.kind))
        .collect();
    let create = format!("create table \"Every\" ({}, gone int)", columns.join(", "));
    client.batch_execute(&create).await.unwrap();
    client.batch_execute("alter table \"Every\" drop gone, add last int default 7").await.unwrap();
    client.batch_execute("insert into \"Every\" (last) values (null)").await.unwrap();
    for row in 0..cases.iter().map(|case| case.values.len()).max().unwrap() {
        let value = |case: &&Case| {
            case.values
                .get(row)
                .map_or_else(|| "null".to_owned(), |v| format!("({v})::{}", case.kind))
        };
        let values: Vec<String> = cases.iter().map(value).collect();
        let insert = format!("insert into \"Every\" values ({})", values.join(", "));
        client.batch_execute(&insert).await.unwrap();
    }
    let relation = relation(client, types).await;
    let options = encode::Options {
        numeric: Numeric::Number,
        key: KeyFormat::Auto,
        tombstones: false,
        headers: Vec::new(),
    };
    let encoder = Encoder::new(options, Source::new(1, "s", &[]));
    let template = encoder.template(&relation, &[]);
    let sql = "select to_json(t.*)::text, t.* from \"Every\" t";
    for row in ask(client, sql).await {
        let cells = (1..row.len()).map(|at| row.get(at));
        let (mut data, mut spans) = (Vec::new(), Vec::new());
        for cell in cells {
            spans.push(cell.map_or(Span::Null, |text| {
                let at = data.len() as u32;
                data.extend_from_slice(text.as_bytes());
                Span::Text(at, text.len() as u32)
            }));
        }
        let mut ours = Vec::new();
        let image = Image::new(Row::new(&data, &spans), Before::Nothing);
        assert!(encoder.value(&template, image, &mut ours).unwrap());
        assert!(ours == row.get(0).unwrap().as_bytes(), "a row differs");
    }
}

async fn relation(client: &Client, types: &Types) -> Relation {
    let sql = "select attname, atttypid from pg_attribute where attrelid = '\"Every\"'::regclass \
               and attnum > 0 and not attisdropped order by attnum";
    let column = |row: &SimpleQueryRow| {
        let type_oid = row.get(1).unwrap().parse().unwrap();
        let name = row.get(0).unwrap().into();
        Column { name, type_oid, identity: false, kind: types.kind(type_oid) }
    };
    Relation {
        oid: 1,
        namespace: "public".into(),
        name: "Every".into(),
        identity: ReplicaIdentity::Nothing,
        columns: ask(client, sql).await.iter().map(column).collect(),
        key: [].into(),
    }
}
