//! What a server says in SCRAM, to the client of either side: `who (1) │ first message │ 0xff │ last message`. Whoever does
//! not know the password is never believed, whatever it says; and nothing panics.
//!
//! The first message is given as it is or, so that it gets further, behind our own nonce.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgsluice::sink::kafka::scram::{Algorithm, Scram};
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

fuzz_target!(|input: &[u8]| {
    let [who, said @ ..] = input else { return };
    let mut parts = said.splitn(2, |byte| *byte == 0xff);
    let (first, last) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    // What is long is refused by a limit that has a test of its own; up to there it only takes time.
    if first.split(|byte| !byte.is_ascii_digit()).any(|number| number.len() > 4) {
        return;
    }
    let ours = who & 4 != 0;
    match who % 3 {
        0 => kafka(Algorithm::Sha256, ours, first, last),
        1 => kafka(Algorithm::Sha512, ours, first, last),
        _ => postgres(ours, first, last),
    }
});

/// `r=`, the client's nonce, and what was said.
fn behind_our_nonce(message: &[u8], said: &[u8]) -> Vec<u8> {
    let at = message.windows(2).rposition(|pair| pair == b"r=").expect("a client sends its nonce");
    [&message[at..], said].concat()
}

fn kafka(algorithm: Algorithm, ours: bool, first: &[u8], last: &[u8]) {
    let scram = Scram::begin(algorithm, "user").expect("there are random numbers");
    let first = if ours { behind_our_nonce(&scram.message(), first) } else { first.to_vec() };
    let Ok((answer, verifier)) = scram.answer(&first, "pencil") else { return };
    assert!(ours && answer.starts_with(b"c=biws,r="), "a nonce of others was taken");
    assert!(verifier.check(last).is_err(), "a proof was guessed");
}

fn postgres(ours: bool, first: &[u8], last: &[u8]) {
    let mut scram = ScramSha256::new(b"pencil", ChannelBinding::unsupported());
    let first = if ours { behind_our_nonce(scram.message(), first) } else { first.to_vec() };
    if scram.update(&first).is_err() {
        return;
    }
    assert!(ours && scram.message().starts_with(b"c=biws,r="), "a nonce of others was taken");
    assert!(scram.finish(last).is_err(), "a proof was guessed");
}
