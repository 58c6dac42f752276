//! The two requests of a login (KIP-43, KIP-152, KIP-368).
//!
//! No `Debug` here: the bytes are, or prove, the password.

use rskafka::protocol::api_key::ApiKey;

use super::{Call, Malformed, Reader, Writer};

/// Which mechanism, please.
#[derive(Clone, Copy, Debug)]
pub struct SaslHandshake(pub &'static str);

/// A broker's answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Handshake {
    /// 0, or 33: not this mechanism.
    pub code: i16,
    /// What the listener takes.
    pub mechanisms: Vec<String>,
}

impl Call for SaslHandshake {
    const API: ApiKey = ApiKey::SaslHandshake;
    const NAME: &'static str = "SaslHandshake";
    // Version 0 would send the tokens bare, without errors or a lifetime.
    const VERSIONS: (i16, i16) = (1, 1);
    const FLEXIBLE: i16 = i16::MAX;
    type Answer = Handshake;

    fn write(&self, writer: &mut Writer<'_>, _: i16) {
        writer.string(self.0);
    }

    fn read(body: &[u8], _: i16) -> Result<Handshake, Malformed> {
        let mut reader = Reader::new(body, false);
        let code = reader.i16()?;
        let mechanisms = reader.list(2, |reader| reader.string().map(str::to_owned))?;
        reader.finish()?;
        Ok(Handshake { code, mechanisms })
    }
}

/// One token of the mechanism.
#[expect(missing_debug_implementations, reason = "it is a secret")]
pub struct SaslAuthenticate(pub Vec<u8>);

/// A broker's answer.
#[expect(missing_debug_implementations, reason = "it belongs to a secret")]
pub struct Authenticated {
    /// 0, or 58: refused.
    pub code: i16,
    /// Why.
    pub message: Option<String>,
    /// The broker's token.
    pub token: Vec<u8>,
    /// When the broker ends a connection that has not logged in again; 0: never.
    pub lifetime_ms: i64,
}

impl Call for SaslAuthenticate {
    const API: ApiKey = ApiKey::SaslAuthenticate;
    const NAME: &'static str = "SaslAuthenticate";
    const VERSIONS: (i16, i16) = (0, 2);
    const FLEXIBLE: i16 = 2;
    type Answer = Authenticated;

    fn write(&self, writer: &mut Writer<'_>, _: i16) {
        writer.bytes(&self.0);
        writer.tags();
    }

    fn read(body: &[u8], version: i16) -> Result<Authenticated, Malformed> {
        let mut reader = Reader::new(body, version >= Self::FLEXIBLE);
        let code = reader.i16()?;
        let message = reader.nullable_string()?.map(str::to_owned);
        let token = reader.bytes()?.to_vec();
        let lifetime_ms = if version >= 1 { reader.i64()? } else { 0 };
        reader.tags()?;
        reader.finish()?;
        Ok(Authenticated { code, message, token, lifetime_ms })
    }
}
