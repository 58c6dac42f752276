//! What systemd is told, over a real socket: ready, stopping, and a watchdog that runs out when the thread of the loop hangs.

use std::{
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    case::{self, Case, LIMIT},
    kafka, mortal_kafka, postgres,
    support::{Mode, Pgsluice, Proxy, eventually},
};

/// systemd's end of the socket, and all that was heard there.
struct Systemd {
    name: String,
    socket: UnixDatagram,
    heard: Mutex<Vec<String>>,
    path: Option<PathBuf>,
}

impl Systemd {
    /// `@name`: no file.
    fn abstract_socket(name: &str) -> Self {
        let name = format!("pgsluice-{name}-{}", std::process::id());
        let at = SocketAddr::from_abstract_name(&name).unwrap();
        Self::new(format!("@{name}"), UnixDatagram::bind_addr(&at).unwrap(), None)
    }

    /// A file, in a folder whose path is short: it may have 108 bytes.
    fn file(name: &str) -> Self {
        let path = PathBuf::from(format!("/tmp/pgsluice-{name}-{}", std::process::id()));
        let socket = UnixDatagram::bind(&path).unwrap();
        Self::new(path.to_str().unwrap().to_owned(), socket, Some(path))
    }

    fn new(name: String, socket: UnixDatagram, path: Option<PathBuf>) -> Self {
        socket.set_nonblocking(true).unwrap();
        Self { name, socket, heard: Mutex::default(), path }
    }

    /// The variables of a unit with `WatchdogSec=1s`.
    fn env(&self) -> [(&str, &str); 2] {
        [("NOTIFY_SOCKET", &self.name), ("WATCHDOG_USEC", "1000000")]
    }

    /// Every line so far.
    fn heard(&self) -> Vec<String> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let message = std::str::from_utf8(&buffer[..length]).expect("messages are UTF-8");
            heard.extend(message.lines().map(str::to_owned));
        }
        heard.clone()
    }

    fn has_heard(&self, line: &str) -> bool {
        self.heard().iter().any(|heard| heard == line)
    }

    #[track_caller]
    fn wait(&self, what: &str, is_it: impl Fn(&str) -> bool) {
        eventually(LIMIT, &format!("systemd hears {what}"), || {
            self.heard().iter().any(|line| is_it(line))
        });
    }

    fn beats(&self) -> usize {
        self.heard().iter().filter(|line| *line == "WATCHDOG=1").count()
    }

    #[track_caller]
    fn wait_beats(&self, more: usize) {
        let before = self.beats();
        eventually(LIMIT, "the watchdog is fed", || self.beats() >= before + more);
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[test]
fn systemd_hears_ready_when_it_streams_then_beats_and_the_stop() {
    let mut case = Case::new("told", postgres(), kafka());
    let proxy = Proxy::start(0, &format!("127.0.0.1:{}", case.postgres.port()));
    case.through(proxy.port());
    proxy.set(Mode::Cut);
    let systemd = Systemd::file("told");
    let mut sluice = case.spawn_with(&["run.drain=77s"], &systemd.env());
    systemd.wait("that and why it is not ready", |line| line.starts_with("STATUS=connecting: "));
    assert!(systemd.has_heard("EXTEND_TIMEOUT_USEC=60000000"), "{:?}", systemd.heard());
    assert!(!systemd.has_heard("READY=1"), "{:?}", systemd.heard());
    proxy.set(Mode::Pass);
    systemd.wait("READY=1", |line| line == "READY=1");
    assert_eq!(case::said(&sluice, "INFO", "streaming").len(), 1, "{}", sluice.log());
    systemd.wait("what it is at", |line| line.starts_with("STATUS=streaming from slot told"));
    systemd.wait_beats(5); // idle
    let writer = case.write(16);
    writer.wait_more(20, LIMIT);
    systemd.wait_beats(5);
    case.verify(&writer.stop());
    assert!(!systemd.has_heard("STOPPING=1"));
    assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
    let heard = systemd.heard();
    let at = heard.iter().position(|line| line == "STOPPING=1").expect("it said that it stops");
    assert_eq!(heard[at + 1], "EXTEND_TIMEOUT_USEC=137000000", "a minute more than the drain");
    assert_eq!(heard.iter().filter(|line| *line == "READY=1").count(), 1);
}

#[test]
fn systemd_hears_ready_of_who_waits_for_the_slot_and_has_kafka() {
    let mut case = Case::new("passive", postgres(), kafka());
    let mut first = case.spawn(&["admin.listen="]);
    first.wait_log(LIMIT, &["streaming"]);
    let brokers = std::mem::replace(&mut case.brokers, "127.0.0.1:1".to_owned());
    let systemd = Systemd::abstract_socket("passive");
    let mut second = case.spawn_with(&[], &systemd.env());
    // The slot is in use; but if it were free, it could not be taken over.
    systemd.wait("why it is not ready", |line| {
        line.starts_with("STATUS=connecting: ") && line.contains("127.0.0.1:1")
    });
    assert!(!systemd.has_heard("READY=1"), "{:?}", systemd.heard());
    second.kill();
    case.brokers = brokers;
    let systemd = Systemd::abstract_socket("passive-able");
    let mut second = case.spawn_with(&["slot.check_interval=200ms"], &systemd.env());
    systemd.wait("READY=1", |line| line == "READY=1");
    systemd.wait("what it waits for", |line| {
        line.starts_with("STATUS=passive: ") && line.contains("in use")
    });
    systemd.wait_beats(5);
    first.kill();
    systemd
        .wait("that it took over", |line| line.starts_with("STATUS=streaming from slot passive"));
    assert_eq!(second.stop(LIMIT), 0, "{}", second.log());
    assert!(systemd.has_heard("STOPPING=1"));
}

#[test]
fn systemd_hears_why_it_ended() {
    let case = Case::new("gap", postgres(), kafka());
    case.postgres.sql("select pg_drop_replication_slot('gap')");
    let systemd = Systemd::abstract_socket("gap");
    let mut sluice = case.spawn_with(&[], &systemd.env());
    assert_eq!(sluice.wait(LIMIT), 66, "{}", sluice.log());
    let ended = |line: &str| line.starts_with("STATUS=ended: ") && line.contains("\"gap\"");
    systemd.wait("why", ended);
    assert!(!systemd.has_heard("READY=1"), "{:?}", systemd.heard());
}

#[test]
fn a_watchdog_runs_out_when_the_thread_of_the_loop_hangs() {
    let case = Case::new("hang", postgres(), kafka());
    let systemd = Systemd::abstract_socket("hang");
    let mut sluice = case.spawn_with(&[], &systemd.env());
    systemd.wait("READY=1", |line| line == "READY=1");
    systemd.wait_beats(3);
    let stopped = Stopped::new(&sluice);
    let before = systemd.beats();
    // Only the one thread stands still; what another one would feed would come, twice a second.
    for _ in 0..30 {
        assert_eq!(sluice.http("/livez").unwrap().0, 200);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(systemd.beats(), before);
    drop(stopped);
    systemd.wait_beats(3);
    assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
}

#[test]
fn who_waits_for_kafka_to_describe_a_topic_does_not_hang() {
    let (_lock, kafka) = mortal_kafka();
    let case = Case::new("describe", postgres(), kafka);
    let systemd = Systemd::abstract_socket("describe");
    let sets = ["topic.unlisted=route", "topic.create=true", "kafka.request_timeout=2s"];
    let mut sluice = case.spawn_with(&sets, &systemd.env());
    systemd.wait("READY=1", |line| line == "READY=1");
    kafka.ctl("1", "pause");
    case.postgres.sql_in(case.name, "create table fresh(id int primary key)");
    case.postgres.sql_in(case.name, "alter publication p add table fresh");
    case.postgres.sql_in(case.name, "insert into fresh values (1)");
    sluice.wait_log(LIMIT, &["cannot be looked up yet", "public.fresh"]);
    wait_progress(&sluice);
    kafka.ctl("1", "resume");
    case.wait_confirmed();
    assert_eq!(kafka.count("public.fresh"), 1);
    assert_eq!(sluice.stop(LIMIT), 0, "{}", sluice.log());
}

#[test]
fn who_drains_for_long_does_not_hang() {
    let (_lock, kafka) = mortal_kafka();
    let case = Case::new("longdrain", postgres(), kafka);
    let systemd = Systemd::abstract_socket("longdrain");
    let mut sluice = case.spawn_with(&["run.drain=60s"], &systemd.env());
    systemd.wait("READY=1", |line| line == "READY=1");
    kafka.ctl("1", "pause");
    case.postgres.sql_in(case.name, "insert into a values (1, 1, 'x')");
    eventually(LIMIT, "it has the row", || sluice.metric("pgsluice_rows_total", &["\"c\""]) > 0.0);
    sluice.sigterm();
    systemd.wait("what it is at", |line| line.starts_with("STATUS=draining: "));
    wait_progress(&sluice);
    systemd.wait_beats(3);
    kafka.ctl("1", "resume");
    assert_eq!(sluice.wait(LIMIT), 0, "{}", sluice.log());
}

/// Waits until the loop has reported for five seconds more.
#[track_caller]
fn wait_progress(sluice: &Pgsluice) {
    let progress = || {
        let (_, status) = sluice.http("/status").unwrap();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["progress_ms"].as_i64().unwrap()
    };
    let before = progress();
    eventually(Duration::from_secs(30), "the loop lives while it waits", || {
        progress() > before + 5000
    });
}

/// The main thread of a process that is ours, and no other, stands still until this is dropped. Until then its end
/// cannot be waited for.
struct Stopped(libc::pid_t);

impl Stopped {
    #[track_caller]
    fn new(sluice: &Pgsluice) -> Self {
        let thread = libc::pid_t::try_from(sluice.pid()).unwrap();
        assert_eq!(ptrace(libc::PTRACE_SEIZE, thread), 0, "a parent may trace its child");
        assert_eq!(ptrace(libc::PTRACE_INTERRUPT, thread), 0);
        let stat = format!("/proc/{thread}/task/{thread}/stat");
        eventually(LIMIT, "the thread stands still", || {
            std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") t "))
        });
        Self(thread)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        ptrace(libc::PTRACE_DETACH, self.0);
    }
}

#[allow(unsafe_code, reason = "ptrace(2) of a child of ours, without memory")]
fn ptrace(request: libc::c_uint, thread: libc::pid_t) -> libc::c_long {
    unsafe { libc::ptrace(request, thread, 0, 0) }
}
