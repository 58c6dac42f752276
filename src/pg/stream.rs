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

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep},
};

use super::{
    copy_data::{self, CopyData, Keepalive, StandbyStatus, XLogData},
    connect::ServerError,
    frame::{BadLength, Frame, FrameBuf},
    pgoutput::DecodeError,
    slot,
    sqlstate::{self, During},
};
use crate::{
    lsn::Lsn,
    net,
    progress::Confirmed,
    retry::{Disposition, Exit},
};

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

/// Why the stream is over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket broke.
    #[error("the replication connection broke")]
    Io(#[from] io::Error),
    /// PostgreSQL ended the stream: it stops, or somebody terminated the walsender.
    #[error("PostgreSQL ended the replication stream")]
    Ended,
    /// Nothing came although it was asked for.
    #[error("PostgreSQL said nothing for {}s, not even when asked", .after.as_secs())]
    Silent {
        /// The limit.
        after: Duration,
    },
    /// An error message.
    #[error("PostgreSQL ended the stream near {near}: {error}")]
    Server {
        /// The last position that was received.
        near: Lsn,
        /// What it said.
        error: Box<ServerError>,
    },
    /// An error, or on 18 a mere warning, after which rows would be missing.
    #[error(transparent)]
    Slot(#[from] slot::Error),
    /// Not the protocol.
    #[error("the replication stream is broken")]
    Length(#[from] BadLength),
    /// A message that we cannot read: nothing after it can be confirmed.
    #[error("a message of the replication stream near {near} cannot be understood")]
    Decode {
        /// The last position that was received.
        near: Lsn,
        /// What is wrong with it.
        source: DecodeError,
    },
}

impl Error {
    /// No `_` arm: a new variant does not compile until someone has judged it.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Io(_) | Self::Ended | Self::Silent { .. } | Self::Length(_) => Disposition::Retry,
            Self::Server { error, .. } => {
                sqlstate::disposition(&error.sqlstate, During::Streaming)
            }
            Self::Slot(error) => error.disposition(),
            Self::Decode { .. } => Disposition::Halt(Exit::Data),
        }
    }
}

/// How a stream is begun.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// Limits.
    pub options: &'a Options,
    /// Longest message, in bytes.
    pub max_message: u32,
    /// Longest silence while we read.
    pub silence: Duration,
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
    bytes: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ReplicationStream<S> {
    /// Takes over a socket on which `START_REPLICATION` was answered; `received` was read from it
    /// already.
    #[must_use]
    pub fn new(socket: S, received: &[u8], publications: &[String], start: Start<'_>) -> Self {
        let Start { options, max_message, silence } = start;
        let now = Instant::now();
        Self {
            socket,
            publications: publications.into(),
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
            bytes: 0,
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
        while let Some(tag) = self.inbox.tag()? {
            if tag == b'd' {
                return self.take_copy_data();
            }
            if let Some(frame) = self.inbox.take()? {
                aside(frame, self.received, &self.publications)?;
            }
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

    /// The position that the server was last told.
    #[must_use]
    pub const fn told(&self) -> Lsn {
        self.told
    }

    /// Bytes read since the last call.
    pub const fn read_bytes(&mut self) -> u64 {
        std::mem::replace(&mut self.bytes, 0)
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
        self.outbox.extend_from_slice(b"c\0\0\0\x04");
        poll_fn(|cx| self.poll_send(cx)).await?;
        // The confirmation is in: whatever goes wrong from here on costs nothing.
        while matches!(self.discard().await, Ok(Discarded::Data | Discarded::Keepalive)) {}
        Ok(())
    }

    fn take_copy_data(&mut self) -> Result<Option<Incoming<'_>>, Error> {
        let Some(frame) = self.inbox.take()? else { return Ok(None) };
        let near = self.received;
        match copy_data::decode(frame.body).map_err(|source| Error::Decode { near, source })? {
            CopyData::XLogData(wal) => {
                self.received = near.max(wal.start).max(wal.end);
                Ok(Some(Incoming::Data(wal)))
            }
            CopyData::Keepalive(keepalive) => {
                self.received = near.max(keepalive.end);
                self.status_now |= keepalive.reply;
                Ok(Some(Incoming::Keepalive(keepalive)))
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
                        aside(frame, self.received, &self.publications)?;
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
fn aside(frame: Frame<'_>, near: Lsn, publications: &[String]) -> Result<(), Error> {
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
            tracing::warn!(sqlstate = error.sqlstate, "PostgreSQL: {}", error.message);
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
    let epoch = UNIX_EPOCH + Duration::from_secs(EPOCH);
    let since = SystemTime::now().duration_since(epoch).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
