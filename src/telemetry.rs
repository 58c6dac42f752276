//! Logs: text on a terminal, JSON elsewhere.

/// How logs look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// A line of text.
    Text,
    /// A JSON object a line.
    Json,
}

/// What is logged.
#[derive(Clone, Debug)]
pub struct Options {
    /// `error warn info debug trace`, or a filter as `tracing-subscriber` reads it.
    pub level: String,
    /// How.
    pub format: Format,
}
