//! The network: connections whose bytes are late, held, cut, and delivered in part.
//!
//! A process reaches a server under a name that begins with its own letter: `a.kafka1`, `b.pg1`.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use pgsluice::sim::{Dialing, Gate, Socket};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};

use super::{chance::Chance, trace::Trace};

/// Bytes on the way, beyond which a writer waits.
const WINDOW: usize = 64 << 10;

pub type Accept = Arc<dyn Fn(char, End) + Send + Sync>;

struct Server {
    gate: Gate,
    accept: Accept,
}

#[derive(Clone)]
pub struct Net(Arc<Mutex<State>>);

struct State {
    seed: u64,
    servers: BTreeMap<String, Server>,
    connections: Vec<Arc<Connection>>,
    /// Of each pair, how many there were.
    counted: BTreeMap<(char, String), u64>,
    processes: BTreeMap<char, Gate>,
    /// What is written between them is held until then.
    held: BTreeMap<(char, String), Instant>,
    trace: Trace,
    watch: Watch,
}

/// Is shown what processes write: who, to whom, and the bytes of one write to PostgreSQL, or the first eight of a
/// request to Kafka, or the whole of one that ends a transaction.
pub type Watch = Arc<dyn Fn(char, &str, &[u8]) + Send + Sync>;

struct Connection {
    client: char,
    server: String,
    watch: Watch,
    /// To the server, and from it.
    pipes: Mutex<[Pipe; 2]>,
}

struct Pipe {
    queue: VecDeque<(Instant, Vec<u8>)>,
    taken: usize,
    bytes: usize,
    last: Instant,
    held: Option<Instant>,
    /// The writer has ended.
    ended: bool,
    /// The reader has gone.
    unread: bool,
    broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    chance: Chance,
    frames: Frames,
}

/// Where requests begin in what is written.
#[derive(Default)]
struct Frames {
    head: Vec<u8>,
    /// Bytes of this one that are still to come.
    left: usize,
    /// Transactions were begun and ended here.
    transacts: bool,
}

impl Frames {
    /// The heads that are whole with these bytes: length, key and version.
    fn heads(&mut self, mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut heads = Vec::new();
        while !bytes.is_empty() {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = &bytes[skipped..];
            let wanted = self.wanted();
            let taken = (wanted - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.head.len() >= self.wanted() {
                self.left = (self.length() + 4).saturating_sub(self.head.len());
                self.transacts |= matches!(self.head[4..6], [0, 24 | 26]);
                heads.push(std::mem::take(&mut self.head));
            }
        }
        heads
    }

    fn length(&self) -> usize {
        self.head.first_chunk().map_or(0, |length| u32::from_be_bytes(*length) as usize)
    }

    /// Bytes of this one that are kept.
    fn wanted(&self) -> usize {
        match self.head.get(4..8) {
            Some([0, 26, ..]) => self.length() + 4,
            _ => 8,
        }
    }
}

impl Pipe {
    fn new(chance: Chance) -> Self {
        Self {
            queue: VecDeque::new(),
            taken: 0,
            bytes: 0,
            last: Instant::now(),
            held: None,
            ended: false,
            unread: false,
            broken: false,
            reader: None,
            writer: None,
            chance,
            frames: Frames::default(),
        }
    }

    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    /// When what is next can be read. `None`: there is nothing.
    fn next(&self) -> Option<Instant> {
        let at = match self.queue.front() {
            Some((at, _)) => *at,
            None if self.ended => self.last,
            None => return None,
        };
        Some(self.held.map_or(at, |held| held.max(at)))
    }

    fn put(&mut self, bytes: &[u8]) {
        let delay = match self.chance.below(200) {
            0..150 => 0,
            150..190 => 1,
            190..199 => self.chance.between(2, 20),
            _ => self.chance.between(20, 300),
        };
        self.last = self.last.max(Instant::now() + Duration::from_millis(delay));
        self.bytes += bytes.len();
        self.queue.push_back((self.last, bytes.to_vec()));
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// What is on the way arrives in part, or not at all.
    fn cut(&mut self) {
        let total = self.bytes as u64;
        let mut left =
            if self.chance.one_in(2) { 0 } else { self.chance.below(total + 1) as usize };
        let mut taken = self.taken;
        for (_, bytes) in &mut self.queue {
            let keep = left.min(bytes.len() - taken);
            left -= keep;
            bytes.truncate(taken + keep);
            taken = 0;
        }
        self.queue.retain(|(_, bytes)| !bytes.is_empty());
        if self.queue.front().is_some_and(|(_, bytes)| bytes.len() <= self.taken) {
            self.queue.pop_front();
            self.taken = 0;
        }
        self.bytes = self.queue.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() - self.taken;
        (self.broken, self.held) = (true, None);
        self.wake();
    }
}

impl Net {
    pub fn new(seed: u64, trace: Trace, watch: Watch) -> Self {
        Self(Arc::new(Mutex::new(State {
            seed,
            servers: BTreeMap::new(),
            connections: Vec::new(),
            counted: BTreeMap::new(),
            processes: BTreeMap::new(),
            held: BTreeMap::new(),
            trace,
            watch,
        })))
    }

    /// From here on it listens.
    pub fn listen(&self, name: &str, gate: Gate, accept: Accept) {
        self.0.lock().unwrap().servers.insert(name.to_owned(), Server { gate, accept });
    }

    /// The world ends: servers hold their network, and it holds them.
    pub fn end(&self) {
        let (servers, connections) = {
            let mut state = self.0.lock().unwrap();
            (std::mem::take(&mut state.servers), std::mem::take(&mut state.connections))
        };
        drop((servers, connections));
    }

    pub fn process(&self, name: char, gate: Gate) {
        self.0.lock().unwrap().processes.insert(name, gate);
    }

    pub fn dial(&self, host: &str) -> Dialing {
        let (this, host) = (self.clone(), host.to_owned());
        Box::pin(async move {
            let delay = {
                let mut state = this.0.lock().unwrap();
                let client = host.chars().next().unwrap_or('?');
                let server = host.get(2..).unwrap_or_default().to_owned();
                let seed = state.seed;
                let number = state.counted.entry((client, server.clone())).or_default();
                *number += 1;
                let mut chance = Chance::of(seed, &format!("dial {client} {server} {number}"));
                let held = state.held.get(&(client, server)).copied();
                let now = Instant::now();
                held.filter(|at| *at > now).map_or_else(|| chance.ms(0, 2), |at| at - now)
            };
            if !delay.is_zero() {
                sleep(delay).await;
            }
            this.connect(&host)
        })
    }

    fn connect(&self, host: &str) -> io::Result<Box<dyn Socket>> {
        let mut state = self.0.lock().unwrap();
        let client = host.chars().next().unwrap_or('?');
        let name = host.get(2..).unwrap_or_default().to_owned();
        let seed = state.seed;
        let process = state.processes.get(&client).cloned().unwrap_or_default();
        let number = state.counted.get(&(client, name.clone())).copied().unwrap_or(0);
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let server = state.servers.get(&name).ok_or_else(refused)?;
        if server.gate.is_dead() {
            return Err(refused());
        }
        let (gate, accept) = (server.gate.clone(), Arc::clone(&server.accept));
        let pipe =
            |way: &str| Pipe::new(Chance::of(seed, &format!("{way} {client} {name} {number}")));
        let pipes = Mutex::new([pipe("to"), pipe("from")]);
        let connection =
            Arc::new(Connection { client, server: name, watch: Arc::clone(&state.watch), pipes });
        state.connections.retain(|one| Arc::strong_count(one) > 1);
        state.connections.push(Arc::clone(&connection));
        drop(state);
        let end = |way, gate| End { connection: Arc::clone(&connection), way, gate, sleep: None };
        let (ours, theirs) = (end(0, process), end(1, gate));
        accept(client, theirs);
        Ok(Box::new(ours))
    }

    fn of(&self, client: char, server: &str) -> Vec<Arc<Connection>> {
        let state = self.0.lock().unwrap();
        let of = |one: &&Arc<Connection>| {
            (client == '*' || one.client == client) && one.server.starts_with(server)
        };
        state.connections.iter().filter(of).cloned().collect()
    }

    /// Ends every connection between them; what is on the way arrives in part.
    pub fn cut(&self, client: char, server: &str) {
        for connection in self.of(client, server) {
            self.0.lock().unwrap().trace.say(format_args!("cut {client} {}", connection.server));
            connection.pipes.lock().unwrap().iter_mut().for_each(Pipe::cut);
        }
    }

    /// Nothing arrives until then: `ways` is what goes to the server, and what comes from it.
    pub fn hold(&self, client: char, server: &str, ways: [bool; 2], until: Instant) {
        for connection in self.of(client, server) {
            let mut pipes = connection.pipes.lock().unwrap();
            for (pipe, _) in pipes.iter_mut().zip(ways).filter(|(_, held)| *held) {
                pipe.held = Some(until);
                pipe.wake();
            }
        }
        if ways == [true, true] {
            let mut state = self.0.lock().unwrap();
            let servers: Vec<String> =
                state.servers.keys().filter(|name| name.starts_with(server)).cloned().collect();
            for server in servers {
                state.held.insert((client, server), until);
            }
        }
    }

    /// What a process has to say to the coordinator of its transactions does not arrive until then.
    pub fn hold_ends(&self, client: char, until: Instant) {
        for connection in self.of(client, "kafka") {
            let mut pipes = connection.pipes.lock().unwrap();
            if pipes[0].frames.transacts {
                pipes[0].held = Some(until);
                pipes[0].wake();
            }
        }
    }

    /// Whatever is held arrives.
    pub fn release(&self) {
        for connection in self.of('*', "") {
            for pipe in connection.pipes.lock().unwrap().iter_mut() {
                pipe.held = None;
                pipe.wake();
            }
        }
        self.0.lock().unwrap().held.clear();
    }
}

/// One end of a connection: of the process or server behind its gate.
pub struct End {
    connection: Arc<Connection>,
    /// The pipe that it writes to.
    way: usize,
    gate: Gate,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl std::fmt::Debug for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("End").field(&self.connection.client).field(&self.connection.server).finish()
    }
}

impl Socket for End {}

impl End {
    /// Writes at once, however much is on the way.
    pub fn push(&self, bytes: &[u8]) {
        let pipe = &mut self.connection.pipes.lock().unwrap()[self.way];
        if !pipe.broken && !pipe.unread && !bytes.is_empty() {
            pipe.put(bytes);
        }
    }

    /// Bytes that are written and not read.
    pub fn backlog(&self) -> usize {
        self.connection.pipes.lock().unwrap()[self.way].bytes
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.gate.step(cx) {
            return Poll::Pending;
        }
        loop {
            let mut pipes = this.connection.pipes.lock().unwrap();
            let pipe = &mut pipes[1 - this.way];
            let next = pipe.next();
            if next.is_some_and(|at| at <= Instant::now()) {
                let Some((_, bytes)) = pipe.queue.front() else {
                    return Poll::Ready(if pipe.broken { Err(reset()) } else { Ok(()) });
                };
                let some = &bytes[pipe.taken..];
                let some = &some[..some.len().min(buf.remaining())];
                buf.put_slice(some);
                pipe.taken += some.len();
                pipe.bytes -= some.len();
                if pipe.taken == bytes.len() {
                    pipe.queue.pop_front();
                    pipe.taken = 0;
                }
                if let Some(writer) = pipe.writer.take() {
                    writer.wake();
                }
                return Poll::Ready(Ok(()));
            }
            if pipe.broken && pipe.queue.is_empty() {
                return Poll::Ready(Err(reset()));
            }
            pipe.reader = Some(cx.waker().clone());
            drop(pipes);
            let Some(at) = next else { return Poll::Pending };
            let mut sleep = Box::pin(sleep_until(at));
            let done = sleep.as_mut().poll(cx).is_ready();
            this.sleep = Some(sleep);
            if !done {
                return Poll::Pending;
            }
        }
    }
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.gate.step(cx) {
            return Poll::Pending;
        }
        let connection = &this.connection;
        let pipe = &mut connection.pipes.lock().unwrap()[this.way];
        if pipe.broken || pipe.ended {
            return Poll::Ready(Err(reset()));
        }
        if this.way == 0 && connection.server.starts_with("pg") {
            (connection.watch)(connection.client, &connection.server, bytes);
        }
        if pipe.unread {
            // The kernel takes it; what comes back is a reset.
            pipe.broken = true;
            return Poll::Ready(Ok(bytes.len()));
        }
        if pipe.bytes >= WINDOW {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        // SQL is written whole: the names of statements are counted over all histories of a process.
        let part = !this.connection.server.starts_with("pg") && pipe.chance.one_in(16);
        let count =
            if part { 1 + pipe.chance.below(bytes.len() as u64) as usize } else { bytes.len() };
        let count = count.min(bytes.len());
        if this.way == 0 && !connection.server.starts_with("pg") {
            for head in pipe.frames.heads(&bytes[..count]) {
                (connection.watch)(connection.client, &connection.server, &head);
            }
        }
        pipe.put(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let pipe = &mut self.connection.pipes.lock().unwrap()[self.way];
        pipe.ended = true;
        pipe.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let Ok(mut pipes) = self.connection.pipes.lock() else { return };
        pipes[self.way].ended = true;
        pipes[1 - self.way].unread = true;
        pipes.iter_mut().for_each(Pipe::wake);
    }
}
