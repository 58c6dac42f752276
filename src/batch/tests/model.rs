//! Any run of the batcher beside a plain model of it.

use super::*;

/// One step of the run below.
#[derive(Clone, Debug)]
enum Step {
    Append { topic: usize, partition: u32, size: usize, fails: bool },
    Commit,
    Wait(u64),
    FlushLargest,
    FlushAll,
    Take,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![8 => 0..60_usize, 2 => 100..300_usize, 1 => 500..1500_usize];
    prop_oneof![
        20 => (0..2_usize, 0..3_u32, size, prop::bool::weighted(0.1)).prop_map(
            |(topic, partition, size, fails)| Step::Append { topic, partition, size, fails }
        ),
        3 => Just(Step::Commit),
        4 => (0..9_u64).prop_map(Step::Wait),
        1 => Just(Step::FlushLargest),
        1 => Just(Step::FlushAll),
        5 => Just(Step::Take),
    ]
}

/// What went in, by partition, and what came out.
struct Run {
    batcher: Batcher,
    topics: [TopicId; 2],
    ledger: Ledger,
    ticket: Ticket,
    now: Instant,
    sent: u64,
    wanted: [Vec<(u64, Ticket)>; 6],
    got: [usize; 6],
    taken: usize,
}

const TIGHT: Limits =
    Limits { max_bytes: 700, max_records: 9, linger: Duration::from_millis(5), in_flight: 4000 };

/// Commit times go up and down: they are what each backend read off its clock.
const fn committed_at(number: u64) -> i64 {
    (number as i64 * 37) % 101 - 50
}

/// The second topic's own limit.
const SMALL: usize = 400;

impl Run {
    fn new() -> Self {
        let mut batcher = Batcher::new(TIGHT);
        let topics = [batcher.topic("a".into(), 3, 1 << 20), batcher.topic("b".into(), 3, SMALL)];
        let mut ledger = Ledger::new(Lsn::ZERO);
        let ticket = ledger.begin();
        let (wanted, got) = Default::default();
        Self {
            batcher,
            topics,
            ledger,
            ticket,
            now: Instant::now(),
            sent: 0,
            wanted,
            got,
            taken: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Append { topic, partition, size, fails } => {
                self.append(topic, partition, size, fails);
            }
            Step::Commit => self.ticket = self.ledger.begin(),
            Step::Wait(ms) => {
                self.now += Duration::from_millis(ms);
                self.batcher.flush_due(self.now);
                assert!(self.batcher.deadline().is_none_or(|deadline| deadline > self.now));
            }
            Step::FlushLargest => self.batcher.flush_largest(),
            Step::FlushAll => {
                self.batcher.flush_all();
                assert_eq!(self.batcher.deadline(), None);
            }
            Step::Take => self.take(),
        }
    }

    fn append(&mut self, topic: usize, partition: u32, size: usize, fails: bool) {
        let number = self.sent.to_be_bytes();
        let committed_at = committed_at(self.sent);
        let stamp = Stamp { timestamp_ms: self.sent as i64, committed_at, now: self.now };
        let to = self.topics[topic];
        let result = self.batcher.append(to, partition, stamp, self.ticket, |record| {
            record.key(None);
            record.value_with(|out| {
                out.extend_from_slice(&number);
                out.resize(out.len() + size, b'x');
                if fails { Err("no") } else { Ok(()) }
            })
        });
        assert_eq!(result.is_err(), fails);
        if !fails {
            self.wanted[topic * 3 + partition as usize].push((self.sent, self.ticket));
            self.sent += 1;
        }
    }

    fn take(&mut self) {
        let before = self.batcher.bytes();
        let Some(batch) = self.batcher.closed() else { return };
        assert_eq!(before - self.batcher.bytes(), batch.bytes.len());
        let topic = usize::from(&*batch.topic == "b");
        let limit = [TIGHT.max_bytes, SMALL][topic];
        assert!(batch.bytes.len() <= limit || batch.records == 1);
        assert!((1..=TIGHT.max_records).contains(&batch.records));
        let place = topic * 3 + batch.partition as usize;
        let values = values(&batch.bytes);
        assert_eq!(values.len(), batch.records as usize);
        let tickets =
            batch.tickets.iter().flat_map(|&(t, count)| std::iter::repeat_n(t, count as usize));
        let got: Vec<_> = values
            .iter()
            .map(|value| u64::from_be_bytes(*value.first_chunk().unwrap()))
            .zip(tickets)
            .collect();
        let from = self.got[place];
        assert_eq!(got, self.wanted[place][from..from + got.len()]);
        let oldest = got.iter().map(|&(number, _)| committed_at(number)).min().unwrap();
        assert_eq!(batch.first_committed_at, oldest);
        assert!(batch.tickets.windows(2).all(|pair| pair[0].0 != pair[1].0));
        self.got[place] += got.len();
        self.taken += got.len();
        self.batcher.recycle(batch.bytes, batch.tickets);
    }
}

proptest! {
    #[test]
    fn keeps_order_and_limits_whatever_happens(steps in vec(step(), 0..200)) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
        }
        run.step(&Step::FlushAll);
        while run.batcher.bytes() > 0 {
            run.take();
        }
        prop_assert_eq!(run.taken as u64, run.sent);
    }
}
