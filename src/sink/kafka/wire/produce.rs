//! Records to their partitions, and where they were put.

use std::{sync::Arc, time::Duration};

use rskafka::protocol::api_key::ApiKey;

use super::{Call, Malformed, Reader, Writer, by_topic};

/// Batches for several partitions of one broker, `acks=all`.
#[derive(Clone, Debug)]
pub struct Produce {
    /// Whose transaction the batches are part of, if they are.
    pub transactional_id: Option<Arc<str>>,
    /// How long the broker may wait for the other replicas.
    pub timeout: Duration,
    /// At most one batch a partition.
    pub batches: Vec<PartitionRecords>,
}

/// One record batch and where it goes.
#[derive(Clone, Debug)]
pub struct PartitionRecords {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// A record batch of format 2, as it is stored. Not `Bytes`, which copies a buffer when it gives it back.
    pub records: Arc<Vec<u8>>,
}

/// A broker's answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Produced {
    /// A quota was exceeded: the next request should wait for so long. This one was carried out.
    pub throttle: Duration,
    /// One for every partition of the request.
    pub partitions: Vec<PartitionProduced>,
}

/// What became of one batch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PartitionProduced {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// 0: stored; else see [`codes`](crate::sink::kafka::codes).
    pub code: i16,
    /// Offset of its first record.
    pub base_offset: i64,
    /// -1, or the broker's time, if it sets it.
    pub log_append_time: i64,
    /// The partition's first offset; -1: not known.
    pub log_start_offset: i64,
    /// Which records were refused, by their index in the batch, and why.
    pub bad_records: Vec<(i32, String)>,
    /// Why the batch was refused.
    pub message: Option<String>,
}

const ALL: i16 = -1;

impl Call for Produce {
    const API: ApiKey = ApiKey::Produce;
    const NAME: &'static str = "Produce";
    // From 12 on a Produce may add a partition to a transaction, from 13 on topics go by id.
    const VERSIONS: (i16, i16) = (3, 11);
    const FLEXIBLE: i16 = 9;
    type Answer = Produced;

    fn size(&self) -> usize {
        let batches = self.batches.iter();
        64 + batches.map(|b| b.records.len() + b.topic.len() + 32).sum::<usize>()
    }

    fn write(&self, writer: &mut Writer<'_>, _: i16) {
        writer.nullable_string(self.transactional_id.as_deref());
        writer.i16(ALL);
        writer.millis(self.timeout);
        by_topic::write(
            writer,
            &self.batches,
            |batch| &batch.topic,
            |writer, batch| {
                writer.i32(batch.partition);
                writer.bytes(&batch.records);
            },
        );
        writer.tags();
    }

    fn read(body: &[u8], version: i16) -> Result<Produced, Malformed> {
        let mut reader = Reader::new(body, version >= Self::FLEXIBLE);
        let partitions =
            by_topic::read(&mut reader, 14, |reader, topic| partition(reader, topic, version))?;
        let throttle = reader.millis()?;
        reader.tags()?;
        reader.finish()?;
        Ok(Produced { throttle, partitions })
    }
}

fn partition(
    reader: &mut Reader<'_>,
    topic: &Arc<str>,
    version: i16,
) -> Result<PartitionProduced, Malformed> {
    let mut produced = PartitionProduced {
        topic: Arc::clone(topic),
        partition: reader.i32()?,
        code: reader.i16()?,
        base_offset: reader.i64()?,
        log_append_time: reader.i64()?,
        log_start_offset: if version >= 5 { reader.i64()? } else { -1 },
        bad_records: Vec::new(),
        message: None,
    };
    if version >= 8 {
        produced.bad_records = reader.list(6, |reader| {
            let index = reader.i32()?;
            let why = reader.nullable_string()?.unwrap_or_default().to_owned();
            reader.tags()?;
            Ok((index, why))
        })?;
        produced.message = reader.nullable_string()?.map(str::to_owned);
    }
    Ok(produced)
}
