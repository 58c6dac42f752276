//! What the machine hears of the cluster: connections, leaders, producer ids.

use std::collections::BTreeSet;

use tokio::time::Instant;
use tracing::warn;

use super::{
    Arc, BTreeMap, Doubt, Duration, Failure, Leaders, Link, Machine, Topic, What, metrics,
};
use crate::sink::kafka::codes::{self, Named};

/// How often who leads is asked before anything is sent.
const PREPARED_AGE: Duration = Duration::from_secs(5);

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
        let (mut complete, mut doubt, mut unfit) = (true, None, None);
        for Leaders { topic, code, id, leaders } in topics {
            let Some(known) = self.topics.get_mut(&topic) else { continue };
            let anew = code == codes::NONE && known.look(&topic, id, leaders.len());
            known.away |= code == codes::UNKNOWN_TOPIC_OR_PARTITION;
            for (&number, &place) in &known.places {
                let Some(partition) = self.partitions.get_mut(place) else { continue };
                partition.leader = leaders.get(&number).copied().flatten();
                if anew {
                    doubt = Some((Arc::clone(&topic), number, Doubt::MadeAnew));
                }
                if partition.queue.is_empty() {
                    continue;
                }
                if partition.leader.is_some() {
                    if !partition.queue.is_ours() {
                        doubt = Some((Arc::clone(&topic), number, Doubt::NotTaken));
                    }
                    continue;
                }
                complete = false;
                let (cause, text) = leaderless(&topic, known, number, code, &leaders);
                self.troubles.begin(What::Partition(place), &cause, text, now);
            }
            if self.prepared && unfit.is_none() {
                let led = |number: &i32| leaders.get(number).copied().flatten().is_some();
                let missing = (0..).take(known.routed).find(|number| !led(number));
                unfit = missing.map(|number| leaderless(&topic, known, number, code, &leaders));
            }
            known.leaders = leaders;
        }
        if let Some((cause, text)) = unfit {
            self.troubles.begin(What::Metadata, &cause, text, now); // nobody could take it now
        }
        self.metadata.asked = false;
        self.metadata.wanted = !complete;
        self.metadata_at = Some(now);
        if complete {
            self.metadata.backoff.reset();
        }
        // Even good news is not asked for in a tight loop: brokers learn of a new leader one by one.
        self.metadata.not_before = Some(now + self.metadata.backoff.next(random));
        let (partitions, prepared) = (&self.partitions, self.leading().collect::<BTreeSet<_>>());
        let leads = |id| {
            prepared.contains(&id)
                || partitions.iter().any(|p| p.leader == Some(id) && !p.queue.is_empty())
        };
        self.troubles.keep_brokers(leads, now);
        if let Some((topic, number, why)) = doubt {
            self.doubt(&topic, number, why);
        }
    }

    /// Connections with all who lead are kept from now on, until the topics are taken; and who leads is
    /// asked now and then.
    pub(in super::super) fn prepare(&mut self, now: Instant) {
        (self.prepared, self.look_after) = (true, true);
        if self.metadata_at.is_none_or(|at| now >= at + PREPARED_AGE) {
            self.metadata.wanted = true;
        }
    }

    /// With whom connections are kept although nothing is sent yet.
    pub(super) fn leading(&self) -> impl Iterator<Item = i32> {
        let topics = self.topics.values().filter(|_| self.prepared);
        topics.flat_map(|topic| topic.leaders.values().copied().flatten())
    }

    /// No broker told who leads.
    pub(in super::super) fn metadata_failed(&mut self, why: &str, now: Instant, random: u32) {
        self.metadata.failed(now, random);
        metrics::retry("metadata");
        self.troubles.begin(What::Metadata, "metadata", format!("no metadata: {why}"), now);
    }
}

impl Topic {
    /// Says what has changed since the last look. Whether it is another topic of the same name now.
    ///
    /// Records stay where they are routed to: a key that moved to another partition would have what
    /// comes next in another queue than what was there before, and nobody could tell their order.
    fn look(&mut self, name: &str, id: Option<[u8; 16]>, count: usize) -> bool {
        if id.is_some() && id == self.replaced {
            return false; // that broker does not know the new one yet
        }
        // A broker older than 2.8 tells no ids: then one that was away is taken for another.
        let away = std::mem::take(&mut self.away) && id.is_none();
        let anew = away || matches!((self.id, id), (Some(before), Some(now)) if before != now);
        if anew {
            self.replaced = self.id;
            self.count = count;
            warn!(
                "topic {name} was deleted and made anew: what was stored in it before is gone and is \
                 not sent again; what comes from now on goes to the new one"
            );
        }
        self.id = id.or(self.id);
        let routed = self.routed;
        if anew && count < routed {
            warn!(
                "topic {name} has {count} of the {routed} partitions that records are spread over: \
                 those of the others wait; {}",
                too_few(routed, count)
            );
        } else if routed > 0 && count > routed && (anew || count > self.count) {
            warn!(
                "topic {name} has {count} partitions now: records go on to the first {routed}, so \
                 that the order of each key stays; once pgsluice is started anew it spreads keys \
                 over all of them, and a key may go on in another partition"
            );
        }
        self.count = self.count.max(count); // a broker may lag behind
        anew
    }
}

fn too_few(routed: usize, count: usize) -> String {
    format!("give it {routed} again, or start pgsluice anew, which spreads keys over {count}")
}

/// Why a partition has no leader: as a cause, and in words.
fn leaderless(
    topic: &str,
    known: &Topic,
    number: i32,
    code: i16,
    leaders: &BTreeMap<i32, Option<i32>>,
) -> (String, String) {
    if code != codes::NONE {
        let cause = format!("{topic}: {}", Named(code));
        (cause.clone(), format!("topic {cause}"))
    } else if leaders.contains_key(&number) {
        ("no leader".to_owned(), format!("{topic}[{number}] has no leader"))
    } else {
        let cure = too_few(known.routed, leaders.len());
        let text = format!("{topic}[{number}] is not there any more: {cure}");
        (format!("{topic}: partition missing"), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        batch::{Batch, Codec},
        sink::kafka::{
            producer::machine::{Action, Settings},
            topics::Topic as LookedUp,
        },
    };

    /// With one topic, of one partition.
    fn machine() -> Machine {
        let mut machine = Machine::new(Settings {
            codec: Codec::None,
            longest_pause: Duration::from_secs(1),
            metadata_max_age: Duration::from_secs(300),
            user: None,
        });
        let topic = LookedUp {
            partitions: 1,
            max_message_bytes: 1 << 20,
            min_insync_replicas: None,
            compacted: false,
            id: None,
        };
        machine.topic("t", &topic);
        machine
    }

    /// Found by the simulator: its batches stood still for `kafka.metadata_max_age`.
    #[test]
    fn a_topic_that_was_away_when_the_others_were_taken_is_looked_for_once_it_is_written_to() {
        let (mut machine, mut now) = (machine(), Instant::now());
        let asks = |machine: &mut Machine, now| {
            let actions = machine.turn(now).actions;
            actions.iter().any(|action| matches!(action, Action::Metadata { .. }))
        };
        assert!(asks(&mut machine, now));
        machine.give_up(now);
        let code = codes::UNKNOWN_TOPIC_OR_PARTITION;
        machine.leaders(vec![Leaders { topic: "t".into(), code, ..Leaders::default() }], now, 0);
        machine.taken(None); // and nothing of it is ours
        now += Duration::from_secs(2);
        assert!(!asks(&mut machine, now), "there is nothing for it");
        machine.submit(Batch {
            topic: "t".into(),
            partition: 0,
            records: 1,
            tickets: Vec::new(),
            bytes: vec![0; 100],
            first_committed_at: 0,
        });
        assert!(asks(&mut machine, now));
    }

    #[test]
    fn who_waits_keeps_a_connection_with_each_leader() {
        let mut machine = machine();
        let now = Instant::now();
        let turn = |machine: &mut Machine, now| {
            let (mut connects, mut asks) = (Vec::new(), 0);
            for action in machine.turn(now).actions {
                match action {
                    Action::Connect { broker } => connects.push(broker),
                    Action::Metadata { .. } => asks += 1,
                    _ => {}
                }
            }
            (connects, asks)
        };
        let lead = |machine: &mut Machine, now| {
            let leaders = BTreeMap::from([(0, Some(3))]);
            let topic = Leaders { topic: "t".into(), leaders, ..Leaders::default() };
            machine.leaders(vec![topic], now, 0);
        };
        assert_eq!(turn(&mut machine, now), (Vec::new(), 1));
        lead(&mut machine, now);
        assert_eq!(turn(&mut machine, now), (Vec::new(), 0), "nobody waits");
        machine.prepare(now);
        assert_eq!(turn(&mut machine, now), (vec![3], 0));
        machine.connected(3, "three", now);
        machine.prepare(now);
        assert_eq!(turn(&mut machine, now), (Vec::new(), 0));
        let later = now + PREPARED_AGE;
        machine.prepare(later);
        assert_eq!(turn(&mut machine, later), (Vec::new(), 1), "who leads is asked again");
        machine.lost(3, "idle for too long", later, 0);
        machine.prepare(later);
        assert_eq!(turn(&mut machine, later).0, [3]);
        machine.unreachable(3, "it is away", later, 0);
        lead(&mut machine, later);
        assert!(machine.troubles().text().is_some(), "the topics could not be taken now");
        machine.connected(3, "three", later);
        assert_eq!(machine.troubles().text(), None);
        let leaders = BTreeMap::from([(0, None)]);
        let topic = Leaders { topic: "t".into(), leaders, ..Leaders::default() };
        machine.leaders(vec![topic], later, 0);
        assert_eq!(machine.troubles().text().as_deref(), Some("t[0] has no leader"));
        lead(&mut machine, later);
        assert_eq!(machine.troubles().text(), None);
        machine.unreachable(3, "it is away", later, 0);
        machine.give_up(later);
        lead(&mut machine, later);
        assert_eq!(machine.troubles().text(), None, "it is not waited any more");
    }

    #[test]
    fn a_broker_that_lags_behind_does_not_bring_an_old_topic_back() {
        let [old, new, newest] = [1, 2, 3].map(|id| Some([id; 16]));
        let mut topic = Topic { routed: 3, count: 3, id: old, ..Topic::default() };
        let mut look = |id, count| topic.look("t", id, count);
        assert!(!look(old, 3));
        assert!(!look(None, 3), "a broker older than 2.8 does not tell");
        assert!(look(new, 3));
        assert!(!look(old, 3), "it lags");
        assert!(!look(new, 3));
        assert!(look(newest, 1));
        assert!(!look(new, 3), "it lags");
        assert!(!look(newest, 3));
    }
}
