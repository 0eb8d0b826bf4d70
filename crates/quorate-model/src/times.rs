//! Spans of time in the model, and what a bound on clock rates makes of them.
//!
//! Real time goes in *ticks*. A tick is the time in which the slowest clock that the bound allows counts
//! one *unit*; the fastest one counts [`Times::ratio`] units in it, which stands for (1 + ρ)/(1 − ρ).
//! The ratio is far larger here than in any machine: the rules are linear in it, and a large one shows
//! within a few ticks what a small one shows within hours.

/// The times of a lease class, in units of a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Times {
    /// L: how long after sending its last successful renewal an agent may execute.
    pub lease: u8,
    /// K: at most this long after the deadline nothing of the session executes.
    pub kill: u8,
    /// How many units the fastest clock counts while the slowest counts one.
    pub ratio: u8,
}

impl Times {
    /// The smallest times that tell all rules apart: with less, leaving out the kill budget or the
    /// drift factor would change no number.
    pub const SMALL: Self = Self {
        lease: 2,
        kill: 1,
        ratio: 2,
    };

    /// Ticks after the sending of the last renewal after which, on the slowest clock, everything of the
    /// session is certainly dead: (L + K)/(1 − ρ).
    #[must_use]
    pub const fn life(self) -> u8 {
        self.lease + self.kill
    }

    /// X: what a director's clock counts before it expires a session. `drift` and `kill` say whether
    /// the factor for clock rates and the kill budget are in it.
    #[must_use]
    pub const fn expiry(self, drift: bool, kill: bool) -> u8 {
        let span = if kill { self.life() } else { self.lease };
        if drift { span * self.ratio } else { span }
    }

    /// The ticks after which the fastest clock may have counted so many units, rounded down: early is
    /// the dangerous side.
    #[must_use]
    pub const fn earliest(self, units: u8) -> u8 {
        units / self.ratio
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_director_waits_exactly_as_long_as_the_slowest_agent_may_live() {
        let times = Times::SMALL;
        assert_eq!(times.earliest(times.expiry(true, true)), times.life());
        assert!(times.earliest(times.expiry(false, true)) < times.life());
        assert!(times.earliest(times.expiry(true, false)) < times.life());
    }
}
