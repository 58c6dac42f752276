//! What became of changes, counted row by row and told to the metrics once a wake-up.

use crate::{
    change::Op,
    metrics::{self, Nowhere},
};

/// Changes by op, and those that went nowhere, since they were last told.
#[derive(Debug, Default)]
pub(super) struct Counts {
    rows: [u64; 6],
    nowhere: [[u64; 4]; 6],
    pub(super) transactions: u64,
    pub(super) stale_timestamps: u64,
    pub(super) already_stored: u64,
}

impl Counts {
    const OPS: [Op; 6] = [Op::Insert, Op::Update, Op::Delete, Op::Read, Op::Truncate, Op::Message];
    const CAUSES: [Nowhere; 4] =
        [Nowhere::Unlisted, Nowhere::Truncate, Nowhere::Message, Nowhere::Heartbeat];

    #[inline]
    pub(super) fn rows(&mut self, op: Op, count: u64) {
        if let Some(rows) = self.rows.get_mut(op as usize) {
            *rows += count;
        }
    }

    pub(super) fn nowhere(&mut self, op: Op, cause: Nowhere, count: u64) {
        if let Some(sum) =
            self.nowhere.get_mut(op as usize).and_then(|causes| causes.get_mut(cause as usize))
        {
            *sum += count;
        }
    }

    pub(super) fn tell(&mut self) {
        let told = std::mem::take(self);
        for (op, (rows, nowhere)) in Self::OPS.iter().zip(told.rows.iter().zip(told.nowhere)) {
            if *rows > 0 {
                metrics::rows(op.letter(), *rows);
            }
            for (cause, count) in Self::CAUSES.iter().zip(nowhere).filter(|(_, n)| *n > 0) {
                metrics::nowhere(op.letter(), *cause, count);
            }
        }
        if told.transactions > 0 {
            metrics::transactions(told.transactions);
        }
        if told.already_stored > 0 {
            metrics::already_stored(told.already_stored);
        }
        if told.stale_timestamps > 0 {
            metrics::stale_timestamps(told.stale_timestamps);
        }
    }
}
