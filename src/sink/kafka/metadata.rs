//! What a broker knows of its cluster.

use std::sync::Arc;

/// A broker's view of the cluster and of the topics that it was asked about.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Metadata {
    /// Cluster.
    pub cluster_id: Option<String>,
    /// Who takes topic creations.
    pub controller: Option<i32>,
    /// Brokers that are alive.
    pub brokers: Vec<Node>,
    /// Topics.
    pub topics: Vec<TopicMetadata>,
}

/// A broker's address on the listener that was asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    /// Its `node.id`.
    pub id: i32,
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// A topic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TopicMetadata {
    /// Its name.
    pub name: Arc<str>,
    /// 0, or why nothing is known of it; see [`codes`](super::codes).
    pub code: i16,
    /// Another one after the topic was deleted and made again; `None`: the broker is older than 2.8.
    pub id: Option<[u8; 16]>,
    /// Its partitions, in no order.
    pub partitions: Vec<PartitionMetadata>,
}

/// A partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PartitionMetadata {
    /// Its number.
    pub index: i32,
    /// 0, or what is wrong with it; see [`codes`](super::codes).
    pub code: i16,
    /// Who takes its records; `None` during an election.
    pub leader: Option<i32>,
    /// Grows with every election; -1: not known.
    pub leader_epoch: i32,
    /// Brokers that have, or should have, a copy.
    pub replicas: Vec<i32>,
    /// Those whose copy is complete.
    pub isr: Vec<i32>,
}

impl Metadata {
    /// What is known of a topic.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&TopicMetadata> {
        self.topics.iter().find(|topic| &*topic.name == name)
    }

    /// A broker's address, if it is alive.
    #[must_use]
    pub fn node(&self, id: i32) -> Option<&Node> {
        self.brokers.iter().find(|node| node.id == id)
    }
}

impl TopicMetadata {
    /// What is known of a partition.
    #[must_use]
    pub fn partition(&self, index: i32) -> Option<&PartitionMetadata> {
        self.partitions.iter().find(|partition| partition.index == index)
    }

    /// How many partitions there are, if the broker listed every one from 0 on.
    #[must_use]
    pub fn count(&self) -> Option<u32> {
        let count = i32::try_from(self.partitions.len()).ok()?;
        let whole = (0..count).all(|index| self.partition(index).is_some());
        whole.then_some(count.unsigned_abs())
    }
}
