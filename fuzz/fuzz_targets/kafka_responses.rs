//! Every answer of a broker: `request (1) │ version (1) │ body`. It is read or refused, without a panic and without
//! memory that the bytes do not bear out (the driver's limit of memory sees to that).

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgsluice::sink::kafka::wire::{
    ApiVersions, Call, CreateTopic, DescribeTopicConfigs, InitProducerId, MetadataOf, Produce,
    SaslAuthenticate, SaslHandshake,
};

fuzz_target!(|input: &[u8]| {
    let [request, version, body @ ..] = input else { return };
    match request % 8 {
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
        _ => drop(read::<SaslHandshake>(*version, body)),
    }
});

/// The answer in one of the versions that we ask for.
fn read<C: Call>(version: u8, body: &[u8]) -> Option<C::Answer> {
    let (oldest, newest) = C::VERSIONS;
    let version = oldest + i16::from(version) % (newest - oldest + 1);
    C::read(body, version).map_err(|error| error.to_string()).ok()
}
