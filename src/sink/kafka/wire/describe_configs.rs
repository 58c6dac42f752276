//! A topic's settings.

use rskafka::protocol::api_key::ApiKey;

use super::{Call, Malformed, Reader, Writer};

/// Asks for some settings of one topic.
#[derive(Clone, Debug)]
pub struct DescribeTopicConfigs {
    /// Topic.
    pub topic: String,
    /// Which settings.
    pub names: &'static [&'static str],
}

/// A broker's answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Described {
    /// 0, or why there is nothing more.
    pub code: i16,
    /// The reason in words.
    pub message: Option<String>,
    /// Names and values.
    pub configs: Vec<(String, Option<String>)>,
}

const TOPIC: i8 = 2;

impl Call for DescribeTopicConfigs {
    const API: ApiKey = ApiKey::DescribeConfigs;
    const NAME: &'static str = "DescribeConfigs";
    const VERSIONS: (i16, i16) = (1, 4);
    const FLEXIBLE: i16 = 4;
    type Answer = Described;

    fn write(&self, writer: &mut Writer<'_>, version: i16) {
        writer.array(1);
        writer.i8(TOPIC);
        writer.string(&self.topic);
        writer.array(self.names.len());
        for name in self.names {
            writer.string(name);
        }
        writer.tags();
        writer.bool(false); // include_synonyms
        if version >= 3 {
            writer.bool(false); // include_documentation
        }
        writer.tags();
    }

    fn read(body: &[u8], version: i16) -> Result<Described, Malformed> {
        let mut reader = Reader::new(body, version >= Self::FLEXIBLE);
        reader.i32()?; // throttle time
        let mut results = reader.list(6, |reader| {
            let code = reader.i16()?;
            let message = reader.nullable_string()?.map(str::to_owned);
            reader.i8()?; // resource_type
            reader.string()?; // resource_name
            let configs = reader.list(6, |reader| config(reader, version))?;
            reader.tags()?;
            Ok(Described { code, message, configs })
        })?;
        reader.tags()?;
        reader.finish()?;
        let count = results.len();
        match (results.pop(), count) {
            (Some(one), 1) => Ok(one),
            _ => Err(Malformed::Value {
                what: "the number of topics in it, asked about one,",
                value: count.try_into().unwrap_or(i64::MAX),
            }),
        }
    }
}

fn config(reader: &mut Reader<'_>, version: i16) -> Result<(String, Option<String>), Malformed> {
    let name = reader.string()?.to_owned();
    let value = reader.nullable_string()?.map(str::to_owned);
    reader.bool()?; // read_only
    reader.i8()?; // config_source
    reader.bool()?; // is_sensitive
    for _ in 0..reader.array(3)? {
        reader.string()?;
        reader.nullable_string()?;
        reader.i8()?;
        reader.tags()?;
    }
    if version >= 3 {
        reader.i8()?; // config_type
        reader.nullable_string()?; // documentation
    }
    reader.tags()?;
    Ok((name, value))
}
