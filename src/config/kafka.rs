//! `[kafka]` and what of `[topic]` makes topics → the options of `sink`.

use super::{
    Purpose,
    kind::quoted,
    postgres::{is_loopback, pair, secret},
    settings::Settings,
};
use crate::{
    app::Once,
    net::{TcpOptions, TlsOptions, Verify},
    pipeline::Transactions,
    sink::{
        kafka::{Compression, Mechanism, Options, Sasl, TopicOptions},
        partition::Partitioner,
    },
};

/// All that Kafka's side takes.
pub(super) struct Kafka {
    pub options: Options,
    pub once: Once,
    pub partitioner: Partitioner,
}

/// Builds and checks it.
pub(super) fn build(s: &mut Settings, purpose: Purpose) -> Kafka {
    let brokers = brokers(s);
    let tls = tls(s);
    let sasl = sasl(s);
    let away = brokers.iter().any(|(host, _)| !is_loopback(host));
    if purpose == Purpose::Run && tls.is_none() && away {
        let what = if sasl.is_some() { "everything, the login too," } else { "everything" };
        s.warn(format!("kafka.tls is off: {what} crosses the network in plain text"));
    }
    Kafka {
        options: Options {
            brokers,
            client_id: client_id(s),
            tls,
            sasl,
            tcp: TcpOptions {
                connect_timeout: s.span("kafka.connect_timeout"),
                keepalive: s.span("kafka.keepalive"),
                user_timeout: s.span("kafka.user_timeout"),
            },
            compression: compression(&s.word("kafka.compression")),
            request_timeout: s.span("kafka.request_timeout"),
            retry_max: s.span("kafka.retry_max"),
            metadata_max_age: s.span("kafka.metadata_max_age"),
            topic: topic(s),
        },
        once: Once {
            transactional_id: transactional_id(s),
            transactions: transactions(s),
            read_back: s.size("kafka.read_back"),
            read_back_memory: s.size("kafka.read_back_memory"),
        },
        partitioner: partitioner(&s.word("kafka.partitioner")),
    }
}

fn brokers(s: &mut Settings) -> Vec<(String, u16)> {
    let list = s.list("kafka.brokers");
    if s.is_set("kafka.brokers") && list.is_empty() {
        s.wrong("kafka.brokers", "is an empty list");
    }
    let mut all = Vec::new();
    for text in list {
        match broker(&text) {
            Ok(broker) if all.contains(&broker) => {
                s.wrong("kafka.brokers", format!("lists {} twice", quoted(&text)));
            }
            Ok(broker) => all.push(broker),
            Err(why) => s.wrong("kafka.brokers", format!("lists {}, {why}", quoted(&text))),
        }
    }
    all
}

/// `host:port`, `[::1]:port`.
fn broker(text: &str) -> Result<(String, u16), &'static str> {
    let text = text.trim();
    if text.contains("://") {
        return Err("which is a URL: write host:port");
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:").ok_or("which is no [address]:port")?,
        None => text.rsplit_once(':').ok_or("which has no port: write host:port")?,
    };
    if host.contains(':') && !text.starts_with('[') {
        return Err("which needs [ ] around its IPv6 address");
    }
    let named =
        !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/@,[]".contains(c));
    if !named {
        return Err("which names no host");
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok((host.to_owned(), port)),
        _ => Err("whose port is not from 1 to 65535"),
    }
}

fn client_id(s: &mut Settings) -> String {
    let id = s.word("kafka.client_id");
    if id.len() > 249 {
        s.wrong("kafka.client_id", "is longer than 249 bytes");
    }
    id
}

fn transactional_id(s: &mut Settings) -> Option<String> {
    let id = s.text("kafka.transactional_id")?;
    if id.is_empty() || id.len() > 249 {
        s.wrong("kafka.transactional_id", "must have 1 to 249 bytes; leave it out for the default");
    }
    Some(id)
}

fn transactions(s: &mut Settings) -> Option<Transactions> {
    let all = Transactions {
        interval: s.span("kafka.transaction.interval"),
        max_bytes: s.size("kafka.transaction.max_bytes"),
        max_time: s.span("kafka.transaction.max_time"),
    };
    if all.interval > all.max_time {
        let keys = ["kafka.transaction.interval", "kafka.transaction.max_time"];
        let [key, other] = if s.is_set(keys[0]) { keys } else { [keys[1], keys[0]] };
        s.wrong(key, format!("does not go with {other}: the interval is the longer one"));
    }
    if s.word("kafka.delivery") != "transactional" {
        return None;
    }
    if s.is_set("headers") && !s.list("headers").iter().any(|header| header == "id") {
        let why = "is \"transactional\", which needs the header id: add it to headers";
        s.wrong("kafka.delivery", why);
    }
    Some(all)
}

fn tls(s: &mut Settings) -> Option<TlsOptions> {
    let keys = ["kafka.tls.ca", "kafka.tls.cert", "kafka.tls.key", "kafka.tls.verify"];
    let any = keys.iter().any(|key| s.is_set(key));
    let enabled = if s.is_set("kafka.tls.enabled") { s.on("kafka.tls.enabled") } else { any };
    if !s.is_set("kafka.tls.enabled") {
        s.computed.insert("kafka.tls.enabled", enabled.to_string());
    }
    if !enabled {
        return None;
    }
    let verify = match s.word("kafka.tls.verify").as_str() {
        "none" => Verify::Nothing,
        "ca" => Verify::Ca,
        _ => Verify::Full,
    };
    let ca = s.file("kafka.tls.ca");
    if verify == Verify::Ca && ca.is_none() {
        s.wrong("kafka.tls.verify", "is ca without kafka.tls.ca, which trusts anybody's certificate: use full or name a CA file");
    }
    if verify != Verify::Full {
        s.warn(format!(
            "kafka.tls.verify is {}: only full makes sure that a broker is the one meant",
            s.word("kafka.tls.verify")
        ));
    }
    Some(TlsOptions { verify, ca, client: pair(s, "kafka.tls.cert", "kafka.tls.key") })
}

fn sasl(s: &mut Settings) -> Option<Sasl> {
    let keys = [
        "kafka.sasl.mechanism",
        "kafka.sasl.user",
        "kafka.sasl.password",
        "kafka.sasl.password_file",
    ];
    let any = *keys.iter().find(|key| s.is_set(key))?;
    for key in ["kafka.sasl.mechanism", "kafka.sasl.user"] {
        if !s.is_set(key) {
            s.wrong(any, format!("needs {key} too"));
        }
    }
    let mechanism = match s.word("kafka.sasl.mechanism").as_str() {
        "SCRAM-SHA-256" => Mechanism::ScramSha256,
        "SCRAM-SHA-512" => Mechanism::ScramSha512,
        _ => Mechanism::Plain,
    };
    let Some(password) = secret(s, "kafka.sasl.password", "kafka.sasl.password_file") else {
        s.wrong(any, "needs kafka.sasl.password or kafka.sasl.password_file too");
        return None;
    };
    Some(Sasl { mechanism, user: s.word("kafka.sasl.user"), password })
}

fn compression(word: &str) -> Compression {
    match word {
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        _ => Compression::None,
    }
}

fn partitioner(word: &str) -> Partitioner {
    match word {
        "fnv1a" => Partitioner::Fnv1a,
        "reference" => Partitioner::Reference,
        "crc32" => Partitioner::Crc32,
        "spread" => Partitioner::Spread,
        _ => Partitioner::Murmur2,
    }
}

fn topic(s: &mut Settings) -> TopicOptions {
    let replication_factor = s.whole("topic.replication_factor");
    if replication_factor == 0 {
        s.wrong(
            "topic.replication_factor",
            "is 0; it must be -1, for the broker's default, or at least 1",
        );
    }
    TopicOptions {
        create: s.on("topic.create"),
        partitions: s.whole("topic.partitions"),
        replication_factor,
        config: s
            .topic_config
            .iter()
            .map(|(name, (value, _))| (name.clone(), value.clone()))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::broker;

    #[test]
    fn takes_a_broker_apart() {
        for (text, host, port) in
            [("a:9092", "a", 9092), ("[::1]:1", "::1", 1), (" 10.0.0.1:65535 ", "10.0.0.1", 65535)]
        {
            assert_eq!(broker(text), Ok((host.to_owned(), port)), "{text}");
        }
        for text in [
            "",
            "a",
            "a:",
            ":1",
            "a:0",
            "a:65536",
            "a:b",
            "::1:9092",
            "[::1]",
            "[::1:9",
            "kafka://a:1",
            "a b:1",
            "a,b:1",
        ] {
            assert!(broker(text).is_err(), "{text}");
        }
    }
}
