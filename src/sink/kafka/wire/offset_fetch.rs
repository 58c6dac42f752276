//! What a group has committed.

use std::sync::Arc;

use rskafka::protocol::api_key::ApiKey;

use super::{Call, Malformed, Reader, Writer, by_topic};

/// Asks a group's coordinator for all its offsets, of every topic that we may see.
#[derive(Clone, Debug)]
pub struct OffsetFetch {
    /// Whose.
    pub group: String,
    /// That a partition of which an open transaction commits is refused (88), rather than told as it
    /// was before. A broker before 2.5 does not know it.
    pub require_stable: bool,
}

/// A broker's answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupOffsets {
    /// 0, or why there is nothing more.
    pub code: i16,
    /// Of each partition that has one. A topic that was deleted has none.
    pub offsets: Vec<FetchedOffset>,
}

/// What a group has committed of a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FetchedOffset {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Offset; -1: none.
    pub offset: i64,
    /// The text beside it.
    pub metadata: String,
    /// 0, or why it is not told.
    pub code: i16,
}

impl Call for OffsetFetch {
    const API: ApiKey = ApiKey::OffsetFetch;
    const NAME: &'static str = "OffsetFetch";
    // Before 2 all topics cannot be asked for; from 8 on it is about a list of groups.
    const VERSIONS: (i16, i16) = (2, 7);
    const FLEXIBLE: i16 = 6;
    type Answer = GroupOffsets;

    fn write(&self, writer: &mut Writer<'_>, version: i16) {
        writer.string(&self.group);
        writer.null_array(); // all topics
        if version >= 7 {
            writer.bool(self.require_stable);
        }
        writer.tags();
    }

    fn read(body: &[u8], version: i16) -> Result<GroupOffsets, Malformed> {
        let mut reader = Reader::new(body, version >= Self::FLEXIBLE);
        if version >= 3 {
            reader.i32()?; // throttle time
        }
        let offsets = by_topic::read(&mut reader, 16, |reader, topic| {
            let (partition, offset) = (reader.i32()?, reader.i64()?);
            if version >= 5 {
                reader.i32()?; // leader epoch
            }
            let metadata = reader.nullable_string()?.unwrap_or_default().to_owned();
            let (topic, code) = (Arc::clone(topic), reader.i16()?);
            Ok(FetchedOffset { topic, partition, offset, metadata, code })
        })?;
        let code = reader.i16()?;
        reader.tags()?;
        reader.finish()?;
        Ok(GroupOffsets { code, offsets })
    }
}
