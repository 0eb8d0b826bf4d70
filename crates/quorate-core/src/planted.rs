//! Bugs that can be planted in the machines, to show that the simulator finds them.
//!
//! Without the feature `planted`, which no program but the simulator may turn on, [`Plants`] is empty
//! and [`Plants::has`] is a constant `false`: nothing of them is in a production build.

use std::time::Duration;

use crate::lease::LeaseTimes;
use crate::spec::ServiceSpec;

/// Declares bugs once, each with what it breaks and its name for people. For the machines here, and for the
/// shells, each of which has a list of its own.
#[macro_export]
macro_rules! planted_bugs {
    ($($(#[doc = $doc:literal])+ $bug:ident = $name:literal,)+) => {
        /// A bug. Each breaks one rule and leaves the others alone.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Planted {
            $($(#[doc = $doc])+ $bug,)+
        }

        impl Planted {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug),+];

            /// Its name for people.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => $name,)+
                }
            }
        }
    };
}

/// Declares `has`, by which a shell asks whether one of its bugs is planted in this process: the one that a
/// variable names, which reaches every process that a test starts. The feature is that of the crate that
/// declares it; without it the answer is a constant `false`.
#[macro_export]
macro_rules! planted_by_name {
    () => {
        #[cfg(all(feature = "planted", not(debug_assertions)))]
        compile_error!("planted bugs are for tests: nothing with them is built at release speed");

        /// Whether a bug is planted in this process.
        #[cfg(feature = "planted")]
        pub(crate) fn has(bug: Planted) -> bool {
            std::env::var_os("QUORATE_PLANTED").is_some_and(|named| named == bug.name())
        }

        /// Whether a bug is planted in this process: never.
        #[cfg(not(feature = "planted"))]
        pub(crate) const fn has(_: Planted) -> bool {
            false
        }
    };
}

planted_bugs! {
    /// The deadline counts from the answer to a renewal (R1).
    DeadlineFromReply = "deadline-from-reply",
    /// Renewals are answered without a proof of leadership (R5).
    UnprovenRenewals = "unproven-renewals",
    /// A new leader trusts the stamps of the last time that it led (R6).
    OldStamps = "old-stamps",
    /// A new leader takes no account of the silence that leaders before have recorded (R6).
    ForgottenSilence = "forgotten-silence",
    /// A session that was silent is renewed though no entry says that it was heard (R6).
    Unheard = "unheard",
    /// X has no margin for clocks that run at different rates (R4, M1).
    NoDrift = "no-drift",
    /// X has no margin for the time that killing takes (R4, M3).
    NoKillBudget = "no-kill-budget",
    /// Work that is kept has a lease like all other work (T9).
    KeptExpires = "kept-expires",
    /// The work of an agent that is heard can be evicted.
    EvictHeard = "evict-heard",
    /// What an expired session held is free, whatever fence hook its service names (T9).
    UnfencedExpiry = "unfenced-expiry",
    /// A fence hook that failed counts like one that succeeded (T9).
    FailedFence = "failed-fence",
    /// The fence hook of work that is kept begins as soon as its agent is silent (T9).
    HastyFence = "hasty-fence",
    /// A fence hook begins without a proof of leadership (T9).
    UnprovenFence = "unproven-fence",
    /// What a machine held before a reboot is freed by a registration, which may be of an earlier boot still
    /// (S5).
    RebootByWord = "reboot-by-word",
    /// Tokens are made of the wall time (S3).
    WallClockTokens = "wall-clock-tokens",
    /// A snapshot does not hold the counter of tokens (S3).
    ForgottenCounter = "forgotten-counter",
    /// A restored cluster goes on in the era of its backup, and counts from there (S3, R16).
    RestoreWithoutEra = "restore-without-era",
    /// A restored cluster gives work away at once (S1).
    RestoreWithoutWait = "restore-without-wait",
    /// Sessions of before a restore are renewed after it (S1).
    RestoredSessions = "restored-sessions",
    /// The leader's fold expires a session before that is committed (R7).
    EarlyExpiry = "early-expiry",
    /// A partition is given back when its run is asked to end (R10).
    EarlyRelease = "early-release",
    /// A run is started when it is assigned, without waiting for the assumption (R9).
    UnassumedStart = "unassumed-start",
    /// A call that changes nothing is answered without a proof of leadership (S4).
    StaleReads = "stale-reads",
    /// A claim is answered before it is committed (S5).
    EarlyAnswers = "early-answers",
    /// After an unknown outcome the records are written again as another batch (S4).
    RetryAsNew = "retry-as-new",
    /// The order in which records are folded depends on the director (S8).
    FoldOrder = "fold-order",
    /// The end of an older token ends the present one (S5).
    OldCompletion = "old-completion",
    /// A checkpoint is taken from any token (S2).
    TokenlessCheckpoints = "tokenless-checkpoints",
    /// A checkpoint is answered before it is committed (S4).
    EarlyCheckpoints = "early-checkpoints",
    /// The numbers of checkpoints begin again with the agent process (S4).
    RestartedNumbers = "restarted-numbers",
    /// A snapshot does not hold checkpoints (S4).
    ForgottenCheckpoints = "forgotten-checkpoints",
    /// An agent that asks for its work after long is told only the latest of it (L1).
    LostNews = "lost-news",
    /// A clock that runs at another rate is told of only far beyond the bound (R14).
    DeafDrift = "deaf-drift",
    /// The drift of a clock is measured with the delay of any renewal, not the least of a minute (R14).
    DelayAsDrift = "delay-as-drift",
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
        if self.has(Planted::KeptExpires) && !lease.ends() {
            return LeaseTimes::of(ServiceSpec::default_lease().0);
        }
        lease
    }
}
