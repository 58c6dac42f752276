//! A socket that can be cut from outside, and that tells when it has ended.
//!
//! rskafka's messenger gives its stream away to a task and, when a request is given up, to another
//! that goes on writing it. So a connection to a frozen broker could only be left to die. This ends
//! it at once, for every request that waits on it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::flow::Flow;

/// A stream that fails from the moment on when its token is cancelled.
pub(super) struct Line<S> {
    stream: S,
    cut: CancellationToken,
    flow: Arc<Flow>,
    // One for each half: they are polled by two tasks, and a future wakes only the last one.
    reading: Pin<Box<WaitForCancellationFutureOwned>>,
    writing: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Line<S> {
    pub(super) fn new(stream: S, cut: &CancellationToken, flow: Arc<Flow>) -> Self {
        Self {
            stream,
            cut: cut.clone(),
            flow,
            reading: Box::pin(cut.clone().cancelled_owned()),
            writing: Box::pin(cut.clone().cancelled_owned()),
        }
    }
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was given up")
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.reading.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(cut_off()));
        }
        let before = buf.filled().len();
        let room = buf.remaining() > 0;
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        let ended = match &read {
            Poll::Ready(Ok(())) => room && buf.filled().len() == before,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        if ended {
            this.cut.cancel();
        } else if read.is_ready() {
            this.flow.read();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.writing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(cut_off()));
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        match &written {
            Poll::Ready(Ok(bytes)) => this.flow.wrote(*bytes),
            Poll::Ready(Err(_)) => this.cut.cancel(),
            Poll::Pending => {}
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.writing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(cut_off()));
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};

    use super::*;

    #[tokio::test]
    async fn a_cut_ends_what_waits_on_either_half() {
        let (ours, _theirs) = duplex(4);
        let cut = CancellationToken::new();
        let (mut read, mut write) = split(Line::new(ours, &cut, Arc::new(Flow::new())));
        let reading = tokio::spawn(async move { read.read_u8().await });
        let writing = tokio::spawn(async move { write.write_all(&[0; 100]).await });
        tokio::task::yield_now().await;
        cut.cancel();
        let aborted = io::ErrorKind::ConnectionAborted;
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), aborted);
        assert_eq!(writing.await.unwrap().unwrap_err().kind(), aborted);
    }

    #[tokio::test]
    async fn the_other_sides_end_is_told() {
        let (ours, theirs) = duplex(4);
        let cut = CancellationToken::new();
        let mut line = Line::new(ours, &cut, Arc::new(Flow::new()));
        drop(theirs);
        assert_eq!(line.read(&mut [0; 4]).await.unwrap(), 0);
        assert!(cut.is_cancelled());
    }
}
