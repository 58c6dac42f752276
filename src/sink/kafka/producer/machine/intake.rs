//! What the machine takes, cut to what its topic takes.

use std::sync::Arc;

use tracing::debug;

use super::{Counted, Machine, Parcel};
use crate::{
    batch::{Batch, Codec, compress, record_batch},
    sink::kafka::error::Error,
};

/// A batch that was submitted, as it is to be sent.
#[derive(Debug)]
pub(super) struct Ready {
    place: usize,
    batch: Batch,
    /// Each with its number of records.
    pieces: Vec<(u32, Vec<u8>)>,
}

impl Machine {
    /// Takes a batch. One that is over its topic's limit goes in parts.
    pub(in super::super) fn submit(&mut self, mut batch: Batch) {
        let place = self.place(&batch.topic, batch.partition);
        let plain = std::mem::take(&mut batch.bytes);
        let bytes = match self.settings.codec {
            Codec::None => plain,
            codec => compress(&plain, codec),
        };
        let limit = self.topics.get(&batch.topic).and_then(|topic| topic.max_message_bytes);
        let pieces = match self.pieces(bytes, batch.records, limit.unwrap_or(usize::MAX)) {
            Ok(pieces) => pieces,
            Err(bytes) => return self.too_large(place, bytes),
        };
        self.held += pieces.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        let mut ready = Some(Ready { place, batch, pieces });
        if let Some(transaction) = &mut self.transaction {
            ready = ready.and_then(|ready| transaction.defer(ready));
        }
        if let Some(ready) = ready {
            self.enqueue(ready);
        }
    }

    /// Puts a batch into its partition's queue.
    pub(super) fn enqueue(&mut self, ready: Ready) {
        let Ready { place, batch, pieces } = ready;
        let parcel = self.name();
        let parts = pieces.len();
        for (records, bytes) in pieces {
            let id = self.name();
            if let Some(partition) = self.partitions.get_mut(place) {
                partition.queue.push(id, parcel, records, Arc::new(bytes));
                // Its topic may not have been there when the others were taken: once it is, it is taken too.
                self.metadata.wanted |= !partition.queue.is_ours();
            }
        }
        let (base_offset, counted) = (i64::MAX, Counted::default());
        self.parcels.insert(parcel, Parcel { batch, parts, base_offset, counted });
        self.list(place);
    }

    /// Halves what is over the limit until nothing is. Fails with the size of a single record that
    /// is by itself.
    fn pieces(
        &self,
        bytes: Vec<u8>,
        records: u32,
        limit: usize,
    ) -> Result<Vec<(u32, Vec<u8>)>, usize> {
        let mut rest = vec![(records, bytes)];
        let mut pieces = Vec::with_capacity(1);
        while let Some((records, bytes)) = rest.pop() {
            if bytes.len() <= limit {
                pieces.push((records, bytes));
                continue;
            }
            let [first, second] = self.halves(&bytes).ok_or(bytes.len())?;
            rest.extend([second, first]);
        }
        Ok(pieces)
    }

    /// `None`: it cannot be halved, as it holds one record.
    pub(super) fn halves(&self, batch: &[u8]) -> Option<[(u32, Vec<u8>); 2]> {
        let (first, a, second, b) = record_batch::split(batch)?;
        let codec = self.settings.codec;
        let pack =
            |plain: Vec<u8>| if codec == Codec::None { plain } else { compress(&plain, codec) };
        Some([(a, pack(first)), (b, pack(second))])
    }

    pub(super) fn too_large(&mut self, place: usize, bytes: usize) {
        let Some(partition) = self.partitions.get(place) else { return };
        let topic = Arc::clone(&partition.topic);
        let limit = self.topics.get(&topic).and_then(|topic| topic.max_message_bytes);
        let partition = Some(partition.number);
        self.halt(Error::TooLarge { topic, partition, bytes, limit });
    }

    pub(super) fn split(&mut self, place: usize, id: u64) {
        let Some(part) = self.partitions.get(place).and_then(|p| p.queue.part(id)) else { return };
        let (len, parcel) = (part.bytes.len(), part.parcel);
        let Some([(a, first), (b, second)]) = self.halves(&part.bytes) else {
            return self.too_large(place, len);
        };
        let halves = [(self.name(), a, Arc::new(first)), (self.name(), b, Arc::new(second))];
        let split = halves.iter().map(|(_, _, bytes)| bytes.len()).sum::<usize>();
        self.held = self.held - len + split;
        if let Some(parcel) = self.parcels.get_mut(&parcel) {
            parcel.parts += 1;
        }
        let Some(partition) = self.partitions.get_mut(place) else { return };
        let (topic, number) = (&partition.topic, partition.number);
        debug!("{topic}[{number}] does not take a batch of {len} bytes: it goes in two halves");
        partition.queue.split(id, halves);
    }
}
