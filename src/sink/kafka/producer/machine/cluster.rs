//! What the machine hears of the cluster: connections, leaders, producer ids.

use tokio::time::Instant;
use tracing::info;

use super::{Errand, Failure, Identity, Leaders, Link, Machine, What, metrics};
use crate::sink::kafka::codes::{self, Named};

impl Machine {
    /// A connection with a broker ended: what was asked over it is not answered. If that is nothing,
    /// it was closed for idleness, which is no trouble.
    pub(in super::super) fn lost(&mut self, id: i32, why: &str, now: Instant, random: u32) {
        if let Some(broker) = self.brokers.get_mut(&id) {
            broker.link = Link::Down { retry_at: None };
        }
        let lost: Vec<_> =
            self.requests.iter().filter(|(_, r)| r.broker == id).map(|(&name, _)| name).collect();
        for name in lost {
            let Some(request) = self.forget(name) else { continue };
            for (place, part) in request.parts {
                self.fail(place, part, Failure::InDoubt, now, random);
                metrics::retry("connection");
                let Some(partition) = self.partitions.get(place) else { continue };
                let text = format!("{}[{}]: {why}", partition.topic, partition.number);
                self.troubles.begin(What::Partition(place), "connection", text, now);
            }
            self.metadata.wanted = true;
        }
    }

    /// There is a connection with a broker.
    pub(in super::super) fn connected(&mut self, id: i32, name: &str, now: Instant) {
        let broker = self.broker(id);
        name.clone_into(&mut broker.name);
        broker.link = Link::Up;
        broker.backoff.reset();
        self.troubles.end(What::Broker(id), now);
    }

    /// A broker could not be reached, or is not in the cluster.
    pub(in super::super) fn unreachable(&mut self, id: i32, why: &str, now: Instant, random: u32) {
        let broker = self.broker(id);
        let retry_at = Some(now + broker.backoff.next(random));
        broker.link = Link::Down { retry_at };
        metrics::retry("connect");
        self.troubles.begin(What::Broker(id), &format!("broker {id}"), why.to_owned(), now);
        // Its partitions may be led by another one by now.
        self.metadata.wanted = true;
    }

    /// Sends nothing to a broker until it is let go again.
    pub(in super::super) fn hold(&mut self, id: i32, held: bool) {
        self.broker(id).held = held;
    }

    /// Whether nothing is under way on a broker.
    pub(in super::super) fn is_drained(&self, id: i32) -> bool {
        self.brokers.get(&id).is_none_or(|broker| broker.requests == 0)
    }

    /// Who leads what now. Topics that are not named are left as they are.
    pub(in super::super) fn leaders(&mut self, topics: Vec<Leaders>, now: Instant, random: u32) {
        self.troubles.end(What::Metadata, now);
        let mut complete = true;
        for Leaders { topic, code, leaders } in topics {
            let Some(known) = self.topics.get_mut(&topic) else { continue };
            let (before, count) = (known.count, leaders.len());
            if code == codes::NONE && count != before {
                known.count = count;
                if before > 0 {
                    info!(
                        "{topic} has {count} partitions now, {before} before; records go to those \
                         that it had when it was looked up"
                    );
                }
            }
            for (&number, &place) in &known.places {
                let Some(partition) = self.partitions.get_mut(place) else { continue };
                partition.leader = leaders.get(&number).copied().flatten();
                if partition.leader.is_some() || partition.queue.is_empty() {
                    continue;
                }
                complete = false;
                let (cause, text) = leaderless(&topic, number, code, leaders.contains_key(&number));
                self.troubles.begin(What::Partition(place), &cause, text, now);
            }
            known.leaders = leaders;
        }
        self.metadata.asked = false;
        self.metadata.wanted = !complete;
        self.metadata_at = Some(now);
        if complete {
            self.metadata.backoff.reset();
        }
        // Even good news is not asked for in a tight loop: brokers learn of a new leader one by one.
        self.metadata.not_before = Some(now + self.metadata.backoff.next(random));
        let partitions = &self.partitions;
        let leads = |id| partitions.iter().any(|p| p.leader == Some(id) && !p.queue.is_empty());
        self.troubles.keep_brokers(leads, now);
    }

    /// No broker told who leads.
    pub(in super::super) fn metadata_failed(&mut self, why: &str, now: Instant, random: u32) {
        self.metadata.failed(now, random);
        metrics::retry("metadata");
        self.troubles.begin(What::Metadata, "metadata", format!("no metadata: {why}"), now);
    }

    /// The cluster gave a producer id.
    pub(in super::super) fn identity(&mut self, identity: Identity, now: Instant) {
        self.identity = identity;
        self.producer_id = Errand::new(self.settings.longest_pause);
        self.troubles.end(What::ProducerId, now);
    }

    /// It did not.
    pub(in super::super) fn identity_failed(&mut self, why: &str, now: Instant, random: u32) {
        self.producer_id.failed(now, random);
        metrics::retry("producer id");
        self.troubles.begin(What::ProducerId, "producer id", format!("no producer id: {why}"), now);
    }
}

/// Why a partition has no leader: as a cause, and in words.
fn leaderless(topic: &str, number: i32, code: i16, there: bool) -> (String, String) {
    if code != codes::NONE {
        let cause = format!("{topic}: {}", Named(code));
        (cause.clone(), format!("topic {cause}"))
    } else if there {
        ("no leader".to_owned(), format!("{topic}[{number}] has no leader"))
    } else {
        let text = format!("{topic}[{number}] is not there any more: was the topic made anew?");
        (format!("{topic}: partition missing"), text)
    }
}
