//! Messages of the server, and of its output plugin.

use super::{Change, TABLES, Transaction};

/// A message with its tag and length.
pub fn message(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    out.extend((body.len() as u32 + 4).to_be_bytes());
    out.extend(body);
}

pub fn error(out: &mut Vec<u8>, severity: &str, code: &str, text: &str) {
    let body = format!("S{severity}\0V{severity}\0C{code}\0M{text}\0\0");
    message(out, b'E', body.as_bytes());
}

pub fn cells(values: &[Option<Vec<u8>>]) -> Vec<u8> {
    let mut body = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        match value {
            Some(bytes) => {
                body.extend((bytes.len() as u32).to_be_bytes());
                body.extend(bytes);
            }
            None => body.extend((-1_i32).to_be_bytes()),
        }
    }
    body
}

/// `RowDescription`: the columns' types.
pub fn columns(types: &[u32], format: u16) -> Vec<u8> {
    let mut body = (types.len() as u16).to_be_bytes().to_vec();
    for oid in types {
        body.extend(b"c\0");
        body.extend([0; 6]);
        body.extend(oid.to_be_bytes());
        body.extend([0xff; 6]);
        body.extend(format.to_be_bytes());
    }
    body
}

/// `text[]` in binary.
pub fn texts(all: &[Option<&str>]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(1_i32.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    body.extend(25_u32.to_be_bytes());
    body.extend((all.len() as u32).to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    for text in all {
        match text {
            Some(text) => {
                body.extend((text.len() as u32).to_be_bytes());
                body.extend(text.as_bytes());
            }
            None => body.extend((-1_i32).to_be_bytes()),
        }
    }
    body
}

fn data(out: &mut Vec<u8>, at: u64, body: &[u8]) {
    let mut whole = vec![b'w'];
    whole.extend(at.to_be_bytes());
    whole.extend(at.to_be_bytes());
    whole.extend(0_i64.to_be_bytes());
    whole.extend(body);
    message(out, b'd', &whole);
}

pub fn keepalive(out: &mut Vec<u8>, end: u64, reply: bool) {
    let mut body = vec![b'k'];
    body.extend(end.to_be_bytes());
    body.extend(0_i64.to_be_bytes());
    body.push(u8::from(reply));
    message(out, b'd', &body);
}

/// A transaction, as pgoutput writes it; `known`: the tables that were described.
pub(super) fn transaction(out: &mut Vec<u8>, one: &Transaction, known: &mut [bool; 2]) {
    let mut body = vec![b'B'];
    body.extend(one.commit.to_be_bytes());
    body.extend(one.committed_at.to_be_bytes());
    body.extend(one.xid.to_be_bytes());
    data(out, one.begin, &body);
    for (index, change) in one.changes.iter().enumerate() {
        let at = one.begin + 64 * index as u64;
        if !std::mem::replace(&mut known[change.table], true) {
            data(out, 0, &relation(change.table)); // it stands nowhere
        }
        data(out, at, &row(change));
    }
    let mut body = vec![b'C', 0];
    body.extend(one.commit.to_be_bytes());
    body.extend(one.end.to_be_bytes());
    body.extend(one.committed_at.to_be_bytes());
    data(out, one.end, &body);
}

fn relation(table: usize) -> Vec<u8> {
    let mut body = vec![b'R'];
    body.extend((16384 + table as u32).to_be_bytes());
    body.extend(b"public\0");
    body.extend(TABLES[table].as_bytes());
    body.extend(b"\0d\0\x02");
    for (key, name, oid) in [(1, "id", 20_u32), (0, "text", 25)] {
        body.push(key);
        body.extend(name.as_bytes());
        body.push(0);
        body.extend(oid.to_be_bytes());
        body.extend((-1_i32).to_be_bytes());
    }
    body
}

fn row(change: &Change) -> Vec<u8> {
    let mut body = vec![change.op];
    body.extend((16384 + change.table as u32).to_be_bytes());
    body.push(if change.op == b'D' { b'K' } else { b'N' });
    body.extend(2_u16.to_be_bytes());
    let key = change.key.to_string();
    let deleted = change.op == b'D';
    for text in [Some(key.as_str()), (!deleted).then_some(change.text.as_str())] {
        let Some(text) = text else {
            body.push(b'n');
            continue;
        };
        body.push(b't');
        body.extend((text.len() as u32).to_be_bytes());
        body.extend(text.as_bytes());
    }
    body
}
