//! TLS by rustls, with ring as its only provider.

use std::{io, path::Path, sync::Arc};

use rustls::{AlertDescription, ClientConfig, crypto::ring, pki_types::ServerName};
use tokio_rustls::TlsConnector;

use super::{Error, Stream, Tcp, TlsOptions, Verify, dial, pem, verify::Verifier};

/// Speaks TLS on a connected socket; `host` is who its certificate must be for.
///
/// No time limit of its own: the caller has one for the whole login.
///
/// # Errors
/// A file that cannot be used, no trust, or a connection that broke.
pub async fn handshake(socket: Tcp, host: &str, options: &TlsOptions) -> Result<Stream, Error> {
    let peer = socket.peer_addr();
    let to = dial::name(host, peer.as_ref().map_or(0, std::net::SocketAddr::port));
    let name = match (server_name(host), peer) {
        (Some(name), _) => name,
        // The name is only looked at where it is checked.
        (None, Ok(peer)) if options.verify != Verify::Full => peer.ip().into(),
        (None, _) => {
            let source =
                io::Error::other(format!("{host:?} is no name that a certificate can have"));
            return Err(Error::Tls { to, source });
        }
    };
    let connector = TlsConnector::from(Arc::new(config(options)?));
    match connector.connect(name, socket).await {
        Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
        Err(source) => Err(judge(to, source)),
    }
}

/// Tells a refusal, which only a person can heal, from a connection that broke.
///
/// A server that refuses our certificate says so after the handshake, at the first read, so this is
/// also for errors of a [`Stream`].
#[must_use]
pub fn judge(to: String, source: io::Error) -> Error {
    let reason = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match reason {
        None => Error::Connect { to, source },
        // What a server says that is in trouble itself, or stops.
        Some(rustls::Error::AlertReceived(
            AlertDescription::InternalError
            | AlertDescription::UserCanceled
            | AlertDescription::CloseNotify,
        )) => Error::Connect { to, source },
        Some(_) => Error::Tls { to, source },
    }
}

/// A configuration for one connect.
fn config(options: &TlsOptions) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has suites for TLS 1.2 and 1.3");
    let trusted = match options.verify {
        Verify::Nothing => None,
        Verify::Ca | Verify::Full => Some(pem::trusted(options.ca.as_deref())?),
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier {
        trusted,
        name: options.verify == Verify::Full,
        algorithms: provider.signature_verification_algorithms,
    }));
    let Some((chain, key)) = &options.client else {
        return Ok(builder.with_no_client_auth());
    };
    let (certificates, private) = (pem::certificates(chain)?, pem::key(key)?);
    builder.with_client_auth_cert(certificates, private).map_err(|error| unfit(chain, key, &error))
}

fn unfit(chain: &Path, key: &Path, error: &rustls::Error) -> Error {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            pem::refuse(key, format!("its key does not fit the certificate of {}", chain.display()))
        }
        rustls::Error::InvalidCertificate(_) => pem::refuse(chain, error.to_string()),
        _ => pem::refuse(key, format!("its key is of no kind that TLS knows here: {error}")),
    }
}

/// A DNS name or an IP address; IPv6 literals without brackets and zone.
fn server_name(host: &str) -> Option<ServerName<'static>> {
    let host = dial::bare(host);
    let host = host.split_once('%').map_or(host, |(address, _zone)| address);
    ServerName::try_from(host.to_owned()).ok()
}
