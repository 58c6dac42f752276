//! The supervisor: from one session to the next, until it is told to stop or only a person can help.
//!
//! What may heal is waited for with a growing pause, said once when it begins and once when it is
//! over; everything else ends the process with the exit code of its kind. The producer and the
//! ledger outlive a session: what was handed to Kafka is stored whatever becomes of PostgreSQL.

mod claim;
mod error;
mod missing;
mod passive;
mod shown;
mod silence;
mod trouble;
pub mod vigil;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    select,
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

pub use self::{
    claim::Once,
    error::{Error, chain},
};
use self::{
    missing::Sought,
    shown::{set_role, show},
    trouble::Trouble,
    vigil::Vigil,
};
pub(crate) use self::{shown::now_ms, silence::first_silence};
use crate::{
    batch::{self, Batcher},
    encode::{self, Encoder, Source},
    failpoint, ha,
    metrics::{self, Peer},
    pg::{
        self,
        relations::Relations,
        session::{self, Session},
        slot::{self, SlotOptions},
        stream,
        which::Known,
    },
    pipeline::{self, Cuts, Notes, Pipeline, Progress, Pulse, Records},
    retry::{Backoff, Disposition},
    route::{self, Routes},
    sink::{self, kafka::Producer},
    status::{self, Role, Status},
};

/// The whole configuration, each part as its module wants it.
#[derive(Clone, Debug)]
pub struct Options {
    /// `[postgres]`.
    pub postgres: pg::connect::Options,
    /// `[publication]`.
    pub publication: pg::slot::PublicationOptions,
    /// `[slot]`.
    pub slot: pg::slot::SlotOptions,
    /// `[slot]`, as far as it is about several instances.
    pub ha: ha::Options,
    /// Longest pause between two attempts to reach PostgreSQL.
    pub retry_max: Duration,
    /// `slot.missing_timeout`: so long a slot that was there is waited for before it is a gap.
    pub missing_timeout: Duration,
    /// `postgres.…` of the stream.
    pub stream: pg::stream::Options,
    /// `[kafka]` and `[topic]`.
    pub kafka: sink::kafka::Options,
    /// `kafka.partitioner`.
    pub partitioner: sink::partition::Partitioner,
    /// `[tables]`, `[topic]`, `truncate`, `[message]`.
    pub route: route::Options,
    /// `[format]`, `headers`.
    pub encode: encode::Options,
    /// `[batch]`.
    pub batch: batch::Limits,
    /// `[run]`, `kafka.timestamp`.
    pub pipeline: pipeline::Options,
    /// How rows are stored only once.
    pub once: Once,
    /// What is done about the slot beside the stream.
    pub vigil: vigil::Options,
    /// `admin.listen`; `None`: no HTTP.
    pub admin: Option<SocketAddr>,
    /// `--accept-gap`: a gap that this start finds is no reason not to go on.
    pub accept_gap: bool,
}

/// Streams until `stop`.
///
/// # Errors
/// What only a person can mend, or a drain that was too short.
pub async fn run(
    options: Options,
    status: watch::Sender<Status>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let routes = Routes::new(options.route.clone())?;
    let mapped = routes.listed();
    let (vigil, pulse) = Vigil::begin(&options, status.clone());
    let lock = match options.ha.lock {
        true => ha::Lock::new(&options.postgres, &options.slot.name, status.subscribe()),
        false => ha::Lock::none(),
    };
    let mut app = App {
        lock,
        supersede: ha::Supersede::default(),
        routes,
        mapped,
        status,
        producer: None,
        records: None,
        silence: first_silence(&options),
        last: Progress::default(),
        identity: None,
        newest_timeline: 0,
        sought: Sought::default(),
        passive: false,
        looked_up: false,
        warned: BTreeSet::new(),
        trouble: Trouble::default(),
        accept_gap: options.accept_gap,
        vigil,
        pulse: Some(pulse),
        options,
    };
    app.supervise(&stop).await
}

/// Why it does not stream yet.
const TAKING: &str = "the slot is ours, the topics are being taken";

struct App {
    options: Options,
    /// By which passive instances hear that we have gone, or we of the active one.
    lock: ha::Lock,
    /// What is known of the active instance.
    supersede: ha::Supersede,
    routes: Routes,
    mapped: Vec<String>,
    status: watch::Sender<Status>,
    producer: Option<Producer>,
    records: Option<Records>,
    /// Longest silence that is borne; doubles when a reconnect got no further.
    silence: Duration,
    /// Of the last session.
    last: Progress,
    /// System identifier and timeline of the last session.
    identity: Option<(u64, u32)>,
    /// The newest timeline that is known of; 0: none.
    newest_timeline: u32,
    /// What is known of the slot, should it be missing.
    sought: Sought,
    /// Whether another one did when it was last looked at, and we have not since.
    passive: bool,
    /// Whether the topics that are known beforehand were looked up.
    looked_up: bool,
    /// Warnings that were said.
    warned: BTreeSet<String>,
    trouble: Trouble,
    /// Until the first session has begun.
    accept_gap: bool,
    vigil: Vigil,
    /// Until there are records that tell it.
    pulse: Option<Pulse>,
}

impl App {
    async fn supervise(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        let mut backoff = Backoff::new(Duration::from_millis(100), self.options.retry_max);
        loop {
            let before = self.last.received;
            let ended = self.session(stop).await;
            self.lock.let_go(); // the slot is free before
            let error = match ended {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if matches!(error.disposition(), Disposition::Halt(_)) {
                return Err(error);
            }
            if self.last.received > before || self.status.borrow().role == Role::Passive {
                backoff.reset();
            }
            self.mind_silence(&error, before);
            self.newest_timeline = self.newest_timeline.max(error.newest_timeline());
            self.vigil.inactive(None);
            let pause = self.paused(backoff.next(ha::random()));
            let text = chain(&error);
            self.trouble.say(&text, Role::Connecting);
            let kafka_trouble = self.producer.as_ref().and_then(Producer::trouble);
            self.status.send_modify(|status| {
                status.kafka_trouble = kafka_trouble;
                status.last_error = Some(status::Trouble { text: text.clone(), at_ms: now_ms() });
            });
            set_role(&self.status, Role::Connecting, Some(text));
            select! {
                biased;
                () = stop.cancelled() => return self.stopped(),
                () = sleep(pause) => {}
            }
            metrics::reconnect(Peer::Postgres);
        }
    }

    /// Stopped while nothing streams.
    fn stopped(&self) -> Result<(), Error> {
        // What is not confirmed of ours is the business of whoever has the slot.
        let owed = !self.passive
            && self.records.as_ref().is_some_and(|records| {
                let ledger = records.ledger();
                ledger.open() > 0 || ledger.confirmed().lsn() > self.last.confirmed
            });
        if owed { Err(Error::Unconfirmed { from: self.last.confirmed }) } else { Ok(()) }
    }

    /// One session, from login to its end; `Ok`: it was stopped, and all is confirmed.
    async fn session(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        let (mut session, taken) = select! {
            biased;
            () = stop.cancelled() => return self.stopped(),
            taken = self.take_slot() => taken?,
        };
        failpoint::hit("slot taken");
        let (ready, host, wal_end) =
            (session.ready.clone(), session.host().clone(), session.identity.wal_end);
        let options = self.options.clone();
        let (max_message, silence) = (options.postgres.max_message, self.silence);
        let lease = taken.lease.clone();
        let start =
            stream::Start { options: &options.stream, max_message, silence, lease: lease.clone() };
        let (name, names) = (&options.slot.name, &options.publication.names);
        let witness = session.witness();
        let (stream, catalog, timelines) = session.stream(names, start);
        let timeline = timelines.current();
        let rewound = self.rewound(&ready, wal_end, timeline);
        self.begin(&ready, timeline, rewound);
        let claim = self.claim(&ready, rewound, lease);
        let (Some(producer), Some(records)) = (&mut self.producer, &mut self.records) else {
            return Ok(()); // `prepare` made both.
        };
        let (status, last) = (&self.status, &mut self.last);
        let mut report = |progress: Progress| {
            show(status, &progress);
            *last = progress;
        };
        let mut pipeline = Pipeline {
            stream,
            relations: Relations::new(timelines),
            catalog,
            witness,
            records,
            producer,
            cuts: Cuts::new(options.once.transactions),
            in_flight: options.batch.in_flight,
            drain: options.pipeline.drain,
            report: &mut report,
            last_commit: 0,
            notes: Notes::new(timeline),
            begun: Some(taken.noticed),
        };
        let over = |error| Error::Stream { slot: name.clone(), source: Box::new(error) };
        set_role(&self.status, Role::Connecting, Some(TAKING.to_owned()));
        let (confirmed, accept_gap, said) =
            (ready.confirmed_flush, self.accept_gap, &mut self.warned);
        let start = pipeline::Start { claim, slot: name, confirmed, accept_gap, rewound, said };
        if !pipeline.own(start, stop).await.map_err(over)? {
            return self.stopped();
        }
        self.accept_gap = false; // it was for this start
        self.trouble.over();
        self.vigil.active(&host, &ready);
        tracing::info!(slot = name, from = %ready.confirmed_flush, timeline, "streaming");
        set_role(&self.status, Role::Streaming, None);
        pipeline.run(stop).await.map_err(over)
    }

    /// The slot is ours: a new ledger page is begun.
    fn begin(&mut self, ready: &slot::Ready, timeline: u32, rewound: bool) {
        let identity = (ready.server.system_identifier, timeline);
        self.newest_timeline = self.newest_timeline.max(timeline);
        let same_history = self.identity.replace(identity) == Some(identity) && !rewound;
        if let Some(records) = &mut self.records {
            records.restart(ready.confirmed_flush, same_history);
        }
        // A slot that vanishes from now on is a gap, never to be made again unasked.
        (self.sought.streamed, self.passive) = (true, false);
        self.last = Progress { confirmed: ready.confirmed_flush, ..Progress::default() };
        self.status.send_modify(|status| {
            status.system_identifier = Some(identity.0.to_string());
            status.timeline = Some(identity.1);
            status.confirmed.lsn = ready.confirmed_flush;
        });
    }

    /// All that comes before `START_REPLICATION`: PostgreSQL first, then Kafka.
    async fn prepare(&mut self) -> Result<Session, Error> {
        let begun = Instant::now();
        let session = match self.open(false).await {
            Err(error @ session::Error::Slot(slot::Error::SlotMissing { .. })) => {
                self.missing(error, begun).await?;
                self.open(true).await?
            }
            opened => opened?,
        };
        self.found(&session);
        for warning in &session.ready.warnings {
            if self.warned.insert(warning.clone()) {
                tracing::warn!("{warning}");
            }
        }
        if self.records.is_none() {
            self.records = Some(self.new_records(session.ready.server.system_identifier));
        }
        self.reach_kafka().await?;
        if !self.looked_up {
            self.look_topics_up(&session).await?;
            self.looked_up = true;
        }
        Ok(session)
    }

    async fn open(&self, create: bool) -> Result<Session, session::Error> {
        let Options { postgres, publication, slot, .. } = &self.options;
        let slot = SlotOptions { create, ..slot.clone() };
        let known = Known {
            system_identifier: self.identity.map(|(system, _)| system),
            timeline: self.newest_timeline,
        };
        Session::open(postgres, publication, &slot, &self.mapped, known).await
    }

    async fn reach_kafka(&mut self) -> Result<(), Error> {
        if self.producer.is_none() {
            self.producer = Some(Producer::connect(self.options.kafka.clone()).await?);
        }
        Ok(())
    }

    fn new_records(&mut self, system_identifier: u64) -> Records {
        let Options { slot, publication, encode, batch, partitioner, pipeline, .. } = &self.options;
        let source = Source::new(system_identifier, &slot.name, &publication.names);
        let mut records = Records::new(
            Batcher::new(*batch),
            self.routes.clone(),
            Encoder::new(encode.clone(), source),
            *partitioner,
            pipeline.timestamp,
        );
        if let Some(pulse) = self.pulse.take() {
            records.mind(pulse);
        }
        records
    }

    /// Every topic that the configuration names, and those of the published tables.
    fn topics_of(&self, published: &slot::Published) -> BTreeSet<String> {
        let mut names: BTreeSet<String> =
            self.routes.topics().into_iter().map(str::to_owned).collect();
        for table in &published.tables {
            names.extend(self.routes.topic_of(&table.namespace, &table.name));
        }
        names
    }

    /// Has all of them looked up.
    async fn look_topics_up(&mut self, session: &Session) -> Result<(), Error> {
        let names = self.topics_of(&session.ready.published);
        let (Some(producer), Some(records)) = (&mut self.producer, &mut self.records) else {
            return Ok(());
        };
        for name in names {
            pipeline::look_up(records, producer, Arc::from(name)).await?;
        }
        if session.ready.published.truncates {
            records.warn_of_truncates();
        }
        Ok(())
    }
}
