//! A record's headers, and its name among them.

use proptest::{collection::vec, sample::subsequence};

use super::*;
use crate::stored::Name;

fn stamp(transaction: &Transaction, index: u32, part: Part) -> Stamp<'_> {
    let position = Position { timeline: transaction.timeline, commit: transaction.commit, index };
    Stamp { op: Op::Insert, position, part, transaction, table: None, left_out: None, prefix: None }
}

fn headers(wanted: &[Header], stamp: &Stamp<'_>) -> Vec<(&'static str, String)> {
    let mut encoder = encoder(KeyFormat::Auto);
    encoder.options.headers = wanted.to_vec();
    let mut out = Headers::default();
    encoder.headers(stamp, &mut out);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    out.iter().map(|(name, bytes)| (name, text(bytes))).collect()
}

#[test]
fn headers_stand_in_the_order_of_the_configuration() {
    let transaction = transaction();
    let template = encoder(KeyFormat::Auto).template(&relation(), &[0]);
    let row = Cells::new(&[t("1"), Cell::Unchanged, Cell::Unchanged]);
    let stamp = Stamp {
        op: Op::Update,
        table: Some(&template),
        left_out: Some(Image::new(row.row(), Before::Nothing)),
        ..stamp(&transaction, 255, Part::NewRow)
    };
    use Header::{Id, Lsn, Op as OpHeader, Table, Ts, Xid};
    let source = format!("{:016x}", Source::new(1, "s", &[]).get());
    assert_eq!(
        headers(&[Ts, Xid, Lsn, Table, Id, OpHeader], &stamp),
        [
            ("ts", "2000-01-01T00:00:00.000000Z".into()),
            ("xid", "7".into()),
            ("lsn", "16/B374D848".into()),
            ("table", r#"public."Users""#.into()),
            ("id", format!("{source}-00000003-00000016b374d848-000000ff.2")),
            ("op", "u".into()),
            ("unchanged", r#"["name","qu\"ote"]"#.into()),
        ]
    );
}

#[test]
fn a_message_has_its_prefix_and_no_table() {
    let transaction = transaction();
    let stamp =
        Stamp { op: Op::Message, prefix: Some("outbox"), ..stamp(&transaction, 0, Part::Whole) };
    assert_eq!(
        headers(&[Header::Op, Header::Table], &stamp),
        [("op", "m".to_owned()), ("prefix", "outbox".to_owned())]
    );
}

#[test]
fn every_part_of_a_change_has_a_name_of_its_own() {
    let transaction = transaction();
    let end = |part| {
        let id = headers(&[Header::Id], &stamp(&transaction, 0, part)).remove(0).1;
        id[51..].to_owned()
    };
    let parts = [Part::Whole, Part::Tombstone, Part::NewRow, Part::Partition(12)];
    assert_eq!(parts.map(end), ["", ".1", ".2", ".12"]);
}

/// The buffer is used for many transactions, and must never show one's name under another.
#[test]
fn names_sort_as_committed() {
    let mut encoder = encoder(KeyFormat::Auto);
    encoder.options.headers = vec![Header::Id];
    let mut out = Headers::default();
    let mut names = Vec::new();
    for (timeline, commit, index) in [
        (1, 5, 0),
        (1, 5, 9),
        (1, 5, 10),
        (1, 6, 0),
        (1, u64::MAX, u32::MAX),
        (2, 5, 0),
        (10, 4, 3),
        (u32::MAX, 0, 0),
    ] {
        let transaction = Transaction { timeline, commit: Lsn::new(commit), ..transaction() };
        for part in [Part::Whole, Part::Tombstone, Part::NewRow] {
            encoder.headers(&stamp(&transaction, index, part), &mut out);
            names.extend(out.iter().map(|(_, id)| id.to_vec()));
        }
    }
    assert!(names.is_sorted_by(|a, b| a < b));
}

proptest! {
    #[test]
    fn a_name_is_read_as_it_was_written(
        system: u64, timeline: u32, commit: u64, index: u32, partition in 0..=i32::MAX,
    ) {
        let source = Source::new(system, "s", &[]);
        let options = Options { headers: vec![Header::Id], ..encoder(KeyFormat::Auto).options };
        let encoder = Encoder::new(options, source);
        let mut out = Headers::default();
        let commit = Lsn::new(commit);
        let transaction = Transaction { timeline, commit, ..transaction() };
        let parts = [
            (Part::Whole, None),
            (Part::Tombstone, Some(1)),
            (Part::NewRow, Some(2)),
            (Part::Partition(partition), Some(partition.cast_unsigned())),
        ];
        for (written, part) in parts {
            encoder.headers(&stamp(&transaction, index, written), &mut out);
            let (_, id) = out.iter().next().unwrap();
            let name = Name { source: source.get(), timeline, commit, index, part };
            prop_assert_eq!(Name::parse(id), Some(name));
        }
    }

    /// What was written for the last record is used again: few values, so that most of it is alike.
    #[test]
    fn headers_are_those_of_their_own_record(
        all in vec((0..2_u32, 0..2_u64, 0..2_u32, 0..2_i64, 0..3_u32, 0..3_usize, 0..5, any::<bool>()), 1..30),
        wanted in subsequence(
            vec![Header::Id, Header::Ts, Header::Table, Header::Op, Header::Xid, Header::Lsn], 0..=6
        ),
    ) {
        let mut encoder = encoder(KeyFormat::Auto);
        encoder.options.headers = wanted;
        let tables = ["a", "b"].map(|name| {
            encoder.template(&Relation { name: name.into(), ..relation() }, &[0])
        });
        let row = Cells::new(&[t("1"), Cell::Unchanged, t("2")]);
        let image = Image::new(row.row(), Before::Nothing);
        let mut used = Headers::default();
        for (timeline, commit, xid, committed_at, index, table, kind, update) in all {
            let transaction = Transaction { xid, commit: Lsn::new(commit), committed_at, timeline };
            let plain = stamp(&transaction, index, Part::Whole);
            let plain = Stamp {
                op: if update { Op::Update } else { Op::Insert },
                table: tables.get(table),
                ..plain
            };
            let stamp = match kind {
                0 => Stamp { part: Part::Tombstone, ..plain },
                1 => Stamp { left_out: Some(image), ..plain },
                2 => Stamp { prefix: Some("p"), ..plain },
                _ => plain,
            };
            let mut fresh = Headers::default();
            encoder.headers(&stamp, &mut fresh);
            encoder.headers(&stamp, &mut used);
            prop_assert!(used.iter().eq(fresh.iter()));
            prop_assert_eq!(used.block(), fresh.block());
        }
    }
}
