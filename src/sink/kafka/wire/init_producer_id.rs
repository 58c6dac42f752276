//! A producer id for idempotence (KIP-98), or the next epoch of a transactional id's.

use std::time::Duration;

use rskafka::protocol::api_key::ApiKey;

use super::{Call, Malformed, Reader, Writer};

/// Asks for an id. With a transactional id it is the same one each time, with a higher epoch, and
/// what its predecessor left open is aborted; any broker answers without one, only the
/// [coordinator](super::FindCoordinator) with one.
#[derive(Clone, Debug)]
pub struct InitProducerId {
    /// Whose; `None`: a new id of nobody.
    pub transactional_id: Option<String>,
    /// After which the coordinator aborts a transaction that was left open. Nobody looks at it
    /// without a transactional id.
    pub timeout: Duration,
}

impl InitProducerId {
    /// For a new id, without a transactional id.
    pub const PLAIN: Self = Self { transactional_id: None, timeout: Duration::from_secs(60) };
}

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
        writer.nullable_string(self.transactional_id.as_deref());
        writer.millis(self.timeout);
        // An id and epoch that the caller had before: we take whatever is next.
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
