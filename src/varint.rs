//! Kafka's varints, in which a record counts: zigzag, seven bits a byte, least first.
//!
//! The same bytes for its varint (i32) and varlong (i64).
//!
//! Source: <https://kafka.apache.org/documentation/#record>

/// Appends `value`.
#[inline]
pub fn put(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push((rest as u8) | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Takes one off the front; `None` if it does not end, or not within 64 bits.
pub fn take(bytes: &mut &[u8]) -> Option<i64> {
    let mut zigzag = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        zigzag |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
        }
    }
    None
}

/// How many bytes `value` takes.
#[must_use]
pub const fn width(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// 0, -1, 1, -2 … as 0, 1, 2, 3 …: small numbers of either sign are short.
#[must_use]
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn what_is_put_can_be_taken(value: i64, small in -10_000..10_000_i64) {
            for value in [value, small] {
                let mut bytes = Vec::new();
                put(&mut bytes, value);
                proptest::prop_assert_eq!(bytes.len(), width(value));
                let mut rest = bytes.as_slice();
                proptest::prop_assert_eq!(take(&mut rest), Some(value));
                proptest::prop_assert!(rest.is_empty());
                proptest::prop_assert_eq!(take(&mut &bytes[..bytes.len() - 1]), None);
            }
        }
    }
}
