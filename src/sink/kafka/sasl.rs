//! Logging in: PLAIN (RFC 4616) and SCRAM (RFC 5802, RFC 7677).
//!
//! rskafka's own exchange loses how long the login is good for, and prints passwords by `Debug`.
//! SCRAM is ours, as in [RFC 5802](https://www.rfc-editor.org/rfc/rfc5802), but without SASLprep:
//! Kafka's brokers take the password's UTF-8 as it is.

use std::{path::Path, time::Duration};

use super::{
    Mechanism, Sasl,
    error::{Error, line},
    scram::{Algorithm, Scram},
    wire::{Authenticated, Call, SaslAuthenticate, SaslHandshake},
};
use crate::net::Secret;

/// What a login needs of a connection.
pub(super) trait Ask {
    /// Host and port.
    fn broker(&self) -> &str;
    /// Carries out a request, in time.
    async fn ask<C: Call>(&self, call: C) -> Result<C::Answer, Error>;
}

/// Logs in; returns how long the login is good for, if it ends.
pub(super) async fn login(link: &impl Ask, sasl: &Sasl) -> Result<Option<Duration>, Error> {
    let mechanism = name(sasl.mechanism);
    let offer = link.ask(SaslHandshake(mechanism)).await?;
    if !offer.mechanisms.iter().any(|offered| offered == mechanism) {
        let (broker, offered) = (link.broker().to_owned(), line(&offer.mechanisms.join(", ")));
        return Err(Error::Mechanism { broker, wanted: mechanism, offered });
    }
    let password = sasl.password.read().map_err(|source| {
        let path = sasl.password.path().map(Path::to_owned).unwrap_or_default();
        Error::Password { path, source }
    })?;
    let lifetime_ms = match sasl.mechanism {
        Mechanism::Plain => {
            let token = format!("\0{}\0{}", sasl.user, password.reveal());
            step(link, sasl, token.into_bytes()).await?.lifetime_ms
        }
        Mechanism::ScramSha256 => scram(link, sasl, &password, Algorithm::Sha256).await?,
        Mechanism::ScramSha512 => scram(link, sasl, &password, Algorithm::Sha512).await?,
    };
    let lifetime = u64::try_from(lifetime_ms).unwrap_or(0);
    Ok((lifetime > 0).then(|| Duration::from_millis(lifetime)))
}

const fn name(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::Plain => "PLAIN",
        Mechanism::ScramSha256 => "SCRAM-SHA-256",
        Mechanism::ScramSha512 => "SCRAM-SHA-512",
    }
}

async fn scram(
    link: &impl Ask,
    sasl: &Sasl,
    password: &Secret,
    algorithm: Algorithm,
) -> Result<i64, Error> {
    let wrong = |why| Error::Scram {
        broker: link.broker().to_owned(),
        mechanism: name(sasl.mechanism),
        why,
    };
    let first = Scram::begin(algorithm, &sasl.user).map_err(wrong)?;
    let answer = step(link, sasl, first.message()).await?;
    let (proof, last) = first.answer(&answer.token, password.reveal()).map_err(wrong)?;
    let answer = step(link, sasl, proof).await?;
    last.check(&answer.token).map_err(wrong)?;
    Ok(answer.lifetime_ms)
}

async fn step(link: &impl Ask, sasl: &Sasl, token: Vec<u8>) -> Result<Authenticated, Error> {
    let answer = link.ask(SaslAuthenticate(token)).await?;
    if answer.code == super::codes::NONE {
        return Ok(answer);
    }
    let named = super::codes::Named(answer.code).to_string();
    Err(Error::Login {
        broker: link.broker().to_owned(),
        user: sasl.user.clone(),
        mechanism: name(sasl.mechanism),
        message: answer.message.filter(|text| !text.is_empty()).map_or(named, |text| line(&text)),
    })
}
