//! `[kafka]` and `[topic]`'s creation.

use std::path::PathBuf;

use super::{
    Purpose,
    postgres::{loopback, pair, tcp},
    settings::Settings,
};
use crate::{
    net::{TlsOptions, Verify},
    sink::{
        kafka::{Compression, Mechanism, Options, Sasl, TopicOptions},
        partition::Partitioner,
    },
};

pub(super) struct Kafka {
    pub(super) options: Options,
    pub(super) partitioner: Partitioner,
}

pub(super) fn build(settings: &mut Settings) -> Kafka {
    let brokers = brokers(settings);
    let tls = tls(settings);
    let sasl = sasl(settings, tls.is_some(), &brokers);
    let options = Options {
        brokers,
        client_id: settings.word("kafka.client_id"),
        tls,
        sasl,
        tcp: tcp(settings, "kafka"),
        compression: match settings.word("kafka.compression").as_str() {
            "gzip" => Compression::Gzip,
            "snappy" => Compression::Snappy,
            "lz4" => Compression::Lz4,
            _ => Compression::None,
        },
        request_timeout: settings.span("kafka.request_timeout"),
        retry_max: settings.span("kafka.retry_max"),
        metadata_max_age: settings.span("kafka.metadata_max_age"),
        topic: topic(settings),
    };
    let partitioner = match settings.word("kafka.partitioner").as_str() {
        "fnv1a" => Partitioner::Fnv1a,
        "reference" => Partitioner::Reference,
        "crc32" => Partitioner::Crc32,
        "spread" => Partitioner::Spread,
        _ => Partitioner::Murmur2,
    };
    Kafka { options, partitioner }
}

fn brokers(settings: &mut Settings) -> Vec<(String, u16)> {
    let texts = settings.list("kafka.brokers");
    let texts: Vec<_> = texts.into_iter().filter(|text| !text.is_empty()).collect();
    if texts.is_empty() && settings.purpose == Purpose::Run {
        settings.missing("kafka.brokers");
    }
    let mut brokers = Vec::new();
    for text in texts {
        match broker(&text) {
            Some(broker) if brokers.contains(&broker) => {
                settings.warn(format!("kafka.brokers names {text} twice"));
            }
            Some(broker) => brokers.push(broker),
            None => {
                settings.refuse("kafka.brokers", format!("has {text:?}, which is no host:port"))
            }
        }
    }
    brokers
}

/// `host:port`, `[::1]:9092`.
fn broker(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.trim().rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let plain = |host: &str| !host.is_empty() && !host.contains([':', '/', '[', ']', ' ']);
    let host =
        bare.filter(|host| host.contains(':')).or_else(|| Some(host).filter(|host| plain(host)))?;
    Some((host.to_owned(), port))
}

fn tls(settings: &mut Settings) -> Option<TlsOptions> {
    let others = ["kafka.tls.ca", "kafka.tls.cert", "kafka.tls.key", "kafka.tls.verify"];
    let implied = others.iter().any(|key| settings.is_set(key));
    let enabled = if settings.is_set("kafka.tls.enabled") {
        settings.flag("kafka.tls.enabled")
    } else {
        settings.derive("kafka.tls.enabled", implied.to_string());
        implied
    };
    let files: [Option<PathBuf>; 3] =
        ["kafka.tls.ca", "kafka.tls.cert", "kafka.tls.key"].map(|key| settings.file(key));
    let [ca, cert, key] = files;
    let client = pair(settings, cert, key, "kafka.tls.cert", "kafka.tls.key");
    if !enabled {
        return None;
    }
    let verify = match settings.word("kafka.tls.verify").as_str() {
        "ca" => Verify::Ca,
        "none" => Verify::Nothing,
        _ => Verify::Full,
    };
    if verify != Verify::Full {
        settings.warn("kafka.tls.verify is not full: it does not check whom it talks to");
    }
    Some(TlsOptions { verify, ca, client })
}

fn sasl(settings: &mut Settings, tls: bool, brokers: &[(String, u16)]) -> Option<Sasl> {
    let password = settings.secret("kafka.sasl.password", "kafka.sasl.password_file");
    let user = settings.text("kafka.sasl.user").filter(|user| !user.is_empty());
    let Some(mechanism) = settings.text("kafka.sasl.mechanism") else {
        if password.is_some() || user.is_some() {
            settings.missing("kafka.sasl.mechanism");
        }
        return None;
    };
    let mechanism = match mechanism.as_str() {
        "SCRAM-SHA-256" => Mechanism::ScramSha256,
        "SCRAM-SHA-512" => Mechanism::ScramSha512,
        _ => Mechanism::Plain,
    };
    let far = !brokers.iter().all(|(host, _)| loopback(host));
    if mechanism == Mechanism::Plain && !tls && far {
        settings.warn(
            "kafka.sasl.mechanism = \"PLAIN\" without TLS: everybody on the way reads the password",
        );
    }
    if user.is_none() {
        settings.missing("kafka.sasl.user");
    }
    if password.is_none() {
        settings.missing("kafka.sasl.password");
    }
    Some(Sasl { mechanism, user: user?, password: password? })
}

fn topic(settings: &Settings) -> TopicOptions {
    let number = |key: &str| settings.whole(key);
    TopicOptions {
        create: settings.flag("topic.create"),
        partitions: i32::try_from(number("topic.partitions")).unwrap_or(1),
        replication_factor: i16::try_from(number("topic.replication_factor")).unwrap_or(-1),
        config: settings.config.iter().map(|(k, (v, _))| (k.clone(), v.clone())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_host_and_port() {
        let at = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(broker("a:9092"), at("a", 9092));
        assert_eq!(broker("[::1]:9"), at("::1", 9));
        for text in ["a", "a:", ":1", "a:b", "a:0", "a:70000", "::1:9", "http://a:1", "a b:1"] {
            assert_eq!(broker(text), None, "{text}");
        }
    }
}
