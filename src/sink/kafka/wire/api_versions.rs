//! Which requests a broker takes, in which versions (KIP-35, KIP-511).

use rskafka::protocol::api_key::ApiKey;

use super::{Call, Malformed, Reader, Writer};

/// The first request on every connection.
#[derive(Clone, Copy, Debug)]
pub struct ApiVersions;

/// A broker's answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Versions {
    /// 0, or why there is nothing more. 35: in another version, please; the answer is of version 0.
    pub code: i16,
    /// API key, oldest and newest version.
    pub ranges: Vec<(i16, i16, i16)>,
}

/// Asks for another version of [`ApiVersions`].
pub(in crate::sink::kafka) const UNSUPPORTED_VERSION: i16 = 35;

impl Call for ApiVersions {
    const API: ApiKey = ApiKey::ApiVersions;
    const NAME: &'static str = "ApiVersions";
    const VERSIONS: (i16, i16) = (0, 3);
    const FLEXIBLE: i16 = 3;
    // A broker that does not know the version answers in version 0, so the header never has tags.
    const FLEXIBLE_ANSWER: i16 = i16::MAX;
    type Answer = Versions;

    fn write(&self, writer: &mut Writer<'_>, version: i16) {
        if version >= 3 {
            writer.string(env!("CARGO_PKG_NAME"));
            writer.string(env!("CARGO_PKG_VERSION"));
            writer.tags();
        }
    }

    fn read(body: &[u8], version: i16) -> Result<Versions, Malformed> {
        let code = Reader::new(body, false).i16()?;
        let version = if code == UNSUPPORTED_VERSION { 0 } else { version };
        let mut reader = Reader::new(body, version >= Self::FLEXIBLE);
        reader.i16()?;
        let ranges = reader.list(6, |reader| {
            let range = (reader.i16()?, reader.i16()?, reader.i16()?);
            reader.tags()?;
            Ok(range)
        })?;
        if version >= 1 {
            reader.i32()?;
        }
        reader.tags()?;
        reader.finish()?;
        Ok(Versions { code, ranges })
    }
}
