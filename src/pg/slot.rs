//! Publication and slot.

/// What is streamed.
#[derive(Clone, Debug)]
pub struct PublicationOptions {
    /// Names of publications, at least one.
    pub names: Vec<String>,
    /// Make the first one if it is missing.
    pub create: bool,
    /// Tables of a publication that is made, as written (`schema.table`); empty: FOR ALL TABLES.
    pub tables: Vec<String>,
    /// `publish` of a publication that is made; empty: all.
    pub operations: Vec<String>,
    /// `publish_via_partition_root` of a publication that is made.
    pub via_partition_root: bool,
}

/// Whether a slot that is made can be synchronised to standbys (PostgreSQL 17+).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failover {
    /// Where the server can.
    Auto,
    /// Yes, or refuse.
    On,
    /// No.
    Off,
}

/// Which slot is read.
#[derive(Clone, Debug)]
pub struct SlotOptions {
    /// Its name.
    pub name: String,
    /// Make it if it is missing.
    pub create: bool,
    /// How it is made.
    pub failover: Failover,
}
