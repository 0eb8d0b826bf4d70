//! The bugs that the simulator must find: those of the machines, which exist only with the feature
//! `planted`, and those of what the simulator models itself.

#[cfg(feature = "planted")]
use quorate_core::planted::Planted;
use quorate_core::planted::Plants;

/// A bug to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// [`Planted::DeadlineFromReply`](quorate_core::planted::Planted::DeadlineFromReply).
    DeadlineFromReply,
    /// [`Planted::UnprovenRenewals`](quorate_core::planted::Planted::UnprovenRenewals).
    UnprovenRenewals,
    /// [`Planted::OldStamps`](quorate_core::planted::Planted::OldStamps).
    OldStamps,
    /// [`Planted::NoDrift`](quorate_core::planted::Planted::NoDrift).
    NoDrift,
    /// [`Planted::NoKillBudget`](quorate_core::planted::Planted::NoKillBudget).
    NoKillBudget,
    /// [`Planted::WallClockTokens`](quorate_core::planted::Planted::WallClockTokens).
    WallClockTokens,
    /// [`Planted::ForgottenCounter`](quorate_core::planted::Planted::ForgottenCounter).
    ForgottenCounter,
    /// [`Planted::EarlyExpiry`](quorate_core::planted::Planted::EarlyExpiry).
    EarlyExpiry,
    /// [`Planted::EarlyRelease`](quorate_core::planted::Planted::EarlyRelease).
    EarlyRelease,
    /// [`Planted::UnassumedStart`](quorate_core::planted::Planted::UnassumedStart).
    UnassumedStart,
    /// [`Planted::StaleReads`](quorate_core::planted::Planted::StaleReads).
    StaleReads,
    /// [`Planted::EarlyAnswers`](quorate_core::planted::Planted::EarlyAnswers).
    EarlyAnswers,
    /// [`Planted::RetryAsNew`](quorate_core::planted::Planted::RetryAsNew).
    RetryAsNew,
    /// [`Planted::FoldOrder`](quorate_core::planted::Planted::FoldOrder).
    FoldOrder,
    /// [`Planted::OldCompletion`](quorate_core::planted::Planted::OldCompletion).
    OldCompletion,
    /// [`Planted::LostNews`](quorate_core::planted::Planted::LostNews).
    LostNews,
    /// Clocks of worker machines stand still while the machine is suspended (MONOTONIC for BOOTTIME).
    StoppedClock,
    /// The warden's timer does not survive that the warden is frozen (R3).
    FrozenTimer,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::DeadlineFromReply,
        Self::UnprovenRenewals,
        Self::OldStamps,
        Self::NoDrift,
        Self::NoKillBudget,
        Self::WallClockTokens,
        Self::ForgottenCounter,
        Self::EarlyExpiry,
        Self::EarlyRelease,
        Self::UnassumedStart,
        Self::StaleReads,
        Self::EarlyAnswers,
        Self::RetryAsNew,
        Self::FoldOrder,
        Self::OldCompletion,
        Self::LostNews,
        Self::StoppedClock,
        Self::FrozenTimer,
    ];

    /// As it is named on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeadlineFromReply => "deadline-from-reply",
            Self::UnprovenRenewals => "unproven-renewals",
            Self::OldStamps => "old-stamps",
            Self::NoDrift => "no-drift",
            Self::NoKillBudget => "no-kill-budget",
            Self::WallClockTokens => "wall-clock-tokens",
            Self::ForgottenCounter => "forgotten-counter",
            Self::EarlyExpiry => "early-expiry",
            Self::EarlyRelease => "early-release",
            Self::UnassumedStart => "unassumed-start",
            Self::StaleReads => "stale-reads",
            Self::EarlyAnswers => "early-answers",
            Self::RetryAsNew => "retry-as-new",
            Self::FoldOrder => "fold-order",
            Self::OldCompletion => "old-completion",
            Self::LostNews => "lost-news",
            Self::StoppedClock => "stopped-clock",
            Self::FrozenTimer => "frozen-timer",
        }
    }

    /// The bug of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bug| bug.name() == name)
    }

    /// What is planted in the machines.
    #[cfg(feature = "planted")]
    pub(crate) fn plants(self) -> Plants {
        let planted = match self {
            Self::DeadlineFromReply => Planted::DeadlineFromReply,
            Self::UnprovenRenewals => Planted::UnprovenRenewals,
            Self::OldStamps => Planted::OldStamps,
            Self::NoDrift => Planted::NoDrift,
            Self::NoKillBudget => Planted::NoKillBudget,
            Self::WallClockTokens => Planted::WallClockTokens,
            Self::ForgottenCounter => Planted::ForgottenCounter,
            Self::EarlyExpiry => Planted::EarlyExpiry,
            Self::EarlyRelease => Planted::EarlyRelease,
            Self::UnassumedStart => Planted::UnassumedStart,
            Self::StaleReads => Planted::StaleReads,
            Self::EarlyAnswers => Planted::EarlyAnswers,
            Self::RetryAsNew => Planted::RetryAsNew,
            Self::FoldOrder => Planted::FoldOrder,
            Self::OldCompletion => Planted::OldCompletion,
            Self::LostNews => Planted::LostNews,
            Self::StoppedClock | Self::FrozenTimer => return Plants::default(),
        };
        Plants::one(planted)
    }

    /// Nothing can be planted in machines that were built without the feature.
    #[cfg(not(feature = "planted"))]
    pub(crate) fn plants(self) -> Plants {
        Plants::default()
    }

    /// Whether this build can plant it.
    #[must_use]
    pub const fn is_possible(self) -> bool {
        cfg!(feature = "planted") || matches!(self, Self::StoppedClock | Self::FrozenTimer)
    }
}
