//! Record sets that brokers keep.
//!
//! The constants are hex of whole entries from a script: the batch by Python's `struct` and a
//! CRC-32C by its definition, Snappy's blocks by hand (a literal, one copy of 73 bytes as 18 and
//! what follows, a literal), zstd's frame by its command line (1.5.4, `zstd -22 --ultra --no-check`
//! from standard input, so that the frame wants a window of 128 MiB and does not say its size).

use super::*;

/// Two records at offsets 1000 and 1003, of five: `op` and `id` of the first, and of the second, of
/// null key and value, an `id` of null and another.
pub(super) const SNAPPY: &str = "\
    00000000000003e8000000ba0000000502373c38b80002000000030000018bcfe568000000018bcfe56800ff\
    ffffffffffffffffffffffffff0000000282534e415050590000000001000000010000000907189a01000000\
    0434000000689201f05c32127b226964223a34327d04046f7002630469646630313233343536373839616263\
    6465662d30303030303030312d303030303030303030316132623363382d3030303030303030900100000601\
    0106046f700264046964010469646ac6480008312e31";

/// The same, transactional, from a producer.
pub(super) const ZSTD: &str = "\
    00000000000003e8000000950000000502e61158380014000000030000018bcfe568000000018bcfe5680000\
    0000000000126700030000002a0000000228b52ffd0088dd020094049a01000000043432127b226964223a34\
    327d04046f70026304696466303132333435363738396162636465662d30312d303161326233633890010000\
    0601010664010469646a312e3106002f21520076841069960dc8f000ca";

pub(super) const COMMIT: &str = "\
    0000000000000007000000420000000502a8da87310030000000000000018bcfe568000000018bcfe5680000\
    000000000012670003ffffffff000000012000000008000000010c00000000000900";
pub(super) const ABORT: &str = "\
    00000000000000080000004200000005025ce451790030000000000000018bcfe568000000018bcfe5680000\
    000000000012670003ffffffff000000012000000008000000000c00000000000900";
/// What a transaction leaves of a batch that compaction took all records of.
pub(super) const EMPTY: &str = "\
    0000000000000009000000310000000502028ad54d0010000000040000018bcfe568000000018bcfe5680000\
    0000000000126700030000000000000000";
/// A new leader's, of a log in which brokers keep their own affairs: a control type above 1.
pub(super) const LEADER: &str = "\
    000000000000000e000000420000000502d1e02b4d0020000000000000018bcfe568000000018bcfe56800ff\
    ffffffffffffffffffffffffff000000012000000008000000020c00000000000900";

pub(super) const FIRST: &str = "0123456789abcdef-00000001-0000000001a2b3c8-00000000";
pub(super) const SECOND: &str = "0123456789abcdef-00000001-0000000001a2b3c8-00000001.1";

pub(super) fn hex(text: &str) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap() as u8;
    text.as_bytes().chunks(2).map(|pair| digit(&pair[0]) << 4 | digit(&pair[1])).collect()
}

/// The checksum again, whatever was done to the rest; the length is that of the bytes.
pub(super) fn reseal(mut set: Vec<u8>) -> Vec<u8> {
    set_length(&mut set);
    let crc = crc32c::crc32c(&set[ATTRIBUTES..]);
    put(&mut set, 17, crc.to_be_bytes());
    set
}

/// A batch with this for its records.
pub(super) fn with_body(batch: &[u8], codec: u8, body: &[u8]) -> Vec<u8> {
    let mut set = [&batch[..HEADER], body].concat();
    put(&mut set, ATTRIBUTES + 1, [codec]);
    reseal(set)
}

/// As Java's library frames it, in blocks of this size.
pub(super) fn xerial(records: &[u8], block: usize) -> Vec<u8> {
    let mut out = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for block in records.chunks(block) {
        let block = snap::raw::Encoder::new().compress_vec(block).unwrap();
        out.extend((block.len() as u32).to_be_bytes());
        out.extend(block);
    }
    out
}

/// One batch in each way that a broker may keep it.
pub(super) fn kept(batch: &[u8], block: usize) -> [Vec<u8>; 7] {
    let [none, gzip, snappy, lz4] =
        [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4].map(|c| reseal(compress(batch, c)));
    let zstd = compress_to_vec(&batch[HEADER..], CompressionLevel::Fastest);
    let stored = compress_to_vec(&batch[HEADER..], CompressionLevel::Uncompressed);
    let framed = xerial(&batch[HEADER..], block);
    let [framed, zstd, stored] =
        [(2, framed), (4, zstd), (4, stored)].map(|(codec, body)| with_body(batch, codec, &body));
    [none, gzip, snappy, lz4, framed, zstd, stored]
}
