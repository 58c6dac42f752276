//! What coordinators are asked: transactional ids, and the offsets of groups.
//!
//! A coordinator that has just begun, moved or is not there yet answers 14, 15 or 16, and a
//! transactional id that is busy 51: all pass by themselves. 47 and 90 do not: somebody else has a
//! higher epoch.

use super::{
    super::{
        codes::NONE,
        error::{Error, Refusal},
        metadata::Node,
        wire::{
            AddOffsetsToTxn, AddPartitionsToTxn, Call, CoordinatorOf, EndTxn, FetchedOffset,
            FindCoordinator, InitProducerId, OffsetFetch, PartitionCode, TxnOffsetCommit,
        },
    },
    Arc, Broker,
};

impl Broker {
    /// A new producer id with its epoch, or a transactional id's own with the next epoch. That by
    /// itself keeps nobody out of a partition: its marker does.
    ///
    /// # Errors
    /// No or no readable answer, or a code.
    pub async fn init_producer_id(&self, request: InitProducerId) -> Result<(i64, i16), Error> {
        let transactional_id = request.transactional_id.clone();
        let answer = self.0.call(request).await?;
        let about = |refusal| Refusal { transactional_id, ..refusal };
        self.judged(InitProducerId::NAME, answer.code, about)?;
        Ok((answer.id, answer.epoch))
    }

    /// Which broker to ask about a group or a transactional id. Any broker can tell.
    ///
    /// # Errors
    /// No or no readable answer, or a code.
    pub async fn find_coordinator(&self, kind: CoordinatorOf, key: &str) -> Result<Node, Error> {
        let answer = self.0.call(FindCoordinator { key: key.to_owned(), kind }).await?;
        let (key, message) = (Some(key.to_owned()), answer.message);
        let about = |refusal| match kind {
            CoordinatorOf::Group => Refusal { group: key, message, ..refusal },
            CoordinatorOf::Transaction => Refusal { transactional_id: key, message, ..refusal },
        };
        self.judged(FindCoordinator::NAME, answer.code, about)?;
        Ok(answer.node)
    }

    /// Adds partitions to a transaction.
    ///
    /// # Errors
    /// No or no readable answer, or one that is not about exactly these partitions. Codes are part of
    /// the answer.
    pub async fn add_partitions_to_txn(
        &self,
        request: AddPartitionsToTxn,
    ) -> Result<Vec<PartitionCode>, Error> {
        let topics = request.partitions.iter();
        let asked = topics
            .flat_map(|(topic, numbers)| numbers.iter().map(|&number| (Arc::clone(topic), number)))
            .collect();
        let codes = self.0.call(request).await?;
        let answered = codes.iter().map(|one| (&one.topic, one.partition));
        self.complete(AddPartitionsToTxn::NAME, asked, answered)?;
        Ok(codes)
    }

    /// Commits or aborts a transaction. Its markers are written afterwards.
    ///
    /// # Errors
    /// No or no readable answer, or a code.
    pub async fn end_txn(&self, request: EndTxn) -> Result<(), Error> {
        let transactional_id = Some(request.transactional_id.clone());
        let code = self.0.call(request).await?;
        self.judged(EndTxn::NAME, code, |refusal| Refusal { transactional_id, ..refusal })
    }

    /// Adds a group's offsets to a transaction.
    ///
    /// # Errors
    /// No or no readable answer, or a code.
    pub async fn add_offsets_to_txn(&self, request: AddOffsetsToTxn) -> Result<(), Error> {
        let transactional_id = Some(request.transactional_id.clone());
        let group = Some(request.group.clone());
        let code = self.0.call(request).await?;
        let about = |refusal| Refusal { transactional_id, group, ..refusal };
        self.judged(AddOffsetsToTxn::NAME, code, about)
    }

    /// Commits offsets and metadata of a group as part of a transaction; this broker is the group's
    /// coordinator.
    ///
    /// # Errors
    /// No or no readable answer, or one that is not about exactly these partitions. Codes are part of
    /// the answer.
    pub async fn txn_offset_commit(
        &self,
        request: TxnOffsetCommit,
    ) -> Result<Vec<PartitionCode>, Error> {
        let offsets = request.offsets.iter();
        let asked = offsets.map(|one| (Arc::clone(&one.topic), one.partition)).collect();
        let codes = self.0.call(request).await?;
        let answered = codes.iter().map(|one| (&one.topic, one.partition));
        self.complete(TxnOffsetCommit::NAME, asked, answered)?;
        Ok(codes)
    }

    /// What a group has committed, of all topics that we may see. A group that is not there has
    /// nothing.
    ///
    /// # Errors
    /// No or no readable answer, or a code of the group. Codes of partitions are part of the answer.
    pub async fn offset_fetch(&self, request: OffsetFetch) -> Result<Vec<FetchedOffset>, Error> {
        let group = Some(request.group.clone());
        let answer = self.0.call(request).await?;
        self.judged(OffsetFetch::NAME, answer.code, |refusal| Refusal { group, ..refusal })?;
        Ok(answer.offsets)
    }

    fn judged(
        &self,
        api: &'static str,
        code: i16,
        about: impl FnOnce(Refusal) -> Refusal,
    ) -> Result<(), Error> {
        match code {
            NONE => Ok(()),
            _ => Err(about(self.refusal(api, code)).into()),
        }
    }
}
