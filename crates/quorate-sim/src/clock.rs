//! Time. There is one true time; every machine has a clock of its own that starts anywhere and runs a
//! little too fast or too slow, within what model M allows (M1).

use quorate_core::time::Moment;

/// Nanoseconds of true time since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub u64);

/// Nanoseconds of a millisecond.
pub const MILLI: u64 = 1_000_000;
/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000 * MILLI;

impl std::ops::Add<u64> for Instant {
    type Output = Self;

    fn add(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }
}

impl std::fmt::Display for Instant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}", self.0 / SECOND, self.0 % SECOND / 1_000)
    }
}

/// The clock of one machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it showed at the beginning.
    pub offset: u64,
    /// Its rate in millionths of the true one.
    pub rate_millionths: u64,
    /// Nanoseconds of true time for which it stood still.
    pub stood: u64,
}

impl Clock {
    /// What it shows.
    #[must_use]
    pub fn read(&self, at: Instant) -> Moment {
        let passed = u128::from(at.0.saturating_sub(self.stood)) * u128::from(self.rate_millionths)
            / 1_000_000;
        Moment::from_nanos(self.offset + u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// When it will show this, not before now.
    #[must_use]
    pub fn when(&self, moment: Moment, now: Instant) -> Instant {
        let local = u128::from(moment.as_nanos().saturating_sub(self.offset));
        let at = (local * 1_000_000).div_ceil(u128::from(self.rate_millionths.max(1)));
        let at = u64::try_from(at).unwrap_or(u64::MAX);
        Instant(at.saturating_add(self.stood)).max(now)
    }
}
