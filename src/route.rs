//! Which topic a table's rows go to, and which of its columns are the key. Pure; compiled once a relation.

use std::collections::BTreeMap;

/// What `[tables]` says of one table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Table {
    /// Its topic.
    pub topic: Option<String>,
    /// Its key columns, by name, in this order; `None`: by the catalog.
    pub key: Option<Vec<String>>,
}

/// Where a table goes that `[tables]` does not list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unlisted {
    /// To the topic that the template gives.
    Route,
    /// Nowhere; counted.
    Skip,
    /// The process halts.
    Refuse,
}

/// Where a truncate goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Truncate {
    /// To every partition of the table's topic.
    Table,
    /// Nowhere; counted.
    Skip,
    /// To this topic.
    Topic(String),
}

/// All routing.
#[derive(Clone, Debug)]
pub struct Options {
    /// By `schema.table`.
    pub tables: BTreeMap<String, Table>,
    /// `{schema}` and `{table}` stand for the table's.
    pub template: String,
    /// What is not in `tables`.
    pub unlisted: Unlisted,
    /// Truncates.
    pub truncate: Truncate,
    /// Topic of logical messages; `None`: nowhere, counted.
    pub message_topic: Option<String>,
    /// Prefixes of logical messages that are taken; empty: all.
    pub message_prefixes: Vec<String>,
}
