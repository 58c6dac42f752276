//! A broker's end of a connection: requests in their real bytes, answered one after the other.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pgsluice::sink::kafka::wire::{Reader, Writer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep},
};

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
            32 => configs(reader, &mut w, version).ok()?,
            _ => return None,
        }
        self.trace.say(format_args!("broker {broker} answers {client}: api {key}"));
        let length = u32::try_from(out.len() - 4).ok()?;
        out[..4].copy_from_slice(&length.to_be_bytes());
        Some(out)
    }

    async fn answer_produce(
        &self,
        broker: usize,
        mut r: Reader<'_>,
        w: &mut Writer<'_>,
    ) -> Result<(), Malformed> {
        let named = r.nullable_string()?.is_some();
        r.i16()?;
        let until = Instant::now() + r.millis()?;
        let topics = by_topic(&mut r, |r| Ok((r.i32()?, r.bytes()?.to_vec())))?;
        w.array(topics.len());
        for (topic, partitions) in topics {
            w.string(&topic);
            w.array(partitions.len());
            let all = partitions.iter().map(|(number, bytes)| {
                let topic = &topic;
                async move {
                    (
                        *number,
                        self.produce(broker, topic, *number as usize, (bytes, named), until).await,
                    )
                }
            });
            for (number, (code, base)) in futures_util::future::join_all(all).await {
                w.i32(number);
                w.i16(code);
                w.i64(base);
                w.i64(-1);
                w.i64(0);
                w.array(0);
                w.nullable_string(None);
                w.tags();
            }
            w.tags();
        }
        w.i32(0);
        w.tags();
        Ok(())
    }

    async fn answer_fetch(
        &self,
        broker: usize,
        mut r: Reader<'_>,
        w: &mut Writer<'_>,
        version: i16,
    ) -> Result<(), Malformed> {
        r.i32()?;
        let wait = r.millis()?;
        let (_least, _most, _isolation) = (r.i32()?, r.i32()?, r.i8()?);
        if version >= 7 {
            r.i32()?;
            r.i32()?;
        }
        let topics = by_topic(&mut r, |r| {
            let number = r.i32()?;
            if version >= 9 {
                r.i32()?;
            }
            let from = r.i64()?;
            if version >= 5 {
                r.i64()?;
            }
            Ok((number, from, r.i32()? as usize))
        })?;
        // Waits for a byte, or an error.
        let _ = self
            .wait(after(wait), |state| {
                let some = topics.iter().any(|(topic, all)| {
                    all.iter().any(|&(number, from, _)| {
                        state.partition(topic, number as usize).is_none_or(|partition| {
                            partition.leader != Some(broker) || partition.high_watermark() > from
                        })
                    })
                });
                some.then_some(())
            })
            .await;
        self.fetched(broker, &topics, w);
        Ok(())
    }

    fn fetched(&self, broker: usize, topics: &ByTopic<(i32, i64, usize)>, w: &mut Writer<'_>) {
        let mut state = self.lock();
        w.i32(0);
        w.i16(0);
        w.i32(0);
        w.array(topics.len());
        for (topic, all) in topics {
            w.string(topic);
            w.array(all.len());
            for &(number, from, max) in all {
                w.i32(number);
                let partition = state.partition(topic, number as usize);
                let Some(partition) = partition.filter(|one| one.leader == Some(broker)) else {
                    w.i16(code::NOT_LEADER);
                    (0..3).for_each(|_| w.i64(-1));
                    w.array(0);
                    w.i32(-1);
                    w.bytes(&[]);
                    continue;
                };
                let outside = from < partition.log_start || from > partition.end();
                w.i16(if outside { code::OFFSET_OUT_OF_RANGE } else { 0 });
                w.i64(partition.high_watermark());
                w.i64(partition.last_stable());
                w.i64(partition.log_start);
                w.array(0);
                w.i32(-1);
                w.bytes(&if outside { Vec::new() } else { partition.fetch(from, max) });
            }
        }
    }

    fn answer_list_offsets(
        &self,
        broker: usize,
        mut r: Reader<'_>,
        w: &mut Writer<'_>,
        version: i16,
    ) -> Result<(), Malformed> {
        r.i32()?;
        r.i8()?;
        let topics = by_topic(&mut r, |r| {
            let number = r.i32()?;
            if version >= 4 {
                r.i32()?;
            }
            Ok((number, r.i64()?))
        })?;
        let mut state = self.lock();
        w.i32(0);
        w.array(topics.len());
        for (topic, all) in topics {
            w.string(&topic);
            w.array(all.len());
            for (number, at) in all {
                let partition = state.partition(&topic, number as usize);
                let partition = partition.filter(|one| one.leader == Some(broker));
                let offset = partition
                    .map(|one| if at == -1 { one.high_watermark() } else { one.log_start });
                w.i32(number);
                w.i16(if offset.is_some() { 0 } else { code::NOT_LEADER });
                w.i64(-1);
                w.i64(offset.unwrap_or(-1));
                w.i32(-1);
            }
        }
        Ok(())
    }

    fn answer_metadata(
        &self,
        client: char,
        mut r: Reader<'_>,
        w: &mut Writer<'_>,
        version: i16,
    ) -> Result<(), Malformed> {
        let asked = r.list(2, |r| {
            if version >= 10 {
                r.uuid()?;
            }
            let name = r.nullable_string()?.unwrap_or_default().to_owned();
            r.tags()?;
            Ok(name)
        })?;
        let state = self.lock();
        w.i32(0);
        let alive: Vec<usize> = (0..3).filter(|broker| !state.brokers[*broker].fenced).collect();
        w.array(alive.len());
        for broker in alive {
            w.i32(broker as i32);
            w.string(&format!("{client}.{}", name(broker)));
            w.i32(9092);
            w.nullable_string(None);
            w.tags();
        }
        w.nullable_string(Some("simulated"));
        w.i32(0);
        w.array(asked.len());
        for topic in asked {
            let partitions = state.topics.get(topic.as_str());
            w.i16(if partitions.is_some() { 0 } else { code::UNKNOWN_TOPIC });
            w.nullable_string(Some(&topic));
            let id = topic.len() as i64;
            w.i64(id);
            w.i64(id);
            w.bool(false);
            let partitions = partitions.map_or(&[][..], Vec::as_slice);
            w.array(partitions.len());
            for (number, partition) in partitions.iter().enumerate() {
                w.i16(if partition.leader.is_some() { 0 } else { 5 });
                w.i32(number as i32);
                w.i32(partition.leader.map_or(-1, |leader| leader as i32));
                w.i32(partition.epoch);
                w.array(3);
                (0..3).for_each(|broker| w.i32(broker));
                w.array(partition.isr.len());
                partition.isr.iter().for_each(|broker| w.i32(*broker as i32));
                w.array(0);
                w.tags();
            }
            w.i32(i32::MIN);
            w.tags();
        }
        w.tags();
        Ok(())
    }

    fn answer_coordinator(
        &self,
        client: char,
        mut r: Reader<'_>,
        w: &mut Writer<'_>,
    ) -> Result<(), Malformed> {
        r.string()?;
        let coordinator = self.lock().coordinator;
        w.i32(0);
        w.i16(if coordinator.is_some() { 0 } else { code::NO_COORDINATOR });
        w.nullable_string(None);
        w.i32(coordinator.map_or(-1, |broker| broker as i32));
        w.string(&coordinator.map_or(String::new(), |broker| format!("{client}.{}", name(broker))));
        w.i32(if coordinator.is_some() { 9092 } else { -1 });
        w.tags();
        Ok(())
    }

    async fn answer_init(
        &self,
        broker: usize,
        mut r: Reader<'_>,
        w: &mut Writer<'_>,
    ) -> Result<(), Malformed> {
        let name = r.nullable_string()?.map(str::to_owned);
        let timeout = r.millis()?;
        sleep(Duration::ZERO).await;
        let away = if name.is_some() { self.coordinator(broker) } else { 0 };
        let (code, id, epoch) = match away {
            0 => self.init_producer_id(name.as_deref(), timeout),
            away => (away, -1, -1),
        };
        w.i32(0);
        w.i16(code);
        w.i64(id);
        w.i16(epoch);
        w.tags();
        Ok(())
    }

    fn answer_add_partitions(
        &self,
        broker: usize,
        mut r: Reader<'_>,
        w: &mut Writer<'_>,
    ) -> Result<(), Malformed> {
        let (name, id, epoch) = (r.string()?.to_owned(), r.i64()?, r.i16()?);
        let topics = r.list(3, |r| {
            let topic: Arc<str> = Arc::from(r.string()?);
            let all = r.list(4, Reader::i32)?;
            r.tags()?;
            Ok((topic, all))
        })?;
        let places: Vec<(Arc<str>, usize)> = topics
            .iter()
            .flat_map(|(topic, all)| all.iter().map(|at| (Arc::clone(topic), *at as usize)))
            .collect();
        let codes = match self.coordinator(broker) {
            0 => self.add_partitions(&name, id, epoch, &places),
            away => vec![away; places.len()],
        };
        w.i32(0);
        self.codes(w, places.into_iter().zip(codes));
        Ok(())
    }

    /// A code for each partition.
    fn codes(&self, w: &mut Writer<'_>, all: impl Iterator<Item = ((Arc<str>, usize), i16)>) {
        let mut topics = BTreeMap::<Arc<str>, Vec<(usize, i16)>>::new();
        for ((topic, number), code) in all {
            if code != 0 {
                self.trace.say(format_args!("{topic}[{number}]: {code}"));
            }
            topics.entry(topic).or_default().push((number, code));
        }
        w.array(topics.len());
        for (topic, all) in topics {
            w.string(&topic);
            w.array(all.len());
            for (number, code) in all {
                w.i32(number as i32);
                w.i16(code);
                w.tags();
            }
            w.tags();
        }
        w.tags();
    }

    /// One code for what a transactional id asks.
    fn answer_code(
        &self,
        broker: usize,
        mut r: Reader<'_>,
        w: &mut Writer<'_>,
        act: impl FnOnce(&Self, &str, i64, i16, &mut Reader<'_>) -> Result<i16, Malformed>,
    ) -> Result<(), Malformed> {
        let (name, id, epoch) = (r.string()?.to_owned(), r.i64()?, r.i16()?);
        let code = match self.coordinator(broker) {
            0 => act(self, &name, id, epoch, &mut r)?,
            away => away,
        };
        w.i32(0);
        w.i16(code);
        w.tags();
        Ok(())
    }

    fn answer_commit(
        &self,
        broker: usize,
        mut r: Reader<'_>,
        w: &mut Writer<'_>,
        version: i16,
    ) -> Result<(), Malformed> {
        let (name, group) = (r.string()?.to_owned(), r.string()?.to_owned());
        let (id, epoch) = (r.i64()?, r.i16()?);
        if version >= 3 {
            r.i32()?;
            r.string()?;
            r.nullable_string()?;
        }
        let topics = by_topic(&mut r, |r| {
            let (number, offset) = (r.i32()?, r.i64()?);
            if version >= 2 {
                r.i32()?;
            }
            Ok((number as usize, offset, r.nullable_string()?.unwrap_or_default().to_owned()))
        })?;
        let away = self.coordinator(broker);
        let mut codes = Vec::new();
        for (topic, all) in topics {
            for (number, offset, text) in all {
                let place = (Arc::clone(&topic), number);
                let code = match away {
                    0 => {
                        self.commit_offset(&name, &group, id, epoch, place.clone(), (offset, text))
                    }
                    away => away,
                };
                codes.push((place, code));
            }
        }
        w.i32(0);
        self.codes(w, codes.into_iter());
        Ok(())
    }

    fn answer_offsets(
        &self,
        broker: usize,
        mut r: Reader<'_>,
        w: &mut Writer<'_>,
        version: i16,
    ) -> Result<(), Malformed> {
        let group = r.string()?.to_owned();
        r.array(1)?; // all
        let stable = version >= 7 && r.bool()?;
        let away = self.coordinator(broker);
        if version >= 3 {
            w.i32(0);
        }
        let mut topics = BTreeMap::<Arc<str>, Vec<(usize, i64, String, i16)>>::new();
        if away == 0 {
            for ((topic, number), offset, text, code) in self.offsets(&group, stable) {
                topics.entry(topic).or_default().push((number, offset, text, code));
            }
        }
        w.array(topics.len());
        for (topic, all) in topics {
            w.string(&topic);
            w.array(all.len());
            for (number, offset, text, code) in all {
                w.i32(number as i32);
                w.i64(offset);
                if version >= 5 {
                    w.i32(-1);
                }
                w.nullable_string(Some(&text));
                w.i16(code);
                w.tags();
            }
            w.tags();
        }
        w.i16(away);
        w.tags();
        Ok(())
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

fn versions(w: &mut Writer<'_>, version: i16) {
    w.i16(0);
    w.array(APIS.len());
    for (key, oldest, newest, _) in APIS {
        w.i16(key);
        w.i16(oldest);
        w.i16(newest);
        w.tags();
    }
    if version >= 1 {
        w.i32(0);
    }
    w.tags();
}

fn configs(mut r: Reader<'_>, w: &mut Writer<'_>, version: i16) -> Result<(), Malformed> {
    r.array(1)?;
    r.i8()?;
    let topic = r.string()?.to_owned();
    w.i32(0);
    w.array(1);
    w.i16(0);
    w.nullable_string(None);
    w.i8(2);
    w.string(&topic);
    let all = [
        ("max.message.bytes", "1048588"),
        ("min.insync.replicas", "2"),
        ("cleanup.policy", "delete"),
    ];
    w.array(all.len());
    for (name, value) in all {
        w.string(name);
        w.nullable_string(Some(value));
        w.bool(false);
        w.i8(5);
        w.bool(false);
        w.array(0);
        if version >= 3 {
            w.i8(2);
            w.nullable_string(None);
        }
        w.tags();
    }
    w.tags();
    w.tags();
    Ok(())
}
