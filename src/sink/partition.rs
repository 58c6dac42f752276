//! Which partition a key goes to.

/// The function from key to partition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Partitioner {
    /// The Java client's: murmur2.
    Murmur2,
    /// kafka-go's `Hash`: FNV-1a.
    Fnv1a,
    /// kafka-go's `ReferenceHash`: FNV-1a without its sign.
    Reference,
    /// kafka-go's `CRC32Balancer`, librdkafka's `consistent_random`.
    Crc32,
    /// By the row's position, for what has no key.
    Spread,
}
