//! `pgsluice tail`: the changes on this terminal, through a temporary slot.
//!
//! The same path as the pipeline's up to the encoder; then a line in place of a record. PostgreSQL
//! drops the slot with the connection, so that nothing is kept and nothing is left behind.

use std::{
    collections::HashMap,
    io::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{self, chain},
    change::{Change, Op, Position, Transaction},
    encode::{self, Encoder, Header, Headers, Image, KeyFormat, Part, Source, Stamp, Template},
    lease::Lease,
    lsn::Lsn,
    pg::{
        pgoutput,
        relations::{Event, Relations},
        session::{self, Session},
        slot,
        stream::{self, Incoming, ReplicationStream},
    },
    pipeline,
    progress::Ledger,
    retry::{Backoff, Disposition, Exit},
    schema::Relation,
    sink::stdout::{Line, Look},
};

/// Why it is over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No session.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// A session ended.
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// A row that cannot be shown.
    #[error(transparent)]
    Encode(#[from] encode::Error),
    /// The terminal, or the next program in the pipe.
    #[error("could not write")]
    Output(#[from] std::io::Error),
}

impl Error {
    /// No `_` arm: a new variant does not compile until someone has judged it.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Session(error) => error.disposition(),
            Self::Pipeline(error) => error.disposition(),
            Self::Encode(error) => error.disposition(),
            Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                Disposition::Halt(Exit::Done)
            }
            Self::Output(_) => Disposition::Halt(Exit::Unavailable),
        }
    }
}

/// Shows changes until `stop`.
///
/// # Errors
/// What only a person can mend. What may heal is waited for.
pub async fn run(
    options: &app::Options,
    look: Look,
    out: &mut dyn Write,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let mut backoff = Backoff::new(Duration::from_millis(200), options.retry_max);
    loop {
        let began = std::time::Instant::now();
        let error = select! {
            () = stop.cancelled() => return Ok(()),
            ended = session(options, look, out) => match ended {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
        };
        if let Disposition::Halt(_) = error.disposition() {
            return Err(error);
        }
        if began.elapsed() > Duration::from_secs(10) {
            backoff.reset();
        }
        tracing::warn!("{}; trying again, changes until then are not shown", chain(&error));
        let pause = backoff.next(u32::MAX);
        select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(pause) => {}
        }
    }
}

async fn session(options: &app::Options, look: Look, out: &mut dyn Write) -> Result<(), Error> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let slot = format!("pgsluice_tail_{}_{}", std::process::id(), clock.as_millis());
    let waiting = || {
        tracing::info!(
            slot,
            "making a temporary slot, which waits for the transactions that are open"
        );
    };
    let mut opened =
        Session::open_temporary(&options.postgres, &options.publication, &slot, waiting).await?;
    for warning in &opened.ready.warnings {
        tracing::warn!("{warning}");
    }
    let source =
        Source::new(opened.ready.server.system_identifier, &slot, &options.publication.names);
    let start = stream::Start {
        options: &options.stream,
        max_message: options.postgres.max_message,
        silence: app::first_silence(options),
        lease: Lease::new(options.postgres.wal_sender_timeout),
    };
    let names = &options.publication.names;
    if !opened.start(&slot, names).await? {
        return Err(session::Error::from(slot::Error::Busy { name: slot, pid: 0 }).into());
    }
    let (stream, catalog, timelines) = opened.stream(names, start);
    tracing::info!(publications = ?options.publication.names, "showing changes; end with ctrl-c");
    let encode = encode::Options {
        numeric: options.encode.numeric,
        key: KeyFormat::Json,
        tombstones: false,
        headers: vec![Header::Op, Header::Table, Header::Lsn, Header::Xid, Header::Ts],
    };
    let tail = Tail {
        relations: Relations::new(timelines),
        ledger: Ledger::new(Lsn::ZERO),
        view: View {
            encoder: Encoder::new(encode, source),
            templates: HashMap::new(),
            headers: Headers::default(),
            key: Vec::new(),
            value: Vec::new(),
            look,
            out,
        },
    };
    tail.follow(stream, catalog).await
}

struct Tail<'a> {
    relations: Relations,
    /// Nothing is stored anywhere, so what was received is done with.
    ledger: Ledger,
    view: View<'a>,
}

/// From a change to a line.
struct View<'a> {
    encoder: Encoder,
    templates: HashMap<u32, Template>,
    headers: Headers,
    key: Vec<u8>,
    value: Vec<u8>,
    look: Look,
    out: &'a mut dyn Write,
}

impl Tail<'_> {
    async fn follow(
        mut self,
        mut stream: ReplicationStream,
        mut catalog: session::Catalog,
    ) -> Result<(), Error> {
        let mut ticket = None;
        loop {
            stream.turn(true).await.map_err(pipeline::Error::from)?;
            while let Some(incoming) = stream.take().map_err(pipeline::Error::from)? {
                let wal = match incoming {
                    Incoming::Data(wal) => wal,
                    Incoming::Keepalive(keepalive) => {
                        if let Some(confirmed) = self.ledger.idle(keepalive.end) {
                            stream.confirm(confirmed);
                        }
                        continue;
                    }
                };
                let message = pgoutput::decode(wal.body)
                    .map_err(|source| pipeline::Error::Decode { at: wal.start, source })?;
                match self.relations.apply(message, &wal).map_err(pipeline::Error::from)? {
                    Event::Begin(_) => ticket = Some(self.ledger.begin()),
                    Event::Change(change) => self.view.change(&change)?,
                    Event::Truncate { relations, first, transaction } => {
                        for relation in relations.iter().filter_map(|oid| self.relations.get(*oid))
                        {
                            self.view.truncate(relation, first, &transaction)?;
                        }
                    }
                    Event::Message { message, position, transaction } => {
                        let prefix = message.prefix;
                        self.view.message(prefix, message.content, position, &transaction)?;
                    }
                    Event::Commit { commit } => {
                        let confirmed = ticket.take().and_then(|t| self.ledger.commit(t, commit));
                        if let Some(confirmed) = confirmed {
                            stream.confirm(confirmed);
                        }
                    }
                    Event::Relation(questions) => {
                        if !questions.none() {
                            let facts = catalog.ask(&questions).await?;
                            self.relations.learn(questions.oid, &facts);
                        }
                        if let Some(relation) = self.relations.get(questions.oid) {
                            let template = self.view.encoder.template(relation, &relation.key);
                            self.view.templates.insert(relation.oid, template);
                        }
                    }
                    Event::Nothing => {}
                }
            }
            self.view.out.flush()?;
        }
    }
}

impl View<'_> {
    fn change(&mut self, change: &Change<'_>) -> Result<(), Error> {
        let Change { op, relation, before, after, transaction, position } = *change;
        let Some(template) = self.templates.get(&relation.oid) else { return Ok(()) };
        let Some(image) = after.map(|row| Image::new(row, before)).or_else(|| Image::old(before))
        else {
            return Ok(());
        };
        self.key.clear();
        self.value.clear();
        let has_key = self.encoder.key(template, image, &mut self.key)?;
        let whole = self.encoder.value(template, image, &mut self.value)?;
        let stamp = Stamp {
            op,
            position,
            part: Part::Whole,
            transaction,
            table: Some(template),
            left_out: (!whole).then_some(image),
            prefix: None,
        };
        self.encoder.headers(&stamp, &mut self.headers);
        let (key, value) = (has_key.then_some(&*self.key), Some(&*self.value));
        Line { headers: self.headers.iter(), key, value, row: true }.write(self.look, self.out)?;
        Ok(())
    }

    fn truncate(
        &mut self,
        relation: &Relation,
        position: Position,
        transaction: &Transaction,
    ) -> Result<(), Error> {
        let table = self.templates.get(&relation.oid);
        let (op, part) = (Op::Truncate, Part::Whole);
        let stamp = Stamp { op, position, part, transaction, table, left_out: None, prefix: None };
        self.encoder.headers(&stamp, &mut self.headers);
        Line { headers: self.headers.iter(), key: None, value: None, row: true }
            .write(self.look, self.out)?;
        Ok(())
    }

    fn message(
        &mut self,
        prefix: &str,
        content: &[u8],
        position: Position,
        transaction: &Transaction,
    ) -> Result<(), Error> {
        let (op, part, prefix) = (Op::Message, Part::Whole, Some(prefix));
        let stamp = Stamp { op, position, part, transaction, table: None, left_out: None, prefix };
        self.encoder.headers(&stamp, &mut self.headers);
        Line { headers: self.headers.iter(), key: None, value: Some(content), row: false }
            .write(self.look, self.out)?;
        Ok(())
    }
}
