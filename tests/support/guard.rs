//! What tidies up when the test process ends without dropping its servers: a panic in another thread, `static` servers that
//! tests share, Ctrl-C, SIGKILL.
//!
//! One child, the script `guard`, holds the read end of a pipe. The kernel closes the write end whenever and however this
//! process ends, and the child then runs what it was told. It also keeps two runs of the same binary apart.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::script;

static GUARD: OnceLock<Mutex<ChildStdin>> = OnceLock::new();

/// To be done at the latest when this process has ended: `pg-down 17 5510`, `kafka-down t`, `end 4711`.
pub fn at_the_end(line: &str) {
    let mut input = GUARD.get_or_init(start).lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(input, "{line}").expect("the guard reads until we end");
}

#[allow(clippy::zombie_processes, reason = "it outlives us: that is what it is for")]
fn start() -> Mutex<ChildStdin> {
    let binary = std::env::current_exe().expect("a test knows its own binary");
    // Cargo's hash, if one follows the name, changes with every build; the servers' names do not.
    let name = binary.file_stem().and_then(|stem| stem.to_str()).expect("cargo names it in ASCII");
    let name = name.rsplit_once('-').map_or(name, |(name, _)| name);
    let base = std::env::var("TESTS_PORTS").unwrap_or_default();
    let mut child = Command::new(script("guard"))
        .arg(format!("{name}{base}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0) // a Ctrl-C is for us, not for it
        .spawn()
        .expect("bash runs the guard");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("it was piped");
    BufReader::new(stdout).read_line(&mut line).expect("the guard answers");
    assert_eq!(line, "ready\n", "the guard did not start; its reason is above");
    Mutex::new(child.stdin.take().expect("it was piped"))
}
