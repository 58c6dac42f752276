//! The end: what was received is stored, and PostgreSQL is told.

use tokio::{
    select,
    time::{Instant, sleep_until, timeout_at},
};

use super::{Error, Pipeline, REPORT, report::telling};
use crate::failpoint;

impl Pipeline<'_> {
    /// Everything that was received is whole: wait until it is stored, and tell PostgreSQL.
    pub(super) async fn finish(mut self, give_up: Instant) -> Result<(), Error> {
        self.records.batcher.flush_all();
        self.hand_on("asked to stop");
        self.cut();
        let mut report_at = Instant::now() + REPORT;
        while self.records.ledger.open() > 0 {
            select! {
                biased;
                delivery = self.producer.delivered() => self.settle(delivery?),
                () = sleep_until(give_up) => return Err(self.drain_over()),
                () = sleep_until(report_at) => {
                    report_at = Instant::now() + REPORT;
                    self.tell(true);
                }
                turned = self.stream.turn(false) => turned?,
            }
        }
        failpoint::hit("drained");
        self.note_at_stop(give_up).await?;
        let (from, told, trouble) =
            (self.stream.told(), self.progress(true), self.producer.troubles());
        let finish = timeout_at(give_up, self.stream.finish());
        match telling(finish, self.report, told, trouble).await {
            Ok(finished) => Ok(finished?),
            Err(_) => Err(Error::Drain { from }),
        }
    }

    pub(super) fn drain_over(&self) -> Error {
        Error::Drain { from: self.stream.told() }
    }
}
