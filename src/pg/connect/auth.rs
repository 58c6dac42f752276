//! Who we are, and who the server is.
//!
//! SCRAM proves each to the other; bound to TLS it also proves that nobody sits in between. md5 and
//! cleartext give the password, or what is as good as it, to whoever asks: only if allowed.

use bytes::BytesMut;
use postgres_protocol::{
    authentication::{
        md5_hash,
        sasl::{self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256},
    },
    message::frontend,
};

use super::{
    ChannelBinding, Error, Host, Options, ServerError, passfile,
    wire::{Wire, text},
};
use crate::net::{self, Secret, SecretSource};

/// What is asked for by a message `R`: its first four bytes.
mod ask {
    pub(super) const OK: u32 = 0;
    pub(super) const CLEARTEXT: u32 = 3;
    pub(super) const MD5: u32 = 5;
    pub(super) const SASL: u32 = 10;
    pub(super) const SASL_CONTINUE: u32 = 11;
    pub(super) const SASL_FINAL: u32 = 12;
}

/// Answers what the server asks until it says that it is content.
pub(super) async fn authenticate(
    wire: &mut Wire,
    options: &Options,
    host: &Host,
) -> Result<(), Error> {
    let required = options.channel_binding == ChannelBinding::Require;
    if required && !wire.stream.is_encrypted() {
        return Err(binding(wire, "there is no TLS"));
    }
    let mut bound = false;
    loop {
        let (code, rest) = ask(wire).await?;
        let rest = &rest[..];
        if required && matches!(code, ask::CLEARTEXT | ask::MD5) {
            return Err(binding(wire, "the server asks for a login without it"));
        }
        match code {
            ask::OK if required && !bound => {
                return Err(binding(wire, "the server let us in without it"));
            }
            ask::OK => return Ok(()),
            ask::CLEARTEXT if !options.allow_cleartext => {
                return Err(forbidden(wire, "password"));
            }
            ask::CLEARTEXT => {
                let password = password(wire, options, host)?;
                answer(wire, password.reveal().as_bytes()).await?;
            }
            ask::MD5 if !options.allow_md5 => return Err(forbidden(wire, "md5")),
            ask::MD5 => {
                let Some(&salt) = rest.first_chunk() else {
                    return Err(wire.broken("the salt for md5 is cut off"));
                };
                let password = password(wire, options, host)?;
                let (user, password) = (options.user.as_bytes(), password.reveal().as_bytes());
                answer(wire, md5_hash(user, password, salt).as_bytes()).await?;
            }
            ask::SASL => bound = scram(wire, options, host, rest).await?,
            other => return Err(unknown(wire, other)),
        }
    }
}

/// The SCRAM exchange, up to the server's proof; whether it was bound to TLS.
async fn scram(
    wire: &mut Wire,
    options: &Options,
    host: &Host,
    mechanisms: &[u8],
) -> Result<bool, Error> {
    let (mechanism, binding) = choose(wire, options.channel_binding, mechanisms)?;
    let bound = mechanism == SCRAM_SHA_256_PLUS;
    let password = password(wire, options, host)?;
    let mut scram = ScramSha256::new(password.reveal().as_bytes(), binding);
    let mut out = BytesMut::new();
    let too_long = |wire: &Wire| wire.broken("its part of SCRAM is too long");
    frontend::sasl_initial_response(mechanism, scram.message(), &mut out)
        .map_err(|_| too_long(wire))?;
    wire.send(&out).await?;
    let unproven = |source| Error::Scram { to: host.to_string(), source };
    match ask(wire).await? {
        (ask::SASL_CONTINUE, challenge) => scram.update(&challenge).map_err(unproven)?,
        (other, _) => return Err(unknown(wire, other)),
    }
    out.clear();
    frontend::sasl_response(scram.message(), &mut out).map_err(|_| too_long(wire))?;
    wire.send(&out).await?;
    match ask(wire).await? {
        (ask::SASL_FINAL, proof) => scram.finish(&proof).map_err(unproven)?,
        // Content without a proof: then it need not be the server at all.
        (ask::OK, _) => return Err(unproven(std::io::Error::other("its proof is missing"))),
        (other, _) => return Err(unknown(wire, other)),
    }
    Ok(bound)
}

/// The mechanism, and what is said of channel binding: a server that hides PLUS from us, or from
/// which somebody hides that we know it, notices it by that.
fn choose(
    wire: &Wire,
    wanted: ChannelBinding,
    mut mechanisms: &[u8],
) -> Result<(&'static str, sasl::ChannelBinding), Error> {
    let (mut plain, mut plus) = (false, false);
    while let Some((name, rest)) = text(mechanisms).filter(|(name, _)| !name.is_empty()) {
        plain |= name == SCRAM_SHA_256;
        plus |= name == SCRAM_SHA_256_PLUS;
        mechanisms = rest;
    }
    let hash = match wanted {
        ChannelBinding::Disable => None,
        ChannelBinding::Prefer | ChannelBinding::Require => wire.stream.server_end_point(),
    };
    if wanted == ChannelBinding::Require {
        if !plus {
            return Err(binding(wire, "the server does not offer it"));
        }
        if hash.is_none() {
            return Err(binding(wire, "the certificate's signature has no hash to bind to"));
        }
    }
    match hash {
        Some(hash) if plus => {
            Ok((SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash)))
        }
        _ if !plain => Err(method(wire, "SASL", "offers no mechanism that is known here")),
        Some(_) => Ok((SCRAM_SHA_256, sasl::ChannelBinding::unrequested())),
        None => Ok((SCRAM_SHA_256, sasl::ChannelBinding::unsupported())),
    }
}

/// The next question, by its number, and what belongs to it.
async fn ask(wire: &mut Wire) -> Result<(u32, bytes::Bytes), Error> {
    loop {
        let message = wire.receive().await?;
        match message.tag {
            b'R' => {
                let Some((&code, _)) = message.body.split_first_chunk() else {
                    return Err(wire.broken("a request for authentication is cut off"));
                };
                return Ok((u32::from_be_bytes(code), message.body.slice(4..)));
            }
            b'E' => return Err(wire.refused(&message.body)),
            // Said before we know who speaks: not worth keeping.
            b'N' => {
                tracing::debug!(severity = ServerError::parse(&message.body).severity, "notice")
            }
            b'v' => {}
            tag => return Err(wire.unexpected(tag)),
        }
    }
}

async fn answer(wire: &mut Wire, password: &[u8]) -> Result<(), Error> {
    let mut out = BytesMut::new();
    if frontend::password_message(password, &mut out).is_err() {
        return Err(Error::Setting { what: "the password", why: "a zero byte is in it" });
    }
    wire.send(&out).await
}

/// Read anew at every login, so that a rotated one is found. An empty one is none, as for libpq.
fn password(wire: &Wire, options: &Options, host: &Host) -> Result<Secret, Error> {
    let configured = match &options.password {
        None => None,
        Some(source) => Some(source.read().map_err(|error| match source {
            SecretSource::File(path) => {
                Error::Net(net::Error::File { path: path.clone(), why: error.to_string() })
            }
            SecretSource::Text(_) => {
                Error::Setting { what: "the password", why: "it is unreadable" }
            }
        })?),
    };
    if let Some(password) = configured.filter(|password| !password.reveal().is_empty()) {
        return Ok(password);
    }
    let found = match &options.passfile {
        Some(path) => passfile::lookup(path, host, &options.database, &options.user)?,
        None => None,
    };
    let none = || Error::NoPassword { to: wire.to.clone(), user: options.user.clone() };
    found.ok_or_else(none)
}

fn binding(wire: &Wire, why: &'static str) -> Error {
    Error::Binding { to: wire.to.clone(), why }
}

fn method(wire: &Wire, method: &'static str, why: &'static str) -> Error {
    Error::Method { to: wire.to.clone(), method, why }
}

fn forbidden(wire: &Wire, name: &'static str) -> Error {
    method(wire, name, "is not allowed: it would give the password away; use scram-sha-256")
}

fn unknown(wire: &Wire, code: u32) -> Error {
    let why = "is not supported";
    match code {
        2 => method(wire, "Kerberos 5", why),
        6 => method(wire, "SCM credentials", why),
        7 | 8 => method(wire, "gss", why),
        9 => method(wire, "sspi", why),
        _ => wire.broken(format!("it asks for authentication {code} here")),
    }
}
