//! A producer id for idempotence (KIP-98).

use rskafka::protocol::api_key::ApiKey;

use super::{Call, Malformed, Reader, Writer};

/// Asks for a new id, without a transactional id.
#[derive(Clone, Copy, Debug)]
pub struct InitProducerId;

/// A broker's answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProducerId {
    /// 0, or why there is none.
    pub code: i16,
    /// The id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
}

impl Call for InitProducerId {
    const API: ApiKey = ApiKey::InitProducerId;
    const NAME: &'static str = "InitProducerId";
    const VERSIONS: (i16, i16) = (0, 4);
    const FLEXIBLE: i16 = 2;
    type Answer = ProducerId;

    fn write(&self, writer: &mut Writer<'_>, version: i16) {
        writer.nullable_string(None);
        // The transaction timeout, which nobody looks at without a transactional id.
        writer.i32(60_000);
        if version >= 3 {
            writer.i64(-1);
            writer.i16(-1);
        }
        writer.tags();
    }

    fn read(body: &[u8], version: i16) -> Result<ProducerId, Malformed> {
        let mut reader = Reader::new(body, version >= Self::FLEXIBLE);
        reader.i32()?; // throttle time
        let answer = ProducerId { code: reader.i16()?, id: reader.i64()?, epoch: reader.i16()? };
        reader.tags()?;
        reader.finish()?;
        Ok(answer)
    }
}
