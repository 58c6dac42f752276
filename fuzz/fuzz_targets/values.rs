//! One value: `type (1) │ text`. Whatever the text, what is written is JSON, but for a json value, which PostgreSQL has
//! checked; and a text comes back as it was.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use pgsluice::{
    encode::{self, Numeric},
    schema::PgType,
};
use serde::de::IgnoredAny;

fuzz_target!(|input: &[u8]| {
    let Some((kind, text)) = input.split_first() else { return };
    let numeric = if kind & 0x80 == 0 { Numeric::Number } else { Numeric::String };
    let kind = kind_of(kind & 0x7f);
    let mut out = b"[".to_vec();
    let written = encode::write_value(&kind, numeric, text, &mut out);
    assert_eq!(out.first(), Some(&b'['));
    if written.is_err() {
        return;
    }
    out.push(b']');
    assert!(std::str::from_utf8(&out).is_ok(), "{kind:?}: no UTF-8");
    if !holds_json(&kind) {
        let json = serde_json::from_slice::<IgnoredAny>(&out);
        assert!(json.is_ok(), "{kind:?}: {json:?}");
    }
    if kind == PgType::Text {
        let [back] = serde_json::from_slice::<[String; 1]>(&out).expect("one text");
        assert_eq!(back.as_bytes(), text);
    }
});

/// Every type, then arrays of each by comma, semicolon and space, then arrays of arrays.
fn kind_of(number: u8) -> PgType {
    let array =
        |element: u8, delimiter| PgType::Array { element: Arc::new(kind_of(element)), delimiter };
    match number {
        0 => PgType::Bool,
        1 => PgType::Integer,
        2 => PgType::Float,
        3 => PgType::Numeric,
        4 => PgType::Date,
        5 => PgType::Timestamp,
        6 => PgType::TimestampTz,
        7 => PgType::Json,
        8..=15 => PgType::Text,
        16..=31 => array(number - 16, b','),
        32..=47 => array(number - 32, b';'),
        48..=63 => array(number - 48, b' '),
        _ => array(number - 64, b','),
    }
}

fn holds_json(kind: &PgType) -> bool {
    match kind {
        PgType::Json => true,
        PgType::Array { element, .. } => holds_json(element),
        _ => false,
    }
}
