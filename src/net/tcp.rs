//! A TCP socket that gathers small segments before it wakes its reader.
//!
//! A walsender sends every row by itself. Under load the reader is woken only when a low watermark
//! of bytes has arrived (`SO_RCVLOWAT`), or after [`PATIENCE`]; what has arrived by then is read
//! without asking the kernel whether it thinks the socket readable, since below the watermark it
//! says no. As soon as the flow thins out, the watermark is lowered to one byte, so that a single
//! row is never late.
//!
//! **Invariant.** No byte waits longer than [`PATIENCE`] (and the timer's own millisecond) for a
//! reader that polls; a poll that is dropped loses nothing.

use std::{
    io::{self, Read},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use super::lowat;

/// Longest wait for the watermark: at 60 MB/s it is reached ten times as fast.
const PATIENCE: Duration = Duration::from_millis(2);

/// What one direct read takes at most: about what the kernel gathers, as the buffer is zeroed first.
const CHUNK: usize = 16 * 1024;

/// A TCP connection, see the module.
#[derive(Debug)]
pub struct Tcp {
    socket: TcpStream,
    gather: Gather,
}

/// When to wait for more than one byte.
#[derive(Debug, Default)]
struct Gather {
    /// The watermark; 0: never gather.
    watermark: usize,
    /// Whether the socket has that watermark now, rather than 1.
    raised: bool,
    /// The last direct read filled its buffer: there may be more, of which nobody tells us.
    more: bool,
    /// Bytes read since `since`, or since the last wait while raised.
    bytes: usize,
    /// Begin of the interval in which `bytes` are counted while not raised.
    since: Option<Instant>,
    /// Whether the timer runs for the current wait.
    armed: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Tcp {
    /// Takes a connected socket.
    #[must_use]
    pub fn new(socket: TcpStream) -> Self {
        Self { socket, gather: Gather::default() }
    }

    /// The other side.
    ///
    /// # Errors
    /// The system's, if there is none any more.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.peer_addr()
    }

    #[cfg(test)]
    pub(super) const fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// From now on gathers about `bytes` under load; 0 or 1 turns that off.
    ///
    /// # Errors
    /// The system's.
    pub fn set_low_watermark(&mut self, bytes: usize) -> io::Result<()> {
        self.lower()?;
        self.gather.watermark = if bytes > 1 { bytes } else { 0 };
        Ok(())
    }

    fn raise(&mut self) -> io::Result<()> {
        lowat::set(&self.socket, self.gather.watermark)?;
        self.gather.raised = true;
        self.gather.bytes = 0;
        self.gather.armed = false;
        Ok(())
    }

    fn lower(&mut self) -> io::Result<()> {
        if self.gather.raised {
            lowat::set(&self.socket, 1)?;
        }
        self.gather = Gather {
            watermark: self.gather.watermark,
            timer: self.gather.timer.take(),
            ..Gather::default()
        };
        Ok(())
    }

    /// An ordinary read that notices a flood: a watermark's worth within [`PATIENCE`].
    fn poll_each(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        let now = Instant::now();
        let gather = &mut self.gather;
        match gather.since {
            Some(since) if now - since <= PATIENCE => gather.bytes += read,
            _ => (gather.since, gather.bytes) = (Some(now), read),
        }
        if gather.bytes >= gather.watermark {
            self.raise()?;
        }
        Poll::Ready(Ok(()))
    }

    /// A read that waits for the watermark or the timer.
    fn poll_gathered(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.gather.more {
            let read = self.read_now(buf)?;
            if read > 0 {
                self.gather.bytes += read;
                return Poll::Ready(Ok(()));
            }
        }
        let before = buf.filled().len();
        if Pin::new(&mut self.socket).poll_read(cx, buf)?.is_ready() {
            self.gather.bytes += buf.filled().len() - before;
            self.gather.armed = false;
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_timer(cx));
        let read = self.read_now(buf)?;
        let gathered = self.gather.bytes + read;
        if !self.gather.more && gathered < self.gather.watermark / 2 {
            self.lower()?;
        }
        if read > 0 {
            self.gather.bytes = if self.gather.raised { gathered } else { read };
            return Poll::Ready(Ok(()));
        }
        self.poll_each(cx, buf)
    }

    /// Ready when this wait is over; begins it if it has not begun.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let gather = &mut self.gather;
        let timer = gather.timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now())));
        if !gather.armed {
            timer.as_mut().reset(Instant::now() + PATIENCE);
            (gather.armed, gather.bytes) = (true, 0);
        }
        ready!(timer.as_mut().poll(cx));
        gather.armed = false;
        Poll::Ready(())
    }

    /// Takes what is there, however little; 0 is nothing yet, or the end, which the next ordinary
    /// read tells apart.
    fn read_now(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
        self.gather.more = false;
        let space = buf.remaining().min(CHUNK);
        let socket = SockRef::from(&self.socket);
        match (&*socket).read(buf.initialize_unfilled_to(space)) {
            Ok(read) => {
                buf.advance(read);
                self.gather.more = read > 0 && read == space;
                Ok(read)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            },
        }
    }
}

impl AsyncRead for Tcp {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.gather.watermark == 0 || buf.remaining() == 0 {
            Pin::new(&mut this.socket).poll_read(cx, buf)
        } else if this.gather.raised {
            this.poll_gathered(cx, buf)
        } else {
            this.poll_each(cx, buf)
        }
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
