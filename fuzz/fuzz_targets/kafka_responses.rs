//! Every answer of a broker: `request (1) │ version (1) │ body`. It is read or refused, without a panic and without
//! memory that the bytes do not bear out (the driver's limit of memory sees to that).

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgsluice::sink::kafka::wire::{
    AddOffsetsToTxn, AddPartitionsToTxn, ApiVersions, Call, CreateTopic, DescribeTopicConfigs,
    EndTxn, Fetch, FindCoordinator, InitProducerId, ListOffsets, MetadataOf, OffsetFetch, Produce,
    SaslAuthenticate, SaslHandshake, TxnOffsetCommit,
};

fuzz_target!(|input: &[u8]| {
    let [request, version, body @ ..] = input else { return };
    match request % 16 {
        0 => drop(read::<ApiVersions>(*version, body)),
        1 => drop(read::<CreateTopic>(*version, body)),
        2 => drop(read::<DescribeTopicConfigs>(*version, body)),
        3 => drop(read::<InitProducerId>(*version, body)),
        4 => {
            let Some(metadata) = read::<MetadataOf>(*version, body) else { return };
            for topic in &metadata.topics {
                let count = topic.count();
                assert!(count.is_none_or(|count| count as usize == topic.partitions.len()));
                assert!(metadata.topic(&topic.name).is_some());
            }
        }
        5 => drop(read::<Produce>(*version, body)),
        6 => drop(read::<SaslAuthenticate>(*version, body)),
        7 => drop(read::<SaslHandshake>(*version, body)),
        8 => drop(read::<FindCoordinator>(*version, body)),
        9 => drop(read::<AddPartitionsToTxn>(*version, body)),
        10 => drop(read::<EndTxn>(*version, body)),
        11 => drop(read::<AddOffsetsToTxn>(*version, body)),
        12 => drop(read::<TxnOffsetCommit>(*version, body)),
        13 => drop(read::<OffsetFetch>(*version, body)),
        14 => drop(read::<ListOffsets>(*version, body)),
        _ => {
            let Some(fetched) = read::<Fetch>(*version, body) else { return };
            let records: usize = fetched.partitions.iter().map(|one| one.records.len()).sum();
            assert!(records <= body.len());
        }
    }
});

/// The answer in one of the versions that we ask for.
fn read<C: Call>(version: u8, body: &[u8]) -> Option<C::Answer> {
    let (oldest, newest) = C::VERSIONS;
    let version = oldest + i16::from(version) % (newest - oldest + 1);
    C::read(body, version).map_err(|error| error.to_string()).ok()
}
