//! systemd's protocol: when it is ready, what it is at, that it stops, and that it lives.
//!
//! Datagrams to the socket that `NOTIFY_SOCKET` names; without one nothing happens. See
//! <https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html>. It is by hand, as
//! `sd-notify` knows no abstract socket and opens one for every message.
//!
//! **Invariants.** It runs on the thread of the loop, so that a thread that hangs feeds no watchdog;
//! and it feeds one only while [`Status::alive`], which `/livez` answers by too. It never waits for
//! systemd: a message that finds no room is lost, and what still holds is said again.

use std::{
    convert::Infallible,
    ffi::OsString,
    future::pending,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use tokio::{
    select,
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::status::Status;

/// Shortest time between two STATUS messages.
const PAUSE: Duration = Duration::from_secs(1);

/// How often a start that waits for a server asks for more time, and the most between two beats.
const BEAT: Duration = Duration::from_secs(10);

/// For how much it asks; and what a stop takes besides the drain.
const MORE: Duration = Duration::from_secs(60);

/// Longest STATUS: systemd takes a message of 4 KiB, and a person one line.
const LONGEST: usize = 500;

/// What is told to systemd.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Systemd's patience between two beats.
    watchdog: Option<Duration>,
    /// `run.drain`.
    drain: Duration,
    /// The last STATUS.
    said: String,
    ready: bool,
    stopping: bool,
    failed: bool,
}

impl Notifier {
    /// By the variables `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, which is `pid` if it is
    /// meant for this process.
    #[must_use]
    pub fn new(var: impl Fn(&str) -> Option<OsString>, pid: u32, drain: Duration) -> Self {
        let number = |name| var(name).and_then(|text| text.to_str()?.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|of| of == u64::from(pid));
        let patience = number("WATCHDOG_USEC").filter(|usec| *usec > 0 && ours);
        let socket = var("NOTIFY_SOCKET").filter(|name| !name.is_empty()).and_then(|name| {
            let opened = open(&name);
            opened
                .inspect_err(|error| {
                    let name = name.to_string_lossy();
                    tracing::warn!("NOTIFY_SOCKET is {name:?}: {error}; systemd is told nothing");
                })
                .ok()
        });
        Self {
            socket,
            watchdog: patience.map(Duration::from_micros),
            drain,
            said: String::new(),
            ready: false,
            stopping: false,
            failed: false,
        }
    }

    /// Tells what changes, for ever. `now_ms` is the clock of `status`.
    pub async fn run(
        &mut self,
        mut status: watch::Receiver<Status>,
        stop: &CancellationToken,
        now_ms: impl Fn() -> i64,
    ) -> Infallible {
        if self.socket.is_none() {
            return pending().await;
        }
        // Twice in systemd's patience, as it advises.
        let period = self.watchdog.map_or(BEAT, |patience| (patience / 2).min(BEAT));
        let mut beat = interval(period.max(Duration::from_millis(1)));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = Instant::now();
        status.mark_changed();
        loop {
            select! {
                biased;
                () = stop.cancelled(), if !self.stopping => self.stopping(),
                _ = beat.tick() => self.beat(status.borrow().alive(now_ms()).is_ok()),
                changed = later(next, &mut status) => {
                    if changed.is_err() {
                        return pending().await; // who sends has ended
                    }
                    next = Instant::now() + PAUSE;
                    self.tell(&status.borrow_and_update());
                }
            }
        }
    }

    /// The last words, when it ends by itself.
    pub fn ended(&mut self, why: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={}", line(&format!("ended: {why}"))));
    }

    fn tell(&mut self, status: &Status) {
        let text = line(&status.sentence());
        let ready = !self.ready && !self.stopping && status.ready().is_ok();
        if !ready && text == self.said {
            return;
        }
        let first = if ready { "READY=1\n" } else { "" };
        if self.send(&format!("{first}STATUS={text}")) {
            self.ready |= ready;
            self.said = text;
        }
    }

    /// A start that waits for a server is not cut off; one that hangs is.
    fn beat(&mut self, alive: bool) {
        if !alive {
            return;
        }
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1");
        }
        if !self.ready && !self.stopping {
            self.send(&format!("EXTEND_TIMEOUT_USEC={}", MORE.as_micros()));
        }
    }

    /// However long `run.drain` is, `TimeoutStopSec=` does not end it.
    fn stopping(&mut self) {
        self.stopping = true;
        let most = self.drain.saturating_add(MORE).as_micros();
        self.send(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={most}"));
    }

    /// Whether it was sent.
    fn send(&mut self, message: &str) -> bool {
        let Some((socket, to)) = &self.socket else { return false };
        let sent = socket.send_to_addr(message.as_bytes(), to);
        if let Err(error) = &sent
            && error.kind() != io::ErrorKind::WouldBlock
            && !std::mem::replace(&mut self.failed, true)
        {
            tracing::warn!("systemd could not be told {message:?}: {error}");
        }
        sent.is_ok()
    }
}

/// The next change, but not before `when`. Cancel-safe, as both waits are.
async fn later(
    when: Instant,
    status: &mut watch::Receiver<Status>,
) -> Result<(), watch::error::RecvError> {
    sleep_until(when).await;
    status.changed().await
}

/// A path, or after an `@` an abstract name.
fn open(name: &OsString) -> io::Result<(UnixDatagram, SocketAddr)> {
    let to = match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        [b'@', name @ ..] if !name.is_empty() => SocketAddr::from_abstract_name(name)?,
        _ => return Err(io::Error::other("neither an absolute path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, to))
}

/// One line that is not too long: a second one would be another message.
fn line(text: &str) -> String {
    let end = text.floor_char_boundary(LONGEST);
    text.get(..end).unwrap_or_default().replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, Ordering},
    };

    use tokio::{task::JoinHandle, time::sleep};

    use super::*;
    use crate::status::Role;

    const SECOND: Duration = Duration::from_secs(1);

    /// systemd's end of an abstract socket, and a [`Notifier`] that runs on a clock of its own.
    struct Systemd {
        socket: UnixDatagram,
        status: watch::Sender<Status>,
        stop: CancellationToken,
        now_ms: Arc<AtomicI64>,
        task: JoinHandle<()>,
    }

    impl Drop for Systemd {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    impl Systemd {
        fn new(vars: &[(&str, &str)]) -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("pgsluice-notify-{}-{next}", std::process::id());
            let at = SocketAddr::from_abstract_name(&name).unwrap();
            let socket = UnixDatagram::bind_addr(&at).unwrap();
            socket.set_nonblocking(true).unwrap();
            let var = |wanted: &str| match wanted {
                "NOTIFY_SOCKET" => Some(format!("@{name}").into()),
                _ => vars.iter().find(|(var, _)| *var == wanted).map(|(_, value)| value.into()),
            };
            let mut notifier = Notifier::new(var, 7, 90 * SECOND);
            let (status, shown) = watch::channel(Status { slot: "s".into(), ..Status::default() });
            let (stop, now_ms) = (CancellationToken::new(), Arc::new(AtomicI64::new(0)));
            let (stopped, clock) = (stop.clone(), Arc::clone(&now_ms));
            let task = tokio::spawn(async move {
                let clock = || clock.load(Ordering::Relaxed);
                match notifier.run(shown, &stopped, clock).await {}
            });
            Self { socket, status, stop, now_ms, task }
        }

        /// All lines that came within this time; the kernel holds ten messages at most.
        async fn heard(&self, time: Duration) -> Vec<String> {
            let (mut lines, mut buffer) = (Vec::new(), [0; 4096]);
            let until = Instant::now() + time;
            while Instant::now() < until {
                sleep(SECOND.min(time)).await;
                while let Ok(length) = self.socket.recv(&mut buffer) {
                    let message = std::str::from_utf8(&buffer[..length]).unwrap();
                    lines.extend(message.lines().map(str::to_owned));
                }
            }
            lines
        }
    }

    fn beats(lines: &[String]) -> usize {
        lines.iter().filter(|line| *line == "WATCHDOG=1").count()
    }

    #[tokio::test(start_paused = true)]
    async fn feeds_the_watchdog_while_the_loop_turns_and_not_when_it_hangs() {
        let systemd = Systemd::new(&[("WATCHDOG_USEC", "4000000"), ("WATCHDOG_PID", "7")]);
        systemd.status.send_modify(|status| status.role = Role::Streaming);
        assert!(beats(&systemd.heard(21 * SECOND).await) >= 10);
        // Nothing was reported for a minute and a second: `/livez` is 503.
        systemd.now_ms.store(61_000, Ordering::Relaxed);
        assert!(systemd.status.borrow().alive(61_000).is_err());
        assert_eq!(beats(&systemd.heard(21 * SECOND).await), 0);
        systemd.status.send_modify(|status| status.progress_ms = 60_000);
        assert!(beats(&systemd.heard(21 * SECOND).await) >= 10);
    }

    #[tokio::test(start_paused = true)]
    async fn says_ready_once_and_asks_for_time_until_then() {
        let systemd = Systemd::new(&[]);
        let heard = systemd.heard(25 * SECOND).await;
        assert!(heard.contains(&"STATUS=connecting".to_owned()), "{heard:?}");
        let more = heard.iter().filter(|line| *line == "EXTEND_TIMEOUT_USEC=60000000").count();
        assert_eq!((more, beats(&heard)), (3, 0), "{heard:?}");
        assert!(!heard.contains(&"READY=1".to_owned()), "{heard:?}");
        systemd.status.send_modify(|status| {
            (status.role, status.reason) = (Role::Passive, Some("in use\nby 4711".into()));
        });
        assert_eq!(systemd.heard(SECOND).await, ["READY=1", "STATUS=passive: in use by 4711"]);
        systemd.status.send_modify(|status| status.role = Role::Streaming);
        let heard = systemd.heard(25 * SECOND).await;
        assert_eq!(heard, ["STATUS=streaming from slot s: all is stored"]);
    }

    #[tokio::test(start_paused = true)]
    async fn says_what_changes_at_most_once_a_second() {
        let systemd = Systemd::new(&[]);
        systemd.status.send_modify(|status| status.role = Role::Streaming);
        assert!(systemd.heard(SECOND / 2).await.contains(&"READY=1".to_owned()));
        for lag in 1..=50 {
            systemd.status.send_modify(|status| status.lag_seconds = f64::from(lag));
            sleep(SECOND / 10).await;
        }
        let heard = systemd.heard(SECOND).await;
        assert!((5..=7).contains(&heard.len()), "{heard:?}");
        assert!(heard.last().unwrap().contains("50 s"), "{heard:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_has_the_time_that_the_drain_may_take() {
        let systemd = Systemd::new(&[("WATCHDOG_USEC", "4000000")]);
        systemd.status.send_modify(|status| status.role = Role::Streaming);
        systemd.heard(SECOND).await;
        systemd.stop.cancel();
        let heard = systemd.heard(SECOND / 2).await;
        assert_eq!(heard, ["STOPPING=1", "EXTEND_TIMEOUT_USEC=150000000"]);
        assert!(beats(&systemd.heard(21 * SECOND).await) >= 10, "it drains, and lives");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watchdog_of_another_process_is_not_fed() {
        let systemd = Systemd::new(&[("WATCHDOG_USEC", "4000000"), ("WATCHDOG_PID", "8")]);
        systemd.status.send_modify(|status| status.role = Role::Streaming);
        assert_eq!(beats(&systemd.heard(21 * SECOND).await), 0);
    }

    #[test]
    fn a_socket_that_cannot_be_meant_is_refused() {
        for name in ["relative", "vsock:2:1234", "@"] {
            assert!(open(&name.into()).is_err(), "{name}");
        }
    }

    #[test]
    fn a_line_is_cut_between_characters() {
        assert_eq!(line(&"ä".repeat(LONGEST)).len(), LONGEST);
    }
}
