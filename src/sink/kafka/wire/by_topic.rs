//! Partitions listed by topic, as most requests and answers have them.

use std::{collections::BTreeMap, sync::Arc};

use super::{Malformed, Reader, Writer};

/// What became of one partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PartitionCode {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// 0, or what is wrong; see [`codes`](crate::sink::kafka::codes).
    pub code: i16,
}

/// Names every topic once, with all that belongs to it.
pub(super) fn write<T>(
    writer: &mut Writer<'_>,
    all: &[T],
    topic: impl Fn(&T) -> &str,
    mut partition: impl FnMut(&mut Writer<'_>, &T),
) {
    let mut topics = BTreeMap::<&str, Vec<&T>>::new();
    for one in all {
        topics.entry(topic(one)).or_default().push(one);
    }
    writer.array(topics.len());
    for (topic, partitions) in topics {
        writer.string(topic);
        writer.array(partitions.len());
        for one in partitions {
            partition(writer, one);
            writer.tags();
        }
        writer.tags();
    }
}

/// The partitions of all topics, each of at least `smallest` bytes, by `partition`.
pub(super) fn read<T>(
    reader: &mut Reader<'_>,
    smallest: usize,
    mut partition: impl FnMut(&mut Reader<'_>, &Arc<str>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let mut all = Vec::new();
    for _ in 0..reader.array(3)? {
        let topic = Arc::from(reader.string()?);
        for _ in 0..reader.array(smallest)? {
            all.push(partition(reader, &topic)?);
            reader.tags()?;
        }
        reader.tags()?;
    }
    Ok(all)
}

/// A code for each partition.
pub(super) fn codes(reader: &mut Reader<'_>) -> Result<Vec<PartitionCode>, Malformed> {
    read(reader, 6, |reader, topic| {
        let (partition, code) = (reader.i32()?, reader.i16()?);
        Ok(PartitionCode { topic: Arc::clone(topic), partition, code })
    })
}
