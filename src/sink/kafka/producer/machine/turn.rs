//! One turn of the machine: mend what broke, then send what may be sent.

use std::collections::BTreeMap;

use tokio::time::Instant;
use tracing::info;

use super::{Arc, Link, Machine, PartitionRecords, Request, What, metrics};
use crate::sink::kafka::producer::queue::Cure;

/// Requests to one broker that are not answered yet. It carries out those of one connection one
/// after the other; more than these only wait there.
pub(super) const REQUESTS: usize = 5;

/// Bytes in one request, unless its first batch is larger. A broker takes 100 MiB
/// (`socket.request.max.bytes`); small ones are answered sooner.
const REQUEST_BYTES: usize = 4 << 20;

/// What the driver is to do.
#[derive(Debug)]
pub(in super::super) enum Action {
    /// Send this over the broker's connection.
    Produce { broker: i32, request: u64, batches: Vec<PartitionRecords> },
    /// Make a connection.
    Connect { broker: i32 },
    /// Ask who leads the partitions of these topics.
    Metadata { topics: Vec<Arc<str>> },
    /// Ask for a producer id.
    ProducerId,
}

/// What came of a turn.
#[derive(Debug, Default)]
pub(in super::super) struct Turn {
    pub(in super::super) actions: Vec<Action>,
    /// When to come back, if nothing happens before.
    pub(in super::super) wake: Option<Instant>,
}

#[derive(Debug, Default)]
struct Open {
    parts: Vec<(usize, u64)>,
    batches: Vec<PartitionRecords>,
    bytes: usize,
}

impl Turn {
    fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

impl Machine {
    /// Everything that can be done now.
    pub(in super::super) fn turn(&mut self, now: Instant, random: u32) -> Turn {
        let mut turn = Turn::default();
        self.mend_all(now, random);
        while self.round(&mut turn, now) {}
        self.errands(&mut turn, now);
        turn
    }

    /// At most one request to each broker, with at most one batch of each partition. Whether
    /// anything was sent.
    fn round(&mut self, turn: &mut Turn, now: Instant) -> bool {
        turn.wake = None;
        let mut open: BTreeMap<i32, Open> = BTreeMap::new();
        let (mut served, mut left) = (Vec::new(), Vec::new());
        while let Some(place) = self.active.pop_front() {
            let Some(partition) = self.partitions.get_mut(place) else { continue };
            if !partition.queue.has_waiting() {
                partition.listed = false;
            } else if self.serve(place, &mut open, turn, now) {
                served.push(place);
            } else {
                left.push(place);
            }
        }
        self.active.extend(left);
        self.active.extend(served);
        let sent = !open.is_empty();
        for (broker, Open { parts, batches, bytes }) in open {
            let request = self.name();
            self.requests.insert(request, Request { broker, parts, bytes });
            self.held += bytes;
            self.broker(broker).requests += 1;
            turn.actions.push(Action::Produce { broker, request, batches });
        }
        sent
    }

    /// Puts the partition's next batch into its leader's request, if it may be sent.
    fn serve(
        &mut self,
        place: usize,
        open: &mut BTreeMap<i32, Open>,
        turn: &mut Turn,
        now: Instant,
    ) -> bool {
        let longest_pause = self.settings.longest_pause;
        let Some(partition) = self.partitions.get_mut(place) else { return false };
        match partition.queue.ready_at(now) {
            Some(at) if at > now => {
                turn.wake_at(at);
                return false;
            }
            Some(_) => {}
            None => return false,
        }
        let Some(leader) = partition.leader else {
            self.metadata.wanted = true;
            return false;
        };
        if partition.queue.under_way() && partition.on != Some(leader) {
            return false; // what is under way must be answered by the old leader first
        }
        let broker =
            self.brokers.entry(leader).or_insert_with(|| super::Broker::new(longest_pause));
        match broker.link {
            Link::Up => {}
            Link::Connecting => return false,
            Link::Down { retry_at: Some(at) } if at > now => {
                turn.wake_at(at);
                return false;
            }
            Link::Down { .. } => {
                broker.link = Link::Connecting;
                turn.actions.push(Action::Connect { broker: leader });
                return false;
            }
        }
        if let Some(at) = broker.throttled_until.filter(|&at| at > now) {
            turn.wake_at(at);
            return false;
        }
        let len = partition.queue.next_len();
        let full = open.get(&leader).is_some_and(|request| request.bytes + len > REQUEST_BYTES);
        if broker.held || broker.requests >= REQUESTS || full {
            return false;
        }
        let Some(part) = partition.queue.send() else { return false };
        let request = open.entry(leader).or_default();
        request.bytes += part.bytes.len();
        request.parts.push((place, part.id));
        request.batches.push(PartitionRecords {
            topic: Arc::clone(&partition.topic),
            partition: partition.number,
            records: Arc::clone(&part.bytes),
        });
        partition.on = Some(leader);
        true
    }

    fn errands(&mut self, turn: &mut Turn, now: Instant) {
        if let Some(at) = self.troubles.look(now) {
            turn.wake_at(at);
        }
        if !self.topics.is_empty() {
            let due = self.metadata_at.map_or(now, |at| at + self.settings.metadata_max_age);
            if due <= now {
                self.metadata.wanted = true;
            } else {
                turn.wake_at(due);
            }
        }
        match self.metadata.due(now) {
            Ok(()) => {
                self.metadata.asked = true;
                let topics = self.topics.keys().map(Arc::clone).collect();
                turn.actions.push(Action::Metadata { topics });
            }
            Err(at) => at.into_iter().for_each(|at| turn.wake_at(at)),
        }
        match self.producer_id.due(now) {
            Ok(()) => {
                self.producer_id.asked = true;
                turn.actions.push(Action::ProducerId);
            }
            Err(at) => at.into_iter().for_each(|at| turn.wake_at(at)),
        }
    }

    fn mend_all(&mut self, now: Instant, random: u32) {
        for at in 0..self.active.len() {
            let Some(&place) = self.active.get(at) else { return };
            match self.partitions.get(place).and_then(|partition| partition.queue.cure()) {
                None => {}
                Some(Cure::Split(part)) => self.split(place, part),
                Some(Cure::Renumber { new_id }) => self.renumber(place, new_id, now, random),
            }
        }
    }

    /// The broker does not know our numbers, or knows others: it gets new ones that it must take.
    ///
    /// Only this partition does, as the answers of the others still mean what they say: what was
    /// stored there must not be stored again because of this one. The next epoch shuts out what of
    /// the old one may still be on its way; a new id cannot do that, so it is the last resort.
    fn renumber(&mut self, place: usize, new_id: bool, now: Instant, random: u32) {
        let newest = self.identity;
        let Some(partition) = self.partitions.get_mut(place) else { return };
        let queue = &mut partition.queue;
        let fresh = Some(newest).filter(|newest| newest.id != queue.identity().id);
        let raised = queue.identity().raised().filter(|_| !new_id);
        let Some(identity) = raised.or(fresh) else {
            self.producer_id.wanted = true;
            return;
        };
        let repeated = queue.renumber(identity, now, random);
        let (topic, number) = (&partition.topic, partition.number);
        metrics::producer_reset();
        info!(
            producer_id = identity.id,
            epoch = identity.epoch,
            "{topic}[{number}]: the broker does not go on with our sequence; what is not \
             acknowledged is sent under a new epoch, and {repeated} records may be there twice"
        );
        let text = format!("{topic}[{number}] begins a new epoch");
        self.troubles.begin(What::Partition(place), "new epoch", text, now);
    }
}
