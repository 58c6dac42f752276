//! A group whose offsets are to be committed by a transaction.

use rskafka::protocol::api_key::ApiKey;

use super::{Call, Malformed, Reader, Writer};

/// Adds a group's offsets to a transaction, and begins it if there is none.
#[derive(Clone, Debug)]
pub struct AddOffsetsToTxn {
    /// Whose transaction.
    pub transactional_id: String,
    /// Its producer id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Whose offsets.
    pub group: String,
}

impl Call for AddOffsetsToTxn {
    const API: ApiKey = ApiKey::AddOffsetsToTxn;
    const NAME: &'static str = "AddOffsetsToTxn";
    // 4 has the same fields, and one code more (120).
    const VERSIONS: (i16, i16) = (0, 3);
    const FLEXIBLE: i16 = 3;
    type Answer = i16;

    fn write(&self, writer: &mut Writer<'_>, _: i16) {
        writer.string(&self.transactional_id);
        writer.i64(self.producer_id);
        writer.i16(self.epoch);
        writer.string(&self.group);
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
