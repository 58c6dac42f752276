//! pgsluice streams every committed PostgreSQL change to Kafka, exactly as it happened, from one
//! small static binary that sits next to the database.
//!
//! # The path of one change
//! ```text
//! socket ─1 frame──▶ Frame ─2 copy_data──▶ XLogData ─3 pgoutput──▶ Message<'a>
//!   Message<'a> ─4 relations──▶ Change<'a> ─5 route──▶ Route ─6 encode──▶ key, value, headers
//!   ─7 batch──▶ Batch ─8 sink──▶ Kafka ─ack─▶ Delivery ─9 progress──▶ Confirmed
//!   ─10 pipeline──▶ StandbyStatus ──▶ the slot moves
//! ```
//! Steps 3 to 7 are one synchronous call on one thread, which borrows the frame: no channel, no
//! clone of a value, no await; a value is copied once, from the read buffer into the record batch.
//! Only finished batches cross to another task. When Kafka is slow, the socket to PostgreSQL is
//! not read.
//!
//! # The modules, in reading order; each names only those above it
//! | module | what it is |
//! |---|---|
//! | [`lsn`] | a position in the WAL |
//! | [`retry`] | what to do about an error: wait, or end with an exit code |
//! | [`metrics`] | every metric and label, named once |
//! | `failpoint` | where a test may end the process; in a release there are none |
//! | [`clock`] | the calendar's time, and the machine's |
//! | `sim` | where a simulator takes hold; in a release there is none |
//! | [`lease`] | how long this process may take itself for the one that streams |
//! | [`varint`] | the numbers in which a record counts |
//! | [`schema`] | what a row means: relation, column, type |
//! | [`change`] | what travels through the house |
//! | [`progress`] 9 | acks in any order → one confirmed position |
//! | [`stored`] | which of our records are in the topics already |
//! | [`status`] | what the process is doing, as `/status` shows it |
//! | [`net`] | sockets, TLS, secrets: what both ends stand on |
//! | [`pg`] 1–4 | the only place that knows PostgreSQL: [`pg::frame`], [`pg::copy_data`], [`pg::pgoutput`], [`pg::relations`]; around them [`pg::connect`], [`pg::slot`], [`pg::catalog`], [`pg::session`], [`pg::stream`]; [`pg::which`] of several servers, and [`pg::witness`]: a standby's timeline |
//! | [`route`] 5, [`encode`] 6 | from change to bytes; knows neither PostgreSQL nor Kafka |
//! | [`batch`] 7 | one growing record batch a partition; [`batch::log`]: batches as a broker gives them back |
//! | [`sink`] 8 | [`sink::kafka`]: broker connections, topics, the producer; [`sink::partition`]; [`sink::stdout`] |
//! | [`pipeline`] 10 | the loop, which owns all mutable state of the path; then drain |
//! | [`ha`] | who may stream: the slot decides, a lock wakes who waits for it |
//! | [`app`], [`tail`] | supervisor: on error back off or halt; the changes on a terminal |
//! | [`config`] | file, environment, `--set` → each module's options |
//! | [`admin`], [`notify`], [`telemetry`], [`shell`], [`cli`] | the shell: HTTP, systemd, logs, runtime and signals, command line |
//!
//! # What must stay true
//! 1. **Confirmed means stored.** Only [`progress`] makes a [`progress::Confirmed`];
//!    [`pg::stream`] takes nothing else, and clamps it to what this connection received.
//! 2. Nothing borrowed from the wire crosses an `.await` or a channel.
//! 3. One task owns all mutable state of the path; there is no mutex on it.
//! 4. Every queue, buffer, retry and wait has a bound, and the bound is a config key.
//! 5. Every error has a disposition, by a `match` without `_`.
//! 6. Every future in a `select!` is cancel-safe and says so.
//! 7. A batch is retried in order or we halt; no record is skipped unless a key says so by name.
//! 8. Same input, same bytes: position and key decide topic, partition and order.
//! 9. No row value and no secret in a log, an error or a metric label.
//! 10. A position is timeline, commit LSN and index in the transaction: rows share LSNs, and after a
//!     promotion that lost WAL, LSNs repeat.

pub mod admin;
pub mod app;
pub mod batch;
pub mod change;
pub mod cli;
pub mod clock;
pub mod config;
pub mod encode;
mod failpoint;
pub mod ha;
pub mod lease;
pub mod lsn;
pub mod metrics;
pub mod net;
pub mod notify;
pub mod pg;
pub mod pipeline;
pub mod progress;
pub mod retry;
pub mod route;
pub mod schema;
pub mod shell;
#[doc(hidden)]
pub mod sim;
pub mod sink;
pub mod status;
pub mod stored;
pub mod tail;
pub mod telemetry;
pub mod varint;
