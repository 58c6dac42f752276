//! Where partitions begin and end.

use std::sync::Arc;

use rskafka::protocol::api_key::ApiKey;

use super::{Call, Malformed, Reader, Writer, by_topic};

/// Asks the leader of partitions for an offset of each, as who reads uncommitted records sees them.
#[derive(Clone, Debug)]
pub struct ListOffsets {
    /// Topics and partitions, each once.
    pub partitions: Vec<(Arc<str>, i32)>,
    /// Which offset.
    pub at: OffsetAt,
}

/// An offset that a partition has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(i64)]
pub enum OffsetAt {
    /// The high watermark: behind the last record that every in-sync replica has.
    Latest = -1,
    /// Of the first record that is still there.
    Earliest = -2,
}

/// An offset of a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListedOffset {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// 0, or why it is not told.
    pub code: i16,
    /// The offset; -1: not told.
    pub offset: i64,
}

const UNCOMMITTED: i8 = 0;

impl Call for ListOffsets {
    const API: ApiKey = ApiKey::ListOffsets;
    const NAME: &'static str = "ListOffsets";
    const VERSIONS: (i16, i16) = (2, 5);
    const FLEXIBLE: i16 = 6;
    type Answer = Vec<ListedOffset>;

    fn size(&self) -> usize {
        64 + self.partitions.iter().map(|(topic, _)| topic.len() + 24).sum::<usize>()
    }

    fn write(&self, writer: &mut Writer<'_>, version: i16) {
        writer.i32(-1); // no replica
        writer.i8(UNCOMMITTED);
        by_topic::write(
            writer,
            &self.partitions,
            |(topic, _)| topic,
            |writer, (_, partition)| {
                writer.i32(*partition);
                if version >= 4 {
                    writer.i32(-1); // leader epoch
                }
                writer.i64(self.at as i64);
            },
        );
        writer.tags();
    }

    fn read(body: &[u8], version: i16) -> Result<Vec<ListedOffset>, Malformed> {
        let mut reader = Reader::new(body, version >= Self::FLEXIBLE);
        reader.i32()?; // throttle time
        let offsets = by_topic::read(&mut reader, 22, |reader, topic| {
            let (partition, code) = (reader.i32()?, reader.i16()?);
            reader.i64()?; // timestamp
            let offset = reader.i64()?;
            if version >= 4 {
                reader.i32()?; // leader epoch
            }
            Ok(ListedOffset { topic: Arc::clone(topic), partition, code, offset })
        })?;
        reader.tags()?;
        reader.finish()?;
        Ok(offsets)
    }
}
