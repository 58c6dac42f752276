//! A stream of pgoutput messages, as far as it makes sense, and what the encoder makes of its rows.
//! Each: `length (2) │ message`.
//!
//! A row has as many cells as its table has columns, positions only grow, and what is written is
//! appended.

#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use pgsluice::{
    change::{Change, Position},
    encode::{Encoder, Image, KeyFormat, Numeric, Options, Source},
    lsn::Lsn,
    pg::{
        catalog::RelationFacts,
        copy_data::XLogData,
        pgoutput,
        relations::{Event, Questions, Relations},
        timeline::Timelines,
    },
    schema::PgType,
};

fuzz_target!(|input: &[u8]| {
    let mut relations = new();
    let mut last = None;
    let (mut rest, mut wal) = (input, 0);
    while let [high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (body, tail) = tail.split_at(length);
        (rest, wal) = (tail, wal + 8);
        let Ok(message) = pgoutput::decode(body) else { continue };
        let wal = XLogData { start: Lsn::new(wal), end: Lsn::new(wal), clock: 7, body };
        match relations.apply(message, &wal) {
            Ok(Event::Change(change)) => {
                forwards(&mut last, change.position);
                row(&change);
            }
            Ok(Event::Truncate { first, .. }) => forwards(&mut last, first),
            Ok(Event::Relation(questions)) => answer(&mut relations, &questions),
            Ok(_) => {}
            Err(error) => {
                // Nothing that follows can be trusted: a new connection.
                let _ = error.to_string();
                (relations, last) = (new(), None);
            }
        }
    }
});

fn new() -> Relations {
    Relations::new(Timelines::single(1))
}

fn forwards(last: &mut Option<Position>, now: Position) {
    assert!(last.is_none_or(|last| last <= now), "{last:?}, then {now:?}");
    *last = Some(now);
}

/// What a catalog might say: the key is the columns with an even number.
fn answer(relations: &mut Relations, questions: &Questions) {
    let Some(relation) = relations.get(questions.oid) else { panic!("it was just described") };
    let even = relation.columns.iter().step_by(2).map(|column| column.name.to_string());
    let kinds = [PgType::Numeric, PgType::Json, PgType::Text, PgType::TimestampTz];
    let types = questions.types.iter().copied().zip(kinds.into_iter().cycle());
    let primary_key = questions.primary_key.then(|| even.collect());
    let facts =
        RelationFacts { primary_key, types: types.collect::<HashMap<_, _>>(), gone: vec![] };
    relations.learn(questions.oid, &facts);
}

fn row(change: &Change<'_>) {
    let relation = change.relation;
    let rows = [change.after, change.before.row()];
    for row in rows.into_iter().flatten() {
        assert_eq!(row.cells().count(), relation.columns.len());
    }
    assert!(relation.key.is_sorted());
    for key in [KeyFormat::Auto, KeyFormat::Json] {
        let options =
            Options { numeric: Numeric::Number, key, tombstones: true, headers: Vec::new() };
        let encoder = Encoder::new(options, Source::new(7, "slot", &[]));
        let template = encoder.template(relation, &relation.key);
        let new = change.after.map(|row| Image::new(row, change.before));
        for image in [new, Image::old(change.before)].into_iter().flatten() {
            for write in [Encoder::key, Encoder::value] {
                let mut out = b"before".to_vec();
                let _ = write(&encoder, &template, image, &mut out).map_err(|e| e.to_string());
                assert!(out.starts_with(b"before"));
            }
        }
    }
}
