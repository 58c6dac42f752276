//! What one row costs from the frame to the batch: `cargo bench --bench per_row`.
//!
//! No server and no socket: the bytes that a walsender would send stand in memory. Each stage is
//! measured with those before it, so that the difference between two lines is the later one's. For a
//! profiler: `per_row narrow batch` runs that line only.

use std::{
    convert::Infallible,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use pgsluice::{
    batch::{self, Batcher, Limits, TopicId, record_batch},
    change::Change,
    encode::{
        Encoder, Header, Headers, Image, KeyFormat, Numeric, Options, Part, Source, Stamp, Template,
    },
    lsn::Lsn,
    pg::{
        copy_data::{self, CopyData},
        pgoutput,
        relations::{Event, Relations},
        timeline::Timelines,
    },
    progress::{Ledger, Ticket},
    sink::partition::Partitioner,
};

const TRANSACTIONS: u64 = 200;
const ROWS: u64 = 1000;
const ROUNDS: usize = 7;
const PARTITIONS: u32 = 6;
const OID: u32 = 16_384;

/// A column: its name, `pg_type.oid`, and the text of its value in row `n`.
type Column = (&'static str, u32, fn(u64) -> String);

/// The tutorial's table.
const NARROW: &[Column] = &[
    ("id", 23, |n| n.to_string()),
    ("name", 25, |n| format!("User{n}")),
    ("created_on", 1184, |n| format!("2026-11-25 10:{:02}:{:02}.{n:06}+00", n / 60 % 60, n % 60)),
];

/// Twenty columns, about 500 bytes of text.
const WIDE: &[Column] = &[
    ("id", 20, |n| (n + 9_000_000_000).to_string()),
    ("customer", 2950, |n| format!("a0eebc99-9c0b-4ef8-bb6d-{n:012x}")),
    ("status", 25, |n| ["open", "paid", "sent", "done"][n as usize % 4].into()),
    ("total", 1700, |n| format!("{}.{:02}", n * 7 % 10_000, n % 100)),
    ("tax", 1700, |n| format!("0.{:04}", n % 10_000)),
    ("paid", 16, |n| if n.is_multiple_of(2) { "t" } else { "f" }.into()),
    ("weight", 701, |n| format!("{}.5", n % 500)),
    ("placed", 1184, |n| format!("2026-11-25 10:{:02}:{:02}.123456+00", n / 60 % 60, n % 60)),
    ("due", 1082, |n| format!("2026-12-{:02}", n % 28 + 1)),
    ("email", 25, |n| format!("customer{n}@example.com")),
    ("street", 25, |n| format!("{n} Long \"Winding\" Road, 3rd floor, rear building")),
    ("city", 25, |_| "Königs Wusterhausen".into()),
    ("country", 25, |_| "DE".into()),
    ("items", 1007, |n| format!("{{{},{},{}}}", n % 9, n % 99, n % 999)),
    ("detail", 3802, |n| format!(r#"{{"coupon": null, "gift": true, "lines": [{n}, 2, 3]}}"#)),
    ("note", 25, |_| "please ring twice; the bell is broken, and the dog is not".into()),
    ("carrier", 25, |_| "post".into()),
    ("tracking", 25, |n| format!("JJD{n:018}")),
    ("version", 23, |n| (n % 5).to_string()),
    ("region", 21, |n| (n % 300).to_string()),
];

/// CopyData bodies, as they stand in the read buffer.
struct Backlog {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Backlog {
    fn of(columns: &[Column]) -> Self {
        let mut backlog = Self { bytes: Vec::new(), ends: Vec::new() };
        backlog.add(0, |out| relation(columns, out));
        for transaction in 1..=TRANSACTIONS {
            let lsn = transaction * 1_000_000;
            backlog.add(lsn, |out| {
                out.push(b'B');
                out.extend(lsn.to_be_bytes());
                out.extend(0_i64.to_be_bytes());
                out.extend(7_u32.to_be_bytes());
            });
            for row in 0..ROWS {
                backlog.add(lsn, |out| insert(columns, transaction * ROWS + row, out));
            }
            backlog.add(lsn, |out| {
                out.extend(b"C\0");
                out.extend(lsn.to_be_bytes());
                out.extend((lsn + 48).to_be_bytes());
                out.extend(0_i64.to_be_bytes());
            });
        }
        backlog
    }

    fn add(&mut self, lsn: u64, write: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.push(b'w');
        self.bytes.extend(lsn.to_be_bytes());
        self.bytes.extend(lsn.to_be_bytes());
        self.bytes.extend(0_i64.to_be_bytes());
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}

fn relation(columns: &[Column], out: &mut Vec<u8>) {
    out.push(b'R');
    out.extend(OID.to_be_bytes());
    out.extend(b"public\0users\0d");
    out.extend((columns.len() as u16).to_be_bytes());
    for (at, (name, oid, _)) in columns.iter().enumerate() {
        out.push(u8::from(at == 0)); // the primary key
        out.extend(name.bytes());
        out.push(0);
        out.extend(oid.to_be_bytes());
        out.extend((-1_i32).to_be_bytes());
    }
}

fn insert(columns: &[Column], row: u64, out: &mut Vec<u8>) {
    out.push(b'I');
    out.extend(OID.to_be_bytes());
    out.push(b'N');
    out.extend((columns.len() as u16).to_be_bytes());
    for (.., text) in columns {
        let text = text(row);
        out.push(b't');
        out.extend((text.len() as u32).to_be_bytes());
        out.extend(text.bytes());
    }
}

/// How far a row is taken.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Stage {
    Decode,
    Encode,
    Batch,
}

/// All that stands between the frame and the batch.
struct Path {
    encoder: Encoder,
    template: Option<Template>,
    headers: Headers,
    key: Vec<u8>,
    value: Vec<u8>,
    batcher: Batcher,
    topic: TopicId,
    /// Encoded bytes that left as sealed batches.
    bytes: usize,
}

impl Path {
    fn new() -> Self {
        let options = Options {
            numeric: Numeric::String,
            key: KeyFormat::Auto,
            tombstones: false,
            headers: vec![Header::Op, Header::Id],
        };
        let mut batcher = Batcher::new(Limits {
            max_bytes: 1 << 20,
            max_records: 10_000,
            linger: Duration::from_millis(5),
            in_flight: 8 << 20,
        });
        let topic = batcher.topic(Arc::from("users.0"), PARTITIONS, 1 << 20);
        let source = Source::new(1, "cdc_slot", &["cdc_publication".into()]);
        Self {
            encoder: Encoder::new(options, source),
            template: None,
            headers: Headers::default(),
            key: Vec::new(),
            value: Vec::new(),
            batcher,
            topic,
            bytes: 0,
        }
    }

    fn run(&mut self, backlog: &Backlog, upto: Stage) -> Duration {
        let mut relations = Relations::new(Timelines::single(1));
        let mut ledger = Ledger::new(Lsn::ZERO);
        let mut ticket = ledger.begin();
        self.bytes = 0;
        let start = cpu();
        let mut now = Instant::now();
        for frame in backlog.frames() {
            let Ok(CopyData::XLogData(wal)) = copy_data::decode(frame) else { panic!("not WAL") };
            let message = pgoutput::decode(wal.body).expect("as a walsender writes it");
            match relations.apply(message, &wal).expect("as a walsender sends it") {
                Event::Begin(_) => (ticket, now) = (ledger.begin(), Instant::now()),
                Event::Change(change) => self.row(&change, upto, ticket, now),
                Event::Relation(questions) => {
                    let relation = relations.get(questions.oid).expect("just described");
                    self.template = Some(self.encoder.template(relation, &relation.key));
                }
                _ => {}
            }
        }
        self.batcher.flush_all();
        self.hand_on();
        cpu().saturating_sub(start)
    }

    fn row(&mut self, change: &Change<'_>, upto: Stage, ticket: Ticket, now: Instant) {
        let (Some(template), Some(after)) = (&self.template, black_box(change.after)) else {
            return;
        };
        if upto == Stage::Decode {
            return;
        }
        let Self { encoder, headers, key, value, batcher, topic, .. } = self;
        let image = Image::new(after, change.before);
        key.clear();
        encoder.key(template, image, key).expect("it has a key");
        let stamp = Stamp {
            op: change.op,
            position: change.position,
            part: Part::Whole,
            transaction: change.transaction,
            table: Some(template),
            left_out: None,
            prefix: None,
        };
        encoder.headers(&stamp, headers);
        if upto == Stage::Encode {
            value.clear();
            encoder.value(template, image, value).expect("it is a row");
            black_box((&key, &value, &headers));
            return;
        }
        let partition = Partitioner::Murmur2.partition(Some(key), 0, PARTITIONS);
        let times = batch::Stamp { timestamp_ms: 1_795_600_000_000, committed_at: 0, now };
        batcher
            .append(*topic, partition, times, ticket, |record| {
                record.key(Some(key));
                record.value_with(|out| {
                    encoder.value(template, image, out).expect("it is a row");
                    Ok::<_, Infallible>(())
                })?;
                record.headers(headers.len(), headers.block());
                Ok::<_, Infallible>(())
            })
            .expect("it fits");
        self.hand_on();
    }

    /// What the producer does with a batch before it is sent, and the way back of its buffers.
    fn hand_on(&mut self) {
        while let Some(mut batch) = self.batcher.closed() {
            record_batch::seal(&mut batch.bytes, 1, 0, 0);
            self.bytes += black_box(&batch.bytes).len();
            self.batcher.recycle(batch.bytes, batch.tickets);
        }
    }
}

/// What this thread has had of a processor, by Linux: other programs do not count. Elsewhere the time.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    match stat.split(' ').next().and_then(|ns| ns.parse().ok()) {
        Some(ns) => Duration::from_nanos(ns),
        None => {
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
        }
    }
}

fn main() {
    // `cargo bench` adds `--bench`.
    let wanted: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let rows = TRANSACTIONS * ROWS;
    println!(
        "{rows} inserts in {TRANSACTIONS} transactions, CPU time, best and median of {ROUNDS}"
    );
    for (name, columns) in [("narrow", NARROW), ("wide", WIDE)] {
        let backlog = Backlog::of(columns);
        for stage in [Stage::Decode, Stage::Encode, Stage::Batch] {
            let upto = format!("{stage:?}").to_lowercase();
            if !wanted.iter().all(|word| *word == name || *word == upto) {
                continue;
            }
            let mut path = Path::new();
            let mut ns: Vec<_> = (0..ROUNDS)
                .map(|_| path.run(&backlog, stage).as_nanos() as f64 / rows as f64)
                .collect();
            ns.sort_by(f64::total_cmp);
            let bytes = backlog.bytes.len() as u64 / rows;
            print!("{name:<7} {bytes:>4} B a row, up to {upto:<7}");
            print!("{:>7.0} {:>7.0} ns a row", ns[0], ns[ROUNDS / 2]);
            match path.bytes as u64 / rows {
                0 => println!(),
                record => println!(", {record} B a record"),
            }
        }
    }
}
