//! The arithmetic of leases (R1, R4, R17): how long an agent may be silent, when it stops by itself,
//! and when the directors may be sure that it has.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::spec::values::SPAN_MAX;

/// Clock rates stay within one percent of real time (M1), over ten times what quartz and NTP need.
pub const DRIFT_PERCENT: u32 = 1;

/// The lease of work that goes on when no director answers (`isolation = "keep"`): so long that it is never
/// reached, so that nothing takes over by itself and every rule holds as it stands.
pub const KEPT: Duration = SPAN_MAX;

/// An agent that has not been heard for this long counts as silent, however long its lease is.
const SILENT_AFTER_MAX: Duration = Duration::from_secs(6);

/// The times of one lease class. All follow from the lease itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseTimes {
    /// L: how long after *sending* its last successful renewal an agent may execute.
    pub lease: Duration,
    /// H: time between renewals.
    pub renew_every: Duration,
    /// G: graceful stop of the runs begins this long before the deadline.
    pub grace: Duration,
    /// K: at most this long after the deadline nothing of the session executes (M3).
    pub kill: Duration,
}

impl LeaseTimes {
    /// The times for a lease of this length: those of *normal* from 10 s on, of *fast* below.
    #[must_use]
    pub fn of(lease: Duration) -> Self {
        if lease >= Duration::from_secs(10) {
            Self {
                lease,
                renew_every: Duration::from_secs(2),
                grace: Duration::from_secs(2),
                kill: Duration::from_secs(1),
            }
        } else {
            Self {
                lease,
                renew_every: lease / 10,
                grace: lease / 6,
                kill: Duration::from_millis(500),
            }
        }
    }

    /// How long nothing is heard before nothing new is given: half of the lease, in which several renewals
    /// were missed.
    #[must_use]
    pub fn silent_after(&self) -> Duration {
        (self.lease / 2).min(SILENT_AFTER_MAX.max(self.renew_every * 3))
    }

    /// Whether the directors may ever be sure by waiting that the work has ended.
    #[must_use]
    pub fn ends(&self) -> bool {
        self.lease < KEPT
    }

    /// X: how long after receipt of the last renewal the directors wait before they expire the
    /// session: (L + K)(1 + ρ)/(1 − ρ), rounded up to a millisecond.
    #[must_use]
    pub fn expiry(&self) -> Duration {
        let span = (self.lease + self.kill).as_nanos();
        let (fast, slow) = (
            u128::from(100 + DRIFT_PERCENT),
            u128::from(100 - DRIFT_PERCENT),
        );
        let millis = (span * fast).div_ceil(slow * 1_000_000);
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// At which steps a leader records that it has answered nothing of a session (R6): an eighth of X, where
    /// the lease is so long that such a step is longer than a few missed renewals. Of shorter ones the whole
    /// time again costs little.
    #[must_use]
    pub fn silence_step(&self) -> Option<Duration> {
        let step = self.expiry() / 8;
        (self.ends() && step >= self.renew_every * 3).then_some(step)
    }

    /// Whether work under this lease survives a change of leader that takes `takeover` (T) at most:
    /// two tries must fit between a missed renewal and the start of the graceful stop (R17).
    #[must_use]
    pub fn survives(&self, takeover: Duration) -> bool {
        self.lease >= self.grace + self.renew_every + takeover * 2
    }
}

/// The least real time that a span on somebody's clock can have been: span / (1 + ρ), rounded down.
#[must_use]
pub fn at_least(span: Duration) -> Duration {
    let millis = span.as_millis() * 100 / u128::from(100 + DRIFT_PERCENT);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_classes_have_the_documented_expiry() {
        let normal = LeaseTimes::of(Duration::from_secs(10));
        assert_eq!(normal.expiry(), Duration::from_millis(11_223));
        let fast = LeaseTimes::of(Duration::from_secs(3));
        assert_eq!(fast.expiry(), Duration::from_millis(3_571));
        assert_eq!(fast.renew_every, Duration::from_millis(300));
    }

    #[test]
    fn a_lease_shorter_than_two_leader_changes_is_told_apart() {
        let takeover = Duration::from_millis(700);
        assert!(LeaseTimes::of(Duration::from_secs(2)).survives(takeover));
        assert!(!LeaseTimes::of(Duration::from_secs(1)).survives(takeover));
    }
}
