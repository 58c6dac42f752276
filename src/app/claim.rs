//! As whom the topics are taken, and whether what they hold may be believed.

use super::{App, Options};
use crate::{
    encode::{self, Source},
    lease::Lease,
    lsn::Lsn,
    pg::{catalog::Server, slot},
    pipeline::Transactions,
    sink::kafka::producer::{Claim, ReadBack},
};

/// `kafka.transactional_id`, `kafka.read_back` and `kafka.read_back_memory`.
#[derive(Clone, Debug)]
pub struct Once {
    /// As whom Kafka knows this pipeline. `None`: by the cluster and the slot.
    pub transactional_id: Option<String>,
    /// `kafka.delivery` and `[kafka.transaction]`; `None`: no transactions.
    pub transactions: Option<Transactions>,
    /// Most bytes to read back when the topics are taken.
    pub read_back: u64,
    /// Most bytes of memory for what was read back.
    pub read_back_memory: usize,
}

impl App {
    /// As whom to take the topics.
    pub(super) fn claim(&self, ready: &slot::Ready, rewound: bool, lease: Lease) -> Claim {
        self.claim_at(&ready.server, ready.confirmed_flush, rewound, lease)
    }

    pub(super) fn claim_at(
        &self,
        server: &Server,
        from: Lsn,
        rewound: bool,
        lease: Lease,
    ) -> Claim {
        let Options { slot, publication, encode, kafka, once, .. } = &self.options;
        let system = server.system_identifier;
        let default = || format!("pgsluice-{system}-{}", slot.name);
        let transactional_id = once.transactional_id.clone().unwrap_or_else(default);
        let named = encode.headers.contains(&encode::Header::Id);
        let source = named.then(|| Source::new(system, &slot.name, &publication.names).get());
        let read_back = source.filter(|_| !rewound).map(|source| ReadBack {
            source,
            from,
            max_bytes: once.read_back,
            memory: once.read_back_memory,
        });
        Claim {
            transactional_id: Some(transactional_id.into()),
            transaction_timeout: once.transactions.map(|it| it.max_time + kafka.request_timeout),
            source,
            read_back,
            lease,
        }
    }

    /// Whether the server's WAL ends before a position that it had reached: then it was put back to
    /// an earlier state, and writes other rows to the positions that follow. We go on from where its
    /// slot stands, and drop nothing: a halt would help nobody, as a process that is started anew
    /// knows of no earlier position, and does the same.
    pub(super) fn rewound(&self, ready: &slot::Ready, wal_end: Lsn, timeline: u32) -> bool {
        let stored = self.records.as_ref().map_or(Lsn::ZERO, |all| all.ledger().stored());
        let reached = self.last.received.max(stored);
        let promoted = self.identity.is_some_and(|(_, last)| last != timeline);
        // A standby that was restarted replays what it had, and of other timelines the names tell.
        if wal_end >= reached || ready.server.in_recovery || promoted {
            return false;
        }
        let (slot, from) = (&self.options.slot.name, ready.confirmed_flush);
        tracing::warn!(
            slot,
            %wal_end,
            %reached,
            %from,
            "PostgreSQL's WAL ends before a position that it had reached: it was put back to an \
             earlier state, as from a copy of its files. Everything that the slot gives from now on \
             is stored; what was stored before stays in its topics, and some of it has an id in \
             common with what comes now"
        );
        true
    }
}
