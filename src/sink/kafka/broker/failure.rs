//! What a broken connection is called, and what may have broken it.

use std::{io, sync::atomic::Ordering};

use rskafka::{
    messenger::RequestError,
    protocol::{messages::ReadVersionedError, traits::ReadError},
};

use super::{ApiVersions, Call, Inner, Malformed};
use crate::{net, sink::kafka::error::Error};

impl Inner {
    /// Tells apart what rskafka puts into one type, and closes what cannot be used any more.
    pub(super) fn explain(&self, api: &'static str, error: RequestError) -> Error {
        let broker = self.name.clone();
        match error {
            RequestError::NoVersionMatch { .. } => return Error::Version { broker, api },
            RequestError::WriteError(_) => {
                return Error::Unsendable { broker, api, source: Box::new(error) };
            }
            _ => {}
        }
        self.cut.cancel();
        if let Some(source) = malformed(&error) {
            return Error::Malformed { broker, api, source };
        }
        if let Some(source) = distrust(&self.name, &error) {
            return Error::Tls { broker, source };
        }
        let source = Box::new(error);
        Error::Closed { broker, hint: self.hint(api), source }
    }

    /// Why a broker may have ended a connection without a word.
    fn hint(&self, api: &'static str) -> Option<&'static str> {
        let first = api == ApiVersions::NAME;
        match (&self.options.tls, &self.options.sasl) {
            _ if self.answered.load(Ordering::Relaxed) => None,
            (None, _) if first => {
                Some(" before it answered anything: does this listener want TLS?")
            }
            // Its alert may be lost with the connection.
            (Some(tls), _) if first && tls.client.is_none() => Some(
                " before it answered anything: does this listener want a client certificate \
                 (kafka.tls.cert)?",
            ),
            (_, None) => {
                Some(" before it answered anything: does this listener want a login (kafka.sasl)?")
            }
            (_, Some(_)) => {
                Some(" before it answered anything: does this listener want a login by SASL?")
            }
        }
    }
}

pub(super) fn unreached(broker: &str, source: net::Error) -> Error {
    let eof = io::ErrorKind::UnexpectedEof;
    // Nothing is read before TLS, so only its handshake can meet the end.
    let hung_up = matches!(&source, net::Error::Connect { source, .. } if source.kind() == eof);
    let hint = match hung_up {
        true => Some(": it hung up on TLS; does this listener speak it?"),
        false if source.is_untrusted() => {
            Some(": its certificate is not trusted; kafka.tls.ca is to name its CA")
        }
        false => None,
    };
    Error::Connect { broker: broker.to_owned(), hint, source }
}

/// Our own decoder's reason, which went through rskafka's error types.
fn malformed(error: &RequestError) -> Option<Malformed> {
    match error {
        RequestError::ReadVersionedError(ReadVersionedError::ReadError(ReadError::Malformed(
            source,
        ))) => source.downcast_ref().copied(),
        _ => None,
    }
}

/// The alert by which the other side ended TLS, if it does so because of us.
fn distrust(to: &str, error: &RequestError) -> Option<net::Error> {
    use rskafka::protocol::frame;
    let io = match error {
        RequestError::Poisoned(cause) => return distrust(to, cause),
        RequestError::IO(io)
        | RequestError::ReadFramedMessageError(frame::ReadError::IO(io))
        | RequestError::WriteMessageError(frame::WriteError::IO(io)) => io,
        _ => return None,
    };
    let reason = io.get_ref()?.downcast_ref::<rustls::Error>()?;
    if !matches!(reason, rustls::Error::AlertReceived(_)) {
        return None;
    }
    let judged = net::tls::judge(to.to_owned(), io::Error::new(io.kind(), reason.clone()));
    matches!(judged, net::Error::Tls { .. }).then_some(judged)
}
