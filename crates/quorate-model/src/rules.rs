//! The rules that can be left out, one switch each, and sets of them.

use std::fmt;

/// One rule, or one part of a rule, that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Removed {
    /// R1: the deadline counts from the receipt of the answer instead of the sending of the renewal.
    DeadlineFromSending,
    /// R2: the agent does not look at its deadline before it starts, renews or takes an answer.
    LookAtDeadline,
    /// R3: no timer is armed; only the agent itself ends its runs.
    Timer,
    /// R3: the timer kills the runs and leaves the warden, which can start others.
    TimerEndsWarden,
    /// R4: the expiry is stamped with a moment that was read before the renewal came.
    StampAtReceipt,
    /// R5: a renewal is answered without a proof of leadership.
    Proof,
    /// R6: a new leader goes on with the stamps that it has.
    FreshStamps,
    /// R7: a leader assigns what a silent session holds without a committed expiry.
    CommittedExpiry,
    /// R8: an assignment is accepted although somebody holds the partition.
    OwnerReleases,
    /// R8: every new leader counts tokens from the beginning.
    ReplicatedCounter,
    /// R9: a run starts as soon as the agent knows that it was chosen.
    Assumption,
    /// R10: a partition is given back while its run executes.
    ProofOfDeath,
    /// R11: a revoked partition is free at once.
    StopBeforeMove,
    /// R13: a release of an earlier process of the agent counts.
    FencedRelease,
    /// R13: a close of an earlier process of the agent counts.
    FencedClose,
    /// R13: a renewal of an earlier process of the agent is answered.
    FencedRenewal,
    /// R17: X lacks the factor for clock rates.
    DriftFactor,
    /// R17: X lacks the kill budget.
    KillBudget,
    /// The ledger takes entries of a leader of an earlier term.
    TermCheck,
}

impl Removed {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::DeadlineFromSending,
        Self::LookAtDeadline,
        Self::Timer,
        Self::TimerEndsWarden,
        Self::StampAtReceipt,
        Self::Proof,
        Self::FreshStamps,
        Self::CommittedExpiry,
        Self::OwnerReleases,
        Self::ReplicatedCounter,
        Self::Assumption,
        Self::ProofOfDeath,
        Self::StopBeforeMove,
        Self::FencedRelease,
        Self::FencedClose,
        Self::FencedRenewal,
        Self::DriftFactor,
        Self::KillBudget,
        Self::TermCheck,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeadlineFromSending => "deadline-from-sending",
            Self::LookAtDeadline => "look-at-deadline",
            Self::Timer => "timer",
            Self::TimerEndsWarden => "timer-ends-warden",
            Self::StampAtReceipt => "stamp-at-receipt",
            Self::Proof => "proof",
            Self::FreshStamps => "fresh-stamps",
            Self::CommittedExpiry => "committed-expiry",
            Self::OwnerReleases => "owner-releases",
            Self::ReplicatedCounter => "replicated-counter",
            Self::Assumption => "assumption",
            Self::ProofOfDeath => "proof-of-death",
            Self::StopBeforeMove => "stop-before-move",
            Self::FencedRelease => "fenced-release",
            Self::FencedClose => "fenced-close",
            Self::FencedRenewal => "fenced-renewal",
            Self::DriftFactor => "drift-factor",
            Self::KillBudget => "kill-budget",
            Self::TermCheck => "term-check",
        }
    }

    /// The rule with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The rules in force: all but those that were left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules(u32);

impl Rules {
    /// All of them.
    pub const ALL: Self = Self(0);

    /// All but these.
    #[must_use]
    pub fn without(removed: &[Removed]) -> Self {
        Self(removed.iter().fold(0, |set, rule| set | bit(*rule)))
    }

    /// Whether a rule is in force.
    #[must_use]
    pub const fn hold(self, rule: Removed) -> bool {
        self.0 & bit(rule) == 0
    }
}

const fn bit(rule: Removed) -> u32 {
    1 << rule as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_name_and_a_switch_of_its_own() {
        for rule in Removed::ALL {
            assert_eq!(Removed::named(rule.name()), Some(rule));
            let rules = Rules::without(&[rule]);
            let missing = Removed::ALL.into_iter().filter(|other| !rules.hold(*other));
            assert_eq!(missing.collect::<Vec<_>>(), [rule]);
        }
    }
}
