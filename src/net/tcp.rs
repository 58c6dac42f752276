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

/// Longest wait for the watermark: at 60 MB/s, 12 KB are there in a tenth of it.
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

    /// An ordinary read that notices a flood: a quarter of the watermark within [`PATIENCE`], which
    /// with 24 KiB is 3 MB/s. From there on waking less often is worth the wait.
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
        if gather.bytes >= gather.watermark / 4 {
            self.raise()?;
        }
        Poll::Ready(Ok(()))
    }

    /// A read that waits for the watermark or the timer. It is over when a wait brings less than a
    /// sixteenth: far enough below the quarter that nothing flickers between the two.
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
        if !self.gather.more && gathered < self.gather.watermark / 16 {
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

/// Reads what is there, for whoever cannot wait any more: from a reader that waits it would take the
/// bytes away.
impl Read for &Tcp {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*SockRef::from(&self.socket)).read(buf)
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::{sleep, timeout},
    };

    use super::*;

    const WATERMARK: usize = 12 * 1024;
    /// What nobody should notice, on a machine that does other things too.
    const SOON: Duration = Duration::from_millis(500);

    async fn pair() -> (Tcp, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        far.set_nodelay(true).unwrap();
        let mut near = Tcp::new(near);
        near.set_low_watermark(WATERMARK).unwrap();
        (near, far)
    }

    /// Makes `near` gather: a watermark's worth at once.
    async fn flood(near: &mut Tcp, far: &mut TcpStream) {
        far.write_all(&vec![1; WATERMARK]).await.unwrap();
        near.read_exact(&mut vec![0; WATERMARK]).await.unwrap();
        assert!(near.gather.raised);
    }

    #[tokio::test]
    async fn reads_little_at_once_while_little_comes() {
        let (mut near, mut far) = pair().await;
        let mut buf = [0; 4096];
        for _ in 0..20 {
            far.write_all(&[7; 100]).await.unwrap();
            assert_eq!(timeout(SOON, near.read(&mut buf)).await.unwrap().unwrap(), 100);
            assert!(!near.gather.raised);
            sleep(PATIENCE).await;
        }
    }

    #[tokio::test]
    async fn reads_little_soon_after_a_flood() {
        let (mut near, mut far) = pair().await;
        let mut buf = [0; 4096];
        flood(&mut near, &mut far).await;
        // The first may still be read on the flood's own wake-up; the second waits for the timer.
        for _ in 0..2 {
            far.write_all(&[7; 100]).await.unwrap();
            assert_eq!(timeout(SOON, near.read(&mut buf)).await.unwrap().unwrap(), 100);
        }
        assert!(!near.gather.raised, "it is still waiting for {WATERMARK} bytes");
    }

    #[tokio::test]
    async fn wakes_a_reader_that_waits_since_the_end_of_a_flood() {
        let (mut near, mut far) = pair().await;
        flood(&mut near, &mut far).await;
        let reader = tokio::spawn(async move {
            let mut buf = [0; 4096];
            near.read(&mut buf).await.unwrap()
        });
        sleep(PATIENCE * 10).await;
        far.write_all(&[7; 1]).await.unwrap();
        assert_eq!(timeout(SOON, reader).await.unwrap().unwrap(), 1);
    }

    #[tokio::test]
    async fn loses_nothing_when_polls_are_dropped() {
        let (mut near, mut far) = pair().await;
        let writer = tokio::spawn(async move {
            for at in 0..40_000_u32 {
                far.write_all(&at.to_be_bytes()).await.unwrap();
                if at % 1000 == 0 {
                    sleep(Duration::from_millis(1)).await;
                }
            }
        });
        let (mut all, mut buf) = (Vec::new(), [0; 5000]);
        loop {
            let wait = Duration::from_micros(50);
            match timeout(wait, near.read(&mut buf)).await {
                Ok(Ok(0)) => break,
                Ok(read) => all.extend_from_slice(&buf[..read.unwrap()]),
                Err(_) => {}
            }
        }
        writer.await.unwrap();
        let expected: Vec<u8> = (0..40_000_u32).flat_map(u32::to_be_bytes).collect();
        assert!(all == expected, "{} of {} bytes", all.len(), expected.len());
    }

    #[tokio::test]
    async fn reads_much_at_once_under_a_flood() {
        let (mut near, far) = pair().await;
        let far = far.into_std().unwrap();
        far.set_nonblocking(false).unwrap();
        const SEGMENTS: usize = 100_000;
        let writer = std::thread::spawn(move || {
            use std::io::Write;
            let mut far = far;
            for _ in 0..SEGMENTS {
                far.write_all(&[7; 200]).unwrap();
            }
        });
        let (mut bytes, mut reads, mut buf) = (0, 0, vec![0; 256 * 1024]);
        loop {
            match near.read(&mut buf).await.unwrap() {
                0 => break,
                read => (bytes, reads) = (bytes + read, reads + 1),
            }
        }
        writer.join().unwrap();
        assert_eq!(bytes, SEGMENTS * 200);
        assert!(bytes / reads > WATERMARK / 4, "{} bytes a read", bytes / reads);
    }

    #[tokio::test]
    async fn sees_the_end_behind_a_rest_below_the_watermark() {
        let (mut near, mut far) = pair().await;
        flood(&mut near, &mut far).await;
        far.write_all(b"bye").await.unwrap();
        drop(far);
        let mut rest = Vec::new();
        timeout(SOON, near.read_to_end(&mut rest)).await.unwrap().unwrap();
        assert_eq!(rest, b"bye");
    }

    #[tokio::test]
    async fn empties_a_full_buffer_without_a_wait_for_more() {
        let (mut near, mut far) = pair().await;
        flood(&mut near, &mut far).await;
        far.write_all(&vec![7; 5000]).await.unwrap();
        let mut buf = [0; 1000];
        let mut total = 0;
        while total < 5000 {
            total += timeout(SOON, near.read(&mut buf)).await.unwrap().unwrap();
        }
    }
}
