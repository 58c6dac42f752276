//! What is asked of a partition's leader.

use pgsluice::sink::kafka::wire::{Reader, Writer};
use tokio::time::Instant;

use super::{ByTopic, Cluster, Malformed, after, answers, by_topic, code};

impl Cluster {
    pub(super) async fn answer_produce(
        &self,
        broker: usize,
        mut r: Reader<'_>,
        w: &mut Writer<'_>,
    ) -> Result<(), Malformed> {
        let named = r.nullable_string()?.is_some();
        r.i16()?;
        let until = Instant::now() + r.millis()?;
        let topics = by_topic(&mut r, |r| Ok((r.i32()?, r.bytes()?.to_vec())))?;
        let mut stored = Vec::new();
        for (topic, partitions) in topics {
            let all = partitions.iter().map(|(number, bytes)| {
                let topic = &topic;
                async move {
                    (
                        *number,
                        self.produce(broker, topic, *number as usize, (bytes, named), until).await,
                    )
                }
            });
            let all = futures_util::future::join_all(all).await;
            stored.push((topic, all));
        }
        answers(w, stored, |w, _, (number, (code, base))| {
            w.i32(number);
            w.i16(code);
            w.i64(base);
            w.i64(-1);
            w.i64(0);
            w.array(0);
            w.nullable_string(None);
        });
        w.i32(0);
        w.tags();
        Ok(())
    }

    pub(super) async fn answer_fetch(
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
        self.fetched(broker, topics, w);
        Ok(())
    }

    fn fetched(&self, broker: usize, topics: ByTopic<(i32, i64, usize)>, w: &mut Writer<'_>) {
        let mut state = self.lock();
        w.i32(0);
        w.i16(0);
        w.i32(0);
        answers(w, topics, |w, topic, (number, from, max)| {
            w.i32(number);
            let partition = state.partition(topic, number as usize);
            let away = if partition.is_none() { code::UNKNOWN_TOPIC } else { code::NOT_LEADER };
            let Some(partition) = partition.filter(|one| one.leader == Some(broker)) else {
                w.i16(away);
                (0..3).for_each(|_| w.i64(-1));
                w.array(0);
                w.i32(-1);
                w.bytes(&[]);
                return;
            };
            let outside = from < partition.log_start || from > partition.end();
            w.i16(if outside { code::OFFSET_OUT_OF_RANGE } else { 0 });
            w.i64(partition.high_watermark());
            w.i64(partition.last_stable());
            w.i64(partition.log_start);
            w.array(0);
            w.i32(-1);
            w.bytes(&if outside { Vec::new() } else { partition.fetch(from, max) });
        });
    }

    pub(super) fn answer_list_offsets(
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
        answers(w, topics, |w, topic, (number, at)| {
            let partition = state.partition(topic, number as usize);
            let away = if partition.is_none() { code::UNKNOWN_TOPIC } else { code::NOT_LEADER };
            let partition = partition.filter(|one| one.leader == Some(broker));
            let offset =
                partition.map(|one| if at == -1 { one.high_watermark() } else { one.log_start });
            w.i32(number);
            w.i16(if offset.is_some() { 0 } else { away });
            w.i64(-1);
            w.i64(offset.unwrap_or(-1));
            w.i32(-1);
        });
        Ok(())
    }
}
