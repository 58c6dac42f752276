//! Which partition a key goes to.
//!
//! A consumer that joins two topics, and a producer that takes this one's place, rely on the same
//! function: each is here to the bit as its client has it.
//!
//! **Invariant.** Without a key the row's position decides, never a counter or chance: a row that is
//! sent again goes where it went.

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

impl Partitioner {
    /// The partition, below `partitions`; 0 if there are none.
    #[must_use]
    pub fn partition(self, key: Option<&[u8]>, position_hash: u64, partitions: u32) -> u32 {
        let Some(last) = partitions.checked_sub(1) else { return 0 };
        let modulo = |hash: u32| hash.checked_rem(partitions).unwrap_or(0);
        let Some(key) = key else { return spread(position_hash, partitions) };
        let chosen = match self {
            Self::Murmur2 => modulo(murmur2(key) & 0x7fff_ffff),
            // Go's remainder keeps the sign of the hash: -7 % 3 is -1, and 1 after it.
            Self::Fnv1a => {
                let signed = i64::from(fnv1a(key) as i32);
                signed.unsigned_abs().checked_rem(u64::from(partitions)).unwrap_or(0) as u32
            }
            Self::Reference => modulo(fnv1a(key) & 0x7fff_ffff),
            Self::Crc32 => modulo(crc32(key)),
            Self::Spread => spread(position_hash, partitions),
        };
        chosen.min(last)
    }
}

/// Evenly, and without the patterns that positions have (they are multiples of eight).
fn spread(position_hash: u64, partitions: u32) -> u32 {
    // The finalizer of splitmix64; then the high bits, scaled.
    let mut z = position_hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    ((u128::from(z) * u128::from(partitions)) >> 64) as u32
}

/// `org.apache.kafka.common.utils.Utils.murmur2`: the 32-bit MurmurHash2 of `key`.
fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ key.len() as u32;
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        let rest = tail.iter().rev().fold(0, |rest, &byte| (rest << 8) | u32::from(byte));
        hash = (hash ^ rest).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The 32-bit FNV-1a.
fn fnv1a(key: &[u8]) -> u32 {
    key.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// CRC-32 as in gzip. Keys are short: a table of 16 is quick enough and fits on the screen.
fn crc32(key: &[u8]) -> u32 {
    let step = |crc: u32, nibble: u32| {
        let mut low = (crc ^ nibble) & 0xf;
        for _ in 0..4 {
            low = (low >> 1) ^ (0xedb8_8320 * (low & 1));
        }
        (crc >> 4) ^ low
    };
    !key.iter().fold(!0, |crc, &byte| step(step(crc, u32::from(byte) & 0xf), u32::from(byte) >> 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = include_str!("../../tests/golden/partitioners.tsv");
    const COUNTS: [u32; 11] = [1, 2, 3, 5, 6, 7, 12, 16, 50, 100, 1000];

    fn hex(text: &str) -> Vec<u8> {
        let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(byte).collect()
    }

    #[test]
    fn chooses_as_the_clients_of_java_and_go_do() {
        let columns =
            [Partitioner::Murmur2, Partitioner::Fnv1a, Partitioner::Reference, Partitioner::Crc32];
        let mut checked = 0;
        for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
            let mut fields = line.split('\t');
            let key = hex(fields.next().unwrap());
            let hash: i32 = fields.next().unwrap().parse().unwrap();
            assert_eq!(murmur2(&key) as i32, hash, "murmur2 of {key:?}");
            for (partitioner, chosen) in columns.into_iter().zip(fields) {
                for (count, chosen) in COUNTS.into_iter().zip(chosen.split(' ')) {
                    let ours = partitioner.partition(Some(&key), 0, count);
                    let what = format!("{partitioner:?} of {key:?} among {count}");
                    assert_eq!(ours.to_string(), chosen, "{what}");
                    checked += 1;
                }
            }
        }
        assert_eq!(checked, 294 * 4 * 11);
    }

    #[test]
    fn without_a_key_the_position_decides_and_spreads_evenly() {
        let mut counts = [0_u32; 6];
        for position in 0..6000_u64 {
            let chosen = Partitioner::Murmur2.partition(None, position * 8, 6);
            assert_eq!(chosen, Partitioner::Spread.partition(Some(b"any"), position * 8, 6));
            counts[chosen as usize] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn no_partitions_are_no_reason_to_panic() {
        assert_eq!(Partitioner::Murmur2.partition(Some(b"k"), 1, 0), 0);
        assert_eq!(Partitioner::Spread.partition(None, 1, 0), 0);
    }
}
