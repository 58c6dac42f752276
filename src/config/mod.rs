//! The configuration: where it is looked for, which of two values wins, and what is wrong with it.
//!
//! Built-in defaults ← libpq's variables and service file ← file ← `PGSLUICE_…` variables ← `--set`.
//! The merged values are walked against one list of keys (`table`), so that all bad keys are
//! reported at once; then each module's `Options` are built from them. No module names this one.
//!
//! **Invariant.** No message, no `Debug` and no listing made here holds a secret.

use std::{collections::BTreeMap, env, ffi::OsString, fmt, path::PathBuf};

use crate::{app, telemetry};

mod credential;
mod file;
mod kafka;
mod kind;
mod layer;
mod libpq;
mod merge;
mod postgres;
mod problem;
mod records;
mod settings;
mod show;
mod slot;
mod table;
mod url;
mod vigil;

pub use problem::{Invalid, Problem};

/// What the configuration is for: some keys are required for one purpose only.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// `pgsluice run`.
    Run,
    /// `pgsluice tail`: without Kafka and without a slot of its own.
    Tail,
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// Files that are tried in this order if `file` is not given.
    pub search: Vec<PathBuf>,
    /// The environment.
    pub vars: BTreeMap<OsString, OsString>,
    /// `--set`: key and value.
    pub set: Vec<(String, String)>,
}

impl Sources {
    /// This process's environment, and the files that are looked for.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, set: Vec<(String, String)>) -> Self {
        let search = ["./pgsluice.toml", "/etc/pgsluice/pgsluice.toml"].map(PathBuf::from).into();
        Self { file, search, vars: env::vars_os().collect(), set }
    }
}

/// A configuration that can be used.
#[derive(Clone)]
pub struct Config {
    /// For the supervisor.
    pub app: app::Options,
    /// `[log]`.
    pub log: telemetry::Options,
    /// What is allowed and yet should be said aloud at start.
    pub warnings: Vec<String>,
    /// Every value with where it came from, as TOML. Secrets are `***`.
    pub listing: String,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.listing)
    }
}

/// Reads and checks the configuration.
///
/// # Errors
/// All that is wrong with it, at once.
pub fn load(sources: &Sources, purpose: Purpose) -> Result<Config, Invalid> {
    let mut problems = Vec::new();
    let found = file::find(sources, &mut problems);
    let merged = merge::merge(sources, found.as_deref(), &mut problems);
    let mut settings = settings::Settings::read(&merged, purpose, problems);
    let postgres = postgres::build(&mut settings);
    let kafka = kafka::build(&mut settings, purpose);
    let records = records::build(&mut settings);
    let log = records::log(&mut settings);
    let app = app::Options {
        postgres: postgres.connect,
        publication: postgres.publication,
        slot: postgres.slot,
        ha: postgres.ha,
        retry_max: postgres.retry_max,
        missing_timeout: settings.span("slot.missing_timeout"),
        stream: postgres.stream,
        kafka: kafka.options,
        partitioner: kafka.partitioner,
        route: records.route,
        encode: records.encode,
        batch: records.batch,
        pipeline: records.pipeline,
        once: kafka.once,
        vigil: vigil::build(&mut settings),
        admin: records.admin,
        accept_gap: false,
    };
    let listing = show::listing(&settings, found.as_deref());
    let (problems, warnings) = settings.finish();
    if problems.is_empty() {
        return Ok(Config { app, log, warnings, listing });
    }
    let looked_for =
        if found.is_none() && sources.file.is_none() { sources.search.clone() } else { Vec::new() };
    Err(Invalid { problems, looked_for })
}
