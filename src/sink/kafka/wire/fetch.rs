//! Records of partitions, as they are stored.

use std::{sync::Arc, time::Duration};

use rskafka::protocol::api_key::ApiKey;

use super::{Call, Malformed, Reader, Writer, by_topic};

/// Asks the leader of partitions for records and markers, committed or not, without a session.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// Each partition once. The broker fills topic after topic, in the order of their names.
    pub partitions: Vec<FetchPartition>,
    /// Of all partitions together. The first batch comes whole, however large.
    pub max_bytes: i32,
    /// How long the broker may wait for `min_bytes`.
    pub max_wait: Duration,
    /// With fewer, and no error, it waits.
    pub min_bytes: i32,
}

/// From where on a partition is read.
#[derive(Clone, Debug)]
pub struct FetchPartition {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// The first offset that is wanted. The batch that holds it comes whole.
    pub from: i64,
    /// Of this partition.
    pub max_bytes: i32,
}

/// A broker's answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fetched {
    /// A quota was exceeded: the next request should wait for so long.
    pub throttle: Duration,
    /// 0, or why there is nothing more.
    pub code: i16,
    /// One for every partition of the request.
    pub partitions: Vec<PartitionFetched>,
}

/// What there is of a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PartitionFetched {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// 0, or why there are no records.
    pub code: i16,
    /// Behind the last record that every in-sync replica has; no record from there on is told.
    pub high_watermark: i64,
    /// Before it every transaction has ended; -1: not told.
    pub last_stable_offset: i64,
    /// The first offset; -1: not told.
    pub log_start_offset: i64,
    /// Batches one after the other, the last of them perhaps cut anywhere.
    pub records: Vec<u8>,
}

const UNCOMMITTED: i8 = 0;

impl Call for Fetch {
    const API: ApiKey = ApiKey::Fetch;
    const NAME: &'static str = "Fetch";
    // Before 4 there are older formats of records, from 13 on topics go by id.
    const VERSIONS: (i16, i16) = (4, 11);
    const FLEXIBLE: i16 = 12;
    type Answer = Fetched;

    fn size(&self) -> usize {
        64 + self.partitions.iter().map(|one| one.topic.len() + 36).sum::<usize>()
    }

    fn write(&self, writer: &mut Writer<'_>, version: i16) {
        writer.i32(-1); // no replica
        writer.millis(self.max_wait);
        writer.i32(self.min_bytes);
        writer.i32(self.max_bytes);
        writer.i8(UNCOMMITTED);
        if version >= 7 {
            writer.i32(0); // session
            writer.i32(-1); // its epoch: none is to begin
        }
        by_topic::write(
            writer,
            &self.partitions,
            |one| &one.topic,
            |writer, one| {
                writer.i32(one.partition);
                if version >= 9 {
                    writer.i32(-1); // leader epoch
                }
                writer.i64(one.from);
                if version >= 5 {
                    writer.i64(-1); // log start offset, of a replica
                }
                writer.i32(one.max_bytes);
            },
        );
        if version >= 7 {
            writer.array(0); // what the session is to forget
        }
        if version >= 11 {
            writer.string(""); // rack
        }
        writer.tags();
    }

    fn read(body: &[u8], version: i16) -> Result<Fetched, Malformed> {
        let mut reader = Reader::new(body, version >= Self::FLEXIBLE);
        let throttle = reader.millis()?;
        let code = if version >= 7 { reader.i16()? } else { 0 };
        if version >= 7 {
            reader.i32()?; // session
        }
        let partitions =
            by_topic::read(&mut reader, 30, |reader, topic| partition(reader, topic, version))?;
        reader.tags()?;
        reader.finish()?;
        Ok(Fetched { throttle, code, partitions })
    }
}

fn partition(
    reader: &mut Reader<'_>,
    topic: &Arc<str>,
    version: i16,
) -> Result<PartitionFetched, Malformed> {
    let (partition, code) = (reader.i32()?, reader.i16()?);
    let (high_watermark, last_stable_offset) = (reader.i64()?, reader.i64()?);
    let log_start_offset = if version >= 5 { reader.i64()? } else { -1 };
    // Aborted transactions, which are only told to who reads committed records.
    for _ in 0..reader.array(16)? {
        reader.i64()?; // producer id
        reader.i64()?; // first offset
        reader.tags()?;
    }
    if version >= 11 {
        reader.i32()?; // preferred read replica
    }
    let records = reader.nullable_bytes()?.unwrap_or_default().to_vec();
    Ok(PartitionFetched {
        topic: Arc::clone(topic),
        partition,
        code,
        high_watermark,
        last_stable_offset,
        log_start_offset,
        records,
    })
}
