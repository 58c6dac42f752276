//! Logs: text on a terminal, JSON elsewhere; always to standard error.
//!
//! A level is ours alone at `info` and below: what the libraries say there is about themselves, and
//! some print what they send. They are heard from `warn` up.

use std::io::{self, IsTerminal as _};

use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter,
    fmt::{MakeWriter, fmt},
};

use crate::retry::{Disposition, Exit};

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

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a level nor a filter.
    #[error("log.level: {level:?} is neither error, warn, info, debug, trace nor a filter")]
    Level {
        /// As given.
        level: String,
        /// Where it went wrong.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Done twice: a bug.
    #[error("logs are set up already")]
    Twice(#[source] tracing::subscriber::SetGlobalDefaultError),
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        match self {
            Self::Level { .. } => Disposition::Halt(Exit::Config),
            Self::Twice(_) => Disposition::Halt(Exit::Software),
        }
    }
}

/// Logs from now on.
///
/// # Errors
/// If the level is none, or logs are set up already.
pub fn init(options: &Options) -> Result<(), Error> {
    let terminal = io::stderr().is_terminal();
    let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let text = match options.format {
        Format::Text => true,
        Format::Json => false,
        Format::Auto => terminal,
    };
    let look = if text { Look::Text { colours } } else { Look::Json };
    let subscriber = subscriber(&options.level, look, io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(Error::Twice)
}

/// Whether `level` can be used.
///
/// # Errors
/// Why not.
pub fn check(level: &str) -> Result<(), Error> {
    filter(level).map(drop)
}

enum Look {
    Text { colours: bool },
    Json,
}

fn subscriber<W>(level: &str, look: Look, to: W) -> Result<Box<dyn Subscriber + Send + Sync>, Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = fmt().with_env_filter(filter(level)?).with_writer(to);
    Ok(match look {
        Look::Text { colours } => Box::new(builder.with_ansi(colours).with_target(false).finish()),
        Look::Json => Box::new(
            builder
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .finish(),
        ),
    })
}

/// A plain level is for us; libraries never say more than `warn`, rskafka not even by a filter: below
/// that it prints requests, and with them rows.
fn filter(level: &str) -> Result<EnvFilter, Error> {
    let directives = match level.trim().parse::<LevelFilter>() {
        Ok(level) if level <= LevelFilter::WARN => level.to_string(),
        Ok(level) => format!("warn,pgsluice={level}"),
        Err(_) => format!("{level},rskafka=warn"),
    };
    EnvFilter::builder()
        .parse(directives)
        .map_err(|source| Error::Level { level: level.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: &str, look: Look) -> String {
        let page = Page::default();
        let writer = page.clone();
        let subscriber = subscriber(level, look, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "pgsluice::batch", records = 3, "closed a batch");
            tracing::info!(target: "pgsluice", "streaming");
            tracing::info!(target: "rskafka::connection", "a request");
            tracing::warn!(target: "rskafka::connection", "a lost connection");
        });
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_level_is_ours_and_libraries_are_heard_from_warn() {
        let lines = |level| logged(level, Look::Text { colours: false }).lines().count();
        assert_eq!(lines("off"), 0);
        assert_eq!(lines("error"), 0);
        assert_eq!(lines("warn"), 1);
        assert_eq!(lines("info"), 2);
        assert_eq!(lines("DEBUG"), 3);
        assert_eq!(lines("trace"), 3);
        assert_eq!(lines("pgsluice::batch=debug"), 2);
        assert_eq!(lines("trace,rskafka=trace"), 3);
    }

    #[test]
    fn json_is_an_object_a_line() {
        let text = logged("debug", Look::Json);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["message"], "closed a batch");
        assert_eq!(lines[0]["records"], 3);
        assert_eq!(lines[0]["level"], "DEBUG");
        assert_eq!(lines[0]["target"], "pgsluice::batch");
        assert!(lines[0]["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn text_has_colours_only_where_they_are_wanted() {
        assert!(logged("info", Look::Text { colours: true }).contains('\u{1b}'));
        assert!(!logged("info", Look::Text { colours: false }).contains('\u{1b}'));
    }

    #[test]
    fn a_wrong_level_is_named() {
        let error = filter("loud=quiet=").unwrap_err();
        assert_eq!(error.disposition(), Disposition::Halt(Exit::Config));
        assert!(error.to_string().starts_with("log.level: \"loud=quiet=\""));
    }
}
