//! The client's side of SCRAM, without I/O.
//!
//! The order is held by the types: [`Scram`] answers the broker's first message, once, and gives
//! the [`Verifier`] that its last one must pass. A broker that skips its proof is not believed.

use std::num::NonZeroU32;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ring::{digest, hmac, pbkdf2, rand::SecureRandom, rand::SystemRandom};

/// Kafka takes no fewer, and a broker that asks for fewer may be after the password.
const FEWEST_ITERATIONS: u32 = 4096;
/// Kafka's own most is 16 384. More than this would only hold us up: about 0.1 s.
const MOST_ITERATIONS: u32 = 200_000;

/// Which hash.
#[derive(Clone, Copy, Debug)]
pub enum Algorithm {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl Algorithm {
    const fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }

    const fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }
}

/// A login that waits for the broker's first message.
#[derive(Debug)]
pub struct Scram {
    algorithm: Algorithm,
    nonce: String,
    bare: String,
}

/// What the broker's last message has to prove.
pub struct Verifier {
    key: hmac::Key,
    message: String,
}

impl Scram {
    /// With a new nonce.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn begin(algorithm: Algorithm, user: &str) -> Result<Self, &'static str> {
        let mut random = [0; 24];
        SystemRandom::new().fill(&mut random).map_err(|_| "the system has no random numbers")?;
        Ok(Self::with_nonce(algorithm, user, BASE64.encode(random)))
    }

    fn with_nonce(algorithm: Algorithm, user: &str, nonce: String) -> Self {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let bare = format!("n={user},r={nonce}");
        Self { algorithm, nonce, bare }
    }

    /// The client's first message. Kafka knows no channel binding.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        format!("n,,{}", self.bare).into_bytes()
    }

    /// The client's last message, and what the broker's must then prove.
    ///
    /// # Errors
    /// What is wrong with the broker's first.
    pub fn answer(self, first: &[u8], password: &str) -> Result<(Vec<u8>, Verifier), &'static str> {
        let first = std::str::from_utf8(first).map_err(|_| "its first message is no UTF-8")?;
        let mut fields = first.split(',');
        let nonce = field(fields.next(), "r=").ok_or("its first message has no nonce")?;
        let salt = field(fields.next(), "s=").ok_or("its first message has no salt")?;
        let rounds =
            field(fields.next(), "i=").ok_or("its first message has no iteration count")?;
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err("its nonce does not continue ours");
        }
        let salt = BASE64.decode(salt).map_err(|_| "its salt is no base64")?;
        let rounds = rounds.parse().map_err(|_| "its iteration count is no number")?;
        if !(FEWEST_ITERATIONS..=MOST_ITERATIONS).contains(&rounds) {
            return Err("its iteration count is not between 4096 and 200000");
        }
        let rounds = NonZeroU32::new(rounds).ok_or("its iteration count is 0")?;
        let algorithm = self.algorithm;
        let mut salted = vec![0; algorithm.digest().output_len()];
        pbkdf2::derive(algorithm.pbkdf2(), rounds, &salt, password.as_bytes(), &mut salted);
        let salted = hmac::Key::new(algorithm.hmac(), &salted);
        let client = hmac::sign(&salted, b"Client Key");
        let stored = digest::digest(algorithm.digest(), client.as_ref());
        // "biws" is base64 of "n,,", the first message's header.
        let last = format!("c=biws,r={nonce}");
        let message = format!("{},{first},{last}", self.bare);
        let stored = hmac::Key::new(algorithm.hmac(), stored.as_ref());
        let signature = hmac::sign(&stored, message.as_bytes());
        let proof: Vec<u8> =
            client.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let last = format!("{last},p={}", BASE64.encode(proof)).into_bytes();
        let server = hmac::sign(&salted, b"Server Key");
        let key = hmac::Key::new(algorithm.hmac(), server.as_ref());
        Ok((last, Verifier { key, message }))
    }
}

impl Verifier {
    /// Whether the broker knows the password too.
    ///
    /// # Errors
    /// It does not, or cannot say so.
    pub fn check(&self, last: &[u8]) -> Result<(), &'static str> {
        let last = std::str::from_utf8(last).map_err(|_| "its last message is no UTF-8")?;
        let proof = field(last.split(',').next(), "v=").ok_or("its last message has no proof")?;
        let proof = BASE64.decode(proof).map_err(|_| "its proof is no base64")?;
        hmac::verify(&self.key, self.message.as_bytes(), &proof)
            .map_err(|_| "it cannot prove that it knows the password")
    }
}

fn field<'a>(part: Option<&'a str>, name: &str) -> Option<&'a str> {
    part?.strip_prefix(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &[u8] = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn rfc7677() -> Scram {
        let nonce = "rOprNGfwEbeRWgbNEkqO".to_owned();
        Scram::with_nonce(Algorithm::Sha256, "user", nonce)
    }

    #[test]
    fn speaks_the_example_of_rfc_7677() {
        let scram = rfc7677();
        assert_eq!(scram.message(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let (last, verifier) = scram.answer(FIRST, "pencil").unwrap();
        let last = String::from_utf8(last).unwrap();
        assert!(last.ends_with(",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="), "{last}");
        verifier.check(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
    }

    #[test]
    fn a_broker_without_the_password_is_not_believed() {
        for lie in ["", "v=", "e=other-error", "v=AAAA", "v=!", "x=6rriTRBi23"] {
            let (_, verifier) = rfc7677().answer(FIRST, "pencil").unwrap();
            assert!(verifier.check(lie.as_bytes()).is_err(), "{lie}");
        }
    }

    #[test]
    fn refuses_weak_and_endless_iteration_counts() {
        for rounds in ["0", "1", "4095", "200001", "4294967295", "99999999999", "-1", "x"] {
            let first = format!("r=rOprNGfwEbeRWgbNEkqOmore,s=W22ZaJ0SNY7soEsUEjb6gQ==,i={rounds}");
            assert!(rfc7677().answer(first.as_bytes(), "pencil").is_err(), "{rounds}");
        }
    }

    #[test]
    fn refuses_a_nonce_that_is_not_ours_and_cut_messages() {
        for first in ["r=other,s=AAAA,i=4096", "r=rOprNGfwEbeRWgbNEkqO,s=AAAA,i=4096", "m=x"] {
            assert!(rfc7677().answer(first.as_bytes(), "pencil").is_err(), "{first}");
        }
        for end in 0..FIRST.len() - 1 {
            let cut = FIRST.get(..end).unwrap();
            assert!(rfc7677().answer(cut, "pencil").is_err(), "{end}");
        }
    }

    #[test]
    fn commas_and_equals_signs_of_a_name_are_escaped() {
        let scram = Scram::with_nonce(Algorithm::Sha512, "a,b=c", "n".to_owned());
        assert_eq!(scram.message(), b"n,,n=a=2Cb=3Dc,r=n");
    }
}
