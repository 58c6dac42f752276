//! XLogData bodies to messages: `pgoutput`, protocol version 1, text format.
//!
//! Pure and zero-copy: a message borrows from the frame. What is not understood is an error, never
//! skipped: a row that we cannot read must not be confirmed.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

use super::reader::Reader;
use crate::{change::Span, lsn::Lsn, schema::ReplicaIdentity};

/// One `pgoutput` message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message<'a> {
    /// `B`: a committed transaction begins.
    Begin {
        /// Where its commit record begins.
        final_lsn: Lsn,
        /// Microseconds since 2000-01-01.
        committed_at: i64,
        /// Transaction id.
        xid: u32,
    },
    /// `C`: it ends.
    Commit {
        /// Where its commit record begins.
        commit_lsn: Lsn,
        /// Where its commit record ends.
        end_lsn: Lsn,
        /// Microseconds since 2000-01-01.
        committed_at: i64,
    },
    /// `O`: the transaction came here by replication.
    Origin {
        /// Name of the origin.
        name: &'a str,
    },
    /// `R`: what a table looks like from here on.
    Relation(RelationMessage<'a>),
    /// `Y`: what a type that is not built in is called; for a domain, its base type.
    Type {
        /// `pg_type.oid`.
        oid: u32,
        /// Schema; empty for `pg_catalog`.
        namespace: &'a str,
        /// Name.
        name: &'a str,
    },
    /// `I`.
    Insert {
        /// Which relation.
        relation: u32,
        /// The new row.
        new: Tuple<'a>,
    },
    /// `U`.
    Update {
        /// Which relation.
        relation: u32,
        /// The old row or key, if it was sent.
        old: Option<OldTuple<'a>>,
        /// The new row.
        new: Tuple<'a>,
    },
    /// `D`.
    Delete {
        /// Which relation.
        relation: u32,
        /// The old row or key.
        old: OldTuple<'a>,
    },
    /// `T`.
    Truncate {
        /// Which relations.
        relations: Vec<u32>,
    },
    /// `M`: `pg_logical_emit_message`.
    Logical {
        /// Whether it belongs to the transaction.
        transactional: bool,
        /// Where its record ends.
        lsn: Lsn,
        /// What it is about.
        prefix: &'a str,
        /// Its bytes.
        content: &'a [u8],
    },
    /// `A`: a streamed transaction is aborted. We never ask for streaming, but servers were seen to
    /// send it all the same; it concerns nothing that we know.
    StreamAbort,
}

/// Body of `R`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RelationMessage<'a> {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Schema; empty for `pg_catalog`.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// Replica identity.
    pub identity: ReplicaIdentity,
    /// Columns, in the order of the rows' cells.
    pub columns: Vec<ColumnMessage<'a>>,
}

/// A column in `R`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ColumnMessage<'a> {
    /// Part of the replica identity.
    pub identity: bool,
    /// Name.
    pub name: &'a str,
    /// `pg_type.oid`.
    pub type_oid: u32,
}

/// An old row, as far as it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OldTuple<'a> {
    /// `K`: the replica identity's columns; the others are NULL.
    Key(Tuple<'a>),
    /// `O`: all of it.
    Row(Tuple<'a>),
}

/// The columns of one row, checked when it was decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tuple<'a> {
    columns: u16,
    cells: &'a [u8],
}

impl<'a> Tuple<'a> {
    /// Number of columns.
    #[must_use]
    pub const fn columns(&self) -> usize {
        self.columns as usize
    }

    /// What [`Self::spans`] point into.
    #[must_use]
    pub const fn data(&self) -> &'a [u8] {
        self.cells
    }

    /// Puts where every cell lies into `spans`, in place of what was there.
    pub fn spans(&self, spans: &mut Vec<Span>) {
        let mut at = 0;
        spans.clear();
        spans.extend((0..self.columns()).map(|_| {
            // The tuple was walked once already: nothing here can fail.
            match Cell::at(self.cells, at) {
                Some(Cell::Text(length)) => {
                    // A message is below 4 GiB, as its length is a u32.
                    let text = Span::Text((at + TEXT) as u32, length);
                    at += TEXT + length as usize;
                    text
                }
                Some(Cell::Unchanged) => {
                    at += 1;
                    Span::Unchanged
                }
                Some(Cell::Null | Cell::Unknown(_)) | None => {
                    at += 1;
                    Span::Null
                }
            }
        }));
    }
}

impl std::fmt::Debug for Tuple<'_> {
    /// The number of columns: values belong in no log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tuple({} columns)", self.columns)
    }
}

/// Why bytes are not a `pgoutput` message.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Message ended early.
    #[error("message is cut short: need {need} bytes, have {have}")]
    Truncated {
        /// Asked for.
        need: usize,
        /// Present.
        have: usize,
    },
    /// Bytes left over.
    #[error("{0} bytes are left after the message")]
    Trailing(usize),
    /// A string without its zero byte.
    #[error("a name does not end")]
    NoEnd,
    /// A name in another encoding.
    #[error("a name is no UTF-8")]
    NotUtf8,
    /// Not a known tag.
    #[error("unknown {what} tag 0x{tag:02x}")]
    UnknownTag {
        /// Where the tag stood.
        what: &'static str,
        /// The byte.
        tag: u8,
    },
}

/// Decodes one message. The whole of `body` must be used up.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(body: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut r = Reader::new(body);
    let message = match r.u8()? {
        b'I' => Message::Insert { relation: r.u32()?, new: new_tuple(&mut r)? },
        b'U' => update(&mut r)?,
        b'D' => Message::Delete { relation: r.u32()?, old: old_tuple(&mut r)? },
        b'B' => Message::Begin { final_lsn: r.lsn()?, committed_at: r.i64()?, xid: r.u32()? },
        b'C' => commit(&mut r)?,
        b'R' => Message::Relation(relation(&mut r)?),
        b'Y' => Message::Type { oid: r.u32()?, namespace: r.cstr()?, name: r.cstr()? },
        b'O' => origin(&mut r)?,
        b'T' => truncate(&mut r)?,
        b'M' => logical(&mut r)?,
        b'A' => stream_abort(&mut r)?,
        tag => return Err(DecodeError::UnknownTag { what: "message", tag }),
    };
    r.finish()?;
    Ok(message)
}

/// `U`: relation (4), then perhaps `K` or `O` and the old tuple, then `N` and the new one.
fn update<'a>(r: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = r.u32()?;
    let has_old = matches!(r.rest().first(), Some(b'K' | b'O'));
    let old = if has_old { Some(old_tuple(r)?) } else { None };
    Ok(Message::Update { relation, old, new: new_tuple(r)? })
}

/// `C`: flags (1, unused), commit LSN (8), end LSN (8), time (8).
fn commit<'a>(r: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    r.u8()?;
    Ok(Message::Commit { commit_lsn: r.lsn()?, end_lsn: r.lsn()?, committed_at: r.i64()? })
}

/// `O`: commit LSN on the origin (8), its name.
fn origin<'a>(r: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    r.lsn()?;
    Ok(Message::Origin { name: r.cstr()? })
}

/// `R`: oid (4), schema, name, identity (1), columns (2), each: flags (1), name, type (4), modifier (4).
fn relation<'a>(r: &mut Reader<'a>) -> Result<RelationMessage<'a>, DecodeError> {
    let (oid, namespace, name) = (r.u32()?, r.cstr()?, r.cstr()?);
    let identity = match r.u8()? {
        b'd' => ReplicaIdentity::Default,
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        tag => return Err(DecodeError::UnknownTag { what: "replica identity", tag }),
    };
    let count = usize::from(r.u16()?);
    let mut columns = Vec::with_capacity(r.capacity(count, 10)); // the count is untrusted
    for _ in 0..count {
        let identity = r.u8()? & 1 == 1;
        let (name, type_oid) = (r.cstr()?, r.u32()?);
        r.u32()?; // type modifier
        columns.push(ColumnMessage { identity, name, type_oid });
    }
    Ok(RelationMessage { oid, namespace, name, identity, columns })
}

/// `T`: relations (4), options (1: CASCADE, RESTART IDENTITY), then each oid (4).
fn truncate<'a>(r: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let count = r.u32()? as usize;
    r.u8()?;
    let mut relations = Vec::with_capacity(r.capacity(count, 4)); // the count is untrusted
    for _ in 0..count {
        relations.push(r.u32()?);
    }
    Ok(Message::Truncate { relations })
}

/// `M`: flags (1), LSN (8), prefix, length (4), content.
fn logical<'a>(r: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let transactional = r.u8()? & 1 == 1;
    let (lsn, prefix, len) = (r.lsn()?, r.cstr()?, r.u32()?);
    Ok(Message::Logical { transactional, lsn, prefix, content: r.bytes(len as usize)? })
}

/// `A`: xid (4), subtransaction (4), from protocol 4 on also LSN (8) and time (8).
fn stream_abort<'a>(r: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    r.bytes(8)?;
    if !r.rest().is_empty() {
        r.bytes(16)?;
    }
    Ok(Message::StreamAbort)
}

#[inline]
fn new_tuple<'a>(r: &mut Reader<'a>) -> Result<Tuple<'a>, DecodeError> {
    match r.u8()? {
        b'N' => tuple(r),
        tag => Err(DecodeError::UnknownTag { what: "new tuple", tag }),
    }
}

#[inline]
fn old_tuple<'a>(r: &mut Reader<'a>) -> Result<OldTuple<'a>, DecodeError> {
    match r.u8()? {
        b'K' => Ok(OldTuple::Key(tuple(r)?)),
        b'O' => Ok(OldTuple::Row(tuple(r)?)),
        tag => Err(DecodeError::UnknownTag { what: "old tuple", tag }),
    }
}

/// What a cell begins with.
enum Cell {
    Null,
    Unchanged,
    /// Its length; the text follows.
    Text(u32),
    Unknown(u8),
}

/// Tag (1) and length (4) of a text.
const TEXT: usize = 5;

impl Cell {
    /// `None`: the bytes end before it does.
    #[inline]
    fn at(cells: &[u8], at: usize) -> Option<Self> {
        let here = cells.get(at..)?;
        Some(match here.first()? {
            b'n' => Self::Null,
            b'u' => Self::Unchanged,
            b't' => {
                let ([_, length @ ..], text) = here.split_first_chunk::<TEXT>()?;
                let length = u32::from_be_bytes(*length);
                if length as usize > text.len() {
                    return None;
                }
                Self::Text(length)
            }
            tag => Self::Unknown(*tag),
        })
    }
}

/// A row: column count (2), then per column a tag (1) and, for `t`, length (4) and text.
#[inline]
fn tuple<'a>(r: &mut Reader<'a>) -> Result<Tuple<'a>, DecodeError> {
    let columns = r.u16()?;
    let whole = r.rest();
    let mut at = 0;
    for _ in 0..columns {
        match Cell::at(whole, at) {
            Some(Cell::Null | Cell::Unchanged) => at += 1,
            Some(Cell::Text(length)) => at += TEXT + length as usize,
            Some(Cell::Unknown(tag)) => {
                return Err(DecodeError::UnknownTag { what: "column", tag });
            }
            None => return Err(cut(whole, at)),
        }
    }
    Ok(Tuple { columns, cells: r.bytes(at)? })
}

/// What is missing of the cell at `at`.
#[cold]
fn cut(cells: &[u8], at: usize) -> DecodeError {
    let here = cells.get(at..).unwrap_or_default();
    let need = match here {
        [] => 1,
        [_, a, b, c, d, ..] => TEXT + u32::from_be_bytes([*a, *b, *c, *d]) as usize,
        _ => TEXT,
    };
    DecodeError::Truncated { need, have: here.len() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Cell, Row};

    /// One of every kind, each field with something in it.
    fn goods() -> Vec<Vec<u8>> {
        let row = b"\0\x03t\0\0\0\x02hinu";
        let text = |parts: &[&[u8]]| parts.concat();
        vec![
            text(&[b"B", &[1; 8], &[2; 8], &[3; 4]]),
            text(&[b"C", &[0], &[1; 8], &[2; 8], &[3; 8]]),
            text(&[b"O", &[1; 8], b"origin\0"]),
            text(&[
                b"R\0\0\0\x07public\0users\0d\0\x02",
                b"\x01id\0\0\0\0\x17\xff\xff\xff\xff",
                b"\0n\0\0\0\0\x19\xff\xff\xff\xff",
            ]),
            b"Y\0\0\x40\0public\0mood\0".to_vec(),
            text(&[b"I\0\0\0\x07N", row]),
            text(&[b"U\0\0\0\x07N", row]),
            text(&[b"U\0\0\0\x07K", row, b"N", row]),
            text(&[b"U\0\0\0\x07O", row, b"N", row]),
            text(&[b"D\0\0\0\x07K", row]),
            text(&[b"D\0\0\0\x07O", row]),
            b"T\0\0\0\x02\0\0\0\0\x07\0\0\0\x08".to_vec(),
            text(&[b"M\x01", &[1; 8], b"prefix\0\0\0\0\x03abc"]),
            text(&[b"A", &[1; 8]]),
            text(&[b"A", &[1; 24]]),
        ]
    }

    #[test]
    fn rejects_every_cut_of_every_good_message() {
        for good in goods() {
            assert!(decode(&good).is_ok(), "{:?}", decode(&good));
            for end in 0..good.len() {
                let whole_shorter_kind = good[0] == b'A' && end == 9;
                let cut = decode(&good[..end]);
                assert_eq!(cut.is_ok(), whole_shorter_kind, "{}: cut at {end}", good[0] as char);
            }
            let longer = [good.as_slice(), &[0]].concat();
            assert!(decode(&longer).is_err(), "{}: a byte too many", good[0] as char);
        }
    }

    #[test]
    fn finds_every_cell() {
        let body = b"I\0\0\0\x07N\0\x04t\0\0\0\x02hinut\0\0\0\0";
        let Ok(Message::Insert { relation: 7, new }) = decode(body) else { panic!("no insert") };
        let mut spans = vec![Span::Null; 9];
        new.spans(&mut spans);
        let cells: Vec<_> = Row::new(new.data(), &spans).cells().collect();
        assert_eq!(cells, [Cell::Text(b"hi"), Cell::Null, Cell::Unchanged, Cell::Text(b"")]);
    }

    #[test]
    fn trusts_no_count() {
        assert!(decode(b"I\0\0\0\x07N\xff\xff").is_err());
        assert!(decode(b"T\xff\xff\xff\xff\0").is_err());
        assert!(decode(b"R\0\0\0\x07\0\0d\xff\xff").is_err());
    }

    #[test]
    fn stops_at_what_it_does_not_know() {
        let unknown = |what, tag| Err(DecodeError::UnknownTag { what, tag });
        assert_eq!(decode(b"S\0\0\0\x01\x01"), unknown("message", b'S'));
        assert_eq!(decode(b"I\0\0\0\x07N\0\x01b\0\0\0\0"), unknown("column", b'b'));
        assert_eq!(decode(b"I\0\0\0\x07K\0\0"), unknown("new tuple", b'K'));
        assert_eq!(decode(b"D\0\0\0\x07N\0\0"), unknown("old tuple", b'N'));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }

        #[test]
        fn never_panics_on_a_good_message_gone_bad(pick in 0usize..15, at in 0usize..64, byte: u8) {
            let mut bytes = goods().swap_remove(pick);
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(Message::Insert { new, .. }) = decode(&bytes) {
                let mut spans = Vec::new();
                new.spans(&mut spans);
                proptest::prop_assert_eq!(Row::new(new.data(), &spans).cells().count(), new.columns());
            }
        }
    }
}
