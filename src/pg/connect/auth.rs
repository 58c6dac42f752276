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
use crate::net::{Secret, SecretSource};

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
                let why = "is not allowed: it would give the password away; use scram-sha-256, or \
                           set postgres.allow_cleartext = true";
                return Err(method(wire, "password", why));
            }
            ask::CLEARTEXT => {
                let password = password(wire, options, host)?;
                answer(wire, password.reveal().as_bytes()).await?;
            }
            ask::MD5 if !options.allow_md5 => {
                let why = "is not allowed: it would give the password away; use scram-sha-256, or \
                           set postgres.allow_md5 = true";
                return Err(method(wire, "md5", why));
            }
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
            SecretSource::File(path) => Error::PasswordFile { path: path.clone(), source: error },
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
    };

    use super::super::tests::options;
    use super::*;
    use crate::{
        net::Stream,
        retry::{Disposition, Exit},
    };

    /// A message `R`.
    fn asks(code: u32, rest: &[u8]) -> Vec<u8> {
        let length = u32::try_from(rest.len() + 8).unwrap();
        [&b"R"[..], &length.to_be_bytes(), &code.to_be_bytes(), rest].concat()
    }

    /// What comes of it when a server says this, each after an answer but the first.
    async fn against(says: &[Vec<u8>], change: impl FnOnce(&mut Options)) -> Result<(), Error> {
        let (near, mut far) = UnixStream::pair().unwrap();
        let says = says.to_vec();
        let server = tokio::spawn(async move {
            for message in says {
                let mut answer = [0; 4096];
                let said = far.write_all(&message).await;
                if said.is_err() || far.read(&mut answer).await.unwrap_or(0) == 0 {
                    break; // it was refused
                }
            }
        });
        let host = Host::Unix("/x".into(), 1);
        let mut options = options(vec![host.clone()]);
        options.password = Some(SecretSource::Text(Secret::new("secret".into())));
        change(&mut options);
        let mut wire = Wire::new(Stream::Unix(near), host.to_string());
        let result = authenticate(&mut wire, &options, &host).await;
        drop(wire);
        server.await.unwrap();
        result
    }

    fn refused(result: Result<(), Error>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.disposition(), Disposition::Halt(Exit::Permission), "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        error.to_string()
    }

    const SCRAM: &[u8] = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";

    #[tokio::test]
    async fn refuses_a_server_that_skips_its_proof() {
        let says = [asks(ask::SASL, SCRAM), asks(ask::OK, b"")];
        assert!(against(&says, |_| {}).await.is_err());
        let foreign = asks(ask::SASL_CONTINUE, b"r=other,s=c2FsdA==,i=4096");
        let says = [asks(ask::SASL, SCRAM), foreign];
        assert!(refused(against(&says, |_| {}).await).contains("did not prove itself"));
    }

    #[tokio::test]
    async fn gives_the_password_away_only_if_allowed() {
        for (code, rest) in [(ask::CLEARTEXT, &b""[..]), (ask::MD5, b"salt")] {
            let says = [asks(code, rest), asks(ask::OK, b"")];
            assert!(refused(against(&says, |_| {}).await).contains("is not allowed"));
            let allow = |options: &mut Options| {
                (options.allow_md5, options.allow_cleartext) = (true, true);
            };
            against(&says, allow).await.unwrap();
            let none = |options: &mut Options| {
                allow(options);
                options.password = None;
            };
            assert!(refused(against(&says, none).await).contains("none is configured"));
        }
    }

    #[tokio::test]
    async fn names_the_logins_that_are_not_supported() {
        for (code, name) in [(2, "Kerberos"), (7, "gss"), (9, "sspi")] {
            assert!(refused(against(&[asks(code, b"")], |_| {}).await).contains(name));
        }
        let other = asks(ask::SASL, b"OAUTHBEARER\0\0");
        assert!(refused(against(&[other], |_| {}).await).contains("SASL"));
    }

    #[tokio::test]
    async fn refuses_every_cut_of_a_request() {
        for body in [&b""[..], b"\0", b"\0\0\0\x05\x01"] {
            let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
            let message = [&b"R"[..], &length, body].concat();
            let result = against(&[message], |options| options.allow_md5 = true).await;
            assert!(matches!(result, Err(Error::Protocol { .. })), "{body:?}: {result:?}");
        }
    }

    #[tokio::test]
    async fn requires_channel_binding_before_anything_is_said() {
        let require = |options: &mut Options| options.channel_binding = ChannelBinding::Require;
        let error = refused(against(&[asks(ask::OK, b"")], require).await);
        assert!(error.contains("there is no TLS"), "{error}");
    }

    #[tokio::test]
    async fn takes_an_empty_password_for_none() {
        let empty = |options: &mut Options| {
            options.password = Some(SecretSource::Text(Secret::new(String::new())));
        };
        let error = refused(against(&[asks(ask::SASL, SCRAM)], empty).await);
        assert!(error.contains("none is configured"), "{error}");
    }
}
