//! A walsender: what is committed, from the slot's position on; signs of life; and its end when it hears
//! nothing for `wal_sender_timeout`.

use std::time::Duration;

use tokio::{
    io::AsyncReadExt,
    select,
    time::{Instant, sleep_until},
};

use super::{
    Server, State,
    bytes::{error, keepalive, message, transaction},
    session::TERMINATED,
};
use crate::net::End;

/// `wal_sender_timeout`.
pub const TIMEOUT: Duration = Duration::from_secs(6);

/// No more is put on the way than this.
const BACKLOG: usize = 24 << 10;

struct Sender {
    pid: i32,
    /// Commits below this were sent, or need not be.
    next: u64,
    /// As far as the log was looked at.
    sent: u64,
    /// What the client has said is flushed.
    flushed: u64,
    told: u64,
    known: [bool; 2],
    heard: Instant,
    asked: bool,
    inbox: Vec<u8>,
}

impl Server {
    /// From the slot's position, or another one above it.
    pub(super) async fn walsend(&self, end: End, pid: i32, from: u64) {
        let next = self.lock().confirmed.max(from);
        let sent = next;
        let heard = Instant::now();
        let mut sender = Sender {
            pid,
            next,
            sent,
            flushed: 0,
            told: 0,
            known: [false; 2],
            heard,
            asked: false,
            inbox: Vec::new(),
        };
        let why = self.send(end, &mut sender).await;
        let mut state = self.lock();
        if state.active == Some(pid) {
            state.active = None;
        }
        self.trace.say(format_args!("walsender {pid} ends: {why}"));
        drop(state);
        self.ended();
    }

    async fn send(&self, mut end: End, sender: &mut Sender) -> &'static str {
        let mut buffer = [0; 4096];
        loop {
            let changed = self.changed.notified();
            if self.lock().terminated.contains(&sender.pid) {
                let mut out = Vec::new();
                error(&mut out, "FATAL", "57P01", TERMINATED);
                end.push(&out);
                return "terminated";
            }
            let more = self.put(&end, sender);
            if !more && self.lock().stopping.is_some() {
                let mut out = Vec::new();
                if sender.flushed >= sender.sent {
                    message(&mut out, b'C', b"COPY 0\0");
                    end.push(&out);
                    return "all is confirmed, and the server ends";
                }
                if !sender.asked {
                    sender.asked = true;
                    keepalive(&mut out, sender.sent, true);
                    end.push(&out);
                }
            }
            let mut wake = sender.heard + if sender.asked { TIMEOUT } else { TIMEOUT / 2 };
            if more {
                wake = wake.min(Instant::now() + Duration::from_millis(5));
            }
            select! {
                biased;
                read = end.read(&mut buffer) => match read {
                    Ok(count @ 1..) => {
                        sender.inbox.extend_from_slice(&buffer[..count]);
                        sender.heard = Instant::now();
                        sender.asked = false;
                        if self.take(&end, sender) {
                            return "done";
                        }
                    }
                    _ => return "the client has gone",
                },
                () = changed => {}
                () = sleep_until(wake) => {
                    let silent = sender.heard.elapsed();
                    if silent >= TIMEOUT {
                        return "it heard nothing for too long";
                    }
                    if silent >= TIMEOUT / 2 && !sender.asked {
                        sender.asked = true;
                        let mut out = Vec::new();
                        keepalive(&mut out, sender.sent, true);
                        end.push(&out);
                    }
                }
            }
        }
    }

    /// What was committed; `true`: there is more.
    fn put(&self, end: &End, sender: &mut Sender) -> bool {
        let mut state = self.lock();
        let State { wal, parts, chance, .. } = &mut *state;
        let mut out = Vec::new();
        let first = wal.partition_point(|one| one.commit < sender.next);
        for one in &wal[first..] {
            if end.backlog() + out.len() > BACKLOG {
                end.push(&out);
                return true;
            }
            if !one.changes.is_empty() {
                transaction(&mut out, one, &mut sender.known);
                if *parts && chance.one_in(3) {
                    let count = chance.below(out.len() as u64) as usize;
                    end.push(&out[..count]);
                    out.drain(..count);
                }
            }
            (sender.next, sender.sent) = (one.commit + 1, one.end);
        }
        if sender.sent > sender.told {
            // It has come to the end, and says how far that is.
            sender.told = sender.sent;
            keepalive(&mut out, sender.sent, false);
        }
        end.push(&out);
        false
    }

    /// What the client says; `true`: it has ended the stream.
    fn take(&self, end: &End, sender: &mut Sender) -> bool {
        loop {
            let Some(head) = sender.inbox.first_chunk::<5>() else { return false };
            let (tag, length) =
                (head[0], u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize);
            if sender.inbox.len() < length + 1 {
                return false;
            }
            let body: Vec<u8> = sender.inbox.drain(..=length).skip(5).collect();
            match (tag, body.first()) {
                (b'd', Some(b'r')) if body.len() == 34 => {
                    let number =
                        |at: usize| u64::from_be_bytes(body[at..at + 8].try_into().unwrap());
                    let flushed = number(9);
                    sender.flushed = sender.flushed.max(flushed);
                    if flushed > 0 {
                        self.confirm(flushed);
                    }
                    if body[33] == 1 {
                        let mut out = Vec::new();
                        keepalive(&mut out, sender.sent, false);
                        end.push(&out);
                    }
                }
                (b'c', _) => {
                    let mut out = Vec::new();
                    message(&mut out, b'c', &[]);
                    message(&mut out, b'C', b"COPY 0\0");
                    message(&mut out, b'C', b"START_REPLICATION\0");
                    message(&mut out, b'Z', b"I");
                    end.push(&out);
                    return true;
                }
                _ => {
                    self.trace.broken(format_args!("the walsender was sent what it does not know"))
                }
            }
        }
    }
}
