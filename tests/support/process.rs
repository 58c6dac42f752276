//! Our own binary: the one that cargo has built for the test, or the one that TESTS_BINARY names, such as a static one.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{eventually, eventually_some, guard};

/// A running `pgsluice`; dropped, it is killed.
pub struct Pgsluice {
    child: Child,
    folder: PathBuf,
    admin: u16,
    code: Option<i32>,
}

impl Pgsluice {
    /// Starts `pgsluice ARGS -c FILE` with a file of this content; with an empty content there is no `-c`.
    /// Without arguments it is `run`.
    pub fn spawn(config_toml: &str, args: &[&str]) -> Self {
        Self::spawn_with(config_toml, args, &[])
    }

    /// The same with more environment. Nothing of the caller's own `PG*` and `PGSLUICE_*` comes through.
    pub fn spawn_with(config_toml: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("pgsluice-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the target folder takes a folder");
        let mut command = Command::new(binary());
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG"))
        {
            command.env_remove(name);
        }
        command.args(if args.is_empty() { &["run"] } else { args });
        if !config_toml.is_empty() {
            let file = folder.join("pgsluice.toml");
            std::fs::write(&file, config_toml).expect("the file can be written");
            command.arg("-c").arg(file);
        }
        let out = File::create(folder.join("stdout")).expect("the file can be made");
        let log = File::create(folder.join("stderr")).expect("the file can be made");
        command.current_dir(&folder).envs(env.iter().copied());
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        guard::at_the_end(&format!("end {}", child.id()));
        Self { child, admin: admin_port(config_toml, args), folder, code: None }
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        read(&self.folder.join("stderr"))
    }

    /// All that it has printed.
    pub fn out(&self) -> String {
        read(&self.folder.join("stdout"))
    }

    /// Waits for a line of the log that holds all of these words, and returns it.
    #[track_caller]
    pub fn wait_log(&mut self, deadline: Duration, words: &[&str]) -> String {
        eventually_some(deadline, &format!("the log has {words:?}"), || {
            let log = self.log();
            log.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        })
    }

    /// Waits until `/readyz` is 200: it streams. Fails with the log if the process ends before.
    #[track_caller]
    pub fn wait_ready(&mut self, deadline: Duration) {
        eventually(deadline, "/readyz is 200", || {
            if let Some(code) = self.try_wait() {
                panic!("it ended with {code}:\n{}", self.log());
            }
            self.http("/readyz").is_ok_and(|(status, _)| status == 200)
        });
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM: drain, confirm, exit 0.
    pub fn sigterm(&self) {
        self.signal("TERM");
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.wait(Duration::from_secs(10));
    }

    /// Any signal, by its name without SIG.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        assert!(self.code.is_none(), "the process has ended, its id may be another's");
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success(), "no signal {name} to pgsluice");
    }

    /// Its exit code if it has ended; the negative signal if one ended it.
    pub fn try_wait(&mut self) -> Option<i32> {
        if self.code.is_none() {
            let status = self.child.try_wait().expect("it is our child");
            self.code =
                status.map(|status| status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)));
        }
        self.code
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> i32 {
        let begin = std::time::Instant::now();
        while begin.elapsed() < deadline {
            if let Some(code) = self.try_wait() {
                return code;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("pgsluice still runs after {deadline:?}:\n{}", self.log());
    }

    /// SIGTERM, and the exit code.
    #[track_caller]
    pub fn stop(&mut self, deadline: Duration) -> i32 {
        self.sigterm();
        self.wait(deadline)
    }

    /// GET on `admin.listen`: status and body.
    pub fn http(&self, path: &str) -> std::io::Result<(u16, String)> {
        let limit = Some(Duration::from_secs(5));
        let mut stream = TcpStream::connect_timeout(
            &([127, 0, 0, 1], self.admin).into(),
            Duration::from_secs(5),
        )?;
        stream.set_read_timeout(limit)?;
        stream.set_write_timeout(limit)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) =
            answer.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("no HTTP answer"))?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((status.ok_or_else(|| std::io::Error::other("no HTTP status"))?, body.to_owned()))
    }

    /// The value of a metric: the sum over its series that have all of these parts in their label text.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, body) = self.http("/metrics").expect("/metrics answers");
        let series = body.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        let series = series.filter(|line| labels.iter().all(|label| line.contains(label)));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Drop for Pgsluice {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(8000);
            let end = log.get(log.ceil_char_boundary(from)..).unwrap_or_default();
            eprintln!("--- pgsluice's log in {}, its end:\n{end}---", self.folder.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// What the tests are about. Absolute, as each process has a folder of its own.
fn binary() -> PathBuf {
    let named = std::env::var_os("TESTS_BINARY").map(PathBuf::from);
    if let Some(named) = &named {
        assert!(
            named.is_absolute() && named.is_file(),
            "TESTS_BINARY is no absolute path to a file"
        );
    }
    named.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_pgsluice")))
}

/// The port of `admin.listen` in the arguments or the file, else the default.
fn admin_port(config_toml: &str, args: &[&str]) -> u16 {
    let set = args.iter().rev().find_map(|arg| arg.strip_prefix("admin.listen="));
    let section = config_toml.split_once("[admin]").and_then(|(_, rest)| rest.split_once("listen"));
    let line = set.or_else(|| section.and_then(|(_, rest)| rest.lines().next()));
    let port =
        line.and_then(|line| line.trim_matches(|c: char| !c.is_ascii_digit()).rsplit_once(':'));
    port.and_then(|(_, port)| port.parse().ok()).unwrap_or(8081)
}

fn read(file: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
}
