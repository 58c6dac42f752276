//! The driver's connections: made, lost, and replaced before their login ends.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::debug;

use super::{Done, Driver};
use crate::sink::kafka::{broker::Broker, error::Error, producer::ask::Candidate};

/// A connection with a broker.
pub(super) struct Link {
    pub(super) broker: Broker,
    /// Tells it from an earlier one with the same broker.
    pub(super) number: u64,
    pub(super) renew_at: Option<Instant>,
    /// What comes after it, once its last answer is in.
    pub(super) next: Option<Broker>,
}

impl Driver {
    pub(super) fn lost(&mut self, id: i32, number: u64, why: &str) {
        if self.links.get(&id).is_none_or(|link| link.number != number) {
            return; // an earlier one, which was judged already
        }
        debug!("connection with broker {id}: {why}");
        if let Some(link) = self.links.remove(&id) {
            link.broker.close();
        }
        self.machine.hold(id, false);
        self.machine.lost(id, why, Instant::now(), self.random.next());
    }

    pub(super) fn connect(&mut self, id: i32, renewal: bool) {
        let Some(node) = self.nodes.get(&id).cloned() else {
            let why = format!("broker {id} is not among those that the cluster names");
            return self.machine.unreachable(id, &why, Instant::now(), self.random.next());
        };
        let options = Arc::clone(&self.options);
        self.push(async move {
            let result = Broker::connect(&node.host, node.port, &options).await;
            Done::Connected { id, renewal, result }
        });
    }

    pub(super) fn put(&mut self, id: i32, broker: Broker) {
        self.last_link += 1;
        let (number, renew_at) = (self.last_link, broker.renew_at());
        let link = Link { broker: broker.clone(), number, renew_at, next: None };
        if let Some(old) = self.links.insert(id, link) {
            old.broker.close();
        }
        self.push(async move {
            broker.closed().await;
            Done::Closed { id, link: number }
        });
    }

    /// Replaces connections whose login ends soon: a new one is made, the last answer of the old one
    /// is awaited, and then they change places. Gives the time of the next one.
    pub(super) fn renew(&mut self, now: Instant) -> Option<Instant> {
        let due = |link: &Link| link.renew_at.is_some_and(|at| at <= now);
        let old: Vec<i32> =
            self.links.iter().filter(|(_, link)| due(link)).map(|(&id, _)| id).collect();
        for id in old {
            if let Some(link) = self.links.get_mut(&id) {
                link.renew_at = None;
            }
            self.connect(id, true);
        }
        let ready: Vec<i32> = self
            .links
            .iter()
            .filter(|&(&id, link)| link.next.is_some() && self.machine.is_drained(id))
            .map(|(&id, _)| id)
            .collect();
        for id in ready {
            if let Some(next) = self.links.get_mut(&id).and_then(|link| link.next.take()) {
                self.put(id, next);
                self.machine.hold(id, false);
            }
        }
        self.links.values().filter_map(|link| link.renew_at).min()
    }

    pub(super) fn renewed(&mut self, id: i32, result: Result<Broker, Error>) {
        match (result, self.links.get_mut(&id)) {
            (Ok(broker), Some(link)) => {
                link.next = Some(broker);
                self.machine.hold(id, true);
            }
            (Ok(_), None) => {}
            // The broker ends the old one in its time, and then it is made again as usual.
            (Err(error), _) => {
                if let Some(why) = self.judge(error) {
                    debug!("connection with broker {id} is not renewed: {why}");
                }
            }
        }
    }

    /// Whoever may answer, in the order in which to try: connections, then the brokers that are
    /// known, then those that the configuration names.
    pub(super) fn candidates(&mut self) -> Vec<Candidate> {
        let mut live: Vec<Broker> = self.links.values().map(|link| link.broker.clone()).collect();
        live.retain(|broker| !broker.is_closed());
        let mut nodes: Vec<(String, u16)> =
            self.nodes.values().map(|node| (node.host.clone(), node.port)).collect();
        for bootstrap in &self.options.brokers {
            if !nodes.contains(bootstrap) {
                nodes.push(bootstrap.clone());
            }
        }
        // Not always the same one first: it may be the one that is away.
        self.random.rotate(&mut live);
        self.random.rotate(&mut nodes);
        let live = live.into_iter().map(Candidate::Live);
        live.chain(nodes.into_iter().map(|(host, port)| Candidate::Dial(host, port))).collect()
    }
}
