//! Makes a topic.

use std::{collections::BTreeMap, time::Duration};

use rskafka::protocol::api_key::ApiKey;

use super::{Call, Malformed, Reader, Writer};

/// One topic to be made.
#[derive(Clone, Debug)]
pub struct CreateTopic {
    /// Its name.
    pub name: String,
    /// Its partitions; -1: the broker's default, from version 4 on.
    pub partitions: i32,
    /// Its replicas; -1: the broker's default, from version 4 on.
    pub replication_factor: i16,
    /// Its settings.
    pub config: BTreeMap<String, String>,
    /// How long the broker may wait for the controller.
    pub timeout: Duration,
}

/// A broker's answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Created {
    /// 0, or why there is none.
    pub code: i16,
    /// The reason in words.
    pub message: Option<String>,
}

impl Call for CreateTopic {
    const API: ApiKey = ApiKey::CreateTopics;
    const NAME: &'static str = "CreateTopics";
    const VERSIONS: (i16, i16) = (2, 7);
    const FLEXIBLE: i16 = 5;
    type Answer = Created;

    fn write(&self, writer: &mut Writer<'_>, _: i16) {
        writer.array(1);
        writer.string(&self.name);
        writer.i32(self.partitions);
        writer.i16(self.replication_factor);
        writer.array(0); // assignments
        writer.array(self.config.len());
        for (name, value) in &self.config {
            writer.string(name);
            writer.string(value);
            writer.tags();
        }
        writer.tags();
        writer.millis(self.timeout);
        writer.bool(false); // validate_only
        writer.tags();
    }

    fn read(body: &[u8], version: i16) -> Result<Created, Malformed> {
        let mut reader = Reader::new(body, version >= Self::FLEXIBLE);
        reader.i32()?; // throttle time
        let mut topics = reader.list(5, |reader| topic(reader, version))?;
        reader.tags()?;
        reader.finish()?;
        let count = topics.len();
        match (topics.pop(), count) {
            (Some(one), 1) => Ok(one),
            _ => Err(Malformed::Value {
                what: "the number of topics in it, asked for one,",
                value: count.try_into().unwrap_or(i64::MAX),
            }),
        }
    }
}

fn topic(reader: &mut Reader<'_>, version: i16) -> Result<Created, Malformed> {
    reader.string()?;
    if version >= 7 {
        reader.uuid()?;
    }
    let code = reader.i16()?;
    let message = reader.nullable_string()?.map(str::to_owned);
    if version >= 5 {
        reader.i32()?; // num_partitions
        reader.i16()?; // replication_factor
        for _ in 0..reader.array(6)? {
            reader.string()?;
            reader.nullable_string()?;
            reader.bool()?;
            reader.i8()?;
            reader.bool()?;
            reader.tags()?;
        }
    }
    reader.tags()?;
    Ok(Created { code, message })
}
