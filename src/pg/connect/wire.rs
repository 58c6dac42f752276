//! Whole messages, for logins and statements; the stream of changes has a reader of its own.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Error, ServerError};
use crate::{net::Stream, pg::sqlstate::During};

/// Longest message before the login is over: a server has nothing long to say yet, and is unproven.
const LONGEST_AT_LOGIN: u32 = 64 * 1024;

/// What one read asks for at least.
const READ: usize = 8 * 1024;

/// One backend message, without its length.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) tag: u8,
    pub(super) body: Bytes,
}

/// A stream, and what was read from it and belongs to no message yet.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) stream: Stream,
    pub(super) received: BytesMut,
    /// The server, for errors.
    pub(super) to: String,
    limit: u32,
    pub(super) during: During,
}

impl Wire {
    pub(super) fn new(stream: Stream, to: String) -> Self {
        let received = BytesMut::new();
        Self { stream, received, to, limit: LONGEST_AT_LOGIN, during: During::Login }
    }

    /// From now on longer messages are possible.
    pub(super) const fn logged_in(&mut self, limit: u32) {
        self.limit = limit;
        self.during = During::Sql;
    }

    pub(super) async fn send(&mut self, message: &[u8]) -> Result<(), Error> {
        let sent = async {
            self.stream.write_all(message).await?;
            self.stream.flush().await
        };
        let Err(error) = sent.await else { return Ok(()) };
        // A server that refuses says why before it closes, and that is worth more than "broken pipe".
        match self.last_words().await {
            Some(words) => Err(words),
            None => Err(Error::io(&self.to, error)),
        }
    }

    /// The next message. Cancel-safe: what was read of it stays.
    pub(super) async fn receive(&mut self) -> Result<Message, Error> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            // Grows with what comes, never with what is announced.
            self.received.reserve(READ);
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) => return Err(Error::io(&self.to, io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) => return Err(Error::io(&self.to, error)),
            }
        }
    }

    /// An error in the server's words.
    pub(super) fn refused(&self, body: &[u8]) -> Error {
        let error = Box::new(ServerError::parse(body));
        Error::Server { to: self.to.clone(), during: self.during, error }
    }

    /// That the server sent what it may not.
    pub(super) fn broken(&self, what: impl Into<String>) -> Error {
        Error::Protocol { to: self.to.clone(), what: what.into() }
    }

    /// That a message has no place here.
    pub(super) fn unexpected(&self, tag: u8) -> Error {
        self.broken(format!("a message {:?} has no place here", char::from(tag)))
    }

    fn take(&mut self) -> Result<Option<Message>, Error> {
        let Some((&[tag, a, b, c, d], _)) = self.received.split_first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        if length < 4 || length > self.limit {
            let text =
                format!("a message of {length} bytes, where 4 to {} are possible", self.limit);
            return Err(self.broken(text));
        }
        let total = length as usize + 1;
        if self.received.len() < total {
            return Ok(None);
        }
        let mut body = self.received.split_to(total).freeze();
        body.advance(5);
        Ok(Some(Message { tag, body }))
    }

    async fn last_words(&mut self) -> Option<Error> {
        loop {
            let message = self.receive().await.ok()?;
            if message.tag == b'E' {
                return Some(self.refused(&message.body));
            }
        }
    }
}

/// A text that ends with a zero byte, and what follows it.
pub(super) fn text(body: &[u8]) -> Option<(&str, &[u8])> {
    let end = body.iter().position(|&byte| byte == 0)?;
    let (text, rest) = body.split_at_checked(end)?;
    let (_, rest) = rest.split_first()?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::UnixStream};

    use super::*;

    async fn receive(bytes: &[u8]) -> Result<Message, Error> {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(bytes).await.unwrap();
        drop(far);
        Wire::new(Stream::Unix(near), "x".into()).receive().await
    }

    #[tokio::test]
    async fn takes_a_whole_message_and_no_cut_one() {
        let whole = [b'Z', 0, 0, 0, 5, b'I'];
        let message = receive(&whole).await.unwrap();
        assert_eq!((message.tag, &message.body[..]), (b'Z', &b"I"[..]));
        for cut in 0..whole.len() {
            let error = receive(&whole[..cut]).await.unwrap_err();
            assert!(matches!(error, Error::Broken { .. }), "cut at {cut}: {error}");
        }
    }

    #[tokio::test]
    async fn refuses_lengths_that_cannot_be() {
        for length in [0, 3, LONGEST_AT_LOGIN + 1, u32::MAX] {
            let bytes = [&[b'R'][..], &length.to_be_bytes(), &[0; 8]].concat();
            let error = receive(&bytes).await.unwrap_err();
            assert!(matches!(error, Error::Protocol { .. }), "{length}: {error}");
        }
        let error = receive(b"HTTP/1.1 400 Bad Request\r\n").await.unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
    }

    #[test]
    fn takes_a_text_only_with_its_end() {
        assert_eq!(text(b"ab\0c"), Some(("ab", &b"c"[..])));
        assert_eq!(text(b"\0"), Some(("", &b""[..])));
        assert_eq!(text(b"ab"), None);
        assert_eq!(text(b"\xff\0"), None);
    }
}
