//! What moves over a connection, and whether anything still does.
//!
//! Over a slow link a request of some megabytes takes longer than any answer should: the more so as
//! several are on their way at once. To give it up would only send it again, as slowly. So what moves
//! is waited for, and what stands still is not.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Of one connection, in bytes from its begin on.
#[derive(Debug)]
pub(super) struct Flow {
    begin: Instant,
    /// Handed in to be written, in this order.
    queued: AtomicU64,
    written: AtomicU64,
    /// Milliseconds from `begin` on.
    written_at: AtomicU64,
    read_at: AtomicU64,
}

impl Flow {
    pub(super) fn new() -> Self {
        Self {
            begin: Instant::now(),
            queued: AtomicU64::new(0),
            written: AtomicU64::new(0),
            written_at: AtomicU64::new(0),
            read_at: AtomicU64::new(0),
        }
    }

    /// So many bytes will be written next. Gives their end. A request that is given up before its turn
    /// leaves its bytes counted: a later end may be some bytes too far, which costs a while, not more.
    pub(super) fn queue(&self, bytes: usize) -> u64 {
        self.queued.fetch_add(bytes as u64, Relaxed) + bytes as u64
    }

    /// So many bytes more are on their way.
    pub(super) fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Relaxed);
        self.written_at.store(self.now(), Relaxed);
    }

    /// Something came from the broker.
    pub(super) fn read(&self) {
        self.read_at.store(self.now(), Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn at(&self, millis: &AtomicU64) -> Instant {
        self.begin + Duration::from_millis(millis.load(Relaxed))
    }

    /// Returns once nothing has moved for `limit` that brings the request nearer to its answer: its
    /// own bytes up to `end`, or others before them; and then whatever comes from the broker, which
    /// answers in order. What is written behind `end` does not count, so that questions which are put
    /// to a frozen broker again and again do not keep it alive. Cancel-safe.
    pub(super) async fn stalled(&self, end: &AtomicU64, limit: Duration) {
        let mut moved = Instant::now();
        let mut on_its_way = true;
        loop {
            sleep_until(moved + limit).await;
            let before = moved;
            moved = moved.max(self.at(&self.read_at));
            if on_its_way {
                moved = moved.max(self.at(&self.written_at));
            }
            on_its_way = self.written.load(Relaxed) < end.load(Relaxed);
            if moved == before {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_moves_is_waited_for_and_what_stands_still_is_not() {
        let flow = Flow::new();
        let end = AtomicU64::new(flow.queue(100));
        let limit = Duration::from_secs(10);
        let slow = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                flow.wrote(10);
            }
            // Behind its end: another question to a broker that does not answer.
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                flow.wrote(1);
            }
        };
        let begin = Instant::now();
        tokio::select! {
            () = flow.stalled(&end, limit) => {}
            () = slow => panic!("it is waited for because of what does not concern it"),
        }
        let took = begin.elapsed();
        assert!((100..=111).contains(&took.as_secs()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_an_earlier_request_is_progress() {
        let flow = Flow::new();
        let end = AtomicU64::new(flow.queue(100));
        flow.wrote(100);
        let begin = Instant::now();
        let answers = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                flow.read();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = flow.stalled(&end, Duration::from_secs(10)) => {}
            () = answers => {}
        }
        assert_eq!(begin.elapsed().as_secs(), 37);
    }
}
