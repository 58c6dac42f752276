//! Ordinary SQL by tokio-postgres, over our own login.
//!
//! tokio-postgres would answer whatever a server asks for, the password itself too, and knows neither
//! our TLS nor the password file. So we log in, and it is shown a server that trusts it: what it
//! sends to start up is swallowed, and it reads what the real server said after our login.

use std::{
    io,
    ops::Deref,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::JoinHandle,
};
use tokio_postgres::{Client, NoTls, config::SslMode};

use super::{Connection, Error, Host, Kind, Options};
use crate::net::Stream;

/// A client of tokio-postgres. Dropping it closes the connection.
#[derive(Debug)]
pub struct Sql {
    client: Client,
    driver: JoinHandle<()>,
    host: Host,
}

/// Opens an ordinary connection to `host`, with the same login and settings as the replication's.
///
/// # Errors
/// Why not.
pub async fn sql(options: &Options, host: &Host) -> Result<Sql, Error> {
    handed_over(options, Connection::open_at(options, host, Kind::Sql).await?).await
}

/// The same at the first of the hosts that will do.
///
/// # Errors
/// Why not.
pub async fn sql_at_any(options: &Options) -> Result<Sql, Error> {
    handed_over(options, Connection::open(options, Kind::Sql).await?).await
}

async fn handed_over(options: &Options, connection: Connection) -> Result<Sql, Error> {
    let (preamble, host) = (preamble(&connection), connection.host().clone());
    let (stream, _) = connection.into_parts();
    let mut config = tokio_postgres::Config::new();
    // Both are swallowed; without a name it would ask the system for one.
    config.user(&options.user).dbname(&options.database).ssl_mode(SslMode::Disable);
    let opened = config.connect_raw(Resumed { preamble, stream }, NoTls).await;
    let (client, driver) = opened.map_err(|error| Error::sql(&host, error))?;
    let driver = crate::sim::spawn(async move {
        // Whoever waits for a statement is told by it.
        if let Err(error) = driver.await {
            tracing::debug!(%error, "an SQL connection ended");
        }
    });
    Ok(Sql { client, driver, host })
}

impl Sql {
    /// An error of this connection with its place, its SQLSTATE and what to do about it.
    #[must_use]
    pub fn judge(&self, error: tokio_postgres::Error) -> Error {
        Error::sql(&self.host, error)
    }
}

impl Deref for Sql {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Sql {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What a server says that lets one in without a question.
fn preamble(connection: &Connection) -> BytesMut {
    let mut out = BytesMut::new();
    let mut message = |tag: u8, body: &[u8]| {
        out.put_u8(tag);
        out.put_u32(u32::try_from(body.len() + 4).unwrap_or(u32::MAX));
        out.put_slice(body);
    };
    message(b'R', &0_u32.to_be_bytes());
    for (name, value) in &connection.parameters {
        message(b'S', &[name.as_bytes(), &[0], value.as_bytes(), &[0]].concat());
    }
    let key = [connection.process_id.to_be_bytes(), connection.secret_key.to_be_bytes()].concat();
    message(b'K', &key);
    message(b'Z', b"I");
    out.extend_from_slice(&connection.wire.received);
    out
}

/// A stream whose login is over. The startup packet is all that is written before the preamble is
/// read, since every message of it is waited for.
#[derive(Debug)]
struct Resumed {
    preamble: BytesMut,
    stream: Stream,
}

impl AsyncRead for Resumed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.preamble.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let mut part = this.preamble.split_to(this.preamble.len().min(buf.remaining()));
        buf.put_slice(&part);
        part.advance(part.len());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Resumed {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.preamble.is_empty() {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
