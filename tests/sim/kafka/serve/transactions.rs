//! What is asked of a coordinator, of transactions or of a group.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pgsluice::sink::kafka::wire::{Reader, Writer};
use tokio::time::sleep;

use super::{Cluster, Malformed, answers, by_topic};

impl Cluster {
    pub(super) async fn answer_init(
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

    pub(super) fn answer_add_partitions(
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
        answers(w, topics, |w, _, (number, code)| {
            w.i32(number as i32);
            w.i16(code);
        });
        w.tags();
    }

    /// One code for what a transactional id asks.
    pub(super) fn answer_code(
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

    pub(super) fn answer_commit(
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

    pub(super) fn answer_offsets(
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
        answers(w, topics, |w, _, (number, offset, text, code)| {
            w.i32(number as i32);
            w.i64(offset);
            if version >= 5 {
                w.i32(-1);
            }
            w.nullable_string(Some(&text));
            w.i16(code);
        });
        w.i16(away);
        w.tags();
        Ok(())
    }
}
