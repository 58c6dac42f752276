//! What any broker answers: who is there, who leads, what is spoken, and how topics are set up.

use pgsluice::sink::kafka::wire::{Reader, Writer};

use crate::setup::TOPICS;

use super::{APIS, Cluster, Malformed, code, name};

impl Cluster {
    pub(super) fn answer_metadata(
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
            let first = partitions.and_then(|all| all.first());
            let id = first.map_or(0, |one| topic.len() as i64 + one.born);
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

    pub(super) fn answer_coordinator(
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
}

impl Cluster {
    /// What is wanted of it is not looked at: it is as it was.
    pub(super) fn answer_create(
        &self,
        mut r: Reader<'_>,
        w: &mut Writer<'_>,
        version: i16,
    ) -> Result<(), Malformed> {
        r.array(1)?;
        let name = r.string()?.to_owned();
        let known = TOPICS.iter().find(|(topic, _)| *topic == name);
        let partitions = known.map_or(1, |(_, partitions)| *partitions);
        let code = self.make_topic(&name, partitions);
        w.i32(0);
        w.array(1);
        w.string(&name);
        if version >= 7 {
            w.i64(0);
            w.i64(0);
        }
        w.i16(code);
        w.nullable_string(None);
        if version >= 5 {
            w.i32(partitions as i32);
            w.i16(3);
            w.array(0);
        }
        w.tags();
        w.tags();
        Ok(())
    }
}

pub(super) fn versions(w: &mut Writer<'_>, version: i16) {
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

pub(super) fn configs(
    policy: &str,
    mut r: Reader<'_>,
    w: &mut Writer<'_>,
    version: i16,
) -> Result<(), Malformed> {
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
        ("cleanup.policy", policy),
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
