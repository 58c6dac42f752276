//! Every answer in every version: read whole, refused when cut anywhere or too long.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::sink::kafka::metadata::Metadata;

mod golden;
mod log;
mod transactions;

fn body<C: Call>(version: i16, write: impl Fn(&mut Writer<'_>)) -> Vec<u8> {
    let mut buffer = Vec::new();
    write(&mut Writer::new(&mut buffer, version >= C::FLEXIBLE));
    buffer
}

/// Reads an answer, and checks that no part of it and nothing longer is one.
fn whole<C: Call>(version: i16, body: &[u8]) -> C::Answer {
    for end in 0..body.len() {
        let cut = body.get(..end).unwrap();
        assert!(C::read(cut, version).is_err(), "{} v{version} cut at {end}", C::NAME);
    }
    let longer = [body, &[0]].concat();
    assert!(C::read(&longer, version).is_err(), "{} v{version} and a byte", C::NAME);
    match C::read(body, version) {
        Ok(answer) => answer,
        Err(error) => panic!("{} v{version}: {error}", C::NAME),
    }
}

fn versions<C: Call>() -> std::ops::RangeInclusive<i16> {
    C::VERSIONS.0..=C::VERSIONS.1
}

#[test]
fn api_versions_are_read_in_every_version() {
    for version in versions::<ApiVersions>() {
        let body = body::<ApiVersions>(version, |w| {
            w.i16(0);
            w.array(2);
            for (key, min, max) in [(0, 3, 11), (999, 0, 1)] {
                w.i16(key);
                w.i16(min);
                w.i16(max);
                w.tags();
            }
            if version >= 1 {
                w.i32(0);
            }
            w.tags();
        });
        let answer = whole::<ApiVersions>(version, &body);
        assert_eq!(answer, Versions { code: 0, ranges: vec![(0, 3, 11), (999, 0, 1)] });
    }
}

#[test]
fn a_refusal_of_the_version_comes_in_version_0() {
    let body = [0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 2];
    let answer = whole::<ApiVersions>(3, &body);
    assert_eq!(answer, Versions { code: 35, ranges: vec![(18, 0, 2)] });
}

fn metadata(version: i16) -> Vec<u8> {
    body::<MetadataOf>(version, |w| {
        w.i32(0);
        w.array(1);
        w.i32(7);
        w.string("kafka.example");
        w.i32(9092);
        w.nullable_string(None);
        w.tags();
        w.nullable_string(Some("cluster"));
        w.i32(7);
        w.array(1);
        w.i16(0);
        w.string("users");
        if version >= 10 {
            w.i64(1);
            w.i64(2);
        }
        w.bool(false);
        w.array(1);
        w.i16(5);
        w.i32(0);
        w.i32(-1);
        if version >= 7 {
            w.i32(4);
        }
        w.array(2);
        w.i32(7);
        w.i32(8);
        w.array(1);
        w.i32(7);
        if version >= 5 {
            w.array(0);
        }
        w.tags();
        if version >= 8 {
            w.i32(i32::MIN);
        }
        w.tags();
        if (8..=10).contains(&version) {
            w.i32(i32::MIN);
        }
        w.tags();
    })
}

#[test]
fn metadata_is_read_in_every_version() {
    for version in versions::<MetadataOf>() {
        let answer: Metadata = whole::<MetadataOf>(version, &metadata(version));
        assert_eq!((answer.cluster_id.as_deref(), answer.controller), (Some("cluster"), Some(7)));
        assert_eq!(
            answer.node(7).map(|n| (n.host.as_str(), n.port)),
            Some(("kafka.example", 9092))
        );
        let topic = answer.topic("users").unwrap();
        assert_eq!((topic.count(), topic.id.is_some()), (Some(1), version >= 10));
        let partition = topic.partition(0).unwrap();
        assert_eq!((partition.code, partition.leader), (5, None));
        assert_eq!((partition.replicas.len(), partition.isr.as_slice()), (2, [7].as_slice()));
        assert_eq!(partition.leader_epoch, if version >= 7 { 4 } else { -1 });
    }
}

#[test]
fn produced_offsets_are_read_in_every_version() {
    for version in versions::<Produce>() {
        let body = body::<Produce>(version, |w| {
            w.array(1);
            w.string("users");
            w.array(2);
            for (partition, code, offset) in [(0, 0, 42), (1, 87, -1)] {
                w.i32(partition);
                w.i16(code);
                w.i64(offset);
                w.i64(-1);
                if version >= 5 {
                    w.i64(3);
                }
                if version >= 8 {
                    w.array(1);
                    w.i32(5);
                    w.nullable_string(Some("no key"));
                    w.tags();
                    w.nullable_string(Some("bad"));
                }
                w.tags();
            }
            w.tags();
            w.i32(250);
            w.tags();
        });
        let answer = whole::<Produce>(version, &body);
        assert_eq!(answer.throttle, Duration::from_millis(250));
        let [stored, bad] = answer.partitions.as_slice() else { panic!("{answer:?}") };
        assert_eq!((stored.partition, stored.code, stored.base_offset), (0, 0, 42));
        assert_eq!(stored.log_start_offset, if version >= 5 { 3 } else { -1 });
        assert_eq!((&*bad.topic, bad.partition, bad.code), ("users", 1, 87));
        assert_eq!(bad.message.as_deref(), (version >= 8).then_some("bad"));
        assert_eq!(bad.bad_records.len(), usize::from(version >= 8));
    }
}

#[test]
fn producer_ids_are_read_in_every_version() {
    for version in versions::<InitProducerId>() {
        let body = body::<InitProducerId>(version, |w| {
            w.i32(0);
            w.i16(0);
            w.i64(1234);
            w.i16(5);
            w.tags();
        });
        let answer = whole::<InitProducerId>(version, &body);
        assert_eq!(answer, ProducerId { code: 0, id: 1234, epoch: 5 });
    }
}

#[test]
fn a_topics_settings_are_read_in_every_version() {
    for version in versions::<DescribeTopicConfigs>() {
        let body = body::<DescribeTopicConfigs>(version, |w| {
            w.i32(0);
            w.array(1);
            w.i16(0);
            w.nullable_string(None);
            w.i8(2);
            w.string("users");
            w.array(1);
            w.string("max.message.bytes");
            w.nullable_string(Some("1048588"));
            w.bool(false);
            w.i8(5);
            w.bool(false);
            w.array(1);
            w.string("message.max.bytes");
            w.nullable_string(None);
            w.i8(5);
            w.tags();
            if version >= 3 {
                w.i8(3);
                w.nullable_string(None);
            }
            w.tags();
            w.tags();
            w.tags();
        });
        let answer = whole::<DescribeTopicConfigs>(version, &body);
        let configs = vec![("max.message.bytes".to_owned(), Some("1048588".to_owned()))];
        assert_eq!(answer, Described { code: 0, message: None, configs });
    }
}

#[test]
fn a_creation_is_read_in_every_version() {
    for version in versions::<CreateTopic>() {
        let body = body::<CreateTopic>(version, |w| {
            w.i32(0);
            w.array(1);
            w.string("users");
            if version >= 7 {
                w.no_uuid();
            }
            w.i16(36);
            w.nullable_string(Some("there"));
            if version >= 5 {
                w.i32(-1);
                w.i16(-1);
                w.array(1);
                w.string("cleanup.policy");
                w.nullable_string(Some("delete"));
                w.bool(false);
                w.i8(5);
                w.bool(false);
                w.tags();
            }
            w.tags();
            w.tags();
        });
        let answer = whole::<CreateTopic>(version, &body);
        assert_eq!(answer, Created { code: 36, message: Some("there".to_owned()) });
    }
}

#[test]
fn logins_are_read_in_every_version() {
    let body = body::<SaslHandshake>(1, |w| {
        w.i16(33);
        w.array(1);
        w.string("PLAIN");
    });
    let answer = whole::<SaslHandshake>(1, &body);
    assert_eq!(answer, Handshake { code: 33, mechanisms: vec!["PLAIN".to_owned()] });
    for version in versions::<SaslAuthenticate>() {
        let body = self::body::<SaslAuthenticate>(version, |w| {
            w.i16(0);
            w.nullable_string(None);
            w.bytes(b"token");
            if version >= 1 {
                w.i64(3_600_000);
            }
            w.tags();
        });
        let answer = whole::<SaslAuthenticate>(version, &body);
        assert_eq!(answer.token, b"token");
        assert_eq!(answer.lifetime_ms, if version >= 1 { 3_600_000 } else { 0 });
    }
}

#[test]
fn one_request_carries_a_topic_once_with_all_its_partitions() {
    let one = |topic: &str, partition| PartitionRecords {
        topic: topic.into(),
        partition,
        records: std::sync::Arc::new(b"records".to_vec()),
    };
    let batches = vec![one("b", 1), one("a", 0), one("b", 0)];
    let produce = Produce { transactional_id: None, timeout: Duration::from_secs(30), batches };
    let mut buffer = Vec::new();
    produce.write(&mut Writer::new(&mut buffer, true), 9);
    assert!(buffer.len() <= produce.size());
    let mut reader = Reader::new(&buffer, true);
    assert_eq!(reader.nullable_string(), Ok(None));
    assert_eq!((reader.i16(), reader.i32(), reader.array(1)), (Ok(-1), Ok(30_000), Ok(2)));
    let mut seen = Vec::new();
    for _ in 0..2 {
        let topic = reader.string().unwrap();
        for _ in 0..reader.array(1).unwrap() {
            seen.push((topic, reader.i32().unwrap()));
            assert_eq!(reader.bytes(), Ok(b"records".as_slice()));
            reader.tags().unwrap();
        }
        reader.tags().unwrap();
    }
    assert_eq!(seen, [("a", 0), ("b", 1), ("b", 0)]);
    reader.tags().unwrap();
    reader.finish().unwrap();
}

fn any<C: Call>(body: &[u8]) {
    for version in versions::<C>() {
        drop(C::read(body, version));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(body: Vec<u8>) {
        any::<AddOffsetsToTxn>(&body);
        any::<AddPartitionsToTxn>(&body);
        any::<ApiVersions>(&body);
        any::<CreateTopic>(&body);
        any::<DescribeTopicConfigs>(&body);
        any::<EndTxn>(&body);
        any::<Fetch>(&body);
        any::<FindCoordinator>(&body);
        any::<InitProducerId>(&body);
        any::<ListOffsets>(&body);
        any::<MetadataOf>(&body);
        any::<OffsetFetch>(&body);
        any::<Produce>(&body);
        any::<SaslAuthenticate>(&body);
        any::<SaslHandshake>(&body);
        any::<TxnOffsetCommit>(&body);
    }

    #[test]
    fn no_change_of_a_byte_makes_a_decoder_panic(at in 0..200_usize, byte: u8, version in 4..=12_i16) {
        let mut body = metadata(version);
        if let Some(place) = body.get_mut(at) {
            *place = byte;
        }
        drop(MetadataOf::read(&body, version));
    }
}
