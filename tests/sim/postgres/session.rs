//! A backend: login, the simple and the extended protocol as far as they are spoken to it.

use std::collections::BTreeMap;

use tokio::{io::AsyncReadExt, select};

use super::{
    SYSTEM, Server,
    bytes::{cells, columns, error, message},
    catalog::{self, lsn},
};
use crate::net::End;

/// By an administrator, or as the server ends.
pub const TERMINATED: &str = "terminating connection due to administrator command";

impl Server {
    pub(super) async fn serve(&self, mut end: End) {
        let Some(packet) = startup(&mut end).await else { return };
        if self.lock().stopping.is_some() {
            let mut out = Vec::new();
            error(&mut out, "FATAL", "57P03", "the database system is shutting down");
            end.push(&out);
            return;
        }
        let replication = packet.windows(12).any(|part| part == b"replication\0");
        let pid = {
            let mut state = self.lock();
            state.pid += 1;
            state.pid
        };
        let mut out = Vec::new();
        message(&mut out, b'R', &0_u32.to_be_bytes());
        for (name, value) in [
            ("server_version", "17.10"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, MDY"),
            ("IntervalStyle", "postgres"),
            ("TimeZone", "UTC"),
            ("in_hot_standby", "off"),
            ("default_transaction_read_only", "off"),
        ] {
            message(&mut out, b'S', format!("{name}\0{value}\0").as_bytes());
        }
        message(&mut out, b'K', &[pid.to_be_bytes(), [0; 4]].concat());
        message(&mut out, b'Z', b"I");
        end.push(&out);
        let mut session =
            Session { server: self, replication, prepared: BTreeMap::new(), bound: String::new() };
        loop {
            let received = select! {
                biased;
                () = self.stops.notified() => {
                    let mut out = Vec::new();
                    error(&mut out, "FATAL", "57P01", TERMINATED);
                    end.push(&out);
                    return;
                }
                received = receive(&mut end) => received,
            };
            let Some((tag, body)) = received else { return };
            if tag == b'X' {
                return;
            }
            if replication && tag == b'Q' && text(&body).starts_with("START_REPLICATION") {
                if self.start(&end, pid) {
                    return self.walsend(end, pid, position(&text(&body))).await;
                }
                continue;
            }
            let mut out = Vec::new();
            session.take(tag, &body, &mut out);
            end.push(&out);
        }
    }

    /// Whether the slot is this walsender's now.
    fn start(&self, end: &End, pid: i32) -> bool {
        let mut out = Vec::new();
        let mut state = self.lock();
        let free = state.active.is_none() && !state.missing;
        if state.missing {
            error(&mut out, "ERROR", "42704", "replication slot \"cdc\" does not exist");
            message(&mut out, b'Z', b"I");
        } else if free {
            state.active = Some(pid);
            self.trace.say(format_args!("the slot is {pid}'s, at {:x}", state.confirmed));
            message(&mut out, b'W', &[0, 0, 0]);
        } else {
            error(&mut out, "ERROR", "55006", "replication slot \"cdc\" is active");
            message(&mut out, b'Z', b"I");
        }
        end.push(&out);
        free
    }
}

struct Session<'a> {
    server: &'a Server,
    replication: bool,
    /// Statements by their names.
    prepared: BTreeMap<Vec<u8>, String>,
    /// Of the portal.
    bound: String,
}

impl Session<'_> {
    fn take(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) {
        match tag {
            b'Q' => self.simple(&text(body), out),
            b'P' => {
                let mut parts = body.split(|byte| *byte == 0);
                let name = parts.next().unwrap_or_default().to_vec();
                let sql = parts.next().map(text).unwrap_or_default();
                self.prepared.insert(name, sql);
                message(out, b'1', &[]);
            }
            b'D' => self.describe(body, out),
            b'B' => {
                let mut parts = body.split(|byte| *byte == 0);
                let name = parts.nth(1).unwrap_or_default();
                self.bound = self.prepared.get(name).cloned().unwrap_or_default();
                message(out, b'2', &[]);
            }
            b'E' => {
                let (_, rows) = self.answer().unwrap_or_default();
                let count = rows.len();
                rows.iter().for_each(|row| message(out, b'D', &cells(row)));
                message(out, b'C', format!("SELECT {count}\0").as_bytes());
            }
            b'C' => message(out, b'3', &[]),
            b'S' => message(out, b'Z', b"I"),
            _ => {}
        }
    }

    fn answer(&self) -> Option<catalog::Answer> {
        catalog::answer(&self.server.lock(), &self.bound)
    }

    fn describe(&mut self, body: &[u8], out: &mut Vec<u8>) {
        let name = body.get(1..body.len() - 1).unwrap_or_default();
        self.bound = self.prepared.get(name).cloned().unwrap_or_default();
        let parameters = catalog::parameters(&self.bound);
        let mut list = (parameters.len() as u16).to_be_bytes().to_vec();
        parameters.iter().for_each(|oid| list.extend(oid.to_be_bytes()));
        message(out, b't', &list);
        match self.answer() {
            Some((types, _)) => message(out, b'T', &columns(&types, 1)),
            None => {
                let sql = &self.bound;
                self.server
                    .trace
                    .broken(format_args!("PostgreSQL's model was not told of {sql:?}"));
                message(out, b'n', &[]);
            }
        }
    }

    fn simple(&mut self, sql: &str, out: &mut Vec<u8>) {
        let state = self.server.lock();
        let row = match sql {
            "IDENTIFY_SYSTEM" => Some(vec![
                SYSTEM.to_string(),
                state.timeline.to_string(),
                lsn(state.end),
                "cdc".to_owned(),
            ]),
            _ if sql.starts_with("TIMELINE_HISTORY") => {
                let line = |(timeline, end): &(u32, u64)| {
                    format!("{timeline}\t{}\tno reason\n", lsn(*end))
                };
                Some(vec!["history".to_owned(), state.switches.iter().map(line).collect()])
            }
            _ if sql.starts_with("SET") || sql.starts_with("RESET") => None,
            _ => {
                self.server.trace.broken(format_args!(
                    "PostgreSQL's model was not told of {sql:?}, replication: {}",
                    self.replication
                ));
                None
            }
        };
        if let Some(row) = row {
            message(out, b'T', &columns(&vec![25; row.len()], 0));
            let row: Vec<_> = row.into_iter().map(|text| Some(text.into_bytes())).collect();
            message(out, b'D', &cells(&row));
        }
        message(out, b'C', b"OK\0");
        message(out, b'Z', b"I");
    }
}

/// That of `… LOGICAL 16/B374D848 (…`.
fn position(command: &str) -> u64 {
    let at = command.split_once("LOGICAL ").and_then(|(_, rest)| rest.split(' ').next());
    let (high, low) = at.and_then(|at| at.split_once('/')).unwrap_or(("0", "0"));
    let number = |text| u64::from_str_radix(text, 16).unwrap_or(0);
    number(high) << 32 | number(low)
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).trim_end_matches('\0').to_owned()
}

async fn startup(end: &mut End) -> Option<Vec<u8>> {
    let length = end.read_u32().await.ok()?;
    let mut packet = vec![0; (length as usize).checked_sub(4)?];
    end.read_exact(&mut packet).await.ok()?;
    Some(packet)
}

async fn receive(end: &mut End) -> Option<(u8, Vec<u8>)> {
    let tag = end.read_u8().await.ok()?;
    Some((tag, startup(end).await?))
}
