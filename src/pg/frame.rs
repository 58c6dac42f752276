//! Bytes to frames, in place.
//!
//! One buffer, read into at its end and taken from at its front; a frame borrows from it. While
//! frames are small nothing is allocated or moved but the cut one at the end.
//!
//! **Invariant.** A read that is dropped loses nothing: what was read stays in the buffer. The
//! buffer grows with the bytes that really came, never with a length that was merely announced.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-overview.html>

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

/// One backend message: its tag and its body, without the length.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame<'a> {
    /// Message type.
    pub tag: u8,
    /// Body.
    pub body: &'a [u8],
}

/// A frame that is here and not yet taken.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Message type.
    pub tag: u8,
    /// Size with the header.
    total: usize,
}

/// Tag (1) and length (4).
const HEADER: usize = 5;

/// Received bytes, and where the next frame begins.
#[derive(Debug)]
pub struct FrameBuf {
    /// All of it is initialised; `start..end` is received and not yet taken.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Size that the buffer has when frames are small.
    usual: usize,
    /// Longest frame.
    limit: usize,
}

/// The length field is nonsense: this is no PostgreSQL, or the stream is broken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a message of {length} bytes is announced, where 4 to {limit} are possible")]
pub struct BadLength {
    /// As announced.
    pub length: u32,
    /// Most that is accepted.
    pub limit: usize,
}

impl FrameBuf {
    /// A buffer of `usual` bytes that holds `received` and takes frames up to `limit` bytes.
    #[must_use]
    pub fn new(received: &[u8], usual: usize, limit: u32) -> Self {
        let mut bytes = vec![0; usual.max(received.len()).max(HEADER)];
        bytes.iter_mut().zip(received).for_each(|(to, from)| *to = *from);
        Self { end: received.len(), bytes, start: 0, usual, limit: limit as usize }
    }

    /// Whether a whole frame is here.
    ///
    /// # Errors
    /// See [`BadLength`].
    #[inline]
    pub fn has_frame(&self) -> Result<bool, BadLength> {
        Ok(self.whole()?.is_some())
    }

    /// Takes the next whole frame, if it is here.
    ///
    /// # Errors
    /// See [`BadLength`].
    #[inline]
    pub fn take(&mut self) -> Result<Option<Frame<'_>>, BadLength> {
        Ok(self.whole()?.map(|head| Frame { tag: head.tag, body: self.body(head) }))
    }

    /// The next frame's tag and size, if all of it is here.
    ///
    /// # Errors
    /// See [`BadLength`].
    #[inline]
    pub fn whole(&self) -> Result<Option<Head>, BadLength> {
        let here = self.bytes.get(self.start..self.end).unwrap_or_default();
        let Some(([tag, length @ ..], _)) = here.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let total = self.total(u32::from_be_bytes(*length))?;
        Ok((total <= here.len()).then_some(Head { tag: *tag, total }))
    }

    /// Takes the frame that [`Self::whole`] has just seen.
    #[inline]
    pub fn body(&mut self, head: Head) -> &[u8] {
        let from = self.start;
        self.start += head.total;
        self.bytes.get(from + HEADER..from + head.total).unwrap_or_default()
    }

    /// Reads once, whatever comes; 0 is the end of the stream. Cancel-safe.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn fill<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx, stream)).await
    }

    /// [`Self::fill`] as a poll.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<usize>> {
        self.make_room();
        let mut room = ReadBuf::new(self.bytes.get_mut(self.end..).unwrap_or_default());
        ready!(Pin::new(stream).poll_read(cx, &mut room))?;
        let count = room.filled().len();
        self.end += count;
        Poll::Ready(Ok(count))
    }

    /// Bytes received and not taken.
    #[must_use]
    pub const fn pending(&self) -> usize {
        self.end - self.start
    }

    /// Size of the next frame with its header, once the header is here.
    fn announced(&self) -> Result<Option<usize>, BadLength> {
        let here = self.bytes.get(self.start..self.end).unwrap_or_default();
        match here.split_first_chunk::<HEADER>() {
            Some(([_, length @ ..], _)) => self.total(u32::from_be_bytes(*length)).map(Some),
            None => Ok(None),
        }
    }

    #[inline]
    const fn total(&self, length: u32) -> Result<usize, BadLength> {
        if length < 4 || length as usize > self.limit {
            return Err(BadLength { length, limit: self.limit });
        }
        Ok(length as usize + 1)
    }

    /// Moves what is left to the front when that is cheap or needed, and grows for a long frame.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > self.usual.max(HEADER) {
                self.bytes.truncate(self.usual.max(HEADER));
                self.bytes.shrink_to_fit();
            }
        }
        // A quarter left to read into is enough; less makes reads short.
        if self.bytes.len() - self.end < self.bytes.len() / 4 && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.bytes.len() {
            let wanted = self.announced().ok().flatten().unwrap_or(HEADER);
            // Doubling: no more memory than twice what came.
            let grown = (self.bytes.len() * 2).min(wanted.max(self.bytes.len() + HEADER));
            self.bytes.resize(grown, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;

    use super::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("small");
        [&[tag], length.to_be_bytes().as_slice(), body].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn loses_no_byte_when_a_read_is_dropped() {
        let (mut client, mut server) = tokio::io::duplex(64);
        let mut buf = FrameBuf::new(&[], 16, 64);
        for byte in frame(b'Z', b"I") {
            let tick = Duration::from_millis(1);
            assert!(tokio::time::timeout(tick, buf.fill(&mut client)).await.is_err());
            assert_eq!(buf.take(), Ok(None));
            server.write_all(&[byte]).await.expect("duplex is open");
            assert_eq!(buf.fill(&mut client).await.expect("open"), 1);
        }
        assert_eq!(buf.take(), Ok(Some(Frame { tag: b'Z', body: b"I" })));
    }

    #[tokio::test]
    async fn takes_frames_longer_than_the_buffer_and_shrinks_again() {
        let mut buf = FrameBuf::new(&frame(b'a', b""), 16, 1 << 20);
        let bytes = [frame(b'b', &[7; 10_000]), frame(b'c', b"x")].concat();
        let mut stream = bytes.as_slice();
        let mut seen = Vec::new();
        loop {
            while let Some(frame) = buf.take().expect("well formed") {
                seen.push((frame.tag, frame.body.len()));
            }
            if buf.fill(&mut stream).await.expect("memory") == 0 {
                break;
            }
        }
        assert_eq!(seen, [(b'a', 0), (b'b', 10_000), (b'c', 1)]);
        assert_eq!(buf.bytes.len(), 16);
    }

    #[tokio::test]
    async fn grows_with_what_came_and_not_with_what_was_announced() {
        let mut buf = FrameBuf::new(&[], 16, u32::MAX);
        let announced = [b"d".as_slice(), &u32::MAX.to_be_bytes(), &[0; 100]].concat();
        let mut stream = announced.as_slice();
        while buf.fill(&mut stream).await.expect("memory") > 0 {}
        assert!(buf.bytes.len() <= 256, "{}", buf.bytes.len());
    }

    #[test]
    fn refuses_an_impossible_length() {
        for length in [0u32, 3, 65, u32::MAX] {
            let bytes = [b"d".as_slice(), &length.to_be_bytes()].concat();
            let mut buf = FrameBuf::new(&bytes, 16, 64);
            assert_eq!(buf.take(), Err(BadLength { length, limit: 64 }));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_cut_of_a_stream_gives_the_same_frames(
            bodies in proptest::collection::vec(proptest::collection::vec(0u8.., 0..40), 0..20),
            cuts in proptest::collection::vec(1usize..30, 1..50),
        ) {
            let bytes: Vec<u8> = bodies.iter().flat_map(|body| frame(b'd', body)).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
            let got = runtime.block_on(async {
                let (mut buf, mut rest, mut got) = (FrameBuf::new(&[], 8, 64), bytes.as_slice(), vec![]);
                for cut in cuts.iter().cycle() {
                    let (mut now, later) = rest.split_at((*cut).min(rest.len()));
                    rest = later;
                    while buf.fill(&mut now).await.expect("memory") > 0 {
                        while let Some(frame) = buf.take().expect("well formed") {
                            got.push(frame.body.to_vec());
                        }
                    }
                    if rest.is_empty() { break }
                }
                got
            });
            proptest::prop_assert_eq!(got, bodies);
        }

        #[test]
        fn never_panics(bytes: Vec<u8>, usual in 0usize..64) {
            let mut buf = FrameBuf::new(&bytes, usual, 1024);
            while let Ok(Some(_)) = buf.take() {}
        }
    }
}
