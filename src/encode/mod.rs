//! From a change to the bytes of key and value.

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
