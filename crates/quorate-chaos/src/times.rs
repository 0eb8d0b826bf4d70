//! The lease that all services have, and what follows from it: nothing else here has times of its own that depend
//! on it.

use std::time::Duration;

/// How long the kernel may take at most to end what has reached its deadline (K).
const KILL: Duration = Duration::from_millis(500);
/// What everything may take to run again beside the expiry of a lease that was renewed just before: some attempts
/// with their pauses, and a machine that has other things to do as well.
const ATTEMPTS: Duration = Duration::from_secs(27);

/// The times of a run, as `docs/adr/0002-lease-arithmetic.md` has them for leases below ten seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// L.
    pub(crate) lease: Duration,
}

impl Times {
    /// The shortest lease that bears a change of leader, so that many faults fit in.
    pub(crate) const EMBEDDED: Self = Self {
        lease: Duration::from_secs(3),
    };
    /// The same over a store, where a change of leader may take three seconds.
    pub(crate) const STORE: Self = Self {
        lease: Duration::from_millis(8200),
    };

    /// After so long without a renewal work may run elsewhere: X = (L + K)(1 + ρ)/(1 − ρ), with ρ = 1 %.
    pub(crate) fn expiry(self) -> Duration {
        let micros = (self.lease + KILL).as_micros() * 101;
        let millis = micros.div_ceil(99 * 1000);
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// The longest change of leader that this lease bears (T): two of them fit between a missed renewal and the graceful
    /// stop.
    pub(crate) fn takeover(self) -> Duration {
        (self.lease - self.lease / 6 - self.lease / 10) / 2
    }

    /// The longest silence, with the change of leader that it may take, of which it is judged that it must not cost
    /// anything; what took longer, because this machine was busy, was another fault than the one that was meant.
    pub(crate) fn bearable(self) -> Duration {
        self.lease / 2
    }

    /// How long anything may take to run again after the last heal.
    pub(crate) fn calm(self) -> Duration {
        self.lease + ATTEMPTS
    }
}

/// How long a fault lasts: at least and at most, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasts {
    /// So long, whatever the lease is.
    Ms(u64, u64),
    /// Longer than the expiry of the lease and a takeover.
    Expired,
    /// Longer than a lease, after which everything has stopped.
    Stopped,
    /// One and a half leases.
    HalfAgain,
    /// Until others have taken over, and for longer than a lease.
    Away,
    /// For less than a change of leader may take.
    Borne,
}

impl Lasts {
    /// At least and at most, in milliseconds.
    pub(crate) fn of(self, times: Times) -> (u64, u64) {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let lease = millis(times.lease);
        let expiry = millis(times.expiry());
        let takeover = millis(times.takeover());
        match self {
            Self::Ms(least, most) => (least, most),
            Self::Expired => (expiry + 1029, expiry + 2229),
            Self::Stopped => (lease + 500, lease + 2000),
            Self::HalfAgain => (lease * 3 / 2, lease * 3 / 2 + 500),
            Self::Away => (1000, lease + 1000),
            Self::Borne => (takeover / 6, takeover * 2 / 3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_those_that_are_written_down() {
        let millis = Duration::from_millis;
        let own = Times::EMBEDDED;
        assert_eq!(own.expiry(), millis(3571));
        assert_eq!(own.takeover(), millis(1100));
        assert_eq!(own.calm(), millis(30_000));
        let store = Times::STORE;
        assert_eq!(store.expiry(), millis(8876));
        assert!(store.takeover() >= millis(3000));
        assert_eq!(Lasts::Expired.of(own), (4600, 5800));
        assert_eq!(Lasts::HalfAgain.of(store).0, 12_300);
    }
}
