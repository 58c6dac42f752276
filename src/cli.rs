//! The command line: `run`, `tail`, `config`, `version`.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand, error::ErrorKind};

use crate::{
    config::{self, Purpose, Sources},
    retry::{Disposition, Exit},
    shell,
};

/// Stream every committed PostgreSQL change to Kafka.
#[derive(Debug, Parser)]
#[command(
    name = "pgsluice",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
struct Cli {
    /// TOML, YAML or JSON by its ending [default: ./pgsluice.toml, then /etc/pgsluice/pgsluice.toml]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Any key, over file and environment; may be given again
    #[arg(short, long, global = true, value_name = "key=value")]
    set: Vec<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Stream until told to stop (SIGTERM, SIGINT: drain, confirm, exit 0; a second one: at once)
    Run {
        /// Go on, this once, though the slot is missing or was moved by somebody else, and what was
        /// committed in between is in no topic; takes the name of the slot
        #[arg(long, value_name = "SLOT")]
        accept_gap: Option<String>,
    },
    /// The changes on this terminal, through a temporary slot: no Kafka, nothing confirmed, nothing kept
    Tail,
    /// The configuration as it is understood, secrets hidden, each value with where it came from
    Config,
    /// Name, version and target
    Version,
}

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let exit = match Cli::try_parse() {
        Ok(cli) => execute(cli),
        Err(error) => usage(&error),
    };
    ExitCode::from(exit.code())
}

/// All of the command line, for what is made from it: the manual page, the shells' completions.
#[must_use]
pub fn definition() -> clap::Command {
    Cli::command()
}

fn execute(cli: Cli) -> Exit {
    let mut set = Vec::new();
    for pair in cli.set {
        let Some((key, value)) = split(&pair) else {
            // What stands there is not repeated: it might be a password.
            complain("--set takes key=value; a text in it had no \"=\" behind a key");
            return Exit::Usage;
        };
        set.push((key, value));
    }
    let purpose = if matches!(cli.command, Command::Tail) { Purpose::Tail } else { Purpose::Run };
    if matches!(cli.command, Command::Version) {
        return print(&version());
    }
    match config::load(&Sources::of_process(cli.config, set), purpose) {
        Ok(mut config) => match cli.command {
            Command::Run { accept_gap } => {
                let slot = &config.app.slot.name;
                if accept_gap.as_ref().is_some_and(|name| name != slot) {
                    complain(&format!(
                        "--accept-gap takes the name of the slot, which is {slot:?}"
                    ));
                    return Exit::Usage;
                }
                config.app.accept_gap = accept_gap.is_some();
                shell::run(config.app, &config.log, &config.warnings)
            }
            Command::Tail => shell::tail(&config.app, &config.log, &config.warnings),
            Command::Config => print(&config.listing),
            Command::Version => print(&version()),
        },
        Err(invalid) => {
            complain(&invalid.to_string());
            match invalid.disposition() {
                Disposition::Halt(exit) => exit,
                Disposition::Retry => Exit::Software,
            }
        }
    }
}

/// Key and value of `--set`; the key may hold quoted names with a `=` in them.
fn split(pair: &str) -> Option<(String, String)> {
    let mut quoted = false;
    let at = pair.char_indices().find_map(|(at, c)| {
        quoted ^= c == '"';
        (c == '=' && !quoted).then_some(at)
    })?;
    let (key, value) = pair.split_at_checked(at)?;
    let key = key.trim();
    (!key.is_empty())
        .then(|| (key.to_owned(), value.strip_prefix('=').unwrap_or_default().to_owned()))
}

fn usage(error: &clap::Error) -> Exit {
    // Nobody is left to be told if this cannot be written.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Done,
        _ => Exit::Usage,
    }
}

/// Name, version, commit if the builder named it, target.
fn version() -> String {
    let commit = option_env!("PGSLUICE_COMMIT").map(|commit| format!(" {commit}"));
    let libc = match () {
        () if cfg!(target_env = "musl") => "-musl",
        () if cfg!(target_env = "gnu") => "-gnu",
        () => "",
    };
    let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
    let commit = commit.unwrap_or_default();
    format!("pgsluice {}{commit} ({arch}-{os}{libc})\n", env!("CARGO_PKG_VERSION"))
}

/// To standard output; a reader that went away is no error of ours.
fn print(text: &str) -> Exit {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("could not write to standard output: {error}"));
            Exit::Unavailable
        }
        _ => Exit::Done,
    }
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "pgsluice: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_a_command_line_that_clap_finds_sound() {
        definition().debug_assert();
    }

    #[test]
    fn splits_a_setting_at_the_first_equals_sign_that_is_not_quoted() {
        let pair = |key: &str, value: &str| Some((key.to_owned(), value.to_owned()));
        assert_eq!(split("a.b=c=d"), pair("a.b", "c=d"));
        assert_eq!(split("tables.\"a=b.c\"=x"), pair("tables.\"a=b.c\"", "x"));
        assert_eq!(split("a="), pair("a", ""));
        assert_eq!(split("=a"), None);
        assert_eq!(split("a"), None);
    }

    #[test]
    fn options_stand_before_and_behind_the_command() {
        for line in [
            ["pgsluice", "-s", "a=b", "-s", "c=d", "config"],
            ["pgsluice", "-s", "a=b", "config", "--set", "c=d"],
        ] {
            assert_eq!(Cli::try_parse_from(line).unwrap().set.last().unwrap(), "c=d");
        }
    }
}
