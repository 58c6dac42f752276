//! Partitions that are to get a transaction's marker.

use std::sync::Arc;

use rskafka::protocol::api_key::ApiKey;

use super::{Call, Malformed, PartitionCode, Reader, Writer, by_topic};

/// Adds partitions to a transaction, and begins it if there is none. All of them are added, or none.
#[derive(Clone, Debug)]
pub struct AddPartitionsToTxn {
    /// Whose transaction.
    pub transactional_id: String,
    /// Its producer id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Each topic once, with its partitions.
    pub partitions: Vec<(Arc<str>, Vec<i32>)>,
}

impl Call for AddPartitionsToTxn {
    const API: ApiKey = ApiKey::AddPartitionsToTxn;
    const NAME: &'static str = "AddPartitionsToTxn";
    // From 4 on it is for brokers among themselves.
    const VERSIONS: (i16, i16) = (0, 3);
    const FLEXIBLE: i16 = 3;
    // Even what is wrong with the transaction is told of each partition.
    type Answer = Vec<PartitionCode>;

    fn size(&self) -> usize {
        let topics = self.partitions.iter();
        64 + self.transactional_id.len()
            + topics.map(|(topic, numbers)| topic.len() + 8 + 4 * numbers.len()).sum::<usize>()
    }

    fn write(&self, writer: &mut Writer<'_>, _: i16) {
        writer.string(&self.transactional_id);
        writer.i64(self.producer_id);
        writer.i16(self.epoch);
        writer.array(self.partitions.len());
        for (topic, numbers) in &self.partitions {
            writer.string(topic);
            writer.array(numbers.len());
            for &number in numbers {
                writer.i32(number);
            }
            writer.tags();
        }
        writer.tags();
    }

    fn read(body: &[u8], version: i16) -> Result<Vec<PartitionCode>, Malformed> {
        let mut reader = Reader::new(body, version >= Self::FLEXIBLE);
        reader.i32()?; // throttle time
        let codes = by_topic::codes(&mut reader)?;
        reader.tags()?;
        reader.finish()?;
        Ok(codes)
    }
}
