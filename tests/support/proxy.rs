//! A bad network: a TCP proxy whose manners change while it runs.
//!
//! Threads and blocking sockets with a short timeout: slow, but nothing in it can be wrong in an interesting way.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::SockRef;

/// How the network behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// As it should.
    Pass,
    /// Connections stay open, and new ones are taken, but no byte moves: a firewall that forgot, a switch without power.
    /// What was under way arrives when [`Mode::Pass`] comes back.
    BlackHole,
    /// Every connection is reset (RST), and every new one too.
    Cut,
    /// Passes this many bytes more towards the client, in all connections together, then resets them. New ones are then reset
    /// too: from there on it is [`Mode::Cut`].
    CutAfter(u64),
    /// The same for bytes towards the server.
    CutAfterSent(u64),
    /// Passes this many bytes more towards the client in the oldest connection that is open, and is then a [`Mode::BlackHole`].
    /// What the proxy had read of those that follow is lost.
    HoleAfter(u64),
    /// A narrow link: so many bytes a second in each direction, for all connections together. What waits for its turn fills
    /// the socket of the sender, as nobody reads ahead of it.
    Slow(u32),
}

/// A proxy on 127.0.0.1; dropped, it resets its connections and is gone.
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
    accept: Option<JoinHandle<()>>,
}

struct Shared {
    mode: Mutex<Mode>,
    target: String,
    /// What is put in place of what, towards the client.
    rewrites: Vec<(Vec<u8>, Vec<u8>)>,
    /// Changed to end all connections that are open at that moment.
    generation: AtomicU64,
    open: Mutex<BTreeSet<usize>>,
    accepted: AtomicUsize,
    /// What connections below this number send is kept.
    hold_below: AtomicUsize,
    /// Bytes that are kept.
    held: AtomicUsize,
    gone: Mutex<bool>,
    /// From when on a slow link is free again, towards the server and towards the client.
    free: [Mutex<Option<Instant>>; 2],
}

/// How often a thread looks whether the mode has changed.
const LOOK: Duration = Duration::from_millis(10);

/// What the kernel may hold of a connection on either side. By itself it would take megabytes off a sender, who could not tell
/// then whether a slow link moves.
const KERNEL: usize = 64 * 1024;

/// How long the server may answer what was let go, when the client is no more.
const AFTERLIFE: Duration = Duration::from_secs(3);

impl Proxy {
    /// Listens on `port` and connects to `target` (`host:port`) for each connection.
    pub fn start(port: u16, target: &str) -> Self {
        Self::rewriting(port, target, &[])
    }

    /// The same, and puts other bytes of the same length in place of some that the server sends, where they
    /// come in one read: short answers do.
    pub fn rewriting(port: u16, target: &str, rewrites: &[(&[u8], &[u8])]) -> Self {
        let same = |(from, to): &(&[u8], &[u8])| from.len() == to.len();
        assert!(rewrites.iter().all(same), "the length stays the same");
        let rewrites = rewrites.iter().map(|(from, to)| (from.to_vec(), to.to_vec())).collect();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .unwrap_or_else(|e| panic!("proxy on {port}: {e}"));
        listener.set_nonblocking(true).expect("a listener may be non-blocking");
        let _ = SockRef::from(&listener).set_recv_buffer_size(KERNEL); // the accepted sockets have it too
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Pass),
            target: target.to_owned(),
            rewrites,
            generation: AtomicU64::new(0),
            open: Mutex::default(),
            accepted: AtomicUsize::new(0),
            hold_below: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            gone: Mutex::new(false),
            free: [Mutex::new(None), Mutex::new(None)],
        });
        let accept = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || accept(&listener, &shared))
        };
        Self { shared, port, accept: Some(accept) }
    }

    /// Where it listens; useful after a start with port 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes the network, for connections that are open too.
    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }

    /// Resets what is open now, and lets new connections pass.
    pub fn cut_once(&self) {
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
        self.set(Mode::Pass);
    }

    /// From now on keeps what the connections that are open now send, also beyond the death of their client; answers and new
    /// connections pass.
    pub fn hold(&self) {
        self.shared.held.store(0, Ordering::SeqCst);
        self.shared.hold_below.store(self.accepted(), Ordering::SeqCst);
    }

    /// Bytes that are held, or were held last.
    pub fn held(&self) -> usize {
        self.shared.held.load(Ordering::SeqCst)
    }

    /// Lets go what is held: it reaches the server now, as if the network had been slow.
    pub fn let_go(&self) {
        self.shared.hold_below.store(0, Ordering::SeqCst);
    }

    /// How the network behaves now: after a [`Mode::CutAfter`] that has cut it is [`Mode::Cut`].
    pub fn mode(&self) -> Mode {
        self.shared.mode()
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.shared.numbers().len()
    }

    /// Connections that were taken so far: a reconnect shows here.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        *self.shared.gone.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.set(Mode::Cut);
        if let Some(thread) = self.accept.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gone(&self) -> bool {
        *self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of the connections that are open.
    fn numbers(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self, number: usize) -> bool {
        number < self.hold_below.load(Ordering::SeqCst) && !self.gone()
    }

    fn rewrite(&self, bytes: &mut [u8]) {
        for (from, to) in &self.rewrites {
            let mut rest = &mut *bytes;
            while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
                let (_, found) = rest.split_at_mut(at);
                let (found, after) = found.split_at_mut(from.len());
                found.copy_from_slice(to);
                rest = after;
            }
        }
    }

    /// Waits until a slow link has carried `length` bytes, if the mode is that.
    fn carry(&self, towards_client: bool, length: usize) {
        let Mode::Slow(rate) = self.mode() else { return };
        let [to_server, to_client] = &self.free;
        let free = if towards_client { to_client } else { to_server };
        let now = Instant::now();
        let took = Duration::from_secs(length as u64) / rate.max(1);
        let done = {
            let mut free = free.lock().unwrap_or_else(PoisonError::into_inner);
            let done = free.filter(|&free| free > now).unwrap_or(now) + took;
            *free.insert(done)
        };
        while matches!(self.mode(), Mode::Slow(_)) && Instant::now() < done {
            std::thread::sleep(LOOK.min(done.saturating_duration_since(Instant::now())));
        }
    }

    /// Takes `wanted` bytes out of what may still pass: how many of them go on, and what comes then if it is over.
    fn allow(&self, number: usize, towards_client: bool, wanted: usize) -> (usize, Option<Mode>) {
        let oldest = self.numbers().first() == Some(&number);
        let mut mode = self.mode.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, then) = match (&mut *mode, towards_client) {
            (Mode::CutAfter(left), true) | (Mode::CutAfterSent(left), false) => (left, Mode::Cut),
            (Mode::HoleAfter(left), true) if oldest => (left, Mode::BlackHole),
            _ => return (wanted, None),
        };
        let pass = usize::try_from(*left).unwrap_or(usize::MAX).min(wanted);
        *left -= u64::try_from(pass).unwrap_or(u64::MAX);
        (pass, (*left == 0).then_some(then))
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads = Vec::new();
    while !shared.gone() {
        match listener.accept() {
            Ok((client, _)) => {
                let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(shared);
                threads.push(std::thread::spawn(move || serve(&client, &shared, number)));
            }
            Err(_) => std::thread::sleep(LOOK),
        }
    }
    for thread in threads {
        let _ = thread.join();
    }
}

/// One connection, until either end or the mode ends it.
fn serve(client: &TcpStream, shared: &Shared, number: usize) {
    let born = shared.generation.load(Ordering::SeqCst);
    let _ = client.set_nonblocking(false);
    while shared.mode() == Mode::BlackHole {
        std::thread::sleep(LOOK);
    }
    let address = shared.target.to_socket_addrs().ok().and_then(|mut all| all.next());
    let server = address
        .and_then(|address| TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok());
    let Some(server) = server.filter(|_| shared.mode() != Mode::Cut) else {
        return reset(client);
    };
    shared.numbers().insert(number);
    for stream in [client, &server] {
        let _ = SockRef::from(stream).set_send_buffer_size(KERNEL);
        let _ = SockRef::from(stream).set_recv_buffer_size(KERNEL);
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(LOOK));
        let _ = stream.set_write_timeout(Some(LOOK));
    }
    std::thread::scope(|scope| {
        scope.spawn(|| pump(client, &server, shared, born, number, false));
        scope.spawn(|| pump(&server, client, shared, born, number, true));
    });
    shared.numbers().remove(&number);
    if shared.mode() == Mode::Cut || shared.generation.load(Ordering::SeqCst) != born {
        reset(client);
        reset(&server);
    }
}

/// Moves bytes one way. Ends when its source does, after passing that on, or when the connection is to be reset. The client's
/// bytes may be held, by the connection's number.
fn pump(
    from: &TcpStream,
    to: &TcpStream,
    shared: &Shared,
    born: u64,
    number: usize,
    towards_client: bool,
) {
    let held = || !towards_client && shared.holds(number);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if shared.mode() == Mode::Cut || shared.generation.load(Ordering::SeqCst) != born {
            return;
        }
        if shared.mode() == Mode::BlackHole {
            std::thread::sleep(LOOK);
            continue;
        }
        if held() {
            if !hold(from, to, shared, born, number, Vec::new()) {
                return;
            }
            continue;
        }
        // Little at a time on a slow link, so that its users take turns.
        let most = if matches!(shared.mode(), Mode::Slow(_)) { 4 * 1024 } else { buffer.len() };
        match (&*from).read(buffer.get_mut(..most).unwrap_or_default()) {
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            // This read had begun before the hold did.
            Ok(length) if held() => {
                let kept = buffer.get(..length).unwrap_or_default().to_vec();
                if !hold(from, to, shared, born, number, kept) {
                    return;
                }
            }
            Ok(length) => {
                if towards_client {
                    shared.rewrite(buffer.get_mut(..length).unwrap_or_default());
                }
                shared.carry(towards_client, length);
                let (pass, then) = shared.allow(number, towards_client, length);
                let part = buffer.get(..pass).unwrap_or_default();
                if !write(to, part, shared, born) {
                    return;
                }
                if let Some(then) = then {
                    *shared.mode.lock().unwrap_or_else(PoisonError::into_inner) = then;
                    if then == Mode::Cut {
                        return;
                    }
                }
            }
            Err(error) if again(&error) => {}
            Err(_) => {
                let _ = to.shutdown(Shutdown::Both);
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
        }
    }
}

/// Keeps what came last and what comes until it is let go. `false`: the connection is over.
fn hold(
    mut from: &TcpStream,
    to: &TcpStream,
    shared: &Shared,
    born: u64,
    number: usize,
    mut kept: Vec<u8>,
) -> bool {
    shared.held.fetch_add(kept.len(), Ordering::SeqCst);
    let mut ended = false;
    let mut buffer = vec![0; 64 * 1024];
    while shared.holds(number) && shared.generation.load(Ordering::SeqCst) == born {
        if ended {
            std::thread::sleep(LOOK);
            continue;
        }
        match from.read(&mut buffer) {
            Ok(0) => ended = true,
            Ok(length) => {
                kept.extend_from_slice(buffer.get(..length).unwrap_or_default());
                shared.held.fetch_add(length, Ordering::SeqCst);
            }
            Err(error) if again(&error) => {}
            Err(_) => ended = true, // killed with answers that it had not read
        }
    }
    if !write(to, &kept, shared, born) {
        return false;
    }
    if ended {
        // Closed at once, the server might not read it.
        let begin = Instant::now();
        while begin.elapsed() < AFTERLIFE && !shared.gone() {
            std::thread::sleep(LOOK);
        }
        let _ = to.shutdown(Shutdown::Write);
    }
    !ended
}

/// Writes all of it, however long a slow reader takes, unless the connection is to be reset.
fn write(mut to: &TcpStream, mut part: &[u8], shared: &Shared, born: u64) -> bool {
    while !part.is_empty() {
        if shared.mode() == Mode::Cut || shared.generation.load(Ordering::SeqCst) != born {
            return false;
        }
        if shared.mode() == Mode::BlackHole {
            std::thread::sleep(LOOK); // read just before it began
            continue;
        }
        match to.write(part) {
            Ok(length) => part = part.get(length..).unwrap_or_default(),
            Err(error) if again(&error) => {}
            Err(_) => return false,
        }
    }
    true
}

fn again(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// With a linger of zero the close that follows sends RST; a shutdown before it would send FIN.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
