//! Where the simulator of `tests/sim` takes hold: sockets, tasks, clocks, and faults planted on purpose.
//!
//! Without the feature `sim`, which no build that is handed out has, all of this is nothing: no fault
//! is planted, and a task is tokio's.

#[cfg(feature = "sim")]
mod world;

#[cfg(not(feature = "sim"))]
pub(crate) use tokio::spawn;

#[cfg(feature = "sim")]
pub use self::world::{Dial, Dialing, Gate, Hooks, Socket, boot, gated, install, unix};
#[cfg(feature = "sim")]
pub(crate) use self::world::{dial, spawn};

/// A fault that the simulator must find.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Bug {
    /// A transaction is confirmed at its commit, acked or not.
    ConfirmBeforeAck,
    /// A keepalive is confirmed although something is open.
    KeepaliveOverOpen,
    /// What was stored for an earlier connection counts for this one's transactions.
    StaleDeliveries,
    /// What failed is sent again behind what comes after it.
    ResendOutOfOrder,
    /// An answer that left open whether a batch is stored is taken for a yes.
    AmbiguousIsStored,
    /// A broken sequence is taken for a batch that is stored.
    OutOfOrderIsStored,
    /// The read-back passes over the last record.
    ReadBackShort,
    /// The read-back does not wait for the marker.
    ReadBackBeforeMarker,
    /// Of each partition only what stands after its first step back is read.
    ReadBackOneStep,
    /// No marker is written.
    NoFence,
    /// An identity is kept over a doubt, where the topics are to be taken under a new epoch.
    IdentityKept,
    /// The lease is not looked at.
    LeaseUnchecked,
    /// A status renews a lease that is over.
    LeaseRevived,
    /// Nothing that is stored already is left out.
    NothingLeftOut,
    /// What is at or below the last name that was read is left out.
    DroppedByPosition,
    /// What another timeline has lost is taken for stored.
    PhantomsCount,
    /// A transaction is ended although batches of it are not stored.
    EndBeforeAcks,
    /// The end of a transaction that was not answered is asked for again.
    EndRepeated,
    /// It is taken for a yes.
    UnansweredIsEnded,
    /// A batch counts when it is stored, whether or not its transaction is committed.
    DeliveredBeforeEnd,
    /// What comes after the end of a transaction goes into it as long as it is open.
    NothingDeferred,
    /// A transaction ends in the midst of one of the source's.
    CutAnywhere,
    /// What is read back counts, whether or not its transaction was committed.
    AbortedCounts,
    /// The read-back ends at a name that is not ours.
    EndsAtForeign,
}

#[cfg(feature = "sim")]
impl Bug {
    /// Each of them.
    pub const ALL: [Self; 24] = [
        Self::ConfirmBeforeAck,
        Self::KeepaliveOverOpen,
        Self::StaleDeliveries,
        Self::ResendOutOfOrder,
        Self::AmbiguousIsStored,
        Self::OutOfOrderIsStored,
        Self::ReadBackShort,
        Self::ReadBackBeforeMarker,
        Self::ReadBackOneStep,
        Self::NoFence,
        Self::IdentityKept,
        Self::LeaseUnchecked,
        Self::LeaseRevived,
        Self::NothingLeftOut,
        Self::DroppedByPosition,
        Self::PhantomsCount,
        Self::EndBeforeAcks,
        Self::EndRepeated,
        Self::UnansweredIsEnded,
        Self::DeliveredBeforeEnd,
        Self::NothingDeferred,
        Self::CutAnywhere,
        Self::AbortedCounts,
        Self::EndsAtForeign,
    ];

    /// Whether it is one of transactions, and is nowhere else.
    #[must_use]
    pub const fn is_transactional(self) -> bool {
        matches!(
            self,
            Self::EndBeforeAcks
                | Self::EndRepeated
                | Self::UnansweredIsEnded
                | Self::DeliveredBeforeEnd
                | Self::NothingDeferred
                | Self::CutAnywhere
                | Self::AbortedCounts
        )
    }
}

/// Whether this fault is planted.
#[cfg(not(feature = "sim"))]
#[inline]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

#[cfg(feature = "sim")]
pub(crate) fn planted(bug: Bug) -> bool {
    world::planted(bug)
}
