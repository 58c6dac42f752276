mod headers;

use proptest::prelude::*;

use super::*;
use crate::{
    change::{Before, Cell, Op, Position, Row, Span, Transaction},
    lsn::Lsn,
    schema::{self, PgType, ReplicaIdentity},
};

/// A row's bytes and where its cells are in them.
struct Cells(Vec<u8>, Vec<Span>);

impl Cells {
    fn new(cells: &[Cell<'_>]) -> Self {
        let mut data = Vec::new();
        let spans = cells.iter().map(|cell| match cell {
            Cell::Null => Span::Null,
            Cell::Unchanged => Span::Unchanged,
            Cell::Text(text) => {
                let at = data.len() as u32;
                data.extend_from_slice(text);
                Span::Text(at, text.len() as u32)
            }
        });
        let spans = spans.collect();
        Self(data, spans)
    }

    fn row(&self) -> Row<'_> {
        Row::new(&self.0, &self.1)
    }
}

fn t(text: &str) -> Cell<'_> {
    Cell::Text(text.as_bytes())
}

/// `id int` (the identity), `name text`, `big "qu\"ote" numeric`.
fn relation() -> Relation {
    let column = |name: &str, identity, kind| schema::Column {
        name: name.into(),
        type_oid: 0,
        identity,
        kind,
    };
    Relation {
        oid: 1,
        namespace: "public".into(),
        name: "Users".into(),
        identity: ReplicaIdentity::Default,
        columns: [
            column("id", true, PgType::Integer),
            column("name", false, PgType::Text),
            column("qu\"ote", false, PgType::Numeric),
        ]
        .into(),
        key: [0].into(),
    }
}

fn encoder(key: KeyFormat) -> Encoder {
    let options = Options { numeric: Numeric::String, key, tombstones: false, headers: vec![] };
    Encoder::new(options, Source::new(1, "s", &[]))
}

fn value(image: Image<'_>) -> (String, bool) {
    let encoder = encoder(KeyFormat::Auto);
    let mut out = b"before".to_vec();
    let whole = encoder.value(&encoder.template(&relation(), &[0]), image, &mut out).unwrap();
    (String::from_utf8(out).unwrap().split_off("before".len()), whole)
}

fn key(format: KeyFormat, columns: &[usize], image: Image<'_>) -> Result<Option<String>, Error> {
    let encoder = encoder(format);
    let mut out = Vec::new();
    let some = encoder.key(&encoder.template(&relation(), columns), image, &mut out)?;
    Ok(some.then(|| String::from_utf8(out).unwrap()))
}

#[test]
fn a_row_is_an_object_in_the_order_of_its_columns() {
    let row = Cells::new(&[t("42"), Cell::Null, t("12.50")]);
    let (json, whole) = value(Image::new(row.row(), Before::Nothing));
    assert_eq!(json, r#"{"id":42,"name":null,"qu\"ote":"12.50"}"#);
    assert!(whole);
}

#[test]
fn a_table_without_columns_is_an_empty_object() {
    let encoder = encoder(KeyFormat::Auto);
    let relation = Relation { columns: [].into(), key: [].into(), ..relation() };
    let (cells, mut out) = (Cells::new(&[]), Vec::new());
    let template = encoder.template(&relation, &[]);
    encoder.value(&template, Image::new(cells.row(), Before::Nothing), &mut out).unwrap();
    assert_eq!(out, b"{}");
}

#[test]
fn an_unchanged_value_is_left_out_unless_the_old_row_has_it() {
    let row = Cells::new(&[t("1"), Cell::Unchanged, t("2")]);
    let left = r#"{"id":1,"qu\"ote":"2"}"#.to_owned();
    assert_eq!(value(Image::new(row.row(), Before::Nothing)), (left.clone(), false));
    let old = Cells::new(&[t("1"), t("long"), Cell::Null]);
    let filled = r#"{"id":1,"name":"long","qu\"ote":"2"}"#.to_owned();
    assert_eq!(value(Image::new(row.row(), Before::Row(old.row()))), (filled, true));
    // An old key does not tell of columns that are not in it.
    assert_eq!(value(Image::new(row.row(), Before::Key(old.row()))), (left, false));
}

#[test]
fn an_unchanged_first_or_only_column_leaves_a_whole_object() {
    let row = Cells::new(&[Cell::Unchanged, Cell::Unchanged, t("2")]);
    assert_eq!(value(Image::new(row.row(), Before::Nothing)).0, r#"{"qu\"ote":"2"}"#);
    let row = Cells::new(&[Cell::Unchanged; 3]);
    assert_eq!(value(Image::new(row.row(), Before::Nothing)).0, "{}");
}

#[test]
fn an_old_key_tells_of_the_identity_alone_and_an_old_row_of_everything() {
    let old = Cells::new(&[t("1"), Cell::Null, Cell::Null]);
    let key = Image::old(Before::Key(old.row())).unwrap();
    assert_eq!(value(key), (r#"{"id":1}"#.into(), true));
    let row = Image::old(Before::Row(old.row())).unwrap();
    assert_eq!(value(row), (r#"{"id":1,"name":null,"qu\"ote":null}"#.into(), true));
    assert!(Image::old(Before::Nothing).is_none());
}

#[test]
fn a_key_is_its_text_or_an_object_in_the_order_asked_for() {
    let row = Cells::new(&[t("42"), t("a\"b"), Cell::Null]);
    let image = Image::new(row.row(), Before::Nothing);
    assert_eq!(key(KeyFormat::Auto, &[0], image), Ok(Some("42".into())));
    assert_eq!(key(KeyFormat::Auto, &[1], image), Ok(Some("a\"b".into())));
    assert_eq!(key(KeyFormat::Auto, &[], image), Ok(None));
    assert_eq!(key(KeyFormat::Json, &[], image), Ok(None));
    assert_eq!(key(KeyFormat::Json, &[0], image), Ok(Some(r#"{"id":42}"#.into())));
    let both = r#"{"name":"a\"b","id":42}"#.to_owned();
    assert_eq!(key(KeyFormat::Auto, &[1, 0], image), Ok(Some(both)));
}

#[test]
fn a_null_is_null_in_an_object_and_no_key_alone() {
    let row = Cells::new(&[t("42"), Cell::Null, Cell::Null]);
    let image = Image::new(row.row(), Before::Nothing);
    assert_eq!(key(KeyFormat::Auto, &[1], image), Ok(None));
    assert_eq!(key(KeyFormat::Json, &[1], image), Ok(Some(r#"{"name":null}"#.into())));
    assert_eq!(key(KeyFormat::Auto, &[0, 1], image), Ok(Some(r#"{"id":42,"name":null}"#.into())));
}

#[test]
fn an_empty_key_is_a_key() {
    let row = Cells::new(&[t("1"), t(""), Cell::Null]);
    let image = Image::new(row.row(), Before::Nothing);
    assert_eq!(key(KeyFormat::Auto, &[1], image), Ok(Some(String::new())));
}

#[test]
fn an_unchanged_key_is_taken_from_the_old_key() {
    let row = Cells::new(&[Cell::Unchanged, t("a"), Cell::Null]);
    let old = Cells::new(&[t("7"), Cell::Null, Cell::Null]);
    let image = Image::new(row.row(), Before::Key(old.row()));
    assert_eq!(key(KeyFormat::Auto, &[0], image), Ok(Some("7".into())));
}

#[test]
fn a_key_that_was_not_sent_is_an_error_that_says_what_to_do() {
    let old = Cells::new(&[t("7"), Cell::Null, Cell::Null]);
    let image = Image::old(Before::Key(old.row())).unwrap();
    let error = key(KeyFormat::Auto, &[1], image).unwrap_err();
    assert_eq!(error.disposition(), Disposition::Halt(Exit::Data));
    let text = error.to_string();
    assert!(text.contains(r#"ALTER TABLE public."Users" REPLICA IDENTITY FULL"#), "{text}");
    assert!(text.contains("\"name\"") && !text.contains('7'), "{text}");
}

#[test]
fn an_update_has_another_key_only_if_the_old_one_was_sent_and_differs() {
    let template = encoder(KeyFormat::Auto).template(&relation(), &[0, 1]);
    let new = Cells::new(&[t("2"), t("b"), Cell::Null]);
    let same = Cells::new(&[t("2"), t("b"), t("1")]);
    let id = Cells::new(&[t("1"), t("b"), Cell::Null]);
    let name = Cells::new(&[t("2"), Cell::Null, Cell::Null]);
    for (before, rekeyed) in [
        (Before::Nothing, false),
        (Before::Key(id.row()), true),
        (Before::Key(name.row()), false), // NULL there means: not told
        (Before::Row(name.row()), true),
        (Before::Row(same.row()), false),
    ] {
        assert_eq!(template.rekeyed(before, new.row()), rekeyed, "{before:?}");
    }
    let toast = Cells::new(&[Cell::Unchanged, t("b"), Cell::Null]);
    assert!(!template.rekeyed(Before::Key(id.row()), toast.row()));
}

#[test]
fn an_error_names_table_and_column_leaves_the_buffer_and_shows_no_value() {
    let encoder = encoder(KeyFormat::Json);
    let template = encoder.template(&relation(), &[1]);
    let row = Cells::new(&[t("1"), Cell::Text(b"secret\xFF"), Cell::Null]);
    let image = Image::new(row.row(), Before::Nothing);
    let mut out = b"kept".to_vec();
    for error in [
        encoder.value(&template, image, &mut out).unwrap_err(),
        encoder.key(&template, image, &mut out).unwrap_err(),
    ] {
        assert_eq!(error.to_string(), r#"column "name" of public."Users" is not UTF-8"#);
        assert_eq!(out, b"kept");
    }
}

#[test]
fn a_row_of_another_relation_is_refused() {
    let encoder = encoder(KeyFormat::Auto);
    let template = encoder.template(&relation(), &[0]);
    let row = Cells::new(&[t("1"), t("2")]);
    let image = Image::new(row.row(), Before::Nothing);
    let error = encoder.value(&template, image, &mut Vec::new()).unwrap_err();
    assert_eq!(error, Error::Columns { table: r#"public."Users""#.into(), expected: 3, found: 2 });
    assert_eq!(encoder.key(&template, image, &mut Vec::new()), Err(error));
}

fn transaction() -> Transaction {
    Transaction { xid: 7, commit: Lsn::new(0x16_B374_D848), committed_at: 0, timeline: 3 }
}

fn kinds() -> impl Strategy<Value = PgType> {
    let leaf = prop_oneof![
        Just(PgType::Bool),
        Just(PgType::Integer),
        Just(PgType::Float),
        Just(PgType::Numeric),
        Just(PgType::Date),
        Just(PgType::Timestamp),
        Just(PgType::TimestampTz),
        Just(PgType::Text),
    ];
    leaf.prop_recursive(2, 4, 1, |element| {
        (element, prop_oneof![Just(b','), Just(b';'), Just(b' ')])
            .prop_map(|(element, delimiter)| PgType::Array { element: element.into(), delimiter })
    })
}

/// What looks enough like an array, a number or a time to get past the first byte.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        r#"[\[\]{}",;\\0-9:=eE+\-. tfNULé\n]{0,24}"#,
        r#"\{("[a-z\\"]{0,6}"|[0-9a-z]{1,3}|NULL)(,[0-9tf]{1,3}){0,3}\}"#,
        r"[0-9]{4,6}-[0-9]{2}-[0-9]{2}( [0-9:.]{8,12}([+-][0-9]{2}(:[0-9]{2})?)?)?( BC)?",
    ]
}

proptest! {
    #[test]
    fn any_text_of_any_type_is_json_or_an_error(kind in kinds(), number: bool, text in texts()) {
        let numeric = if number { Numeric::Number } else { Numeric::String };
        let mut out = Vec::new();
        if write_value(&kind, numeric, text.as_bytes(), &mut out).is_ok() {
            let json = std::str::from_utf8(&out).unwrap();
            prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(json).is_ok(), "{json}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic(kind in kinds(), bytes: Vec<u8>) {
        let _ = write_value(&kind, Numeric::Number, &bytes, &mut Vec::new());
    }

    #[test]
    fn an_array_of_texts_comes_back_as_it_was(texts: Vec<Option<String>>) {
        let mut array = String::from("{");
        for text in &texts {
            if array.len() > 1 {
                array.push(',');
            }
            match text {
                None => array.push_str("NULL"),
                Some(text) => {
                    array.push('"');
                    array.push_str(&text.replace('\\', r"\\").replace('"', "\\\""));
                    array.push('"');
                }
            }
        }
        array.push('}');
        let kind = PgType::Array { element: PgType::Text.into(), delimiter: b',' };
        let mut out = Vec::new();
        write_value(&kind, Numeric::String, array.as_bytes(), &mut out).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Vec<Option<String>>>(&out).unwrap(), texts);
    }
}
