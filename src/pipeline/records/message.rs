//! Logical messages, which have no table. A heartbeat goes nowhere, whatever is asked for: it is a
//! matter between pgsluice and itself.

use std::convert::Infallible;

use super::{
    super::{
        Error, Now,
        out::{hash, times},
    },
    Records,
};
use crate::{
    batch,
    change::{LogicalMessage, Op, Position, Transaction},
    encode::{Part, Stamp},
    metrics::Nowhere,
    pg::slot::heartbeat,
    progress::Confirmed,
};

impl Records {
    /// A logical message: its content, without a key. One that is not part of a transaction is its
    /// own, and may move the position by itself.
    pub(in super::super) fn message(
        &mut self,
        message: LogicalMessage<'_>,
        position: Position,
        transaction: &Transaction,
        now: Now,
    ) -> Result<Option<Confirmed>, Error> {
        let alone = !message.transactional;
        if alone {
            let mark = (message.prefix, message.content);
            self.recognise(position.timeline, transaction.commit, mark);
        }
        match heartbeat::read(message.prefix, message.content) {
            heartbeat::Message::Foreign => {}
            beat => {
                self.counts.nowhere(Op::Message, Nowhere::Heartbeat, 1);
                self.pulse.came(beat, position.commit);
                return Ok(None);
            }
        }
        let topic = self.routes.message(message.prefix).and_then(|name| self.topics.get(name));
        let Some(topic) = topic.copied() else {
            self.counts.nowhere(Op::Message, Nowhere::Message, 1);
            return Ok(None);
        };
        self.counts.rows(Op::Message, 1);
        let stored = self.stored.as_ref().filter(|_| self.partly_stored);
        if stored.is_some_and(|all| {
            all.contains(position.timeline, position.commit, position.index, None)
        }) {
            self.counts.already_stored += 1;
            self.ticket.filter(|_| !alone).inspect(|ticket| self.ledger.cover(*ticket));
            return Ok(None);
        }
        let ticket = if alone { Some(self.ledger.begin()) } else { self.ticket };
        let Some(ticket) = ticket else { return Ok(None) };
        let stamp = Stamp {
            op: Op::Message,
            position,
            part: Part::Whole,
            transaction,
            table: None,
            left_out: None,
            prefix: Some(message.prefix),
        };
        self.encoder.headers(&stamp, &mut self.headers);
        let partition = self.partitioner.partition(None, hash(position), topic.partitions);
        let times = times(self.timestamp, transaction, now, &mut self.counts.stale_timestamps);
        let headers = &self.headers;
        self.ledger.add(ticket, 1);
        self.batcher
            .append(topic.id, partition, times, ticket, |record| {
                record.key(None);
                record.value_with(|out| {
                    out.extend_from_slice(message.content);
                    Ok::<(), Infallible>(())
                })?;
                record.headers(headers.len(), headers.block());
                Ok(())
            })
            .map_err(|error: batch::Error<Infallible>| Error::Message {
                lsn: transaction.commit,
                why: error.to_string(),
            })?;
        Ok(if alone { self.ledger.commit(ticket, transaction.commit) } else { None })
    }
}
