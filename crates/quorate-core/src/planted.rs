//! Bugs that can be planted in the machines, to show that the simulator finds them.
//!
//! Without the feature `planted`, which no program but the simulator may turn on, [`Plants`] is empty
//! and [`Plants::has`] is a constant `false`: nothing of them is in a production build.

use std::time::Duration;

use crate::lease::LeaseTimes;

/// A bug. Each breaks one rule and leaves the others alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// The deadline counts from the answer to a renewal (R1).
    DeadlineFromReply,
    /// Renewals are answered without a proof of leadership (R5).
    UnprovenRenewals,
    /// A new leader trusts the stamps of the last time that it led (R6).
    OldStamps,
    /// X has no margin for clocks that run at different rates (R4, M1).
    NoDrift,
    /// X has no margin for the time that killing takes (R4, M3).
    NoKillBudget,
    /// Tokens are made of the wall time (S3).
    WallClockTokens,
    /// A snapshot does not hold the counter of tokens (S3).
    ForgottenCounter,
    /// The leader's fold expires a session before that is committed (R7).
    EarlyExpiry,
    /// A partition is given back when its run is asked to end (R10).
    EarlyRelease,
    /// A run is started when it is assigned, without waiting for the assumption (R9).
    UnassumedStart,
    /// A call that changes nothing is answered without a proof of leadership (S4).
    StaleReads,
    /// A claim is answered before it is committed (S5).
    EarlyAnswers,
    /// After an unknown outcome the records are written again as another batch (S4).
    RetryAsNew,
    /// The order in which records are folded depends on the director (S8).
    FoldOrder,
    /// The end of an older token ends the present one (S5).
    OldCompletion,
    /// An agent that asks for its work after long is told only the latest of it (L1).
    LostNews,
}

/// What is planted in a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plants {
    #[cfg(feature = "planted")]
    bug: Option<Planted>,
}

impl Plants {
    /// This one.
    #[cfg(feature = "planted")]
    #[must_use]
    pub const fn one(bug: Planted) -> Self {
        Self { bug: Some(bug) }
    }

    /// Whether a bug is planted.
    #[cfg(feature = "planted")]
    #[must_use]
    pub fn has(self, bug: Planted) -> bool {
        self.bug == Some(bug)
    }

    /// Whether a bug is planted: never.
    #[cfg(not(feature = "planted"))]
    #[must_use]
    pub const fn has(self, _: Planted) -> bool {
        false
    }

    /// The times by which a leader counts a lease.
    pub(crate) fn counted(self, lease: LeaseTimes) -> LeaseTimes {
        let (mut lease, without) = (lease, lease.lease + lease.kill);
        if self.has(Planted::NoKillBudget) {
            lease.kill = Duration::ZERO;
        }
        if self.has(Planted::NoDrift) {
            lease.lease -= lease.expiry().saturating_sub(without);
        }
        lease
    }
}
