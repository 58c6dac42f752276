//! Topics, their partitions, and who leads them.

use std::sync::Arc;

use rskafka::protocol::api_key::ApiKey;

use super::{Call, Malformed, Reader, Writer};
use crate::sink::kafka::metadata::{Metadata, Node, PartitionMetadata, TopicMetadata};

/// Asks about topics by name; of none, only about the cluster.
#[derive(Clone, Debug)]
pub struct MetadataOf {
    /// Topic names.
    pub topics: Vec<String>,
}

impl Call for MetadataOf {
    const API: ApiKey = ApiKey::Metadata;
    const NAME: &'static str = "Metadata";
    // Before version 4 a broker may make the topics that it is asked about.
    const VERSIONS: (i16, i16) = (4, 12);
    const FLEXIBLE: i16 = 9;
    type Answer = Metadata;

    fn size(&self) -> usize {
        64 + self.topics.iter().map(|topic| topic.len() + 24).sum::<usize>()
    }

    fn write(&self, writer: &mut Writer<'_>, version: i16) {
        writer.array(self.topics.len());
        for topic in &self.topics {
            if version >= 10 {
                writer.no_uuid();
            }
            writer.string(topic);
            writer.tags();
        }
        writer.bool(false); // allow_auto_topic_creation
        if (8..=10).contains(&version) {
            writer.bool(false); // include_cluster_authorized_operations
        }
        if version >= 8 {
            writer.bool(false); // include_topic_authorized_operations
        }
        writer.tags();
    }

    fn read(body: &[u8], version: i16) -> Result<Metadata, Malformed> {
        let mut reader = Reader::new(body, version >= Self::FLEXIBLE);
        reader.i32()?; // throttle time
        let brokers = reader.list(10, node)?;
        let cluster_id = reader.nullable_string()?.map(str::to_owned);
        let controller = some_id(reader.i32()?);
        let topics = reader.list(6, |reader| topic(reader, version))?;
        if (8..=10).contains(&version) {
            reader.i32()?; // cluster_authorized_operations
        }
        reader.tags()?;
        reader.finish()?;
        Ok(Metadata { cluster_id, controller, brokers, topics })
    }
}

/// -1 stands for nobody.
fn some_id(id: i32) -> Option<i32> {
    (id >= 0).then_some(id)
}

fn node(reader: &mut Reader<'_>) -> Result<Node, Malformed> {
    let id = reader.i32()?;
    let host = reader.string()?.to_owned();
    let port = reader.i32()?;
    let port = u16::try_from(port)
        .map_err(|_| Malformed::Value { what: "a broker's port", value: port.into() })?;
    reader.nullable_string()?; // rack
    reader.tags()?;
    Ok(Node { id, host, port })
}

fn topic(reader: &mut Reader<'_>, version: i16) -> Result<TopicMetadata, Malformed> {
    let code = reader.i16()?;
    let name = Arc::from(reader.nullable_string()?.unwrap_or_default());
    let id = if version >= 10 { reader.uuid()? } else { None };
    reader.bool()?; // is_internal
    let partitions = reader.list(13, |reader| partition(reader, version))?;
    if version >= 8 {
        reader.i32()?; // topic_authorized_operations
    }
    reader.tags()?;
    Ok(TopicMetadata { name, code, id, partitions })
}

fn partition(reader: &mut Reader<'_>, version: i16) -> Result<PartitionMetadata, Malformed> {
    let code = reader.i16()?;
    let index = reader.i32()?;
    let leader = some_id(reader.i32()?);
    let leader_epoch = if version >= 7 { reader.i32()? } else { -1 };
    let replicas = reader.list(4, Reader::i32)?;
    let isr = reader.list(4, Reader::i32)?;
    if version >= 5 {
        reader.list(4, Reader::i32)?; // offline_replicas
    }
    reader.tags()?;
    Ok(PartitionMetadata { index, code, leader, leader_epoch, replicas, isr })
}
