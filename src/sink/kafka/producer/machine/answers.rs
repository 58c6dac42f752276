//! What brokers answer, and what becomes of the batches.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::warn;

use super::{
    Failure, Machine, Parcel, Part, PartitionProduced, Produced, What, transaction::Counted,
};
use crate::{
    metrics,
    sim::{Bug, planted},
    sink::{
        Delivery,
        kafka::{
            codes::{self, Named, Verdict},
            error::{Doubt, Refusal},
        },
    },
};

impl Machine {
    /// What became of a request.
    pub(in super::super) fn answered(
        &mut self,
        id: u64,
        produced: Produced,
        now: Instant,
        random: u32,
    ) {
        let Some(request) = self.forget(id) else { return };
        if !produced.throttle.is_zero() {
            metrics::throttled(produced.throttle);
            if let Some(broker) = self.brokers.get_mut(&request.broker) {
                broker.throttled_until = Some(now + produced.throttle);
            }
        }
        let mut missing = request.parts;
        for answer in produced.partitions {
            let of = |&(place, _): &(usize, u64)| {
                self.partitions.get(place).is_some_and(|partition| {
                    partition.number == answer.partition && partition.topic == answer.topic
                })
            };
            if let Some(at) = missing.iter().position(of) {
                let (place, part) = missing.swap_remove(at);
                self.judge(place, part, request.broker, answer, now, random);
            }
        }
        // The connection sees to it that none is; but nothing may hang on it.
        for (place, part) in missing {
            self.fail(place, part, Failure::InDoubt, now, random);
        }
    }

    fn judge(
        &mut self,
        place: usize,
        part: u64,
        broker: i32,
        answer: PartitionProduced,
        now: Instant,
        random: u32,
    ) {
        // 7: not in time on all replicas; 45: the sequence is broken.
        if answer.code == 7 && planted(Bug::AmbiguousIsStored)
            || answer.code == 45 && planted(Bug::OutOfOrderIsStored)
        {
            return self.stored(place, part, answer.base_offset, now);
        }
        let failure = match codes::produce(answer.code) {
            Verdict::Stored => return self.stored(place, part, answer.base_offset, now),
            Verdict::Wait => unstored(answer.code),
            Verdict::Refresh => {
                self.metadata.wanted = true;
                if let Some(partition) = self.partitions.get_mut(place) {
                    partition.leader = None;
                }
                unstored(answer.code)
            }
            Verdict::Split => Failure::TooLarge,
            Verdict::Doubt if matches!(answer.code, 45 | 46 | 59) => Failure::OutOfOrder,
            Verdict::Doubt => Failure::Fenced,
            Verdict::Halt(..) => return self.refused(broker, answer),
        };
        self.fail(place, part, failure, now, random);
        match failure {
            Failure::InDoubt | Failure::Refused => {
                let name = Named(answer.code).to_string();
                let text = format!("{}[{}]: {name}", answer.topic, answer.partition);
                self.troubles.begin(What::Partition(place), &name, text, now);
                metrics::retry(codes::name(answer.code));
            }
            // Too large, or out of order behind one that failed: no trouble.
            Failure::TooLarge | Failure::OutOfOrder | Failure::Fenced => {}
        }
        if self.partitions.get(place).is_some_and(|partition| partition.queue.in_doubt()) {
            self.doubt(&answer.topic, answer.partition, Doubt::Refused(answer.code));
        }
    }

    /// A code that comes back at every attempt.
    fn refused(&mut self, broker: i32, answer: PartitionProduced) {
        let reason = answer.bad_records.into_iter().next().map(|(_, reason)| reason);
        let refusal = Refusal {
            broker: self.broker(broker).name.clone(),
            user: self.settings.user.clone(),
            api: "Produce",
            code: answer.code,
            topic: Some(answer.topic.to_string()),
            partition: Some(answer.partition),
            transactional_id: self.transaction.as_ref().map(|it| it.id.to_string()),
            group: None,
            message: answer.message.or(reason).filter(|text| !text.is_empty()),
        };
        self.halt(refusal.into());
    }

    fn stored(&mut self, place: usize, part: u64, base_offset: i64, now: Instant) {
        let Some(partition) = self.partitions.get_mut(place) else { return };
        let Some(part) = partition.queue.stored(part, now) else { return };
        if !partition.queue.stalled() {
            self.troubles.end(What::Partition(place), now);
        }
        self.list(place);
        let records = part.records;
        self.unpack(part, base_offset);
        let unanswered = self.unpack_implied(place);
        if let Some(partition) = self.partitions.get_mut(place) {
            let foreign = partition.offsets.stored(base_offset, records, unanswered);
            if foreign > 0 {
                let (topic, number) = (Arc::clone(&partition.topic), partition.number);
                self.shared(&topic, number, base_offset, foreign);
            }
        }
    }

    /// Gives how many records were in it.
    fn unpack_implied(&mut self, place: usize) -> u32 {
        let mut records = 0;
        while let Some(part) = self.partitions.get_mut(place).and_then(|p| p.queue.implied()) {
            records += part.records;
            self.unpack(part, -1);
        }
        records
    }

    /// Somebody else has written into a topic of ours.
    fn shared(&mut self, topic: &Arc<str>, partition: i32, offset: i64, foreign: u64) {
        metrics::foreign(foreign);
        let Some(known) = self.topics.get_mut(topic) else { return };
        if !std::mem::replace(&mut known.shared, true) {
            warn!(
                %topic,
                partition,
                offset,
                foreign,
                "somebody else writes into this topic, too: so many offsets before this one are not \
                 ours. Its records are told from ours by their header id; \
                 pgsluice_foreign_offsets_total counts on"
            );
        }
    }

    /// One part of a parcel less is on its way.
    fn unpack(&mut self, part: Part, base_offset: i64) {
        self.held -= part.bytes.len();
        let Some(parcel) = self.parcels.get_mut(&part.parcel) else { return };
        parcel.parts -= 1;
        parcel.counted.batches += 1;
        parcel.counted.bytes += part.bytes.len() as u64;
        if base_offset >= 0 {
            parcel.base_offset = parcel.base_offset.min(base_offset);
        }
        if parcel.parts > 0 {
            return;
        }
        let Some(parcel) = self.parcels.remove(&part.parcel) else { return };
        let Parcel { mut batch, base_offset, counted, .. } = parcel;
        batch.bytes = Arc::unwrap_or_clone(part.bytes);
        let base_offset = if base_offset == i64::MAX { -1 } else { base_offset };
        let delivery = Delivery { batch, base_offset };
        match &mut self.transaction {
            Some(transaction) if !planted(Bug::DeliveredBeforeEnd) => {
                transaction.keep(delivery, counted);
            }
            _ => self.delivered(delivery, counted),
        }
    }

    /// It is stored for good.
    pub(super) fn delivered(&mut self, delivery: Delivery, counted: Counted) {
        let Counted { batches, bytes } = counted;
        metrics::batches_stored(batches, u64::from(delivery.batch.records), bytes);
        self.deliveries.push(delivery);
    }

    pub(super) fn fail(
        &mut self,
        place: usize,
        part: u64,
        why: Failure,
        now: Instant,
        random: u32,
    ) {
        if let Some(partition) = self.partitions.get_mut(place) {
            partition.queue.failed(part, why, now, random);
        }
        self.unpack_implied(place);
        self.list(place);
    }
}

/// Whether a batch with this code may be in the log all the same.
const fn unstored(code: i16) -> Failure {
    match code {
        codes::UNKNOWN_TOPIC_OR_PARTITION
        | codes::NOT_LEADER_OR_FOLLOWER
        | codes::NOT_ENOUGH_REPLICAS => Failure::Refused,
        _ => Failure::InDoubt,
    }
}
