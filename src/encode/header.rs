//! A record's headers, and among them its own name.

use std::{io::Write as _, ops::Range};

use crate::change::{Op, Position, Transaction};

use super::{Header, Image, Source, Template, template::Known, time};

/// Which of the records that one change makes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// The only one, or the first: its name is the change's.
    Whole,
    /// `.1`: the null value after a delete.
    Tombstone,
    /// `.2`: the new row of an update that changed the key.
    NewRow,
    /// A truncate's, one a partition.
    Partition(i32),
}

/// What the headers of one record tell.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// What was done. The old row of a key change is a delete.
    pub op: Op,
    /// Where the change stands.
    pub position: Position,
    /// Which of its records this is.
    pub part: Part,
    /// Its transaction.
    pub transaction: &'a Transaction,
    /// Its table; `None`: a logical message.
    pub table: Option<&'a Template>,
    /// The row whose value [`Encoder::value`](super::Encoder::value) said is not whole.
    pub left_out: Option<Image<'a>>,
    /// A logical message's prefix.
    pub prefix: Option<&'a str>,
}

/// The headers of one record. Used again for the next, so that none of them allocates.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    entries: Vec<(&'static str, Range<usize>)>,
    bytes: Vec<u8>,
    /// What the names of all records of one transaction begin with, and which transaction's it is.
    begin: Vec<u8>,
    begin_of: Option<(Source, Position)>,
}

impl Headers {
    /// Each header's name and value, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'static str, &[u8])> + Clone {
        self.entries
            .iter()
            .map(|(name, range)| (*name, self.bytes.get(range.clone()).unwrap_or_default()))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn fill(&mut self, wanted: &[Header], source: Source, stamp: &Stamp<'_>) {
        self.entries.clear();
        self.bytes.clear();
        for header in wanted {
            match header {
                Header::Op => self.add("op", |out| out.extend(stamp.op.letter().as_bytes())),
                Header::Id => self.id(source, stamp),
                Header::Table => {
                    if let Some(table) = stamp.table {
                        self.add("table", |out| out.extend_from_slice(table.table.as_bytes()));
                    }
                }
                Header::Lsn => self.add("lsn", |out| show(out, stamp.position.commit)),
                Header::Xid => self.add("xid", |out| show(out, stamp.transaction.xid)),
                Header::Ts => {
                    self.add("ts", |out| time::rfc3339(stamp.transaction.committed_at, out));
                }
            }
        }
        if let (Some(table), Some(image)) = (stamp.table, stamp.left_out) {
            self.add("unchanged", |out| left_out(table, image, out));
        }
        if let Some(prefix) = stamp.prefix {
            self.add("prefix", |out| out.extend_from_slice(prefix.as_bytes()));
        }
    }

    fn add(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.entries.push((name, start..self.bytes.len()));
    }

    /// `<source 16>-<timeline 8>-<commit LSN 16>-<index 8>[.<part>]`, in lower-case hex of fixed
    /// width, so that names sort as commits do. All but the index is the same for a transaction.
    fn id(&mut self, source: Source, stamp: &Stamp<'_>) {
        let position = stamp.position;
        let of = Some((source, Position { index: 0, ..position }));
        if self.begin_of != of {
            self.begin.clear();
            hex::<16>(source.get(), &mut self.begin);
            self.begin.push(b'-');
            hex::<8>(position.timeline.into(), &mut self.begin);
            self.begin.push(b'-');
            hex::<16>(position.commit.get(), &mut self.begin);
            self.begin.push(b'-');
            self.begin_of = of;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&self.begin);
        hex::<8>(position.index.into(), &mut self.bytes);
        match stamp.part {
            Part::Whole => {}
            Part::Tombstone => self.bytes.extend_from_slice(b".1"),
            Part::NewRow => self.bytes.extend_from_slice(b".2"),
            Part::Partition(partition) => {
                self.bytes.push(b'.');
                show(&mut self.bytes, partition);
            }
        }
        self.entries.push(("id", start..self.bytes.len()));
    }
}

fn show(out: &mut Vec<u8>, what: impl std::fmt::Display) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{what}");
}

/// The lowest `N` hex digits of `number`.
fn hex<const N: usize>(number: u64, out: &mut Vec<u8>) {
    let mut digits = [b'0'; N];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        let nibble = (rest & 15) as u8;
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        rest >>= 4;
    }
    out.extend_from_slice(&digits);
}

/// A JSON array of the columns that the value leaves out as unchanged.
fn left_out(table: &Template, image: Image<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    for (at, (column, cell)) in table.columns.iter().zip(image.row.cells()).enumerate() {
        if image.resolve(column, at, cell) == Known::Unchanged {
            out.push(if out.len() == start { b'[' } else { b',' });
            out.extend_from_slice(column.quoted_name());
        }
    }
    if out.len() == start {
        out.push(b'[');
    }
    out.push(b']');
}
