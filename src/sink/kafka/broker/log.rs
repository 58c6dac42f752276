//! What the leader of partitions is asked about their records.

use super::{
    super::{
        error::Error,
        wire::{Call, Fetch, Fetched, ListOffsets, ListedOffset},
    },
    Arc, Broker, MAX_ANSWER,
};

/// What all partitions of a Fetch may bring together: what stands around their records fits beside it.
const MAX_FETCH: i32 = (MAX_ANSWER - (4 << 20)) as i32;

impl Broker {
    /// Where partitions begin or end.
    ///
    /// # Errors
    /// No or no readable answer, or one that is not about exactly these partitions. Codes are part of
    /// the answer.
    pub async fn list_offsets(&self, request: ListOffsets) -> Result<Vec<ListedOffset>, Error> {
        let asked = request.partitions.clone();
        let offsets = self.0.call(request).await?;
        let answered = offsets.iter().map(|one| (&one.topic, one.partition));
        self.complete(ListOffsets::NAME, asked, answered)?;
        Ok(offsets)
    }

    /// Records and markers of partitions. Of all together no more is asked for than an answer may be
    /// long; a single batch that is longer ends the connection.
    ///
    /// # Errors
    /// No or no readable answer, a code of the whole, or one that is not about exactly these
    /// partitions. Codes of partitions are part of the answer.
    pub async fn fetch(&self, mut request: Fetch) -> Result<Fetched, Error> {
        request.max_bytes = request.max_bytes.min(MAX_FETCH);
        let partitions = request.partitions.iter();
        let asked = partitions.map(|one| (Arc::clone(&one.topic), one.partition)).collect();
        let limit = request.max_wait.saturating_add(self.0.options.request_timeout);
        let fetched = self.0.call_within(request, limit).await?;
        self.0.judge(Fetch::NAME, fetched.code, None, None)?;
        let answered = fetched.partitions.iter().map(|one| (&one.topic, one.partition));
        self.complete(Fetch::NAME, asked, answered)?;
        Ok(fetched)
    }
}
