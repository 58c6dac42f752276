//! From a configuration to an exit code: logs, metrics, runtime, signals.

use std::{
    io::{self, IsTerminal as _, Write as _},
    panic, process,
    sync::Arc,
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin,
    app::{self, chain},
    metrics,
    notify::Notifier,
    retry::{Disposition, Exit},
    sink::stdout::Look,
    status::Status,
    tail, telemetry,
};

/// `pgsluice run`.
#[must_use]
pub fn run(options: app::Options, log: &telemetry::Options, warnings: &[String]) -> Exit {
    if let Err(error) = telemetry::init(log) {
        return refuse(&error, error.disposition());
    }
    report_panics();
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let (status, shown) = watch::channel(first_status(&options));
    let mut notifier =
        Notifier::new(|name| std::env::var_os(name), process::id(), options.pipeline.drain);
    let told = shown.clone();
    let admin = match options.admin.map(|at| serve(at, shown)).transpose() {
        Ok(admin) => admin,
        Err(error) => return refuse(&error, error.disposition()),
    };
    let exit = block_on(async |stop| {
        let ended = tokio::select! {
            biased; // a stop is told before it is done
            never = notifier.run(told, &stop, app::now_ms) => match never {},
            ended = app::run(options, status, stop.clone()) => ended,
        };
        match ended {
            Ok(()) => Exit::Done,
            Err(error) => {
                notifier.ended(&chain(&error));
                refuse(&error, error.disposition())
            }
        }
    });
    if let Some(admin) = admin {
        admin.stop();
    }
    exit
}

/// `pgsluice tail`.
#[must_use]
pub fn tail(options: &app::Options, log: &telemetry::Options, warnings: &[String]) -> Exit {
    if let Err(error) = telemetry::init(log) {
        return refuse(&error, error.disposition());
    }
    report_panics();
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let terminal = io::stdout().is_terminal();
    let plain = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
    let look = match (terminal, plain) {
        (false, _) => Look::Json,
        (true, true) => Look::Text,
        (true, false) => Look::Colour,
    };
    block_on(async |stop| {
        let mut out = io::BufWriter::new(io::stdout());
        match tail::run(options, look, &mut out, &stop).await {
            Ok(()) => Exit::Done,
            Err(error) => match error.disposition() {
                Disposition::Halt(Exit::Done) => Exit::Done, // the reader went away
                other => refuse(&error, other),
            },
        }
    })
}

/// The last word: what is wrong, and the exit code of its kind.
fn refuse(error: &dyn std::error::Error, disposition: Disposition) -> Exit {
    let text = chain(error);
    // Before logs are set up, this is how it is said; after, a second time does not harm a person.
    if tracing::dispatcher::has_been_set() {
        tracing::error!("{text}");
    } else {
        let _ = writeln!(io::stderr(), "pgsluice: {text}");
    }
    match disposition {
        Disposition::Halt(exit) => exit,
        Disposition::Retry => Exit::Software, // what may heal does not come here
    }
}

fn serve(
    at: std::net::SocketAddr,
    shown: watch::Receiver<Status>,
) -> Result<admin::Admin, admin::Error> {
    let listener = admin::bind(at)?;
    let full = |name: &str| Matcher::Full(name.to_owned());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(full(metrics::ACK_SECONDS), &metrics::ACK_BUCKETS)
        .and_then(|builder| {
            let heartbeats = full(metrics::HEARTBEAT_SECONDS);
            builder.set_buckets_for_metric(heartbeats, &metrics::ACK_BUCKETS)
        })
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| admin::Error::Thread(io::Error::other(error)))?;
    metrics::register(env!("CARGO_PKG_VERSION"));
    admin::serve(listener, recorder, shown)
}

fn first_status(options: &app::Options) -> Status {
    let now = app::now_ms();
    Status {
        since_ms: now,
        started_ms: now,
        progress_ms: now,
        version: env!("CARGO_PKG_VERSION"),
        slot: options.slot.name.clone(),
        publications: options.publication.names.clone(),
        ..Status::default()
    }
}

/// Where the kernel gives huge pages unasked, a buffer that is a tenth full takes 2 MiB: 50 MiB of RSS
/// were seen where 20 do. (The allocator is built not to ask for them.) It is only memory if this fails.
fn save_memory() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// What comes so soon after the first signal is the same one again: `timeout` tells a process and then its group, and
/// Ctrl-C reaches a process by the terminal and by what started it.
const ECHO: Duration = Duration::from_millis(200);

/// One thread for the whole path. The first SIGTERM or SIGINT asks to stop, the second ends at once.
fn block_on(work: impl AsyncFnOnce(CancellationToken) -> Exit) -> Exit {
    save_memory();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&error, Disposition::Halt(Exit::Software)),
    };
    let exit = runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::select! {
            exit = work(stop.clone()) => exit,
            exit = signals(&stop) => exit,
        }
    });
    runtime.shutdown_background();
    exit
}

/// Returns at the second signal only.
async fn signals(stop: &CancellationToken) -> Exit {
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be waited for: only SIGKILL will end this process");
        return std::future::pending().await;
    };
    let mut next = async || {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    next().await;
    tracing::info!("asked to stop: draining; once more to stop at once");
    stop.cancel();
    again(next).await;
    tracing::warn!("stopped at once: what was not confirmed will be sent again");
    Exit::Drain
}

/// Whoever asks once more, and is no [`ECHO`].
async fn again(mut next: impl AsyncFnMut()) {
    let asked = Instant::now();
    next().await;
    while asked.elapsed() < ECHO {
        next().await;
    }
}

/// A panic is a bug of ours: it is logged as such and ends the whole process, so that nothing goes
/// on with half a state.
fn report_panics() {
    let hook: Arc<dyn Fn(&panic::PanicHookInfo<'_>) + Sync + Send> = Arc::from(panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        hook(info);
        tracing::error!("a bug in pgsluice; please report it with the lines above");
        process::exit(i32::from(Exit::Software.code()));
    }));
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_signal_that_comes_twice_at_once_is_one() {
        let begin = Instant::now();
        let mut pauses = [0, 50, 120, 400, 1].into_iter().map(Duration::from_millis);
        again(async || match pauses.next() {
            Some(pause) => sleep(pause).await,
            None => std::future::pending().await,
        })
        .await;
        assert_eq!(begin.elapsed(), Duration::from_millis(570));
    }
}
