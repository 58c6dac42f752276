//! A record's headers, and among them its own name.

use std::{io::Write as _, ops::Range};

use crate::{
    change::{Op, Position, Transaction},
    lsn::Lsn,
    varint,
};

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

impl Part {
    /// What stands behind the point in the name, if anything does.
    #[must_use]
    pub fn number(self) -> Option<u32> {
        match self {
            Self::Whole => None,
            Self::Tombstone => Some(1),
            Self::NewRow => Some(2),
            Self::Partition(number) => Some(number.unsigned_abs()),
        }
    }
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

/// The headers of one record, as a record holds them. Used again for the next of the same
/// [`Encoder`](super::Encoder), so that none of them allocates.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    /// Names, and where their values stand in `block`.
    entries: Vec<(&'static str, Range<usize>)>,
    block: Vec<u8>,
    /// What these were made of, if the next may be the same but for the index in its name.
    same: Option<Same>,
    /// Where that index stands in `block`, and the entry `table`.
    index: Option<usize>,
    table: Option<usize>,
}

/// What all the records of one transaction and operation have in common, but for their table's name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Same {
    timeline: u32,
    commit: Lsn,
    xid: u32,
    committed_at: i64,
    op: Op,
    of_table: bool,
}

impl Same {
    fn of(stamp: &Stamp<'_>) -> Option<Self> {
        let Position { timeline, commit, .. } = stamp.position;
        let Transaction { xid, committed_at, .. } = *stamp.transaction;
        let plain = stamp.part == Part::Whole && stamp.left_out.is_none() && stamp.prefix.is_none();
        let (op, of_table) = (stamp.op, stamp.table.is_some());
        plain.then_some(Self { timeline, commit, xid, committed_at, op, of_table })
    }
}

impl Headers {
    /// Each header's name and value, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'static str, &[u8])> + Clone {
        self.entries.iter().map(|(name, range)| (*name, self.value(range)))
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

    /// All of them as they stand in a record: of each the length of its name, its name, the length
    /// of its value, its value. Lengths are [`varint`]s.
    #[must_use]
    pub fn block(&self) -> &[u8] {
        &self.block
    }

    fn value(&self, range: &Range<usize>) -> &[u8] {
        self.block.get(range.clone()).unwrap_or_default()
    }

    pub(super) fn fill(&mut self, wanted: &[Header], source: Source, stamp: &Stamp<'_>) {
        let Stamp { op, position, transaction, .. } = *stamp;
        let same = Same::of(stamp);
        if same.is_some() && self.same == same && self.is_of(stamp.table) {
            if let Some(digits) =
                self.index.and_then(|at| self.block.get_mut(at..)?.first_chunk_mut())
            {
                *digits = hex(position.index);
            }
            return;
        }
        self.entries.clear();
        self.block.clear();
        (self.same, self.index, self.table) = (same, None, None);
        for header in wanted {
            match header {
                Header::Op => self.add("op", |out| out.extend(op.letter().as_bytes())),
                Header::Id => self.id(source, stamp),
                Header::Table => {
                    if let Some(table) = stamp.table {
                        self.table = Some(self.entries.len());
                        self.add("table", |out| out.extend_from_slice(table.table.as_bytes()));
                    }
                }
                Header::Lsn => self.add("lsn", |out| show(out, position.commit)),
                Header::Xid => self.add("xid", |out| show(out, transaction.xid)),
                Header::Ts => self.add("ts", |out| time::rfc3339(transaction.committed_at, out)),
            }
        }
        if let (Some(table), Some(image)) = (stamp.table, stamp.left_out) {
            self.add("unchanged", |out| left_out(table, image, out));
        }
        if let Some(prefix) = stamp.prefix {
            self.add("prefix", |out| out.extend_from_slice(prefix.as_bytes()));
        }
    }

    /// Whether what they say of a table, if anything, is true of this one.
    fn is_of(&self, table: Option<&Template>) -> bool {
        match self.table.and_then(|at| self.entries.get(at)) {
            Some((_, range)) => table.is_some_and(|t| t.table.as_bytes() == self.value(range)),
            None => true,
        }
    }

    fn add(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        varint::put(&mut self.block, name.len() as i64);
        self.block.extend_from_slice(name.as_bytes());
        let start = self.block.len();
        write(&mut self.block);
        // The length goes before the value: its bytes are appended, and brought to the front.
        let length = self.block.len() - start;
        varint::put(&mut self.block, length as i64);
        let width = self.block.len() - start - length;
        if let Some(value) = self.block.get_mut(start..) {
            value.rotate_right(width);
        }
        self.entries.push((name, start + width..self.block.len()));
    }

    /// `<source 16>-<timeline 8>-<commit LSN 16>-<index 8>[.<part>]`, in lower-case hex of fixed
    /// width, so that names sort as commits do. All but the index is the same for a transaction.
    fn id(&mut self, source: Source, stamp: &Stamp<'_>) {
        const BEFORE_INDEX: usize = 16 + 1 + 8 + 1 + 16 + 1;
        let position = stamp.position;
        self.add("id", |out| {
            out.extend(hex_long(source.get()));
            out.push(b'-');
            out.extend(hex(position.timeline));
            out.push(b'-');
            out.extend(hex_long(position.commit.get()));
            out.push(b'-');
            out.extend(hex(position.index));
            match stamp.part {
                Part::Whole => {}
                Part::Tombstone => out.extend(b".1"),
                Part::NewRow => out.extend(b".2"),
                Part::Partition(partition) => {
                    out.push(b'.');
                    show(out, partition);
                }
            }
        });
        self.index = self.entries.last().map(|(_, value)| value.start + BEFORE_INDEX);
    }
}

fn show(out: &mut Vec<u8>, what: impl std::fmt::Display) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{what}");
}

fn hex_long(number: u64) -> impl Iterator<Item = u8> {
    hex((number >> 32) as u32).into_iter().chain(hex(number as u32))
}

/// Eight lower-case hex digits: each nibble into a byte of its own, and all of them made digits at
/// once.
const fn hex(number: u32) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut nibbles = number as u64;
    nibbles = (nibbles | nibbles << 16) & 0x0000_ffff_0000_ffff;
    nibbles = (nibbles | nibbles << 8) & 0x00ff_00ff_00ff_00ff;
    nibbles = (nibbles | nibbles << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = ((nibbles + 6 * ONES) >> 4) & ONES; // 1 where the nibble is 10 or more
    let digits = nibbles + b'0' as u64 * ONES + letters * (b'a' - b'0' - 10) as u64;
    digits.to_be_bytes()
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

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn hex_is_that_of_the_standard_library(number: u32, long: u64) {
            let text = |digits: &[u8]| String::from_utf8(digits.to_vec()).unwrap();
            proptest::prop_assert_eq!(text(&hex(number)), format!("{number:08x}"));
            let digits: Vec<u8> = hex_long(long).collect();
            proptest::prop_assert_eq!(text(&digits), format!("{long:016x}"));
        }
    }
}
