//! From a change to the bytes of key, value and headers: format `row`.
//!
//! A [`Template`] is compiled once a relation; after that a row costs one pass over its cells, into
//! a buffer of the caller, and no allocation. The reference for every value is PostgreSQL's own
//! `to_json(column)`, with two exceptions: numerics are strings unless asked otherwise, and
//! composites and types with a cast of their own to json are PostgreSQL's text.
//!
//! **Invariant.** Same input, same bytes: there is no clock and no chance in here, and a buffer is
//! left as it was when there is an error.

mod array;
mod escape;
mod header;
mod put;
mod source;
mod template;
mod time;
mod value;

pub use self::{
    header::{Headers, Part, Stamp},
    source::Source,
    template::{Image, Template},
    value::{Malformed, write as write_value},
};

use crate::{
    change::Cell,
    retry::{Disposition, Exit},
    schema::Relation,
};

use self::template::{Column, Known};

/// How a numeric is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Numeric {
    /// `"12.50"`: no consumer rounds it.
    String,
    /// `12.50`, as `to_json` does.
    Number,
}

/// How a key is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyFormat {
    /// One column: its text; several: a JSON object.
    Auto,
    /// Always a JSON object.
    Json,
}

/// Which headers a record carries, in this order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Header {
    /// The operation's letter.
    Op,
    /// The record's own name.
    Id,
    /// `schema.table`.
    Table,
    /// Commit LSN.
    Lsn,
    /// Transaction id.
    Xid,
    /// Commit time.
    Ts,
}

/// The shape of a record.
#[derive(Clone, Debug)]
pub struct Options {
    /// Numerics.
    pub numeric: Numeric,
    /// Keys.
    pub key: KeyFormat,
    /// Whether a delete is followed by a null value.
    pub tombstones: bool,
    /// Headers.
    pub headers: Vec<Header>,
}

/// Why a row has no key or no value. Names the place, never what stands there.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// A value is not what its type prints.
    #[error("column {column:?} of {table} {why}")]
    Malformed {
        /// `schema.table`.
        table: String,
        /// The column.
        column: String,
        /// What is wrong.
        why: Malformed,
    },
    /// A key column of `[tables]` is not part of what PostgreSQL sent of the row.
    #[error(
        "key column {column:?} of {table} is not in the replica identity, so PostgreSQL did not \
         send it: ALTER TABLE {table} REPLICA IDENTITY FULL, or name another key in [tables]"
    )]
    KeyNotSent {
        /// `schema.table`, quoted as SQL wants it.
        table: String,
        /// The column.
        column: String,
    },
    /// The row is of another relation than the template.
    #[error("a row of {table} has {found} columns in place of {expected}")]
    Columns {
        /// `schema.table`.
        table: String,
        /// As many as the relation has.
        expected: usize,
        /// As many as were sent.
        found: usize,
    },
}

impl Error {
    /// What to do about it: it comes back at every attempt.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        match self {
            Self::Malformed { .. } | Self::KeyNotSent { .. } | Self::Columns { .. } => {
                Disposition::Halt(Exit::Data)
            }
        }
    }
}

/// Writes keys, values and headers.
#[derive(Clone, Debug)]
pub struct Encoder {
    options: Options,
    source: Source,
}

impl Encoder {
    /// An encoder of records of `source`.
    #[must_use]
    pub const fn new(options: Options, source: Source) -> Self {
        Self { options, source }
    }

    /// Whether a record bears its own name.
    #[must_use]
    pub fn names(&self) -> bool {
        self.options.headers.contains(&Header::Id)
    }

    /// Whether a delete is followed by a null value.
    #[must_use]
    pub const fn tombstones(&self) -> bool {
        self.options.tombstones
    }

    /// What is the same for every row of `relation` that has this key, a
    /// [`Route`](crate::route::Route)'s.
    #[must_use]
    pub fn template(&self, relation: &Relation, key: &[usize]) -> Template {
        Template::new(relation, key, self.options.key)
    }

    /// Appends the key of `image` and says whether there is one.
    ///
    /// One column is its text as it stands; several, or any with [`KeyFormat::Json`], are a JSON
    /// object in the order of the key. A NULL, which only a key of `[tables]` can hold, is `null`
    /// in an object; alone it is no key, as Kafka has a null of its own. An unchanged TOASTed value
    /// is taken from the old row.
    ///
    /// # Errors
    /// [`Error::KeyNotSent`] if PostgreSQL did not send it, and those of [`Encoder::value`].
    pub fn key(
        &self,
        template: &Template,
        image: Image<'_>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Error> {
        let start = out.len();
        let written = match template.single_key {
            Some(at) => template.key_cell(at, image).map(|text| {
                put::put(text.unwrap_or_default(), out);
                text.is_some()
            }),
            None if template.key.is_empty() => Ok(false),
            None => self.key_object(template, image, out).map(|()| true),
        };
        written.inspect_err(|_| out.truncate(start))
    }

    fn key_object(
        &self,
        template: &Template,
        image: Image<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let start = out.len();
        for at in &template.key {
            let text = template.key_cell(*at, image)?;
            if let Some(column) = template.columns.get(*at) {
                self.member(template, column, text, out)?;
            }
        }
        close(start, out);
        Ok(())
    }

    /// Appends `image` as a JSON object in the order of the columns, and says whether it is whole:
    /// if not, an unchanged TOASTed value was left out, and [`Stamp::left_out`] wants this image.
    ///
    /// What PostgreSQL does not tell of an old row is left out too, as an old row holds what was
    /// sent and nothing else.
    ///
    /// # Errors
    /// A value that is not UTF-8 or not what its type prints, or a row of another relation.
    pub fn value(
        &self,
        template: &Template,
        image: Image<'_>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Error> {
        let start = out.len();
        self.object(template, image, out).inspect_err(|_| out.truncate(start))
    }

    fn object(
        &self,
        template: &Template,
        image: Image<'_>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Error> {
        template.fits(image)?;
        let start = out.len();
        let mut whole = true;
        for (at, (column, cell)) in template.columns.iter().zip(image.row.cells()).enumerate() {
            let text = match cell {
                Cell::Text(text) => Some(text),
                other => match image.resolve(column, at, other) {
                    Known::Value(text) => text,
                    Known::Unchanged => {
                        whole = false;
                        continue;
                    }
                    Known::NotSent => continue,
                },
            };
            self.member(template, column, text, out)?;
        }
        close(start, out);
        Ok(whole)
    }

    /// `,"name":token`; the comma becomes the brace when the object is closed.
    #[inline]
    fn member(
        &self,
        template: &Template,
        column: &Column,
        text: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        column.prefix.put(out);
        match text {
            None => out.extend_from_slice(b"null"),
            Some(text) => value::write(&column.kind, self.options.numeric, text, out)
                .map_err(|why| template.malformed(column, why))?,
        }
        Ok(())
    }

    /// Writes the headers of one record, in the order of the configuration, then `unchanged` and
    /// `prefix` where there is one.
    pub fn headers(&self, stamp: &Stamp<'_>, out: &mut Headers) {
        out.fill(&self.options.headers, self.source, stamp);
    }
}

/// Turns the first member's comma into the object's brace, and ends the object.
fn close(start: usize, out: &mut Vec<u8>) {
    match out.get_mut(start) {
        Some(comma) => *comma = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests;
