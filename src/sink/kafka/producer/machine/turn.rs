//! One turn of the machine: halve what is too large, then send what may be sent.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::{Arc, Link, Machine, PartitionRecords, Request};

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
    /// Add these to the open transaction, which begins with the first of them.
    AddPartitions { partitions: Vec<(Arc<str>, i32)> },
    /// Commit it.
    EndTransaction,
    /// Make a connection.
    Connect { broker: i32 },
    /// Ask who leads the partitions of these topics.
    Metadata { topics: Vec<Arc<str>> },
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
    pub(super) fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

impl Machine {
    /// Everything that can be done now.
    pub(in super::super) fn turn(&mut self, now: Instant) -> Turn {
        let mut turn = Turn::default();
        self.split_all();
        while !self.in_doubt && self.round(&mut turn, now) {}
        if !self.in_doubt {
            self.transact(&mut turn, now);
        }
        if std::mem::take(&mut self.look_after) {
            for broker in self.leading().collect::<BTreeSet<_>>() {
                self.takes(broker, &mut turn, now);
            }
        }
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
        let Some(partition) = self.partitions.get_mut(place) else { return false };
        match partition.queue.ready_at(now) {
            Some(at) if at > now => {
                turn.wake_at(at);
                return false;
            }
            Some(_) => {}
            None => return false,
        }
        if self.transaction.as_mut().is_some_and(|transaction| !transaction.admits(place)) {
            return false;
        }
        let Some(leader) = partition.leader else {
            self.metadata.wanted = true;
            return false;
        };
        if partition.queue.under_way() && partition.on != Some(leader) {
            return false; // what is under way must be answered by the old leader first
        }
        let len = partition.queue.next_len();
        let full = open.get(&leader).is_some_and(|request| request.bytes + len > REQUEST_BYTES);
        if !self.takes(leader, turn, now) || full {
            return false;
        }
        let Some(partition) = self.partitions.get_mut(place) else { return false };
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

    /// Whether a broker may be sent something now; if not, what has it done later.
    fn takes(&mut self, id: i32, turn: &mut Turn, now: Instant) -> bool {
        let longest_pause = self.settings.longest_pause;
        let broker = self.brokers.entry(id).or_insert_with(|| super::Broker::new(longest_pause));
        match broker.link {
            Link::Up => {}
            Link::Connecting => return false,
            Link::Down { retry_at: Some(at) } if at > now => {
                turn.wake_at(at);
                return false;
            }
            Link::Down { .. } => {
                broker.link = Link::Connecting;
                turn.actions.push(Action::Connect { broker: id });
                return false;
            }
        }
        if let Some(at) = broker.throttled_until.filter(|&at| at > now) {
            turn.wake_at(at);
            return false;
        }
        !broker.held && broker.requests < REQUESTS
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
    }

    fn split_all(&mut self) {
        for at in 0..self.active.len() {
            let Some(&place) = self.active.get(at) else { return };
            if let Some(part) = self.partitions.get(place).and_then(|p| p.queue.too_large()) {
                self.split(place, part);
            }
        }
    }
}
