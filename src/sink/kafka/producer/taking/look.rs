//! What is there of ours, read without shutting anybody out: for whoever may not write yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    super::{
        claim::Read,
        note::{Found, Unsure},
        tail::{Sight, Tail},
    },
    Taker, notes,
};
use crate::{
    lsn::Lsn,
    sink::kafka::{codes, error::Error, wire::OffsetAt},
};

/// Of the ends of all partitions, at most.
const MOST: u64 = 64 << 20;

impl Taker {
    /// What the group keeps, and the newest of our records at the ends of these topics. Without
    /// topics what the group has now, whatever is under way.
    pub(in super::super) async fn look(&mut self, topics: Vec<Arc<str>>) -> Result<Found, Error> {
        let mut found = Found { producer: -1, ..Found::default() };
        let mut topics: BTreeSet<Arc<str>> = topics.into_iter().collect();
        if let Some(group) = self.claim.transactional_id.clone()
            && let Some(kept) = self.kept(&group, !topics.is_empty()).await?
        {
            topics.extend(kept.iter().map(|one| Arc::clone(&one.topic)));
            found.notes = Some(notes(kept));
        }
        let (topics, mut pauses) = (topics.into_iter().collect::<Vec<_>>(), self.pauses());
        while !topics.is_empty() {
            match self.ends(&topics).await {
                Ok((newest, unsure)) => {
                    (found.newest, found.unsure) = (newest, unsure);
                    break;
                }
                Err(error) if error.code() == Some(codes::TOPIC_AUTHORIZATION_FAILED) => {
                    found.unsure = Some(Unsure::NotRead);
                    break;
                }
                Err(error) => {
                    let what = "the ends of the topics cannot be read yet";
                    self.again(&mut pauses, error, what).await?;
                }
            }
        }
        Ok(found)
    }

    async fn ends(
        &mut self,
        topics: &[Arc<str>],
    ) -> Result<(Vec<(u32, Lsn)>, Option<Unsure>), Error> {
        let Some(wanted) = self.claim.read_back else { return Ok((Vec::new(), None)) };
        // The first that is met is enough.
        let max_bytes = wanted.max_bytes.min(MOST);
        let wanted = super::super::ReadBack { from: Lsn::new(u64::MAX), max_bytes, ..wanted };
        let (wanted, stored) = (Some(wanted), self.empty());
        let mut sight = Sight {
            fences: Vec::new(),
            wanted,
            stored,
            bytes: 0,
            newest: BTreeMap::new(),
            newest_below: BTreeMap::new(),
        };
        let metadata = self.metadata(topics).await?;
        // A broker that refuses to read below the first record does not say where it is.
        let firsts = self.listed(&metadata, OffsetAt::Earliest).await?;
        let firsts: BTreeMap<_, _> =
            firsts.into_iter().map(|(_, of)| ((of.topic, of.partition), of.offset)).collect();
        let glance = |tail: Tail| {
            let first = firsts.get(&(Arc::clone(&tail.topic), tail.partition));
            tail.glance(first.copied().unwrap_or_default())
        };
        let mut tails: Vec<Tail> = self.lows(&metadata).await?.into_iter().map(glance).collect();
        self.read(&metadata, &mut tails, &mut sight, &mut Read::default()).await?;
        let unsure = tails.iter().find_map(Tail::unsure);
        Ok((sight.newest(), unsure))
    }
}
