//! Offsets and metadata of a group that take effect with a transaction.

use std::sync::Arc;

use rskafka::protocol::api_key::ApiKey;

use super::{Call, Malformed, PartitionCode, Reader, Writer, by_topic};

/// Commits offsets of a group that nobody has joined, once its transaction commits. It goes to the
/// group's coordinator, after an [`AddOffsetsToTxn`](super::AddOffsetsToTxn) to the transaction's.
#[derive(Clone, Debug)]
pub struct TxnOffsetCommit {
    /// Whose transaction.
    pub transactional_id: String,
    /// Whose offsets.
    pub group: String,
    /// The transaction's producer id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// What is to be kept, each partition once.
    pub offsets: Vec<CommittedOffset>,
}

/// What a group keeps of a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommittedOffset {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Any text up to the brokers' `offset.metadata.max.bytes`.
    pub metadata: String,
}

impl Call for TxnOffsetCommit {
    const API: ApiKey = ApiKey::TxnOffsetCommit;
    const NAME: &'static str = "TxnOffsetCommit";
    // From 5 on it adds the group to the transaction by itself (KIP-890).
    const VERSIONS: (i16, i16) = (0, 3);
    const FLEXIBLE: i16 = 3;
    // Even what is wrong with the transaction is told of each partition.
    type Answer = Vec<PartitionCode>;

    fn size(&self) -> usize {
        let offsets = self.offsets.iter();
        64 + self.transactional_id.len()
            + self.group.len()
            + offsets.map(|one| one.topic.len() + one.metadata.len() + 32).sum::<usize>()
    }

    fn write(&self, writer: &mut Writer<'_>, version: i16) {
        writer.string(&self.transactional_id);
        writer.string(&self.group);
        writer.i64(self.producer_id);
        writer.i16(self.epoch);
        if version >= 3 {
            writer.i32(-1); // generation
            writer.string(""); // member
            writer.nullable_string(None); // instance
        }
        by_topic::write(
            writer,
            &self.offsets,
            |one| &one.topic,
            |writer, one| {
                writer.i32(one.partition);
                writer.i64(one.offset);
                if version >= 2 {
                    writer.i32(-1); // leader epoch
                }
                writer.nullable_string(Some(&one.metadata));
            },
        );
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
