//! A broker's end of a connection: requests in their real bytes, answered one after the other.

mod cluster;
mod log;
mod transactions;

use std::sync::Arc;

use pgsluice::sink::kafka::wire::{Reader, Writer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::cluster::{configs, versions};
use super::{Cluster, code, name, transactions::after};
use crate::net::End;

/// Key, the oldest and newest version that is spoken, the first flexible one.
const APIS: [(i16, i16, i16, i16); 14] = [
    (0, 3, 11, 9),  // Produce
    (1, 4, 11, 12), // Fetch
    (2, 2, 5, 6),   // ListOffsets
    (3, 4, 12, 9),  // Metadata
    (9, 2, 7, 6),   // OffsetFetch
    (10, 1, 3, 3),  // FindCoordinator
    (18, 0, 3, 3),  // ApiVersions
    (19, 2, 7, 5),  // CreateTopics
    (22, 0, 4, 2),  // InitProducerId
    (24, 0, 3, 3),  // AddPartitionsToTxn
    (25, 0, 3, 3),  // AddOffsetsToTxn
    (26, 0, 4, 3),  // EndTxn
    (28, 0, 3, 3),  // TxnOffsetCommit
    (32, 1, 4, 4),  // DescribeConfigs
];

type Malformed = pgsluice::sink::kafka::wire::Malformed;

/// Topics with what is said of each partition.
type ByTopic<T> = Vec<(Arc<str>, Vec<T>)>;

impl Cluster {
    /// Until the connection ends.
    pub(super) async fn serve(&self, broker: usize, client: char, mut end: End) {
        loop {
            let Ok(length) = end.read_u32().await else { return };
            let mut request = vec![0; length as usize];
            if end.read_exact(&mut request).await.is_err() {
                return;
            }
            let Some(answer) = self.answer(broker, client, &request).await else {
                self.trace
                    .broken(format_args!("broker {broker} cannot read a request of {client}"));
                return;
            };
            if end.write_all(&answer).await.is_err() {
                return;
            }
        }
    }

    async fn answer(&self, broker: usize, client: char, request: &[u8]) -> Option<Vec<u8>> {
        let mut header = Reader::new(request, false);
        let (key, version) = (header.i16().ok()?, header.i16().ok()?);
        let correlation = header.i32().ok()?;
        let client_id = header.nullable_string().ok()?.unwrap_or_default().len();
        let (.., flexible) =
            *APIS.iter().find(|api| api.0 == key && api.1 <= version && version <= api.2)?;
        let flexible = version >= flexible;
        let body = request.get(10 + client_id + usize::from(flexible)..)?;
        let mut out = vec![0; 4];
        out.extend(correlation.to_be_bytes());
        if flexible && key != 18 {
            out.push(0);
        }
        let reader = Reader::new(body, flexible);
        let mut w = Writer::new(&mut out, flexible);
        match key {
            0 => self.answer_produce(broker, reader, &mut w).await.ok()?,
            1 => self.answer_fetch(broker, reader, &mut w, version).await.ok()?,
            2 => self.answer_list_offsets(broker, reader, &mut w, version).ok()?,
            3 => self.answer_metadata(client, reader, &mut w, version).ok()?,
            9 => self.answer_offsets(broker, reader, &mut w, version).ok()?,
            10 => self.answer_coordinator(client, reader, &mut w).ok()?,
            18 => versions(&mut w, version),
            19 => self.answer_create(reader, &mut w, version).ok()?,
            22 => self.answer_init(broker, reader, &mut w).await.ok()?,
            24 => self.answer_add_partitions(broker, reader, &mut w).ok()?,
            25 => {
                let add = |it: &Self, name: &str, id, epoch, r: &mut Reader<'_>| {
                    Ok(it.add_offsets(name, id, epoch, r.string()?))
                };
                self.answer_code(broker, reader, &mut w, add).ok()?;
            }
            26 => {
                let end = |it: &Self, name: &str, id, epoch, r: &mut Reader<'_>| {
                    Ok(it.end_txn(name, id, epoch, r.bool()?))
                };
                self.answer_code(broker, reader, &mut w, end).ok()?;
            }
            28 => self.answer_commit(broker, reader, &mut w, version).ok()?,
            32 => {
                let policy = if self.lock().compacted { "compact" } else { "delete" };
                configs(policy, reader, &mut w, version).ok()?;
            }
            _ => return None,
        }
        self.trace.say(format_args!("broker {broker} answers {client}: api {key}"));
        let length = u32::try_from(out.len() - 4).ok()?;
        out[..4].copy_from_slice(&length.to_be_bytes());
        Some(out)
    }
}

/// An answer by topic and partition, each as `one` writes it.
fn answers<T>(
    w: &mut Writer<'_>,
    topics: impl IntoIterator<Item = (Arc<str>, Vec<T>), IntoIter: ExactSizeIterator>,
    mut one: impl FnMut(&mut Writer<'_>, &str, T),
) {
    let topics = topics.into_iter();
    w.array(topics.len());
    for (topic, all) in topics {
        w.string(&topic);
        w.array(all.len());
        for each in all {
            one(w, &topic, each);
            w.tags();
        }
        w.tags();
    }
}

fn by_topic<T>(
    r: &mut Reader<'_>,
    mut one: impl FnMut(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<ByTopic<T>, Malformed> {
    r.list(3, |r| {
        let topic = Arc::from(r.string()?);
        let all = r.list(4, |r| {
            let read = one(r)?;
            r.tags()?;
            Ok(read)
        })?;
        r.tags()?;
        Ok((topic, all))
    })
}
