//! Carries out what the [`Machine`] decides, and tells it what came of it.
//!
//! One connection a broker, made when it is first needed. Requests go over it in the order in which
//! they are decided: futures are first polled in the order in which they are pushed.

mod coordinator;
mod links;
mod notes;
mod own;
mod topics;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use self::{
    coordinator::{Step, Unmet},
    links::Link,
    notes::Shared,
};
use super::{
    Met,
    ask::{self, Random, chain},
    claim::{Claim, Identities, Ours, Taken},
    machine::{Action, Leaders, Machine},
    note::Found,
    taking::Taker,
};
use crate::{
    batch::Batch,
    failpoint,
    lsn::Lsn,
    metrics::{self, Peer},
    retry::Disposition,
    sim::{Bug, planted},
    sink::{
        Delivery,
        kafka::{
            Options,
            broker::Broker,
            error::{Doubt, Error},
            metadata::{Metadata, Node},
            topics::Topic,
            wire::{Produce, Produced},
        },
    },
};

/// What the handle wants.
pub(super) enum Command {
    Submit(Batch),
    Commit,
    Prepare,
    Topic { name: String, reply: oneshot::Sender<Result<Met, Error>> },
    Take { claim: Claim, generation: u64, reply: oneshot::Sender<Result<Taken, Error>> },
    Look { claim: Claim, topics: Vec<Arc<str>>, reply: oneshot::Sender<Result<Found, Error>> },
    Note { timeline: u32, position: Lsn, reply: oneshot::Sender<Result<bool, Error>> },
}

/// The task's ends of what it shares with the handle.
pub(super) struct Ends {
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    /// Each with the taking that it belongs to.
    pub(super) deliveries: mpsc::UnboundedSender<(u64, Result<Delivery, Error>)>,
    pub(super) in_flight: Arc<AtomicUsize>,
    pub(super) trouble: watch::Sender<Option<String>>,
}

/// What a future came to.
enum Done {
    Connected {
        id: i32,
        renewal: bool,
        result: Result<Broker, Error>,
    },
    Produced {
        id: i32,
        link: u64,
        request: u64,
        result: Result<Produced, Error>,
    },
    Closed {
        id: i32,
        link: u64,
    },
    Metadata(Result<Metadata, Error>),
    Coordinated {
        generation: u64,
        broker: Option<Broker>,
        result: Result<(), Unmet>,
    },
    Topic {
        name: String,
        generation: u64,
        result: Result<(Topic, Option<Ours>), Error>,
        reply: oneshot::Sender<Result<Met, Error>>,
    },
    Taken {
        generation: u64,
        taker: Box<Taker>,
        result: Result<Ours, Error>,
        reply: oneshot::Sender<Result<Taken, Error>>,
    },
    Noted,
}

/// See the module.
pub(super) struct Driver {
    options: Arc<Options>,
    machine: Machine,
    nodes: BTreeMap<i32, Node>,
    links: BTreeMap<i32, Link>,
    /// Brokers that there was a connection with.
    seen: BTreeSet<i32>,
    last_link: u64,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    ends: Ends,
    /// Counts takings: what belongs to an earlier one counts for nothing.
    generation: u64,
    /// The last one's, and what goes by it once it is done.
    claim: Option<Arc<Claim>>,
    group: Option<Shared>,
    /// Whether it was said that the group cannot be used.
    said: Arc<AtomicBool>,
    identities: Option<Identities>,
    /// Of our transactions.
    coordinator: Option<Broker>,
    /// What of [`Machine::held`] is in `ends.in_flight`.
    counted: usize,
    random: Random,
}

impl Driver {
    pub(super) fn new(
        options: Arc<Options>,
        machine: Machine,
        nodes: Vec<Node>,
        ends: Ends,
    ) -> Self {
        Self {
            options,
            machine,
            nodes: nodes.into_iter().map(|node| (node.id, node)).collect(),
            links: BTreeMap::new(),
            seen: BTreeSet::new(),
            last_link: 0,
            work: FuturesUnordered::new(),
            ends,
            generation: 0,
            claim: None,
            group: None,
            said: Arc::default(),
            identities: None,
            coordinator: None,
            counted: 0,
            random: Random::new(),
        }
    }

    /// Until the handle is gone, or nothing can go on.
    pub(super) async fn run(mut self) {
        loop {
            let wake = self.act();
            if let Some(error) = self.machine.take_halt() {
                let doubt = error.disposition() == Disposition::Retry;
                let _ = self.ends.deliveries.send((self.generation, Err(error))); // else nobody waits
                if !doubt {
                    return;
                }
            }
            tokio::select! {
                biased;
                Some(done) = self.work.next() => self.done(done),
                command = self.ends.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                () = until(wake) => {}
            }
            // Whatever else is there, so that batches of several partitions share a request.
            while let Some(Some(done)) = self.work.next().now_or_never() {
                self.done(done);
            }
            while let Ok(command) = self.ends.commands.try_recv() {
                self.command(command);
            }
        }
    }

    /// Does what can be done now. Gives the time of the next turn.
    fn act(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let renewal = self.renew(now);
        let turn = self.machine.turn(now);
        for action in turn.actions {
            self.carry_out(action);
        }
        for delivery in self.machine.take_deliveries() {
            self.ends.in_flight.fetch_add(delivery.batch.bytes.len(), Ordering::Relaxed);
            // Else the handle is gone: we end too.
            let _ = self.ends.deliveries.send((self.generation, Ok(delivery)));
        }
        self.publish();
        turn.wake.into_iter().chain(renewal).min()
    }

    fn publish(&mut self) {
        let held = self.machine.held();
        self.ends.in_flight.fetch_add(held, Ordering::Relaxed);
        self.ends.in_flight.fetch_sub(self.counted, Ordering::Relaxed);
        self.counted = held;
        if self.machine.troubles().take_changed() {
            self.ends.trouble.send_replace(self.machine.troubles().text());
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Submit(batch) => {
                let len = batch.bytes.len();
                self.machine.submit(batch);
                self.publish();
                self.ends.in_flight.fetch_sub(len, Ordering::Relaxed); // as the handle counted it
            }
            Command::Commit => self.machine.commit(),
            Command::Prepare => self.machine.prepare(Instant::now()),
            Command::Topic { name, reply } => self.meet(name, reply),
            Command::Take { claim, generation, reply } => self.take(claim, generation, reply),
            Command::Look { claim, topics, reply } => self.look(claim, topics, reply),
            Command::Note { timeline, position, reply } => self.note(timeline, position, reply),
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Produce { broker: id, request, batches } => {
                let timeout = self.options.request_timeout;
                let over = self.claim.as_ref().is_some_and(|claim| !claim.lease.holds());
                if over && !planted(Bug::LeaseUnchecked) {
                    if let Some(first) = batches.first() {
                        self.machine.doubt(&first.topic, first.partition, Doubt::Lease);
                    }
                    return;
                }
                let Some(link) = self.links.get(&id) else { return };
                let (broker, link) = (link.broker.clone(), link.number);
                let transactional_id = self.data_id();
                self.push(async move {
                    failpoint::hit("to be produced");
                    let result =
                        broker.produce(Produce { transactional_id, timeout, batches }).await;
                    failpoint::hit("produced");
                    Done::Produced { id, link, request, result }
                });
            }
            Action::AddPartitions { partitions } => self.coordinate(Step::Add(partitions)),
            Action::EndTransaction => self.coordinate(Step::End),
            Action::Connect { broker } => self.connect(broker, false),
            Action::Metadata { topics } => {
                let (candidates, options) = (self.candidates(), Arc::clone(&self.options));
                self.push(async move {
                    let question = |broker| ask::metadata(broker, &topics);
                    Done::Metadata(ask::any(candidates, &options, question).await)
                });
            }
        }
    }

    fn done(&mut self, done: Done) {
        let (now, random) = (Instant::now(), self.random.next());
        match done {
            Done::Connected { id, renewal: false, result: Ok(broker) } => {
                if !self.seen.insert(id) {
                    metrics::reconnect(Peer::Kafka);
                }
                self.machine.connected(id, broker.name(), now);
                self.put(id, broker);
            }
            Done::Connected { id, renewal: false, result: Err(error) } => {
                if let Some(why) = self.judge(error) {
                    self.machine.unreachable(id, &why, now, random);
                }
            }
            Done::Connected { id, renewal: true, result } => self.renewed(id, result),
            Done::Produced { request, result: Ok(produced), .. } => {
                self.machine.answered(request, produced, now, random);
            }
            Done::Produced { id, link, result: Err(Error::Closed { broker, .. }), .. } => {
                // Without the hint at a wrong listener: this connection was good.
                self.lost(id, link, &format!("the connection to broker {broker} ended"));
            }
            Done::Produced { id, link, result: Err(error), .. } => {
                if let Some(why) = self.judge(error) {
                    self.lost(id, link, &why);
                }
            }
            Done::Closed { id, link } => self.lost(id, link, "the broker closed the connection"),
            Done::Coordinated { generation, broker, result } => {
                self.coordinated(generation, broker, result);
            }
            Done::Metadata(Ok(metadata)) => self.leaders(metadata),
            Done::Metadata(Err(error)) => {
                if let Some(why) = self.judge(error) {
                    self.machine.metadata_failed(&why, now, random);
                }
            }
            Done::Topic { name, generation, result, reply } => {
                let result = result.map(|(topic, ours)| {
                    self.machine.topic(&name, &topic);
                    let ours = ours.filter(|_| generation == self.generation);
                    let stored = ours.map(|ours| {
                        self.machine.own(ours.identities.data, &ours.partitions);
                        ours.taken.stored
                    });
                    Met { topic, stored }
                });
                let _ = reply.send(result); // else nobody waits for it any more
            }
            Done::Taken { generation, taker, result, reply } => {
                self.taken(generation, *taker, result, reply);
            }
            Done::Noted => {}
        }
    }

    /// What only a person can mend ends everything; of the rest, the reason in words.
    fn judge(&mut self, error: Error) -> Option<String> {
        match error.disposition() {
            Disposition::Retry => Some(chain(&error)),
            Disposition::Halt(_) => {
                self.machine.halt(error);
                None
            }
        }
    }

    fn leaders(&mut self, metadata: Metadata) {
        let (now, random) = (Instant::now(), self.random.next());
        // One without brokers is of a broker that has just started.
        if !metadata.brokers.is_empty() {
            self.nodes = metadata.brokers.into_iter().map(|node| (node.id, node)).collect();
        }
        let topics = metadata.topics.into_iter().map(|topic| Leaders {
            topic: topic.name,
            code: topic.code,
            id: topic.id,
            leaders: topic.partitions.iter().map(|p| (p.index, p.leader)).collect(),
        });
        self.machine.leaders(topics.collect(), now, random);
    }

    fn push(&self, future: impl Future<Output = Done> + Send + 'static) {
        self.work.push(future.boxed());
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
