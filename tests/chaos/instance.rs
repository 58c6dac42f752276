//! One of the two instances: whenever it ends it is started again, as a service would be.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::support::{Pgsluice, Proxy};

/// See the module. Its connections go through proxies of its own.
pub struct Instance {
    /// `a` or `b`.
    pub name: &'static str,
    /// Before PostgreSQL.
    pub postgres: Proxy,
    /// Before each broker.
    pub kafka: Vec<Proxy>,
    config: String,
    running: Mutex<Running>,
}

/// Its processes.
#[derive(Default)]
struct Running {
    process: Option<Pgsluice>,
    started: usize,
    /// How often it ended with which code; SIGKILL is -9.
    codes: BTreeMap<i32, usize>,
    /// Who ended was to end.
    told: bool,
    over: bool,
    wrong: Option<String>,
}

impl Instance {
    /// Not started yet: [`Instance::tend`] does that.
    pub fn new(name: &'static str, config: String, postgres: Proxy, kafka: Vec<Proxy>) -> Self {
        let it = Self { name, postgres, kafka, config, running: Mutex::default() };
        let _ = std::fs::remove_file(it.log_file());
        it
    }

    /// Starts it if it does not run. To be called all the time.
    pub fn tend(&self) {
        let mut running = self.lock();
        let ended = running.process.as_mut().and_then(Pgsluice::try_wait);
        if let Some(code) = ended {
            let told = std::mem::take(&mut running.told);
            *running.codes.entry(code).or_default() += 1;
            let process = running.process.take().expect("it has ended");
            self.keep_log(&process, code);
            if !(matches!(code, 0 | 75) || code == -9 && told) {
                let log = process.log();
                let end = log.get(log.ceil_char_boundary(log.len().saturating_sub(4000))..);
                running.wrong = Some(format!(
                    "instance {} ended with {code}; its log's end:\n{}",
                    self.name,
                    end.unwrap_or_default()
                ));
            }
        }
        if running.process.is_none() && !running.over && running.wrong.is_none() {
            running.process = Some(Pgsluice::spawn(&self.config, &[]));
            running.started += 1;
        }
    }

    /// Fails if it ended as it must not.
    #[track_caller]
    pub fn check(&self) {
        let wrong = self.lock().wrong.clone();
        assert!(wrong.is_none(), "{}", wrong.unwrap_or_default());
    }

    /// SIGKILL; its successor is started by [`Instance::tend`].
    pub fn kill(&self) {
        let mut running = self.lock();
        running.told = true;
        if let Some(process) = &mut running.process {
            process.kill();
        }
    }

    /// A signal, if it runs; the number of this process, to compare later.
    pub fn signal(&self, name: &str) -> usize {
        let mut running = self.lock();
        if let Some(process) = &mut running.process
            && process.try_wait().is_none()
        {
            process.signal(name);
        }
        running.started
    }

    /// How many processes there were so far.
    pub fn started(&self) -> usize {
        self.lock().started
    }

    /// `streaming`, `passive` …, if it answers.
    pub fn role(&self) -> Option<String> {
        let body = self.ask("/status")?;
        let status: Value = serde_json::from_str(&body).ok()?;
        status["role"].as_str().map(str::to_owned)
    }

    /// GET on its `admin.listen`. Not under the lock for long: a frozen process does not answer.
    fn ask(&self, path: &str) -> Option<String> {
        self.lock().process.as_ref()?.http(path).ok().map(|(_, body)| body)
    }

    /// SIGTERM, its last end, with one of these codes; how often there was which.
    #[track_caller]
    pub fn stop(&self, allowed: &[i32]) -> BTreeMap<i32, usize> {
        let mut running = self.lock();
        running.over = true;
        if let Some(mut process) = running.process.take() {
            let code = process.stop(crate::LIMIT);
            self.keep_log(&process, code);
            assert!(allowed.contains(&code), "{} ended with {code}: {}", self.name, process.log());
            *running.codes.entry(code).or_default() += 1;
        }
        running.codes.clone()
    }

    /// Where the logs of all its processes are, one behind the other.
    pub fn log_file(&self) -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{}.log", self.name))
    }

    fn keep_log(&self, process: &Pgsluice, code: i32) {
        let file = File::options().create(true).append(true).open(self.log_file());
        let mut file = file.expect("the target folder takes a file");
        writeln!(file, "{}--- process {} ended with {code}", process.log(), process.pid()).unwrap();
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
