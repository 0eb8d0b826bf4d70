//! The bugs that the simulator must find: those of the machines, which exist only with the feature
//! `planted`, and those of what the simulator models itself.

use quorate_core::planted::{Planted, Plants};

/// A bug to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// One of the machines.
    Machine(Planted),
    /// Clocks of worker machines stand still while the machine is suspended (MONOTONIC for BOOTTIME).
    StoppedClock,
    /// The warden's timer does not survive that the warden is frozen (R3).
    FrozenTimer,
}

impl Bug {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let machines = Planted::ALL.iter().copied().map(Self::Machine);
        machines.chain([Self::StoppedClock, Self::FrozenTimer])
    }

    /// As it is named on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Machine(planted) => planted.name(),
            Self::StoppedClock => "stopped-clock",
            Self::FrozenTimer => "frozen-timer",
        }
    }

    /// The bug of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|bug| bug.name() == name)
    }

    /// What is planted in the machines.
    #[cfg(feature = "planted")]
    pub(crate) fn plants(self) -> Plants {
        match self {
            Self::Machine(planted) => Plants::one(planted),
            Self::StoppedClock | Self::FrozenTimer => Plants::default(),
        }
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
