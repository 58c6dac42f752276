//! Which broker keeps a group's offsets or a transactional id's state.

use rskafka::protocol::api_key::ApiKey;

use super::{Call, Malformed, Reader, Writer};
use crate::sink::kafka::metadata::Node;

/// Asks for a coordinator. The first such request of a cluster makes the topic that it keeps its
/// state in, so that for a moment there is none (15).
#[derive(Clone, Debug)]
pub struct FindCoordinator {
    /// A group or a transactional id.
    pub key: String,
    /// Which of them.
    pub kind: CoordinatorOf,
}

/// What has a coordinator.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(i8)]
pub enum CoordinatorOf {
    /// A consumer group.
    Group = 0,
    /// A transactional id.
    Transaction = 1,
}

/// A broker's answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Coordinator {
    /// 0, or why there is none.
    pub code: i16,
    /// The reason in words.
    pub message: Option<String>,
    /// The broker, of port 0 if there is none.
    pub node: Node,
}

impl Call for FindCoordinator {
    const API: ApiKey = ApiKey::FindCoordinator;
    const NAME: &'static str = "FindCoordinator";
    // Version 0 knows only groups; from 4 on it is about a list of keys.
    const VERSIONS: (i16, i16) = (1, 3);
    const FLEXIBLE: i16 = 3;
    type Answer = Coordinator;

    fn write(&self, writer: &mut Writer<'_>, _: i16) {
        writer.string(&self.key);
        writer.i8(self.kind as i8);
        writer.tags();
    }

    fn read(body: &[u8], version: i16) -> Result<Coordinator, Malformed> {
        let mut reader = Reader::new(body, version >= Self::FLEXIBLE);
        reader.i32()?; // throttle time
        let code = reader.i16()?;
        let message = reader.nullable_string()?.map(str::to_owned);
        let id = reader.i32()?;
        let host = reader.string()?.to_owned();
        let port = match (code, reader.i32()?) {
            (0, port) => u16::try_from(port).map_err(|_| Malformed::Value {
                what: "a coordinator's port",
                value: port.into(),
            })?,
            _ => 0, // it is -1
        };
        reader.tags()?;
        reader.finish()?;
        Ok(Coordinator { code, message, node: Node { id, host, port } })
    }
}
