//! Why a table has no topic or no key.

use crate::retry::{Disposition, Exit};

/// Why a table has no route, or the routing as a whole makes no sense.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// `topic.unlisted = "refuse"` met a table that `[tables]` does not list.
    #[error(
        "table {table} is not in [tables] and topic.unlisted is \"refuse\": give it a topic there, \
         or set topic.unlisted to \"route\" or \"skip\""
    )]
    Refused {
        /// `schema.table`.
        table: String,
    },
    /// Kafka takes no topic of this name.
    #[error("{topic:?}, the topic of {what}, {why}: name another one in the configuration")]
    Topic {
        /// The table or the key that asks for it.
        what: String,
        /// The name as it would be.
        topic: String,
        /// Kafka's rule.
        why: &'static str,
    },
    /// `[tables]` names a key column that the table does not have.
    #[error("table {table} has no column {column:?}, which [tables] names as its key")]
    KeyColumn {
        /// `schema.table`.
        table: String,
        /// As `[tables]` has it.
        column: String,
    },
    /// `[tables]` names a key column twice.
    #[error("[tables] names column {column:?} twice in the key of {table}")]
    KeyTwice {
        /// As `[tables]` has it.
        table: String,
        /// As `[tables]` has it.
        column: String,
    },
    /// Two entries of `[tables]` are one table, written in two ways.
    #[error("[tables] lists {table} twice, once quoted")]
    TableTwice {
        /// The second entry.
        table: String,
    },
    /// An entry of `[tables]` begins with a quote and is no `"schema"."table"`.
    #[error("[tables] lists {table}, whose quotes do not make a schema and a table")]
    Quotes {
        /// The entry.
        table: String,
    },
    /// The template has braces around something else.
    #[error("topic.template {template:?} may hold {{schema}} and {{table}}, and no other brace")]
    Template {
        /// The template.
        template: String,
    },
}

impl Error {
    /// What to do about it. Only the refusal is about a row; the others a change of the
    /// configuration heals.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        match self {
            Self::Refused { .. } => Disposition::Halt(Exit::Data),
            Self::Topic { .. }
            | Self::KeyColumn { .. }
            | Self::KeyTwice { .. }
            | Self::TableTwice { .. }
            | Self::Quotes { .. }
            | Self::Template { .. } => Disposition::Halt(Exit::Config),
        }
    }
}
