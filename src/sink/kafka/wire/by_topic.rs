//! Partitions listed by topic, as most requests and answers have them.

use std::{collections::BTreeMap, sync::Arc};

use super::{Malformed, Reader, Writer};

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
