//! Kafka's requests and responses, as bytes.
//!
//! rskafka's own messages end before topic ids and errors by record, and reserve memory for a
//! count before looking whether the bytes can hold it. So its messenger only carries ours: a
//! [`Call`] writes its body and reads its answer from bytes, without I/O, and so can be fuzzed.
//! The layouts are those of <https://kafka.apache.org/protocol>.

use std::io::{Cursor, Error as IoError};

use rskafka::protocol::{
    api_key::ApiKey,
    api_version::{ApiVersion, ApiVersionRange},
    messages::{
        ReadVersionedError, ReadVersionedType, RequestBody, WriteVersionedError, WriteVersionedType,
    },
    primitives::Int16,
    traits::{ReadError, WriteError},
};

mod add_offsets_to_txn;
mod add_partitions_to_txn;
mod api_versions;
mod by_topic;
mod create_topics;
mod describe_configs;
mod end_txn;
mod fetch;
mod find_coordinator;
mod init_producer_id;
mod list_offsets;
mod metadata;
mod offset_fetch;
mod produce;
mod reader;
mod sasl;
mod txn_offset_commit;
mod writer;

pub use add_offsets_to_txn::AddOffsetsToTxn;
pub use add_partitions_to_txn::AddPartitionsToTxn;
pub(super) use api_versions::UNSUPPORTED_VERSION;
pub use api_versions::{ApiVersions, Versions};
pub use by_topic::PartitionCode;
pub use create_topics::{CreateTopic, Created};
pub use describe_configs::{DescribeTopicConfigs, Described};
pub use end_txn::EndTxn;
pub use fetch::{Fetch, FetchPartition, Fetched, PartitionFetched};
pub use find_coordinator::{Coordinator, CoordinatorOf, FindCoordinator};
pub use init_producer_id::{InitProducerId, ProducerId};
pub use list_offsets::{ListOffsets, ListedOffset, OffsetAt};
pub use metadata::MetadataOf;
pub use offset_fetch::{FetchedOffset, GroupOffsets, OffsetFetch};
pub use produce::{PartitionProduced, PartitionRecords, Produce, Produced};
pub use reader::{Malformed, Reader};
pub use sasl::{Authenticated, Handshake, SaslAuthenticate, SaslHandshake};
pub use txn_offset_commit::{CommittedOffset, TxnOffsetCommit};
pub use writer::Writer;

/// A request, and how its answer is read.
pub trait Call: Send {
    /// Its number in the protocol.
    const API: ApiKey;
    /// Its name in the protocol.
    const NAME: &'static str;
    /// The oldest and the newest version that we speak.
    const VERSIONS: (i16, i16);
    /// The first version with compact lengths and tagged fields.
    const FLEXIBLE: i16;
    /// The first version whose response header has tagged fields.
    const FLEXIBLE_ANSWER: i16 = Self::FLEXIBLE;
    /// What the broker answers.
    type Answer: Send;

    /// About how many bytes [`write`](Self::write) will append.
    fn size(&self) -> usize {
        256
    }

    /// Appends the body in this version.
    fn write(&self, writer: &mut Writer<'_>, version: i16);

    /// Reads the whole body of an answer in this version.
    ///
    /// # Errors
    /// Anything that is not exactly such an answer.
    fn read(body: &[u8], version: i16) -> Result<Self::Answer, Malformed>;
}

/// A [`Call`] as rskafka's messenger takes it, which is told how many bytes it will be on the wire.
pub(super) struct Sent<C, F>(pub(super) C, pub(super) F);

/// The length that goes before each request.
const FRAME: usize = 4;

/// A [`Call`]'s answer as rskafka's messenger returns it.
pub(super) struct Received<C: Call>(pub(super) C::Answer);

impl<C: Call, F> RequestBody for Sent<C, F> {
    type ResponseBody = Received<C>;
    const API_KEY: ApiKey = C::API;
    const API_VERSION_RANGE: ApiVersionRange =
        ApiVersionRange::new(version(C::VERSIONS.0), version(C::VERSIONS.1));
    const FIRST_TAGGED_FIELD_IN_REQUEST_VERSION: ApiVersion = version(C::FLEXIBLE);
    const FIRST_TAGGED_FIELD_IN_RESPONSE_VERSION: ApiVersion = version(C::FLEXIBLE_ANSWER);
}

pub(super) const fn version(number: i16) -> ApiVersion {
    ApiVersion(Int16(number))
}

impl<C: Call, F: Fn(usize)> WriteVersionedType<Vec<u8>> for Sent<C, F> {
    fn write_versioned(
        &self,
        buffer: &mut Vec<u8>,
        ApiVersion(Int16(version)): ApiVersion,
    ) -> Result<(), WriteVersionedError> {
        buffer.reserve_exact(self.0.size());
        let mut writer = Writer::new(buffer, version >= C::FLEXIBLE);
        self.0.write(&mut writer, version);
        if writer.overflowed() {
            return Err(WriteError::IO(IoError::other("a text is too long to be sent")).into());
        }
        (self.1)(FRAME + buffer.len()); // the header is in it
        Ok(())
    }
}

impl<C: Call> ReadVersionedType<Cursor<Vec<u8>>> for Received<C> {
    fn read_versioned(
        cursor: &mut Cursor<Vec<u8>>,
        ApiVersion(Int16(version)): ApiVersion,
    ) -> Result<Self, ReadVersionedError> {
        let start = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        let body = cursor.get_ref().get(start..).unwrap_or_default();
        let answer = C::read(body, version).map_err(|e| ReadError::Malformed(Box::new(e)))?;
        let end = cursor.get_ref().len();
        cursor.set_position(end as u64);
        Ok(Self(answer))
    }
}

#[cfg(test)]
mod tests;
