//! Statements by the simple protocol, as walsenders take no other.

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use super::{Connection, During, Error, wire::Wire};

/// A row of texts; `None` is NULL.
pub type Row = Vec<Option<String>>;

impl Connection {
    /// Runs SQL or a replication command; the rows of its last result.
    ///
    /// Has no time limit: making a slot waits for open transactions. Not cancel-safe: if it is
    /// dropped, the connection can only be dropped too. After an error of the server the connection
    /// can be used again, unless the error is fatal.
    ///
    /// # Errors
    /// The server's, or a broken connection.
    pub async fn simple_query(&mut self, sql: &str) -> Result<Vec<Row>, Error> {
        self.ask(sql).await?;
        let (mut rows, mut failed) = (Vec::new(), None);
        loop {
            let message = match self.wire.receive().await {
                Ok(message) => message,
                // A fatal error is followed by the end, and says why.
                Err(lost) => return Err(failed.unwrap_or(lost)),
            };
            match message.tag {
                b'T' => rows.clear(),
                b'D' => rows.push(row(&self.wire, &message.body)?),
                b'C' | b'I' => {}
                b'E' if failed.is_none() => failed = Some(self.wire.refused(&message.body)),
                b'E' => {}
                b'Z' => return failed.map_or(Ok(rows), Err),
                tag if self.aside(tag, &message.body) => {}
                tag => return Err(self.wire.unexpected(tag)),
            }
        }
    }

    /// Sends `START_REPLICATION` and waits until the server streams; then use
    /// [`into_parts`](Self::into_parts).
    ///
    /// # Errors
    /// The server's (SQLSTATE 55006 while another has the slot), or a broken connection.
    pub async fn start_copy_both(&mut self, sql: &str) -> Result<(), Error> {
        self.wire.during = During::Streaming;
        self.ask(sql).await?;
        let mut failed = None;
        loop {
            let message = match self.wire.receive().await {
                Ok(message) => message,
                Err(lost) => return Err(failed.unwrap_or(lost)),
            };
            match message.tag {
                b'W' => return Ok(()),
                b'E' if failed.is_none() => failed = Some(self.wire.refused(&message.body)),
                b'E' => {}
                b'Z' => {
                    // It can be asked again: a slot may become free.
                    self.wire.during = During::Sql;
                    let silent = || self.wire.broken("it neither streams nor says why");
                    return Err(failed.unwrap_or_else(silent));
                }
                tag if self.aside(tag, &message.body) => {}
                tag => return Err(self.wire.unexpected(tag)),
            }
        }
    }

    async fn ask(&mut self, sql: &str) -> Result<(), Error> {
        let mut out = BytesMut::new();
        if frontend::query(sql, &mut out).is_err() {
            return Err(Error::Setting { what: "a name", why: "a zero byte is in it" });
        }
        self.wire.send(&out).await
    }
}

/// `DataRow`: count (2), then per column length (4; -1 is NULL) and text.
fn row(wire: &Wire, body: &[u8]) -> Result<Row, Error> {
    let row =
        cells(body).ok_or_else(|| wire.broken("a row is cut off, or its text is no UTF-8"))?;
    Ok(row)
}

fn cells(body: &[u8]) -> Option<Row> {
    let (&count, mut rest) = body.split_first_chunk()?;
    let count = usize::from(u16::from_be_bytes(count));
    let mut row = Vec::with_capacity(count.min(rest.len() / 4));
    for _ in 0..count {
        let (&length, after) = rest.split_first_chunk()?;
        let length = i32::from_be_bytes(length);
        if length == -1 {
            row.push(None);
            rest = after;
            continue;
        }
        let (text, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
        row.push(Some(std::str::from_utf8(text).ok()?.to_owned()));
        rest = after;
    }
    rest.is_empty().then_some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_nulls_and_texts_and_no_cut_row() {
        let body = [0, 3, 0, 0, 0, 1, b'a', 255, 255, 255, 255, 0, 0, 0, 0];
        let row = cells(&body).unwrap();
        assert_eq!(row, [Some("a".to_owned()), None, Some(String::new())]);
        for cut in 0..body.len() {
            assert_eq!(cells(&body[..cut]), None, "cut at {cut}");
        }
        assert_eq!(cells(&[&body[..], &[0]].concat()), None);
    }

    proptest::proptest! {
        #[test]
        fn takes_any_bytes_without_a_panic(body: Vec<u8>) {
            let _ = cells(&body);
        }
    }
}
