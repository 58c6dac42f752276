//! The hash of a certificate that SCRAM binds itself to ([RFC 5929] §4, `tls-server-end-point`).
//!
//! It is the hash that the certificate's own signature uses, but SHA-256 for MD5 and SHA-1. That
//! takes one look into the certificate: `SEQUENCE { tbsCertificate, signatureAlgorithm, … }`.
//!
//! [RFC 5929]: https://www.rfc-editor.org/rfc/rfc5929#section-4

use ring::digest::{Algorithm, SHA256, SHA384, SHA512, digest};

const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;
/// `[0] EXPLICIT`: the hash of RSASSA-PSS-params.
const CONTEXT_0: u8 = 0xa0;

/// `None` for what is no certificate, and for signatures without a hash (Ed25519) or with one that
/// ring does not have (SHA-224).
pub(super) fn hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = signature_hash(certificate)?;
    Some(digest(algorithm, certificate).as_ref().to_vec())
}

fn signature_hash(certificate: &[u8]) -> Option<&'static Algorithm> {
    let (fields, _) = element(certificate, SEQUENCE)?;
    let (_, after_tbs) = element(fields, SEQUENCE)?;
    let (signature, _) = element(after_tbs, SEQUENCE)?;
    let (oid, parameters) = element(signature, OID)?;
    match oid {
        // 1.2.840.113549.1.1.n: RSA with MD5, SHA-1, SHA-256, SHA-384, SHA-512; 10 is PSS.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, n] => match n {
            4 | 5 | 11 => Some(&SHA256),
            12 => Some(&SHA384),
            13 => Some(&SHA512),
            10 => pss_hash(parameters),
            _ => None,
        },
        // 1.2.840.10045.4.1: ECDSA with SHA-1; .4.3.n: with SHA-256, SHA-384, SHA-512.
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 2] => Some(&SHA256),
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 3] => Some(&SHA384),
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 4] => Some(&SHA512),
        _ => None,
    }
}

/// SHA-1, so SHA-256, unless the parameters name another.
fn pss_hash(parameters: &[u8]) -> Option<&'static Algorithm> {
    let (parameters, _) = element(parameters, SEQUENCE)?;
    let Some((field, _)) = element(parameters, CONTEXT_0) else { return Some(&SHA256) };
    let (algorithm, _) = element(field, SEQUENCE)?;
    let (oid, _) = element(algorithm, OID)?;
    match oid {
        [0x2b, 0x0e, 0x03, 0x02, 0x1a] => Some(&SHA256), // SHA-1
        // 2.16.840.1.101.3.4.2.n
        [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, n] => match n {
            1 => Some(&SHA256),
            2 => Some(&SHA384),
            3 => Some(&SHA512),
            _ => None,
        },
        _ => None,
    }
}

/// The content of a DER element with this tag at the front, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    if found != tag {
        return None;
    }
    let mut length = usize::from(first);
    if first >= 0x80 {
        // More than four bytes of length is no certificate, and none is the indefinite form of BER.
        let bytes = usize::from(first & 0x7f);
        if !(1..=4).contains(&bytes) {
            return None;
        }
        let (digits, after) = rest.split_at_checked(bytes)?;
        length = digits.iter().try_fold(0_usize, |sum, &digit| {
            sum.checked_mul(256).and_then(|sum| sum.checked_add(usize::from(digit)))
        })?;
        rest = after;
    }
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell of a certificate around a signature algorithm.
    fn certificate(algorithm: &[u8]) -> Vec<u8> {
        let mut fields = vec![SEQUENCE, 0x81, 130];
        fields.extend([0; 130]);
        fields.extend([SEQUENCE, u8::try_from(algorithm.len()).unwrap()]);
        fields.extend(algorithm);
        let mut whole = vec![SEQUENCE, 0x82];
        whole.extend(u16::try_from(fields.len()).unwrap().to_be_bytes());
        whole.extend(fields);
        whole
    }

    const RSA: [u8; 10] = [OID, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA: [u8; 9] = [OID, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];

    #[test]
    fn takes_the_hash_of_the_signature_and_sha256_for_the_weak_ones() {
        for (last, length) in [(4, 32), (5, 32), (11, 32), (12, 48), (13, 64)] {
            let der = certificate(&[&RSA[..], &[last, 5, 0]].concat());
            assert_eq!(hash(&der).unwrap().len(), length, "RSA {last}");
        }
        for (last, length) in [(2, 32), (3, 48), (4, 64)] {
            let der = certificate(&[&ECDSA[..], &[last]].concat());
            assert_eq!(hash(&der).unwrap().len(), length, "ECDSA {last}");
        }
    }

    #[test]
    fn reads_the_hash_of_pss_from_its_parameters() {
        let sha384 = [CONTEXT_0, 13, SEQUENCE, 11, OID, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2];
        let parameters = [&[SEQUENCE, 15][..], &sha384].concat();
        let der = certificate(&[&RSA[..], &[10], &parameters].concat());
        assert_eq!(hash(&der).unwrap().len(), 48);
        let der = certificate(&[&RSA[..], &[10, SEQUENCE, 0]].concat());
        assert_eq!(hash(&der).unwrap().len(), 32);
    }

    #[test]
    fn has_none_for_ed25519() {
        assert_eq!(hash(&certificate(&[OID, 3, 0x2b, 0x65, 0x70])), None);
    }

    #[test]
    fn refuses_every_cut_of_a_certificate() {
        let der = certificate(&[&RSA[..], &[11, 5, 0]].concat());
        for cut in 0..der.len() {
            assert_eq!(hash(&der[..cut]), None, "cut at {cut}");
        }
    }

    proptest::proptest! {
        #[test]
        fn takes_any_bytes_without_a_panic(bytes: Vec<u8>) {
            let _ = hash(&bytes);
        }
    }
}
