//! One partition: its batches in order, their sequence numbers, and what may be sent now.
//!
//! Up to [`WINDOW`] batches are under way at once. When one fails, nothing is sent until all of
//! them are answered; then what is not stored goes again from the first, in order, with the very
//! same bytes and sequence numbers, by which the broker knows what it has already.
//!
//! **Invariants.** While more than one batch is under way the broker knows our id: one that does
//! not takes *any* sequence number, so that a batch could overtake the failed one before it. So
//! the first batch after a failure, a new epoch or a long silence goes alone. What is under way is
//! always the front of the queue. Batches are never numbered anew: where their numbers are of no
//! use any more, only reading the topic can tell what is stored.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    batch::record_batch,
    retry::Backoff,
    sim::{Bug, planted},
};

/// Batches under way at once. A broker remembers the last five of a producer in each partition
/// (`ProducerStateEntry.NUM_BATCHES_TO_RETAIN`) and takes a resend of an older one for a gap.
pub(super) const WINDOW: usize = 5;

/// How long after a stored batch the broker surely still knows the id. It forgets one after
/// `producer.id.expiration.ms`, a day by default; sending one batch alone costs a round trip.
const KNOWN_FOR: Duration = Duration::from_mins(1);

/// The first pause after a failure: longer than a controlled change of leader takes.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Who the broker thinks is writing. It counts sequence numbers per partition and epoch, from 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Identity {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

/// A batch, or what a batch was split into, on its way.
#[derive(Debug)]
pub(super) struct Part {
    /// Its name within the producer.
    pub(super) id: u64,
    /// The submitted batch that it belongs to.
    pub(super) parcel: u64,
    pub(super) records: u32,
    pub(super) bytes: Arc<Vec<u8>>,
    /// Given when it is first sent, and kept.
    sequence: Option<i32>,
    /// Whether identity and sequence are in the bytes.
    sealed: bool,
    under_way: bool,
    /// Whether a broker may hold it: an answer was lost, or did not say.
    in_doubt: bool,
    /// A batch behind it is stored. Then it is as well if it is in doubt, as a broker takes nothing
    /// behind a gap. This matters where the broker would deny it: restarted, it knows only its last
    /// batch and takes this one for a gap; or it is too large now, or there are too few replicas.
    overtaken: bool,
}

/// Why a batch is not stored, as far as the queue must know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Failure {
    /// Nobody said what became of it, or that it is on all replicas: send it again.
    InDoubt,
    /// This time it was not appended: send it again.
    Refused,
    /// Its place in the sequence is wrong. Where a batch before it is not stored either, that is
    /// only a consequence.
    OutOfOrder,
    /// The broker refuses the identity.
    Fenced,
    /// It is larger than the topic allows.
    TooLarge,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    parts: VecDeque<Part>,
    /// `None`: the partition was not taken, and nothing may be sent to it.
    identity: Option<Identity>,
    /// Whether batches are parts of transactions.
    transactional: bool,
    next_sequence: i32,
    under_way: usize,
    /// A batch failed; those sent with it are still to be answered.
    stalled: bool,
    /// A part that must be halved once nothing is under way.
    too_large: Option<u64>,
    /// The broker does not go on with our numbers.
    doubt: bool,
    paused_until: Option<Instant>,
    backoff: Backoff,
    /// When the broker last stored something of this identity.
    known_at: Option<Instant>,
}

impl Queue {
    pub(super) fn new(longest_pause: Duration) -> Self {
        Self {
            parts: VecDeque::new(),
            identity: None,
            transactional: false,
            next_sequence: 0,
            under_way: 0,
            stalled: false,
            too_large: None,
            doubt: false,
            paused_until: None,
            backoff: Backoff::new(FIRST_PAUSE.min(longest_pause), longest_pause),
            known_at: None,
        }
    }

    /// The partition was taken: whoever wrote there before is shut out.
    pub(super) const fn own(&mut self, identity: Identity, transactional: bool) {
        self.identity = Some(identity);
        self.transactional = transactional;
    }

    /// Whether anything may be sent.
    pub(super) const fn is_ours(&self) -> bool {
        self.identity.is_some()
    }

    /// Takes an unsealed batch.
    pub(super) fn push(&mut self, id: u64, parcel: u64, records: u32, bytes: Arc<Vec<u8>>) {
        self.parts.push_back(Part::new(id, parcel, records, bytes, None));
    }

    /// Whether something is still to be sent, now or later.
    pub(super) fn has_waiting(&self) -> bool {
        self.parts.len() > self.under_way
    }

    /// Whether something is sent and not yet answered.
    pub(super) const fn under_way(&self) -> bool {
        self.under_way > 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// When the next part may be sent as far as time is concerned; `None`: not before an answer.
    pub(super) fn ready_at(&self, now: Instant) -> Option<Instant> {
        let known = self.known_at.is_some_and(|at| now.duration_since(at) < KNOWN_FOR);
        let window = if known { WINDOW } else { 1 };
        let sound = self.identity.is_some() && !self.doubt;
        let open = sound && !self.stalled && self.too_large.is_none() && self.under_way < window;
        (open && self.has_waiting()).then(|| self.paused_until.unwrap_or(now).max(now))
    }

    /// The size of the next part.
    pub(super) fn next_len(&self) -> usize {
        self.parts.get(self.under_way).map_or(0, |part| part.bytes.len())
    }

    /// The next part, sealed and counted as under way. Only when [`Self::ready_at`] says so.
    pub(super) fn send(&mut self) -> Option<&Part> {
        let (identity, transactional) = (self.identity?, self.transactional);
        let part = self.parts.get_mut(self.under_way)?;
        debug_assert!(!part.under_way, "what is under way is not the front");
        let sequence = match part.sequence {
            Some(sequence) => sequence,
            None => {
                let sequence = self.next_sequence;
                self.next_sequence = after(sequence, part.records);
                *part.sequence.insert(sequence)
            }
        };
        if !part.sealed {
            part.seal(identity, transactional, sequence);
        }
        part.under_way = true;
        self.under_way += 1;
        self.paused_until = None;
        Some(part)
    }

    /// The broker holds it. `None`: it is not one of ours.
    pub(super) fn stored(&mut self, id: u64, now: Instant) -> Option<Part> {
        let at = self.parts.iter().position(|part| part.id == id && part.under_way)?;
        let part = self.parts.remove(at)?;
        self.parts.iter_mut().take(at).for_each(|earlier| earlier.overtaken = true);
        if !self.stalled {
            self.known_at = Some(now);
            self.backoff.reset();
        }
        self.answered();
        Some(part)
    }

    /// The broker does not hold it, or did not say. `random` spreads the pause.
    pub(super) fn failed(&mut self, id: u64, why: Failure, now: Instant, random: u32) {
        let Some(at) = self.parts.iter().position(|part| part.id == id && part.under_way) else {
            return;
        };
        let Some(part) = self.parts.get_mut(at) else { return };
        part.under_way = false;
        match why {
            Failure::OutOfOrder => self.doubt |= at == 0,
            Failure::Fenced => self.doubt = true,
            Failure::TooLarge => {
                self.too_large.get_or_insert(id); // the answers to others will come again
            }
            Failure::InDoubt | Failure::Refused => {
                part.in_doubt |= why == Failure::InDoubt;
                if self.paused_until.is_none() {
                    self.paused_until = Some(now + self.backoff.next(random));
                }
            }
        }
        self.stalled = true;
        self.known_at = None;
        self.answered();
        if planted(Bug::ResendOutOfOrder) && why == Failure::Refused && self.under_way == 0 {
            self.next_sequence = self.parts.front().and_then(|part| part.sequence).unwrap_or(0);
            self.parts.rotate_left(1);
            self.parts.iter_mut().for_each(|part| (part.sequence, part.sealed) = (None, false));
        }
    }

    /// A part that is known to be stored without having been acknowledged itself.
    pub(super) fn implied(&mut self) -> Option<Part> {
        let stored = |part: &Part| part.overtaken && part.in_doubt && !part.under_way;
        let at = self.parts.iter().position(stored)?;
        let part = self.parts.remove(at)?;
        self.too_large = self.too_large.filter(|&id| id != part.id);
        Some(part)
    }

    fn answered(&mut self) {
        self.under_way -= 1;
        if self.under_way == 0 {
            self.stalled = false;
        }
    }

    /// The part to halve, now that nothing is under way.
    pub(super) fn too_large(&self) -> Option<u64> {
        self.too_large.filter(|_| self.under_way == 0)
    }

    /// Whether only reading the topic can tell what is stored.
    pub(super) const fn in_doubt(&self) -> bool {
        self.doubt
    }

    /// Whether a failure keeps everything back.
    pub(super) const fn stalled(&self) -> bool {
        self.stalled
    }

    /// The part with this name.
    pub(super) fn part(&self, id: u64) -> Option<&Part> {
        self.parts.iter().find(|part| part.id == id)
    }

    /// Puts two parts in the place of one that is larger than the topic allows. Sequence numbers
    /// count records, so those of the batches behind it stay as they are. What a broker may hold of
    /// the whole, it may hold of the halves: the topic's limit may have been lowered in between.
    pub(super) fn split(&mut self, id: u64, halves: [(u64, u32, Arc<Vec<u8>>); 2]) {
        self.too_large = None;
        let Some(at) = self.parts.iter().position(|part| part.id == id) else { return };
        let Some(whole) = self.parts.remove(at) else { return };
        let mut sequence = whole.sequence;
        for (offset, (id, records, bytes)) in halves.into_iter().enumerate() {
            let mut part = Part::new(id, whole.parcel, records, bytes, sequence);
            (part.in_doubt, part.overtaken) = (whole.in_doubt, whole.overtaken);
            self.parts.insert(at + offset, part);
            sequence = sequence.map(|first| after(first, records));
        }
    }
}

impl Part {
    fn new(id: u64, parcel: u64, records: u32, bytes: Arc<Vec<u8>>, sequence: Option<i32>) -> Self {
        Self {
            id,
            parcel,
            records,
            bytes,
            sequence,
            sealed: false,
            under_way: false,
            in_doubt: false,
            overtaken: false,
        }
    }

    /// No copy is made unless a request still holds the old bytes.
    fn seal(&mut self, identity: Identity, transactional: bool, sequence: i32) {
        let bytes = Arc::make_mut(&mut self.bytes);
        if transactional {
            record_batch::make_transactional(bytes);
        }
        record_batch::seal(bytes, identity.id, identity.epoch, sequence);
        self.sealed = true;
    }
}

/// The sequence number `records` further on: after the largest comes 0.
fn after(sequence: i32, records: u32) -> i32 {
    let sum = (i64::from(sequence) + i64::from(records)) & i64::from(i32::MAX);
    i32::try_from(sum).unwrap_or(0) // it was just masked to 31 bits
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(1);

    fn queue(batches: u64) -> Queue {
        let mut queue = Queue::new(LONGEST);
        queue.own(Identity { id: 1, epoch: 0 }, false);
        for id in 1..=batches {
            queue.push(id, id, 1, Arc::new(vec![0; 61]));
        }
        queue
    }

    /// Sends all that may be sent; their names.
    fn send(queue: &mut Queue, now: Instant) -> Vec<u64> {
        let mut sent = Vec::new();
        while queue.ready_at(now).is_some_and(|at| at <= now) {
            sent.push(queue.send().unwrap().id);
        }
        sent
    }

    #[test]
    fn sends_one_batch_alone_until_the_broker_knows_us() {
        let now = Instant::now();
        let mut queue = queue(9);
        assert_eq!(send(&mut queue, now), [1]);
        queue.stored(1, now).unwrap();
        assert_eq!(send(&mut queue, now), [2, 3, 4, 5, 6]);
        (2..=6).for_each(|id| assert!(queue.stored(id, now).is_some()));
        let much_later = now + KNOWN_FOR;
        assert_eq!(send(&mut queue, much_later), [7]);
    }

    #[test]
    fn after_a_failure_waits_for_all_answers_and_begins_at_the_first_not_stored() {
        let now = Instant::now();
        let mut queue = queue(4);
        send(&mut queue, now);
        queue.stored(1, now).unwrap();
        assert_eq!(send(&mut queue, now), [2, 3, 4]);
        queue.failed(2, Failure::Refused, now, u32::MAX);
        queue.failed(3, Failure::OutOfOrder, now, u32::MAX);
        queue.push(5, 5, 1, Arc::new(vec![0; 61]));
        assert_eq!(queue.ready_at(now), None);
        queue.failed(4, Failure::OutOfOrder, now, u32::MAX);
        assert!(!queue.in_doubt()); // only consequences
        assert_eq!(queue.ready_at(now), Some(now + FIRST_PAUSE));
        assert_eq!(send(&mut queue, now + FIRST_PAUSE), [2]);
    }

    #[test]
    fn a_batch_in_doubt_is_stored_if_one_behind_it_is() {
        let now = Instant::now();
        let mut queue = queue(3);
        send(&mut queue, now);
        queue.stored(1, now).unwrap();
        send(&mut queue, now);
        queue.failed(2, Failure::InDoubt, now, 0);
        assert!(queue.implied().is_none());
        queue.stored(3, now).unwrap();
        assert_eq!(queue.implied().unwrap().id, 2);
        assert!(queue.is_empty());
    }

    /// Found by the simulation: the whole was stored, its answer lost, and the topic's limit lowered.
    #[test]
    fn halves_of_a_batch_in_doubt_are_stored_if_one_behind_them_is() {
        let now = Instant::now();
        let mut queue = queue(5);
        send(&mut queue, now);
        queue.stored(1, now).unwrap();
        send(&mut queue, now);
        (2..=5).for_each(|id| queue.failed(id, Failure::InDoubt, now, 0));
        let now = now + LONGEST;
        assert_eq!(send(&mut queue, now), [2]);
        queue.stored(2, now).unwrap();
        assert_eq!(send(&mut queue, now), [3, 4, 5]);
        queue.failed(3, Failure::InDoubt, now, 0);
        queue.failed(4, Failure::TooLarge, now, 0);
        queue.failed(5, Failure::Refused, now, 0);
        assert_eq!(queue.too_large(), Some(4));
        queue.split(4, [6, 7].map(|id| (id, 1, Arc::new(vec![0; 61]))));
        let now = now + LONGEST;
        assert_eq!(send(&mut queue, now), [3]);
        queue.stored(3, now).unwrap();
        assert_eq!(send(&mut queue, now), [6, 7, 5]);
        queue.failed(6, Failure::OutOfOrder, now, 0);
        queue.failed(7, Failure::OutOfOrder, now, 0);
        assert!(queue.implied().is_none());
        queue.stored(5, now).unwrap();
        let implied: Vec<_> = std::iter::from_fn(|| queue.implied()).map(|part| part.id).collect();
        assert_eq!(implied, [6, 7]);
    }

    #[test]
    fn a_gap_before_the_first_batch_leaves_only_doubt() {
        let now = Instant::now();
        let mut queue = queue(3);
        send(&mut queue, now);
        queue.stored(1, now).unwrap();
        send(&mut queue, now);
        queue.failed(3, Failure::OutOfOrder, now, 0);
        assert!(!queue.in_doubt());
        queue.failed(2, Failure::OutOfOrder, now, 0);
        assert!(queue.in_doubt());
        let mut other = self::queue(1);
        send(&mut other, now);
        other.failed(1, Failure::Fenced, now, 0);
        assert!(other.in_doubt());
    }

    #[test]
    fn after_the_largest_sequence_number_comes_zero() {
        assert_eq!(after(i32::MAX, 1), 0);
        assert_eq!(after(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(after(i32::MAX - 2, 10), 7);
        assert_eq!(after(0, 5), 5);
    }
}
