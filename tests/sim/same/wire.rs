//! A client of a walsender that shows what it is sent, without LSNs, oids, xids and times.

use pgsluice::{net::Stream, pg::connect::Connection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A stream of changes.
pub struct Walsender {
    socket: Stream,
    received: Vec<u8>,
    /// Their oids, in the order in which they were described.
    relations: Vec<u32>,
}

/// A transaction that came.
#[derive(Debug)]
pub struct Sent {
    pub lines: Vec<String>,
    /// Where its first message stands.
    pub begin: u64,
    pub commit: u64,
    pub end: u64,
}

/// What comes beside transactions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Came {
    /// Severity and SQLSTATE.
    Error(String, String),
    Tag(char, String),
    End,
}

impl Walsender {
    pub fn new(connection: Connection) -> Self {
        let (socket, received) = connection.into_parts();
        Self { socket, received: received.to_vec(), relations: Vec::new() }
    }

    /// The next message; `None`: the end.
    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(head) = self.received.first_chunk::<5>() {
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if self.received.len() > length {
                    let rest = self.received.split_off(length + 1);
                    let frame = std::mem::replace(&mut self.received, rest);
                    return Some((frame[0], frame[5..].to_vec()));
                }
            }
            match self.socket.read_buf(&mut self.received).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return None,
            }
        }
    }

    /// `StandbyStatusUpdate`.
    pub async fn status(&mut self, at: u64, reply: bool) {
        let mut body = vec![b'd', 0, 0, 0, 38, b'r'];
        (0..3).for_each(|_| body.extend(at.to_be_bytes()));
        body.extend(0_i64.to_be_bytes());
        body.push(u8::from(reply));
        self.socket.write_all(&body).await.unwrap();
        self.socket.flush().await.unwrap();
    }

    /// Until a keepalive that will do; whether it wants a reply.
    pub async fn keepalive(&mut self, mut will_do: impl FnMut(u64, bool) -> bool) -> bool {
        loop {
            let (tag, body) = self.frame().await.expect("the stream goes on");
            if (tag, body.first()) == (b'd', Some(&b'k')) {
                let (end, reply) = (number(&body[1..]), body[17] == 1);
                if will_do(end, reply) {
                    return reply;
                }
            }
        }
    }

    /// Until a transaction is whole.
    pub async fn transaction(&mut self) -> Sent {
        let mut sent = Sent { lines: Vec::new(), begin: 0, commit: 0, end: 0 };
        let (mut last, mut joined) = (0, true);
        loop {
            let (tag, body) = self.frame().await.expect("the stream goes on");
            assert_eq!(tag, b'd', "{}", String::from_utf8_lossy(&body));
            if body[0] != b'w' {
                continue;
            }
            let (at, message) = (number(&body[1..]), &body[25..]);
            if message[0] == b'R' {
                sent.lines.push(format!("a description, nowhere: {}", at == 0));
            } else {
                joined &= at >= last;
                last = at;
            }
            match message[0] {
                b'B' => {
                    (sent.begin, sent.commit) = (at, number(&message[1..]));
                    sent.lines.push(format!("B, {} bytes", message.len()));
                }
                b'C' => {
                    let (commit, end) = (number(&message[2..]), number(&message[10..]));
                    let same = (commit == sent.commit, end == at, commit < end);
                    sent.end = end;
                    sent.lines.push(format!(
                        "C, {} bytes, flags {}: the commit is that of B, its end where it stands, behind \
                         it: {same:?}; in order: {joined}",
                        message.len(),
                        message[1]
                    ));
                    return sent;
                }
                _ => sent.lines.push(self.change(message)),
            }
        }
    }

    fn change(&mut self, message: &[u8]) -> String {
        let oid = u32::from_be_bytes(*message[1..].first_chunk().unwrap());
        let place = self.relations.iter().position(|known| *known == oid);
        let place = place.unwrap_or_else(|| {
            self.relations.push(oid);
            self.relations.len() - 1
        });
        let rest = message[5..].escape_ascii();
        format!("{} of table {place}: {rest}", char::from(message[0]))
    }

    /// Asks for the end of the stream; the tags of what comes then.
    pub async fn done(&mut self) -> Vec<Came> {
        self.socket.write_all(&[b'c', 0, 0, 0, 4]).await.unwrap();
        self.socket.flush().await.unwrap();
        let mut all = Vec::new();
        while all.last().is_none_or(|came| !matches!(came, Came::Tag('Z', _))) {
            let Some((tag, body)) = self.frame().await else { break };
            all.extend(came(tag, &body));
        }
        all
    }

    /// All that comes until the connection ends, but for what is streamed.
    pub async fn rest(&mut self) -> Vec<Came> {
        let mut all = Vec::new();
        while let Some((tag, body)) = self.frame().await {
            all.extend(came(tag, &body));
        }
        all.push(Came::End);
        all
    }

    /// The same, with each position confirmed that a reply is wanted to, from this one on.
    pub async fn confirmed(&mut self, mut at: u64) -> Vec<Came> {
        let mut all = Vec::new();
        self.status(at, false).await;
        while let Some((tag, body)) = self.frame().await {
            if (tag, body.first()) == (b'd', Some(&b'k')) && body[17] == 1 {
                at = at.max(number(&body[1..]));
                self.status(at, false).await;
            }
            all.extend(came(tag, &body));
        }
        all.push(Came::End);
        all
    }
}

fn came(tag: u8, body: &[u8]) -> Option<Came> {
    match tag {
        b'd' => None,
        b'E' => {
            let field = |code: u8| {
                let mut all = body.split(|byte| *byte == 0);
                let found = all.find(|field| field.first() == Some(&code));
                String::from_utf8_lossy(found.map_or(&[], |field| &field[1..])).into_owned()
            };
            Some(Came::Error(field(b'V'), field(b'C')))
        }
        tag => Some(Came::Tag(char::from(tag), body.escape_ascii().to_string())),
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(*bytes.first_chunk().unwrap())
}
