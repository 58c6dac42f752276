//! The replication stream: frames in, status updates out, on one socket and in one task.
//!
//! The walsender is told how far we are on our own timer, whatever else happens: while Kafka
//! stalls, while rows pour in, and also when the server never asks. Every update asks for a reply,
//! so that a dead peer is noticed; silence counts only while we read.
//!
//! **Invariants.** [`ReplicationStream::confirm`] takes a [`Confirmed`] and nothing else, never
//! goes back, and never goes beyond what this very connection received: the server accepts a
//! position beyond its own end without a word, and then skips rows. [`ReplicationStream::turn`] is
//! cancel-safe: what was read stays in the frame buffer, what was half sent in the outbox.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-replication.html>

mod error;

use std::{
    collections::HashSet,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep},
};

pub use self::error::Error;
use super::{
    connect::ServerError,
    copy_data::{self, CopyData, Keepalive, StandbyStatus, XLogData},
    frame::{Frame, FrameBuf, Head},
    pgoutput::DecodeError,
    slot,
};
use crate::{failpoint, lease::Lease, lsn::Lsn, net, progress::Confirmed};

/// Limits of the stream.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of the read buffer; it grows for a longer message, and shrinks again.
    pub read_buffer: usize,
    /// `SO_RCVLOWAT` under load, in bytes; 0 turns it off.
    pub low_watermark: usize,
    /// Longest time between two standby status updates.
    pub status_interval: Duration,
}

/// Confirmations wait this long for company, so that a busy stream does not write one a batch.
const CONFIRM_DELAY: Duration = Duration::from_millis(200);

/// So many different notices are said aloud.
const MOST_NOTICES: usize = 100;

/// How a stream is begun.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// Limits.
    pub options: &'a Options,
    /// Longest message, in bytes.
    pub max_message: u32,
    /// Longest silence while we read.
    pub silence: Duration,
    /// Renewed by each status that was sent.
    pub lease: Lease,
}

/// What came.
#[derive(Clone, Copy, Debug)]
pub enum Incoming<'a> {
    /// A message of the output plugin.
    Data(XLogData<'a>),
    /// Sign of life. If it wants a reply, the next [`ReplicationStream::turn`] sends it.
    Keepalive(Keepalive),
}

/// A started stream.
#[derive(Debug)]
pub struct ReplicationStream<S = net::Stream> {
    socket: S,
    publications: Box<[String]>,
    /// Notices that were said.
    noticed: HashSet<String>,
    inbox: FrameBuf,
    outbox: Vec<u8>,
    /// Of `outbox`.
    sent: usize,
    unflushed: bool,
    timer: Pin<Box<Sleep>>,
    interval: Duration,
    /// Longest silence while we read.
    silence: Duration,
    /// When bytes last came, or reading was taken up again.
    heard: Instant,
    reading: bool,
    last_status: Instant,
    status_now: bool,
    received: Lsn,
    confirmed: Lsn,
    told: Lsn,
    /// Where the slot stood when the stream began.
    begun: Lsn,
    bytes: u64,
    reads: u64,
    lease: Lease,
    /// When the status was made that is not out yet.
    sign_of_life: Option<u64>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ReplicationStream<S> {
    /// Takes over a socket on which `START_REPLICATION` was answered; `received` was read from it
    /// already. `begun` is where the slot stands: the server knows that all below is stored.
    #[must_use]
    pub fn new(
        socket: S,
        received: &[u8],
        publications: &[String],
        begun: Lsn,
        start: Start<'_>,
    ) -> Self {
        let Start { options, max_message, silence, lease } = start;
        let now = Instant::now();
        Self {
            socket,
            publications: publications.into(),
            noticed: HashSet::new(),
            inbox: FrameBuf::new(received, options.read_buffer, max_message),
            outbox: Vec::new(),
            sent: 0,
            unflushed: false,
            timer: Box::pin(tokio::time::sleep_until(now)),
            interval: options.status_interval,
            silence,
            heard: now,
            reading: true,
            last_status: now,
            status_now: true,
            received: Lsn::ZERO,
            confirmed: Lsn::ZERO,
            told: Lsn::ZERO,
            begun,
            bytes: 0,
            reads: 1, // that of `received`
            lease,
            sign_of_life: None,
        }
    }

    /// Waits until a message is here, and meanwhile tells the server how far we are. Without `read`
    /// the socket is left alone, so that the server waits for us, and this never returns but by an
    /// error. Cancel-safe.
    ///
    /// # Errors
    /// The stream is over.
    pub async fn turn(&mut self, read: bool) -> Result<(), Error> {
        poll_fn(|cx| self.poll_turn(cx, read)).await
    }

    /// The next message that is here already.
    ///
    /// # Errors
    /// The server sent an error, or what we cannot read.
    #[inline]
    pub fn take(&mut self) -> Result<Option<Incoming<'_>>, Error> {
        while let Some(head) = self.inbox.whole()? {
            if head.tag == b'd' {
                return self.copy_data(head).map(Some);
            }
            let frame = Frame { tag: head.tag, body: self.inbox.body(head) };
            aside(frame, self.received, &self.publications, &mut self.noticed)?;
        }
        Ok(None)
    }

    /// Everything below is stored. Told to the server within a second.
    pub fn confirm(&mut self, confirmed: Confirmed) {
        self.confirmed = self.confirmed.max(confirmed.lsn().min(self.received));
    }

    /// The highest position that came.
    #[must_use]
    pub const fn received(&self) -> Lsn {
        self.received
    }

    /// The position that the server was last told: at first the slot's own.
    #[must_use]
    pub fn told(&self) -> Lsn {
        self.told.max(self.begun)
    }

    /// Bytes read since the last call.
    pub const fn read_bytes(&mut self) -> u64 {
        std::mem::replace(&mut self.bytes, 0)
    }

    /// How often something was read.
    #[must_use]
    pub const fn reads(&self) -> u64 {
        self.reads
    }

    /// Ends the stream so that the server surely knows what is confirmed: the last status with a
    /// reply asked for, everything discarded until that reply (a socket closed with unread data is
    /// reset, and the status with it), CopyDone, and again everything until the server's own.
    ///
    /// # Errors
    /// The connection broke before the reply: the server may not know.
    pub async fn finish(&mut self) -> Result<(), Error> {
        self.queue_status(true);
        poll_fn(|cx| self.poll_send(cx)).await?;
        while !matches!(self.discard().await?, Discarded::Keepalive) {}
        failpoint::hit("last status answered");
        self.outbox.extend_from_slice(b"c\0\0\0\x04");
        poll_fn(|cx| self.poll_send(cx)).await?;
        // The confirmation is in: whatever goes wrong from here on costs nothing.
        while matches!(self.discard().await, Ok(Discarded::Data | Discarded::Keepalive)) {}
        Ok(())
    }

    #[inline]
    fn copy_data(&mut self, head: Head) -> Result<Incoming<'_>, Error> {
        let near = self.received;
        let body = self.inbox.body(head);
        match copy_data::decode(body).map_err(|source| Error::Decode { near, source })? {
            CopyData::XLogData(wal) => {
                self.received = near.max(wal.start).max(wal.end);
                Ok(Incoming::Data(wal))
            }
            CopyData::Keepalive(keepalive) => {
                self.received = near.max(keepalive.end);
                self.status_now |= keepalive.reply;
                Ok(Incoming::Keepalive(keepalive))
            }
        }
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<Result<(), Error>> {
        loop {
            let now = Instant::now();
            if read && !self.reading {
                self.heard = now;
            }
            self.reading = read;
            if self.status_now || now >= self.status_due() {
                self.queue_status(true);
            }
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                return Poll::Ready(Err(error.into()));
            }
            if read {
                if self.inbox.has_frame()? {
                    return Poll::Ready(Ok(()));
                }
                match self.inbox.poll_fill(cx, &mut self.socket) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(Error::Ended)),
                    Poll::Ready(Ok(count)) => {
                        self.bytes += count as u64;
                        self.reads += 1;
                        self.heard = now;
                        continue;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending if now >= self.heard + self.silence => {
                        return Poll::Ready(Err(Error::Silent { after: self.silence }));
                    }
                    Poll::Pending => {}
                }
            }
            let mut wake = self.status_due();
            if read {
                wake = wake.min(self.heard + self.silence);
            }
            if self.timer.deadline() != wake {
                self.timer.as_mut().reset(wake);
            }
            ready!(self.timer.as_mut().poll(cx));
        }
    }

    /// When the next status goes out by itself.
    fn status_due(&self) -> Instant {
        let fresh = self.confirmed > self.told;
        self.last_status + if fresh { CONFIRM_DELAY.min(self.interval) } else { self.interval }
    }

    fn queue_status(&mut self, reply: bool) {
        self.status_now = false;
        self.last_status = Instant::now();
        if self.sent < self.outbox.len() {
            return; // The server takes nothing in: more of the same would only pile up.
        }
        let clock = clock();
        let status =
            StandbyStatus { written: self.received, flushed: self.confirmed, clock, reply };
        status.write(&mut self.outbox);
        failpoint::hit("status due");
        self.sign_of_life = Some(self.lease.now());
        self.told = self.confirmed;
    }

    /// Sends what is queued; ready when all of it is out.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.outbox.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let count = ready!(Pin::new(&mut self.socket).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
            self.unflushed = true;
        }
        self.outbox.clear();
        self.sent = 0;
        if self.unflushed {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            self.unflushed = false;
        }
        if let Some(at) = self.sign_of_life.take() {
            failpoint::hit("status sent");
            self.lease.renew(at);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads one message and drops it.
    async fn discard(&mut self) -> Result<Discarded, Error> {
        loop {
            if let Some(frame) = self.inbox.take()? {
                return Ok(match (frame.tag, frame.body.first()) {
                    (b'd', Some(b'k')) => Discarded::Keepalive,
                    (b'd', _) => Discarded::Data,
                    (b'c' | b'C' | b'Z', _) => Discarded::End,
                    _ => {
                        aside(frame, self.received, &self.publications, &mut self.noticed)?;
                        Discarded::Data
                    }
                });
            }
            if self.inbox.fill(&mut self.socket).await? == 0 {
                return Err(Error::Ended);
            }
        }
    }
}

enum Discarded {
    Keepalive,
    Data,
    End,
}

/// What may come between the data.
fn aside(
    frame: Frame<'_>,
    near: Lsn,
    publications: &[String],
    noticed: &mut HashSet<String>,
) -> Result<(), Error> {
    match frame.tag {
        b'E' | b'N' => {
            let error = ServerError::parse(frame.body);
            let report = slot::Report {
                code: &error.sqlstate,
                message: &error.message,
                routine: error.routine.as_deref(),
            };
            if let Some(young) = slot::publication_too_young(&report, publications) {
                return Err(young.into());
            }
            if frame.tag == b'E' {
                return Err(Error::Server { near, error: Box::new(error) });
            }
            // Some come again every second, as that of a standby that is waited for.
            if noticed.len() < MOST_NOTICES && noticed.insert(error.message.clone()) {
                tracing::warn!(sqlstate = error.sqlstate, "PostgreSQL: {}", error.message);
            } else {
                tracing::debug!(sqlstate = error.sqlstate, "PostgreSQL: {}", error.message);
            }
            Ok(())
        }
        b'S' => Ok(()), // ParameterStatus
        b'c' | b'C' => Err(Error::Ended),
        tag => {
            let source = DecodeError::UnknownTag { what: "backend message", tag };
            Err(Error::Decode { near, source })
        }
    }
}

/// Seconds from 1970 to 2000: PostgreSQL's epoch.
const EPOCH: u64 = 946_684_800;

/// Our clock as PostgreSQL counts, in microseconds since 2000-01-01.
fn clock() -> i64 {
    let since = crate::clock::unix().saturating_sub(Duration::from_secs(EPOCH));
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::progress::Ledger;

    const OPTIONS: Options =
        Options { read_buffer: 1024, low_watermark: 0, status_interval: Duration::from_secs(5) };

    fn stream() -> (DuplexStream, ReplicationStream<DuplexStream>) {
        let (server, client) = tokio::io::duplex(1 << 16);
        let start = Start {
            options: &OPTIONS,
            max_message: 1 << 20,
            silence: Duration::from_secs(15),
            lease: Lease::new(Duration::ZERO),
        };
        (server, ReplicationStream::new(client, &[], &["p".to_owned()], Lsn::new(7), start))
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("small");
        [&[tag], length.to_be_bytes().as_slice(), body].concat()
    }

    fn keepalive(end: u64, reply: bool) -> Vec<u8> {
        let body = [b"k".as_slice(), &end.to_be_bytes(), &[0; 8], &[u8::from(reply)]].concat();
        message(b'd', &body)
    }

    /// Flushed LSN and whether a reply is wanted, of the next status update.
    async fn status(server: &mut DuplexStream) -> (u64, bool) {
        let mut bytes = [0; 39];
        server.read_exact(&mut bytes).await.expect("a status");
        assert_eq!((bytes[0], bytes[5]), (b'd', b'r'));
        let flushed = u64::from_be_bytes(bytes[14..22].try_into().expect("eight"));
        (flushed, bytes[38] == 1)
    }

    fn confirmed(at: u64) -> Confirmed {
        Ledger::new(Lsn::new(at)).confirmed()
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_slot_has_is_known_to_the_server_from_the_beginning() {
        let (mut server, mut stream) = stream();
        assert_eq!(stream.told(), Lsn::new(7));
        tokio::select! {
            ended = stream.turn(true) => panic!("{ended:?}"),
            (flushed, _) = status(&mut server) => assert_eq!(flushed, 0), // which says nothing
        }
        assert_eq!(stream.told(), Lsn::new(7));
    }

    #[tokio::test(start_paused = true)]
    async fn tells_the_server_on_its_own_timer_also_while_nothing_is_read() {
        let (mut server, mut stream) = stream();
        let begun = Instant::now();
        tokio::select! {
            ended = stream.turn(false) => panic!("{ended:?}"),
            () = async { for _ in 0..4 { assert!(status(&mut server).await.1) } } => {}
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(15)); // at 0, 5, 10 and 15
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_the_stream_but_only_while_it_reads() {
        let (_server, mut stream) = stream();
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, stream.turn(false)).await.is_err());
        let begun = Instant::now();
        assert!(matches!(stream.turn(true).await, Err(Error::Silent { .. })));
        assert_eq!(begun.elapsed(), Duration::from_secs(15));
    }

    #[tokio::test(start_paused = true)]
    async fn never_confirms_what_this_connection_did_not_receive_nor_goes_back() {
        let (mut server, mut stream) = stream();
        server.write_all(&keepalive(100, false)).await.expect("open");
        stream.turn(true).await.expect("a keepalive");
        assert!(matches!(stream.take(), Ok(Some(Incoming::Keepalive(_)))));
        assert_eq!(status(&mut server).await.0, 0);
        stream.confirm(confirmed(1 << 40));
        stream.confirm(confirmed(50));
        tokio::select! {
            ended = stream.turn(true) => panic!("{ended:?}"),
            (flushed, _) = status(&mut server) => assert_eq!(flushed, 100),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_at_once_when_asked_and_confirms_within_a_second() {
        let (mut server, mut stream) = stream();
        server.write_all(&keepalive(7, true)).await.expect("open");
        stream.turn(true).await.expect("a keepalive");
        status(&mut server).await;
        assert!(matches!(stream.take(), Ok(Some(Incoming::Keepalive(_)))));
        let begun = Instant::now();
        tokio::select! {
            ended = stream.turn(true) => panic!("{ended:?}"),
            _ = status(&mut server) => assert_eq!(begun.elapsed(), Duration::ZERO),
        }
        stream.confirm(confirmed(7));
        tokio::select! {
            ended = stream.turn(true) => panic!("{ended:?}"),
            (flushed, _) = status(&mut server) => assert_eq!(flushed, 7),
        }
        assert!(begun.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn ends_only_after_the_server_answered_the_last_status() {
        let (mut server, mut stream) = stream();
        server.write_all(&keepalive(9, false)).await.expect("open");
        stream.turn(true).await.expect("a keepalive");
        assert!(matches!(stream.take(), Ok(Some(Incoming::Keepalive(_)))));
        stream.confirm(confirmed(9));
        let wal = message(b'd', &[b"w".as_slice(), &[0; 24], b"whatever"].concat());
        let server = async move {
            assert_eq!(status(&mut server).await.0, 0);
            assert_eq!(status(&mut server).await, (9, true));
            server.write_all(&wal).await.expect("open");
            server.write_all(&keepalive(9, false)).await.expect("open");
            let mut done = [0; 5];
            server.read_exact(&mut done).await.expect("CopyDone");
            assert_eq!(&done, b"c\0\0\0\x04");
            server.write_all(&message(b'c', b"")).await.expect("open");
        };
        let (ended, ()) = tokio::join!(stream.finish(), server);
        ended.expect("answered");
    }

    #[tokio::test]
    async fn a_warning_that_hides_rows_is_an_error() {
        let (mut server, mut stream) = stream();
        let skipped = b"SWARNING\0C55000\0Mskipped loading publication \"p\"\0\0";
        server.write_all(&message(b'N', skipped)).await.expect("open");
        stream.turn(true).await.expect("a notice");
        assert!(matches!(stream.take(), Err(Error::Slot(slot::Error::PublicationTooYoung { .. }))));
    }
}
