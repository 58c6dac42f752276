//! `/metrics /livez /readyz /status`, for scrapers, probes and people.
//!
//! On a thread and a runtime of its own, so that it answers also while the loop is busy, and so that
//! no client of it can hold up a row.
//!
//! **Invariant.** A connection is one request and ends within `DEADLINE`; of `CONNECTIONS` the
//! oldest makes room for the next. Nobody who reads slowly, or says nothing, keeps others out.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::SocketAddr,
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::{
    net::TcpStream,
    sync::{oneshot, watch},
    task::AbortHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    retry::{Disposition, Exit},
    status::Status,
};

/// Longest life of a connection: Prometheus gives up on a scrape after 10 s too.
const DEADLINE: Duration = Duration::from_secs(10);

/// Longest wait for a request.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);

/// Connections at once.
const CONNECTIONS: usize = 64;

/// How often the histograms are folded, without which they grow until the next scrape.
const UPKEEP: Duration = Duration::from_secs(5);

/// Pause after a refused accept: mostly there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no HTTP.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Mostly another process has the port.
    #[error("admin.listen: could not listen on {at}")]
    Listen {
        /// Where.
        at: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The thread or its runtime could not be made.
    #[error("could not start the thread that serves admin.listen")]
    Thread(#[source] io::Error),
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        match self {
            Self::Listen { .. } => Disposition::Halt(Exit::Config),
            Self::Thread(_) => Disposition::Halt(Exit::Software),
        }
    }
}

/// A bound port that nobody answers at yet.
#[derive(Debug)]
pub struct Listener(std::net::TcpListener);

/// Takes the port, so that a taken one is noticed before anything else is begun.
///
/// # Errors
/// If it is taken, or the address is not this machine's.
pub fn bind(at: SocketAddr) -> Result<Listener, Error> {
    let bound = std::net::TcpListener::bind(at).and_then(|socket| {
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    bound.map(Listener).map_err(|source| Error::Listen { at, source })
}

impl Listener {
    /// Where it listens: with port 0, the one that the system chose.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// The running thread. Dropped, it ends by itself.
#[derive(Debug)]
pub struct Admin {
    stop: oneshot::Sender<Infallible>,
    thread: JoinHandle<()>,
}

impl Admin {
    /// Closes the port and waits for the thread.
    pub fn stop(self) {
        drop(self.stop);
        // Its panic was reported by the hook; there is nothing to add.
        let _ = self.thread.join();
    }
}

/// What every request is answered from.
#[derive(Clone)]
struct Sources {
    metrics: PrometheusHandle,
    status: watch::Receiver<Status>,
}

/// Answers from now on, on a thread of its own.
///
/// # Errors
/// If there can be no thread.
pub fn serve(
    listener: Listener,
    metrics: PrometheusHandle,
    status: watch::Receiver<Status>,
) -> Result<Admin, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Thread)?;
    let socket = {
        let _context = runtime.enter();
        tokio::net::TcpListener::from_std(listener.0).map_err(Error::Thread)?
    };
    let (stop, stopped) = oneshot::channel();
    let sources = Sources { metrics, status };
    let run = move || {
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = stopped => {} // nothing is ever sent: it was dropped
                () = answer(socket, &sources) => {}
            }
        });
        runtime.shutdown_background();
    };
    let thread =
        std::thread::Builder::new().name("admin".into()).spawn(run).map_err(Error::Thread)?;
    Ok(Admin { stop, thread })
}

/// Accepts for ever. Cancel-safe: a connection that was accepted has its own task.
async fn answer(socket: tokio::net::TcpListener, sources: &Sources) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    let mut upkeep = interval(UPKEEP);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = upkeep.tick() => {
                sources.metrics.run_upkeep();
                continue;
            }
        };
        let Ok((stream, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(tokio::spawn(connection(stream, sources.clone())).abort_handle());
    }
}

async fn connection(stream: TcpStream, sources: Sources) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), &sources);
        async { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Neither a client that hung up nor one that was too slow is news.
    let _ = timeout(DEADLINE, served).await;
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// <https://prometheus.io/docs/instrumenting/exposition_formats/>
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

fn respond(method: &Method, path: &str, sources: &Sources) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n".into());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => reply(StatusCode::OK, PROMETHEUS, sources.metrics.render()),
        "/livez" => verdict(sources.status.borrow().alive(now_ms()).map(|()| "alive".to_owned())),
        "/readyz" => verdict(sources.status.borrow().ready()),
        "/status" => match shown(&sources.status.borrow(), now_ms()) {
            Ok(json) => reply(StatusCode::OK, JSON, json),
            Err(error) => reply(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        },
        _ => reply(StatusCode::NOT_FOUND, TEXT, "/metrics /livez /readyz /status\n".into()),
    }
}

fn verdict(answer: Result<String, String>) -> Response<Full<Bytes>> {
    match answer {
        Ok(word) => reply(StatusCode::OK, TEXT, format!("{word}\n")),
        Err(reason) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{reason}\n")),
    }
}

fn shown(status: &Status, now_ms: i64) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Shown<'a> {
        #[serde(flatten)]
        status: &'a Status,
        uptime_seconds: i64,
        could_take_over: Option<bool>,
    }
    let could_take_over = status.could_take_over();
    let uptime_seconds = now_ms.saturating_sub(status.started_ms).max(0) / 1000;
    serde_json::to_string(&Shown { status, uptime_seconds, could_take_over })
        .map(|json| json + "\n")
}

fn reply(code: StatusCode, content: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
    };

    use metrics::Recorder as _;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::status::Role;

    struct Running {
        admin: Admin,
        at: SocketAddr,
        status: watch::Sender<Status>,
    }

    fn start() -> Running {
        let recorder = PrometheusBuilder::new().build_recorder();
        let key = metrics::Key::from_name("pgsluice_tried");
        let metadata = metrics::Metadata::new("test", metrics::Level::INFO, None);
        recorder.register_counter(&key, &metadata).increment(3);
        let (status, receiver) = watch::channel(Status {
            started_ms: now_ms() - 5000,
            slot: "cdc_slot".into(),
            ..Status::default()
        });
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let at = listener.address().unwrap();
        let admin = serve(listener, recorder.handle(), receiver).unwrap();
        Running { admin, at, status }
    }

    fn ask(at: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(9))).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn answers_probes_by_the_last_status() {
        let Running { admin, at, status } = start();
        let answer = ask(at, "GET /readyz");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\nconnecting\n"), "{answer}");
        assert!(ask(at, "GET /livez").starts_with("HTTP/1.1 200 "));

        status.send_modify(|status| status.role = Role::Streaming);
        assert!(ask(at, "GET /readyz").ends_with("\r\n\r\nstreaming\n"));
        let answer = ask(at, "GET /livez");
        assert!(answer.starts_with("HTTP/1.1 503 "), "it never made progress: {answer}");
        admin.stop();
        assert!(TcpStream::connect(at).is_err());
    }

    #[test]
    fn shows_metrics_and_status() {
        let Running { admin, at, .. } = start();
        let answer = ask(at, "GET /metrics");
        assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        assert!(answer.contains("pgsluice_tried 3"), "{answer}");
        let answer = ask(at, "GET /status?pretty");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["slot"], "cdc_slot");
        assert_eq!(body["uptime_seconds"], 5);
        admin.stop();
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let Running { admin, at, .. } = start();
        assert!(ask(at, "GET /secrets").starts_with("HTTP/1.1 404 "));
        let answer = ask(at, "POST /metrics");
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.contains("allow: GET, HEAD"), "{answer}");
        let answer = ask(at, "HEAD /livez");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(ask(at, "no").starts_with("HTTP/1.1 400 "));
        admin.stop();
    }

    #[test]
    fn silent_clients_keep_nobody_out() {
        let Running { admin, at, .. } = start();
        let silent: Vec<_> =
            (0..3 * CONNECTIONS).map(|_| TcpStream::connect(at).unwrap()).collect();
        assert!(ask(at, "GET /livez").starts_with("HTTP/1.1 200 "));
        drop(silent);
        admin.stop();
    }

    #[test]
    fn a_taken_port_is_a_matter_of_configuration() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let at = first.address().unwrap();
        let error = bind(at).unwrap_err();
        assert_eq!(error.disposition(), Disposition::Halt(Exit::Config));
        assert_eq!(error.to_string(), format!("admin.listen: could not listen on {at}"));
    }
}
