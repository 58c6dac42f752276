//! The manual page and the completions know every command and every exit code.

#[allow(dead_code, unreachable_pub, reason = "its main is for `cargo run --example manual`")]
#[path = "../packaging/manual.rs"]
mod manual;

use std::{fs, path::Path};

use pgsluice::{cli, retry::Exit};

#[test]
fn all_that_is_made_names_every_command_and_the_page_every_exit_code() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("manual");
    let written = manual::write(&folder).expect("the test folder can be written to");
    let mut names: Vec<_> = written.iter().map(|path| path.file_name().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["_pgsluice", "pgsluice.1", "pgsluice.bash", "pgsluice.fish"]);
    let definition = cli::definition();
    let commands: Vec<_> = definition.get_subcommands().map(|sub| sub.get_name()).collect();
    assert!(commands.contains(&"run"), "{commands:?}");
    for path in &written {
        let text = fs::read_to_string(path).expect("it was written");
        for command in &commands {
            assert!(text.contains(command), "{}: no {command}", path.display());
        }
    }
    let page = fs::read_to_string(&written[0]).expect("it was written");
    for title in ["NAME", "EXIT STATUS", "FILES", "ENVIRONMENT", "SIGNALS", "SEE ALSO"] {
        let heading =
            |line: &str| line.starts_with(".SH ") && line.trim_matches('"').contains(title);
        assert!(page.lines().any(heading), "no section {title}");
    }
    for exit in Exit::ALL {
        let code = format!("\\fB{}\\fR", exit.code());
        assert!(page.lines().any(|line| line == code), "no {exit:?}");
    }
    let readme = include_str!("../README.md");
    for exit in Exit::ALL {
        let code = exit.code().to_string();
        let mut cells =
            readme.lines().filter_map(|line| line.strip_prefix("| ")?.split('|').next());
        let named = cells.any(|cell| cell.split(", ").any(|one| one.trim() == code));
        assert!(named, "README.md: no {code}");
    }
}
