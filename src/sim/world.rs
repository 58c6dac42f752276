//! What a simulated process stands on: the world gives it sockets and time, and a [`Gate`] holds all of
//! its tasks, so that it can be frozen, or ended, at any await.

use std::{
    cell::RefCell,
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
};

use super::Bug;

/// A connection of the simulated network.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug {}

/// A connection that is being made.
pub type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Socket>>> + Send>>;

/// Makes a connection to a host and port.
pub type Dial = Arc<dyn Fn(&str, u16) -> Dialing>;

/// The world of one history. It belongs to the thread.
#[derive(Clone)]
pub struct Hooks {
    /// A connection to this host and port.
    pub dial: Dial,
    /// The calendar's clock.
    pub unix: Arc<dyn Fn() -> Duration>,
    /// Since the machine was started.
    pub boot: Arc<dyn Fn() -> Duration>,
    /// The fault that is planted.
    pub bug: Option<Bug>,
}

thread_local! {
    static WORLD: RefCell<Option<Hooks>> = const { RefCell::new(None) };
    static INSIDE: RefCell<Option<Gate>> = const { RefCell::new(None) };
}

/// Makes this the world of this thread.
pub fn install(hooks: Option<Hooks>) {
    WORLD.with(|world| world.replace(hooks));
}

fn of_world<T>(ask: impl FnOnce(&Hooks) -> T) -> Option<T> {
    WORLD.with(|world| world.borrow().as_ref().map(ask))
}

/// `None`: there is no world, and so the real one is meant.
pub(crate) fn dial(host: &str, port: u16) -> Option<Dialing> {
    of_world(|world| (world.dial)(host, port))
}

/// Since 1970.
#[must_use]
pub fn unix() -> Duration {
    of_world(|world| (world.unix)()).unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
    })
}

/// Since the machine was started.
#[must_use]
pub fn boot() -> Duration {
    of_world(|world| (world.boot)()).unwrap_or_else(|| {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or(0))
            + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0))
    })
}

pub(super) fn planted(bug: Bug) -> bool {
    of_world(|world| world.bug == Some(bug)).unwrap_or(false)
}

/// All tasks of one process. A clone is the same process.
#[derive(Clone, Default)]
pub struct Gate(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    life: Life,
    /// So many more polls, and then that.
    fuse: Option<(u64, Life)>,
    waiting: Vec<Waker>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Life {
    #[default]
    Running,
    Frozen,
    Dead,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, life: Life) {
        let mut state = self.state();
        if state.life != Life::Dead {
            state.life = life;
        }
        state.fuse = None;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Nothing of it goes on, until [`Self::thaw`].
    pub fn freeze(&self) {
        self.set(Life::Frozen);
    }

    /// It goes on where it stood.
    pub fn thaw(&self) {
        self.set(Life::Running);
    }

    /// It is no more.
    pub fn kill(&self) {
        self.set(Life::Dead);
    }

    /// It is frozen, or killed, in so many steps.
    pub fn light(&self, steps: u64, kill: bool) {
        self.state().fuse = Some((steps, if kill { Life::Dead } else { Life::Frozen }));
    }

    /// Whether it goes on.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.state().life == Life::Running
    }

    /// Whether it is no more.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state().life == Life::Dead
    }

    /// A step on a socket: `true` if it may be made. Else the waker is kept. Here a process may end, but is
    /// not frozen: what it has decided in one go, it also does in one go.
    #[must_use]
    pub fn step(&self, cx: &Context<'_>) -> bool {
        self.poll(cx, false)
    }

    fn poll(&self, cx: &Context<'_>, freezes: bool) -> bool {
        let mut state = self.state();
        match &mut state.fuse {
            Some((0, Life::Frozen)) if !freezes => {}
            Some((0, life)) => {
                state.life = *life;
                state.fuse = None;
                let waiting = std::mem::take(&mut state.waiting);
                waiting.into_iter().for_each(Waker::wake);
            }
            Some((steps, _)) => *steps -= 1,
            None => {}
        }
        if state.life != Life::Running {
            state.waiting.push(cx.waker().clone());
        }
        state.life == Life::Running
    }
}

/// Runs `future` as part of the process behind `gate`, and what it spawns as well.
pub fn gated<F: Future>(gate: Gate, future: F) -> impl Future<Output = F::Output> {
    Gated { gate, future: Some(Box::pin(future)) }
}

struct Gated<F> {
    gate: Gate,
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        let runs = this.gate.poll(cx, true);
        let before = INSIDE.with(|inside| inside.replace(Some(this.gate.clone())));
        let polled = match &mut this.future {
            Some(future) if runs => future.as_mut().poll(cx),
            _ => Poll::Pending,
        };
        if this.gate.is_dead() {
            this.future = None; // what it holds is let go as the system does it
        }
        INSIDE.with(|inside| inside.replace(before));
        // What died in the midst of a step says nothing any more.
        if this.future.is_none() { Poll::Pending } else { polled }
    }
}

/// A task of the process that spawns it.
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match INSIDE.with(|inside| inside.borrow().clone()) {
        Some(gate) => tokio::spawn(gated(gate, future)),
        None => tokio::spawn(future),
    }
}
