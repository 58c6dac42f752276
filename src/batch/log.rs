//! What a partition's log holds: record sets, as a broker's Fetch gives them back.
//!
//! They are the log's own bytes: whole entries one after the other, of which the last may be cut
//! short. Besides batches of ours there are those of other producers, in a codec of the broker's
//! choice, thinned out or emptied by compaction; the ends of transactions; and entries older than
//! the [`record_batch`](super::record_batch), which are stepped over: nothing of ours was ever one.
//!
//! **Invariants.** No length is believed before the bytes are there: whatever they are, [`Entries`]
//! ends, and nothing panics. An [`Entry`] is whole and has the right checksum. Nothing is allocated
//! for a record, and for a batch no more than a few times the limit that the caller sets.
//!
//! See <https://kafka.apache.org/documentation/#recordbatch> and, for what is older,
//! <https://kafka.apache.org/documentation/#messageset>.

mod unpack;

use std::io;

use super::record_batch::{
    ATTRIBUTES, BASE_SEQUENCE, BEFORE_LENGTH_COUNTS, CODEC_BITS, CRC, EPOCH, HEADER,
    LAST_OFFSET_DELTA, LENGTH, MAGIC, PRODUCER, RECORDS,
};
use crate::{
    retry::{Disposition, Exit},
    varint,
};

use self::unpack::{Refused, unpack};

/// The bits of the attributes.
const TRANSACTIONAL: u16 = 1 << 4;
const CONTROL: u16 = 1 << 5;

/// What an old entry has at least behind its length: checksum, magic, attributes, the lengths of key
/// and value; since magic 1 a timestamp.
const LEAST_OLD: [usize; 2] = [14, 22];

/// Why a record set cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A length or a number that cannot be.
    #[error("the entry at offset {offset} is damaged: {what}")]
    Damaged {
        /// Its first.
        offset: i64,
        /// Where it was seen.
        what: &'static str,
    },
    /// Not what the producer, or the broker, wrote.
    #[error("the record batch at offset {offset} has a wrong checksum")]
    Checksum {
        /// Its first.
        offset: i64,
    },
    /// A format that came after us.
    #[error("the entry at offset {offset} has the unknown magic {magic}")]
    Magic {
        /// Its first.
        offset: i64,
        /// Which.
        magic: i8,
    },
    /// A codec that came after us.
    #[error("the record batch at offset {offset} is compressed by the unknown codec {codec}")]
    Codec {
        /// Its first.
        offset: i64,
        /// Which.
        codec: u8,
    },
    /// The checksum is right, and yet they are not what the codec says.
    #[error("the records of the batch at offset {offset} cannot be decompressed")]
    Compressed {
        /// Its first.
        offset: i64,
        /// The codec's own.
        source: io::Error,
    },
    /// Few bytes that would be many.
    #[error("the records of the batch at offset {offset} are over {limit} bytes, decompressed")]
    TooLarge {
        /// Its first.
        offset: i64,
        /// The caller's.
        limit: usize,
    },
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        match self {
            // On the way, or on one broker's disk: another time, another leader.
            Self::Damaged { .. } | Self::Checksum { .. } => Disposition::Retry,
            // So it was written.
            Self::Magic { .. }
            | Self::Codec { .. }
            | Self::Compressed { .. }
            | Self::TooLarge { .. } => Disposition::Halt(Exit::Unavailable),
        }
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Marker {
    /// Its records count.
    Commit,
    /// Its records are none.
    Abort,
}

/// The entries of one record set, in their order. Ends where one is cut short, and after an error.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    rest: &'a [u8],
    next_offset: Option<i64>,
}

impl<'a> Entries<'a> {
    /// Reads the record set of one partition.
    #[must_use]
    pub const fn new(set: &'a [u8]) -> Self {
        Self { rest: set, next_offset: None }
    }

    /// The offset after the last of the whole entries so far, an old one included: where to read on. `None`
    /// if there was none: then no byte of the set was of use.
    #[must_use]
    pub const fn next_offset(&self) -> Option<i64> {
        self.next_offset
    }

    /// `None` at the end of what is whole.
    fn take(&mut self) -> Result<Option<Entry<'a>>, Error> {
        loop {
            let Some(front) = Front::of(self.rest)? else { return Ok(None) };
            self.rest = front.rest;
            let entry = match front.magic {
                2 => Some(Entry::read(front.offset, front.bytes)?),
                _ => None,
            };
            // An old entry has only one offset; that of a compressed one is its last record's.
            let last = entry.as_ref().map_or(front.offset, |entry| entry.last_offset);
            self.next_offset = self.next_offset.max(Some(last.saturating_add(1)));
            if entry.is_some() {
                return Ok(entry);
            }
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.take();
        if !matches!(entry, Ok(Some(_))) {
            self.rest = &[];
        }
        entry.transpose()
    }
}

/// The first entry of a set, of whatever format.
struct Front<'a> {
    offset: i64,
    magic: u8,
    /// All of it.
    bytes: &'a [u8],
    /// What follows.
    rest: &'a [u8],
}

impl<'a> Front<'a> {
    /// `None` if it is cut short.
    fn of(set: &'a [u8]) -> Result<Option<Self>, Error> {
        let begin = || {
            let offset = i64::from_be_bytes(field(set, 0)?);
            let length = i32::from_be_bytes(field(set, LENGTH)?);
            let [magic] = field(set, MAGIC)?;
            Some((offset, length, magic))
        };
        let Some((offset, length, magic)) = begin() else { return Ok(None) };
        let least = match (magic, LEAST_OLD) {
            (0, [least, _]) | (1, [_, least]) => least,
            (2, _) => HEADER - BEFORE_LENGTH_COUNTS,
            _ => return Err(Error::Magic { offset, magic: magic.cast_signed() }),
        };
        let damaged = |what| Error::Damaged { offset, what };
        if offset < 0 {
            return Err(damaged("its offset"));
        }
        let length = usize::try_from(length).ok().filter(|length| *length >= least);
        let end = BEFORE_LENGTH_COUNTS + length.ok_or_else(|| damaged("its length"))?;
        let split = set.split_at_checked(end);
        Ok(split.map(|(bytes, rest)| Self { offset, magic, bytes, rest }))
    }
}

/// A record batch, or the end of a transaction.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Of its first record, even if compaction took that away.
    pub base_offset: i64,
    /// Of its last, likewise.
    pub last_offset: i64,
    /// Who wrote it; -1: nobody in particular.
    pub producer_id: i64,
    /// The producer's.
    pub epoch: i16,
    /// The producer's number of the first record; -1: not counted.
    pub base_sequence: i32,
    /// Whether it is part of a transaction, whose end is a marker of the same producer.
    pub transactional: bool,
    /// Whether it is itself the end of a transaction. `None` for what compaction has emptied, and for
    /// what brokers tell each other.
    pub marker: Option<Marker>,
    /// How many records are left; none is normal.
    pub records: u32,
    codec: u8,
    body: &'a [u8],
}

impl<'a> Entry<'a> {
    fn read(offset: i64, bytes: &'a [u8]) -> Result<Self, Error> {
        let counted = bytes.get(ATTRIBUTES..).unwrap_or_default();
        if field(bytes, CRC) != Some(crc32c::crc32c(counted).to_be_bytes()) {
            return Err(Error::Checksum { offset });
        }
        let damaged = |what| Error::Damaged { offset, what };
        let (mut entry, control) =
            Self::header(offset, bytes).ok_or_else(|| damaged("its header"))?;
        if control && entry.records > 0 {
            entry.marker = entry.control().ok_or_else(|| damaged("the end of a transaction"))?;
        }
        Ok(entry)
    }

    /// All but the marker, and whether there is to be one.
    fn header(base_offset: i64, bytes: &'a [u8]) -> Option<(Self, bool)> {
        let attributes = u16::from_be_bytes(field(bytes, ATTRIBUTES)?);
        let last = u32::from_be_bytes(field(bytes, LAST_OFFSET_DELTA)?);
        let records = u32::from_be_bytes(field(bytes, RECORDS)?);
        let may_be = last.cast_signed() >= 0 && records.cast_signed() >= 0;
        let entry = Self {
            base_offset,
            last_offset: base_offset.checked_add(last.into())?,
            producer_id: i64::from_be_bytes(field(bytes, PRODUCER)?),
            epoch: i16::from_be_bytes(field(bytes, EPOCH)?),
            base_sequence: i32::from_be_bytes(field(bytes, BASE_SEQUENCE)?),
            transactional: attributes & TRANSACTIONAL != 0,
            marker: None,
            records,
            codec: attributes as u8 & CODEC_BITS,
            body: bytes.get(HEADER..)?,
        };
        may_be.then_some((entry, attributes & CONTROL != 0))
    }

    /// What the only record says: the key is a version (i16) and a type (i16). Never compressed.
    fn control(&self) -> Option<Option<Marker>> {
        if self.codec != 0 {
            return None;
        }
        let key = Record::take(&mut { self.body })?.key?;
        Some(match i16::from_be_bytes(field(key, 2)?) {
            0 => Some(Marker::Abort),
            1 => Some(Marker::Commit),
            _ => None,
        })
    }

    /// Calls `visit` with the record's offset and key and the header's value for each header of that
    /// name of each record, in order; not for a null value. Decompressed, the records may be `limit`
    /// bytes.
    ///
    /// # Errors
    /// Records that cannot be opened, or are none. What was visited before was read: the checksum
    /// had been right.
    pub fn headers(
        &self,
        name: &[u8],
        limit: usize,
        mut visit: impl FnMut(i64, Option<&[u8]>, &[u8]),
    ) -> Result<(), Error> {
        let offset = self.base_offset;
        if self.records == 0 {
            return Ok(());
        }
        let records = unpack(self.codec, self.body, limit).map_err(|refused| match refused {
            Refused::TooLarge => Error::TooLarge { offset, limit },
            Refused::Unknown => Error::Codec { offset, codec: self.codec },
            Refused::Damaged(source) => Error::Compressed { offset, source },
        })?;
        let damaged = |what| Error::Damaged { offset, what };
        let mut rest = &*records;
        for _ in 0..self.records {
            Record::take(&mut rest)
                .and_then(|record| {
                    let offset = self.base_offset.checked_add(record.offset_delta.into())?;
                    let found = |value: &[u8]| visit(offset, record.key, value);
                    (offset <= self.last_offset).then(|| record.named(name, found))?
                })
                .ok_or_else(|| damaged("a record"))?;
        }
        if rest.is_empty() { Ok(()) } else { Err(damaged("bytes after its records")) }
    }
}

/// One record, as far as it is needed.
struct Record<'a> {
    offset_delta: u32,
    key: Option<&'a [u8]>,
    /// Their number, and they.
    headers: &'a [u8],
}

impl<'a> Record<'a> {
    /// The first one, off the front.
    fn take(records: &mut &'a [u8]) -> Option<Self> {
        let mut record = bytes(records)?;
        record.split_off_first()?; // attributes: none is defined
        varint::take(&mut record)?; // timestamp
        let offset_delta = u32::try_from(varint::take(&mut record)?).ok()?;
        let key = nullable(&mut record)?;
        nullable(&mut record)?; // value
        Some(Self { offset_delta, key, headers: record })
    }

    /// Visits the headers of that name; `None` if there are fewer than it says, or more.
    fn named(&self, name: &[u8], mut visit: impl FnMut(&[u8])) -> Option<()> {
        let mut rest = self.headers;
        let count = u32::try_from(varint::take(&mut rest)?).ok()?;
        for _ in 0..count {
            let this = bytes(&mut rest)?;
            let value = nullable(&mut rest)?;
            if let Some(value) = value.filter(|_| this == name) {
                visit(value);
            }
        }
        rest.is_empty().then_some(())
    }
}

/// A length, and as many bytes.
fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    nullable(rest)?
}

/// The same, where a length of -1 means null.
fn nullable<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint::take(rest)?;
    if length == -1 {
        return Some(None);
    }
    let (bytes, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    Some(Some(bytes))
}

/// What stands there, if it is there.
fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
