//! Who a record is from: two pipelines may write to one topic and never share a record's name.

use ring::digest;

/// Names one stream of changes: a cluster, a slot, and what is published.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Source([u8; 8]);

impl Source {
    /// The first 8 bytes of SHA-256 over the system identifier as 8 bytes, big endian, then the
    /// slot's name and a zero byte, then each publication's name and a zero byte, the publications
    /// sorted by byte and each once. No name holds a zero byte, so no two lists are alike.
    #[must_use]
    pub fn new(system_identifier: u64, slot: &str, publications: &[String]) -> Self {
        let mut sorted: Vec<&str> = publications.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let mut digest = digest::Context::new(&digest::SHA256);
        digest.update(&system_identifier.to_be_bytes());
        for name in std::iter::once(slot).chain(sorted) {
            digest.update(name.as_bytes());
            digest.update(&[0]);
        }
        let digest = digest.finish();
        Self(digest.as_ref().first_chunk().copied().unwrap_or_default())
    }

    /// As a number, the first byte on top: 16 hex digits are its name.
    #[must_use]
    pub const fn get(self) -> u64 {
        u64::from_be_bytes(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(publications: &[&str]) -> Source {
        let publications: Vec<String> = publications.iter().map(|&p| p.to_owned()).collect();
        Source::new(7_000_000_000_000_000_001, "cdc_slot", &publications)
    }

    #[test]
    fn is_what_sha256_makes_of_the_documented_bytes() {
        // printf '\x61\x24\xfe\xe9\x93\xbc\x00\x01cdc_slot\0a\0b\0' | sha256sum
        assert_eq!(format!("{:016x}", source(&["a", "b"]).get()), "3f7ec00a7eb21098");
    }

    #[test]
    fn the_order_of_publications_does_not_matter() {
        assert_eq!(source(&["b", "a", "b"]), source(&["a", "b"]));
        assert_ne!(source(&["ab"]), source(&["a", "b"]));
        assert_ne!(source(&[]), source(&["a"]));
    }
}
