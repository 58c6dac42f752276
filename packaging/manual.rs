//! The manual page pgsluice(1) and the completions for bash, zsh and fish, from the command line's own definition.
//!
//! `cargo run --example manual -- FOLDER` writes them into `FOLDER`.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use clap_complete::{Shell, generate_to};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};
use pgsluice::{cli, retry::Exit};

fn main() -> io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1) else {
        return Err(io::Error::other("usage: manual FOLDER"));
    };
    for path in write(Path::new(&folder))? {
        println!("{}", path.display());
    }
    Ok(())
}

/// Writes all of it, and says what.
pub fn write(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(folder)?;
    let page = folder.join("pgsluice.1");
    fs::write(&page, manual()?)?;
    let mut written = vec![page];
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        written.push(generate_to(shell, &mut cli::definition(), "pgsluice", folder)?);
    }
    Ok(written)
}

fn manual() -> io::Result<Vec<u8>> {
    let command = cli::definition().subcommand_value_name("COMMAND");
    let man = Man::new(command.clone()).manual("User Commands");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    section(&mut page, "DESCRIPTION", |roff| paragraphs(roff, DESCRIPTION))?;
    section(&mut page, "COMMANDS", |roff| {
        for sub in command.get_subcommands() {
            entry(roff, sub.get_name(), &sub.get_about().unwrap_or_default().to_string());
        }
    })?;
    man.render_options_section(&mut page)?;
    section(&mut page, "EXIT STATUS", |roff| {
        for exit in Exit::ALL {
            entry(roff, &exit.code().to_string(), meaning(exit));
        }
        paragraphs(roff, &[HEALS]);
    })?;
    section(&mut page, "FILES", |roff| entries(roff, FILES))?;
    section(&mut page, "ENVIRONMENT", |roff| entries(roff, ENVIRONMENT))?;
    section(&mut page, "SIGNALS", |roff| entries(roff, SIGNALS))?;
    section(&mut page, "SEE ALSO", |roff| paragraphs(roff, &[SEE_ALSO]))?;
    page.flush()?;
    Ok(page)
}

fn section(page: &mut Vec<u8>, title: &str, fill: impl FnOnce(&mut Roff)) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    fill(&mut roff);
    roff.to_writer(page)
}

fn entries(roff: &mut Roff, list: &[(&str, &str)]) {
    for (name, text) in list {
        entry(roff, name, text);
    }
}

fn entry(roff: &mut Roff, name: &str, text: &str) {
    roff.control("TP", []);
    roff.text([bold(name)]);
    roff.text([roman(text)]);
}

fn paragraphs(roff: &mut Roff, texts: &[&str]) {
    for text in texts {
        roff.control("PP", []);
        roff.text([roman(*text)]);
    }
}

const DESCRIPTION: &[&str] = &[
    "pgsluice reads a publication through a logical replication slot of PostgreSQL 14 to 18 and writes each row as one JSON \
     record to Apache Kafka, in order per key. A position is confirmed to PostgreSQL only after Kafka has stored everything up \
     to it. Killed, cut off or restarted at any moment it loses nothing; what it then sends again carries the same header id.",
    "While a server is away it waits, and says so once. Where only a person can help it ends; see EXIT STATUS.",
];

const HEALS: &str = "What may heal by itself (a restart, the network, a slot that is in use, a full broker) never ends it.";

/// No `_` arm: a new one does not compile until it is described.
const fn meaning(exit: Exit) -> &'static str {
    match exit {
        Exit::Done => "Asked to stop; all that was received is stored and confirmed.",
        Exit::Usage => "Wrong command line.",
        Exit::Data => {
            "A row that may not be skipped cannot be stored. The message names the setting that decides."
        }
        Exit::Gap => {
            "The slot is lost, invalidated, missing, or was moved by somebody else: there is a gap."
        }
        Exit::Unavailable => {
            "A server cannot be used at all: wrong version, wrong wal_level, a topic is missing."
        }
        Exit::Software => "A bug in pgsluice.",
        Exit::Drain => {
            "run.drain was over before all was stored, or a second signal came: some records will come again, with the same ids."
        }
        Exit::Permission => {
            "A server may not be used: login, certificate, privilege, access control list."
        }
        Exit::Config => "Wrong configuration. Every bad key is named.",
    }
}

const FILES: &[(&str, &str)] = &[
    ("./pgsluice.toml", "The configuration, if --config names none."),
    (
        "/etc/pgsluice/pgsluice.toml",
        "The configuration, if there is none in the working directory. Every key is in example.toml beside the documentation.",
    ),
    (
        "/etc/pgsluice/NAME.toml",
        "The configuration of the systemd unit pgsluice@NAME.service, for several pipelines on one host.",
    ),
    ("~/.pgpass, ~/.pg_service.conf", "libpq's, where the configuration leaves the login open."),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "PGSLUICE_SECTION__KEY",
        "Any key of the configuration, with two underscores between levels: PGSLUICE_SLOT__NAME. It goes over the file; --set goes \
         over it.",
    ),
    (
        "PGHOST PGPORT PGUSER PGDATABASE PGPASSWORD PGPASSFILE PGSERVICE PGSSLMODE PGSSLROOTCERT ...",
        "libpq's, for what the configuration leaves open.",
    ),
    (
        "CREDENTIALS_DIRECTORY",
        "Set by systemd for LoadCredential=. A key that takes a file may begin with $CREDENTIALS_DIRECTORY/.",
    ),
    (
        "NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID",
        "Set by systemd for Type=notify and WatchdogSec=. It is told when changes are streamed, or when the slot is waited for and \
         could be taken over; what is waited for; and that progress is made, or that there is none to make.",
    ),
    ("NO_COLOR", "tail prints no colours."),
];

const SIGNALS: &[(&str, &str)] = &[(
    "SIGTERM, SIGINT",
    "Stop: read on to the end of the open transaction, wait for Kafka at most run.drain, confirm, exit with 0. A second one: stop \
     at once, with 75.",
)];

const SEE_ALSO: &str = "psql(1), pg_recvlogical(1), systemd.service(5), https://www.postgresql.org/docs/current/logical-replication.html";
