//! What is the same for every row of a relation, and what is known of one row.

use crate::{
    change::{Before, Cell, Row},
    schema::{PgType, Relation},
};

use super::{Error, KeyFormat, Malformed, escape, put::Fixed};

/// A relation, compiled for writing.
#[derive(Clone, Debug)]
pub struct Template {
    /// `schema.table`, each as `quote_ident` writes it: the header `table`.
    pub(super) table: Box<str>,
    pub(super) columns: Box<[Column]>,
    /// Indexes into `columns`, in the order wanted.
    pub(super) key: Box<[usize]>,
    /// The key's column, if its text as it stands is the key.
    pub(super) single_key: Option<usize>,
}

/// One column, compiled.
#[derive(Clone, Debug)]
pub(super) struct Column {
    /// `,"name":`, escaped.
    pub(super) prefix: Fixed,
    pub(super) kind: PgType,
    /// Whether it is part of the replica identity.
    pub(super) identity: bool,
    name: Box<str>,
}

impl Column {
    /// `"name"`, escaped.
    pub(super) fn quoted_name(&self) -> &[u8] {
        let text = self.prefix.text();
        text.get(1..text.len().saturating_sub(1)).unwrap_or_default()
    }
}

/// One row of a change, with what the other one tells of it.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    pub(super) row: Row<'a>,
    /// The old row, which has the value of what is unchanged.
    old: Before<'a>,
    /// Whether `row` is an old key: only the replica identity's columns are told.
    key_only: bool,
}

impl<'a> Image<'a> {
    /// The new row of an insert, update or snapshot read.
    #[must_use]
    pub const fn new(row: Row<'a>, before: Before<'a>) -> Self {
        Self { row, old: before, key_only: false }
    }

    /// The old row of an update or delete; `None` if nothing was sent.
    #[must_use]
    pub const fn old(before: Before<'a>) -> Option<Self> {
        match before {
            Before::Nothing => None,
            Before::Key(row) => Some(Self { row, old: Before::Nothing, key_only: true }),
            Before::Row(row) => Some(Self { row, old: Before::Nothing, key_only: false }),
        }
    }

    /// What is known of the column at `at`, whose cell in this row is `cell`.
    pub(super) fn resolve(&self, column: &Column, at: usize, cell: Cell<'a>) -> Known<'a> {
        match cell {
            Cell::Text(text) => Known::Value(Some(text)),
            Cell::Null if self.key_only && !column.identity => Known::NotSent,
            Cell::Null => Known::Value(None),
            Cell::Unchanged => self.unchanged(column, at),
        }
    }

    fn unchanged(&self, column: &Column, at: usize) -> Known<'a> {
        let old = match self.old {
            Before::Row(row) => row.cell(at),
            Before::Key(row) if column.identity => row.cell(at),
            Before::Key(_) | Before::Nothing => Cell::Unchanged,
        };
        match old {
            Cell::Text(text) => Known::Value(Some(text)),
            Cell::Null => Known::Value(None),
            Cell::Unchanged => Known::Unchanged,
        }
    }
}

/// What is known of one value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Known<'a> {
    /// Its text; `None`: NULL.
    Value(Option<&'a [u8]>),
    /// That it is what it was.
    Unchanged,
    /// Nothing: an old key does not tell of it.
    NotSent,
}

impl Template {
    pub(super) fn new(relation: &Relation, key: &[usize], format: KeyFormat) -> Self {
        let columns = relation.columns.iter().map(|column| Column {
            prefix: prefix(&column.name),
            kind: column.kind.clone(),
            identity: column.identity,
            name: column.name.clone(),
        });
        let single_key = match (format, key) {
            (KeyFormat::Auto, [at]) => Some(*at),
            (KeyFormat::Auto | KeyFormat::Json, _) => None,
        };
        Self {
            table: relation.quoted().into(),
            columns: columns.collect(),
            key: key.into(),
            single_key,
        }
    }

    /// `schema.table`, each as `quote_ident` writes it.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Whether an update gave the row another key: its old key is then deleted, as a record of its
    /// own. What was not sent of the old row counts as the same.
    #[must_use]
    pub fn rekeyed(&self, before: Before<'_>, after: Row<'_>) -> bool {
        let Some(old) = Image::old(before) else { return false };
        self.key.iter().any(|at| {
            let Some(column) = self.columns.get(*at) else { return false };
            let was = old.resolve(column, *at, old.row.cell(*at));
            match (was, after.cell(*at)) {
                (Known::Value(was), Cell::Text(is)) => was != Some(is),
                (Known::Value(was), Cell::Null) => was.is_some(),
                (Known::Value(_), Cell::Unchanged) => false,
                (Known::Unchanged | Known::NotSent, _) => false,
            }
        })
    }

    /// The text of the key column at `at`; `None`: NULL.
    pub(super) fn key_cell<'a>(
        &self,
        at: usize,
        image: Image<'a>,
    ) -> Result<Option<&'a [u8]>, Error> {
        self.fits(image)?;
        let Some(column) = self.columns.get(at) else { return Ok(None) };
        match image.resolve(column, at, image.row.cell(at)) {
            Known::Value(text) => Ok(text),
            Known::Unchanged | Known::NotSent => Err(Error::KeyNotSent {
                table: self.table.to_string(),
                column: column.name.to_string(),
            }),
        }
    }

    /// A row of another relation would put values under wrong names.
    pub(super) fn fits(&self, image: Image<'_>) -> Result<(), Error> {
        if image.row.len() == self.columns.len() {
            return Ok(());
        }
        Err(Error::Columns {
            table: self.table.to_string(),
            expected: self.columns.len(),
            found: image.row.len(),
        })
    }

    #[cold]
    pub(super) fn malformed(&self, column: &Column, why: Malformed) -> Error {
        Error::Malformed { table: self.table.to_string(), column: column.name.to_string(), why }
    }
}

fn prefix(name: &str) -> Fixed {
    let mut prefix = vec![b','];
    escape::quoted_str(name, &mut prefix);
    prefix.push(b':');
    Fixed::new(prefix)
}
