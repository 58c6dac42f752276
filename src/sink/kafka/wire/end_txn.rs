//! The end of a transaction.

use rskafka::protocol::api_key::ApiKey;

use super::{Call, Malformed, Reader, Writer};

/// Commits or aborts. The answer comes as soon as that is decided; the markers follow, and until all
/// are written the transactional id is busy (51).
#[derive(Clone, Debug)]
pub struct EndTxn {
    /// Whose transaction.
    pub transactional_id: String,
    /// Its producer id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Or abort.
    pub commit: bool,
}

impl Call for EndTxn {
    const API: ApiKey = ApiKey::EndTxn;
    const NAME: &'static str = "EndTxn";
    // Never 5: it raises the epoch (KIP-890), which would fence what is under way with the present one.
    const VERSIONS: (i16, i16) = (0, 4);
    const FLEXIBLE: i16 = 3;
    type Answer = i16;

    fn write(&self, writer: &mut Writer<'_>, _: i16) {
        writer.string(&self.transactional_id);
        writer.i64(self.producer_id);
        writer.i16(self.epoch);
        writer.bool(self.commit);
        writer.tags();
    }

    fn read(body: &[u8], version: i16) -> Result<i16, Malformed> {
        let mut reader = Reader::new(body, version >= Self::FLEXIBLE);
        reader.i32()?; // throttle time
        let code = reader.i16()?;
        reader.tags()?;
        reader.finish()?;
        Ok(code)
    }
}
