//! What was committed, by PostgreSQL's own word: a second slot, made before the first row, is read with SQL.
//!
//! The decoder of pgoutput's messages is this file's, as it judges the other one.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::rows::TABLES;
use crate::support::Postgres;

/// A record that Kafka must hold: which one, and what makes up its bytes (see [`crate::rows`]).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Expected {
    /// The record's own name.
    pub name: Name,
    /// By its place in [`TABLES`].
    pub table: u8,
    /// `c`, `u` or `d`.
    pub op: u8,
    /// The row's number.
    pub n: u64,
    /// The number of its change, unless only the key is shown.
    pub seq: Option<u64>,
}

/// As the header `id` has it behind source and timeline: commit, index, part. Ascends in the order of commits.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name {
    /// The commit's LSN.
    pub commit: u64,
    /// Of the row in the transaction.
    pub index: u32,
    /// 2 for the new row of a key change.
    pub part: u8,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, table, op, n, seq } = self;
        let key = TABLES[usize::from(*table)].key(*n);
        write!(f, "{} of key {key} with seq {seq:?}, {name}", char::from(*op))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { commit, index, part } = self;
        write!(f, "{commit:016x}-{index:08x}")?;
        if *part == 0 { Ok(()) } else { write!(f, ".{part}") }
    }
}

/// All that was committed, in this order.
#[derive(Default)]
pub struct Reference {
    /// Ascending by name.
    pub records: Vec<Expected>,
    /// How many transactions with a row of ours.
    pub transactions: usize,
    /// The last commit that was read: a server that crashed shows some again.
    last: u64,
}

impl Reference {
    /// Reads on to this position; what the server then keeps no more is only here.
    pub fn read(&mut self, postgres: &Postgres, upto: &str) -> Result<(), String> {
        let printed = postgres.try_sql(
            "chaos",
            &format!(
                "select encode(data, 'hex') from pg_logical_slot_get_binary_changes('reference', '{upto}', null, \
                 'proto_version', '1', 'publication_names', 'p')"
            ),
        )?;
        let mut tables = HashMap::new();
        let mut open = (0, 0);
        for line in printed.lines() {
            let bytes = hex(line);
            let mut message = Message(&bytes);
            match message.byte() {
                b'B' => open = (message.number::<8>(), 0),
                b'R' => {
                    let relation = message.number::<4>();
                    message.text();
                    let name = message.text();
                    let at = TABLES.iter().position(|table| table.name == name);
                    tables.insert(relation, at.expect("the publication has only these tables"));
                }
                b'C' if open.0 > self.last => {
                    self.last = open.0;
                    self.transactions += usize::from(open.1 > 0);
                }
                kind @ (b'I' | b'U' | b'D') => {
                    let (commit, index) = open;
                    open.1 += 1;
                    if commit > self.last {
                        let at = tables[&message.number::<4>()];
                        self.change(kind, at, Name { commit, index, part: 0 }, &mut message);
                    }
                }
                b'C' | b'Y' | b'O' => {}
                other => panic!("a message {:?} of the reference", char::from(other)),
            }
        }
        Ok(())
    }

    fn change(&mut self, kind: u8, at: usize, name: Name, message: &mut Message<'_>) {
        let table = u8::try_from(at).expect("there are four");
        let (mut old, mut new) = (None, None);
        while !message.0.is_empty() {
            match message.byte() {
                b'K' | b'O' => old = Some(message.row(at)),
                b'N' => new = Some(message.row(at)),
                other => panic!("a part {:?} of a row", char::from(other)),
            }
        }
        let mut add = |op, part, (n, seq)| {
            self.records.push(Expected { name: Name { part, ..name }, table, op, n, seq });
        };
        match (kind, old, new) {
            (b'I', None, Some(new)) => add(b'c', 0, new),
            (b'D', Some(old), None) => add(b'd', 0, old),
            (b'U', Some(old), Some(new)) if old.0 != new.0 => {
                add(b'd', 0, old);
                add(b'u', 2, new);
            }
            (b'U', _, Some(new)) => add(b'u', 0, new),
            other => panic!("a change {other:?} of the reference"),
        }
    }

    /// Fails if this is not how the tables' rows came about; nobody writes any more.
    #[track_caller]
    pub fn check(&self, postgres: &Postgres) {
        for (at, table) in TABLES.iter().enumerate() {
            let mut rows = BTreeMap::new();
            for record in self.records.iter().filter(|record| usize::from(record.table) == at) {
                match record.op {
                    b'd' => rows.remove(&record.n),
                    _ => rows.insert(record.n, record.seq.expect("a row has it")),
                };
            }
            let n = if table.composite { "id * 4 + substr(part, 2)::int" } else { "id" };
            let printed = postgres.sql_in("chaos", &format!("select {n}, seq from {}", table.name));
            let number = |text: &str| text.parse::<u64>().expect("a number");
            let stored = printed.lines().filter_map(|line| line.split_once('|'));
            let stored: BTreeMap<_, _> = stored.map(|(n, seq)| (number(n), number(seq))).collect();
            assert!(rows == stored, "the reference and the rows of {} differ", table.name);
        }
    }

    /// The record of this name, by its place.
    pub fn find(&self, name: Name) -> Option<usize> {
        self.records.binary_search_by_key(&name, |record| record.name).ok()
    }
}

/// What is left of a message.
struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn number<const BYTES: usize>(&mut self) -> u64 {
        self.take(BYTES).iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    fn text(&mut self) -> &'a str {
        let end = self.0.iter().position(|&byte| byte == 0).expect("it ends with a zero");
        let text = std::str::from_utf8(self.take(end)).expect("a name is UTF-8");
        self.byte();
        text
    }

    /// The number of the row, and that of its change if it is there.
    fn row(&mut self, at: usize) -> (u64, Option<u64>) {
        let mut columns = Vec::new();
        for _ in 0..self.number::<2>() {
            columns.push(match self.byte() {
                b't' => {
                    let length = usize::try_from(self.number::<4>()).expect("it is in memory");
                    Some(std::str::from_utf8(self.take(length)).expect("a value is UTF-8"))
                }
                _ => None,
            });
        }
        let number = |at: usize| columns[at].map(|text| text.parse::<u64>().expect("a number"));
        let id = number(0).expect("a key is there");
        if TABLES[at].composite {
            let part = columns[1].and_then(|text| text.strip_prefix('p')).expect("a key is there");
            (id * 4 + part.parse::<u64>().expect("a number"), number(2))
        } else {
            (id, number(1))
        }
    }
}

fn hex(line: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("psql prints hexadecimal digits");
    let pair =
        |pair: &[u8]| u8::try_from(digit(pair[0]) << 4 | digit(pair[1])).expect("two digits");
    line.as_bytes().chunks_exact(2).map(pair).collect()
}
