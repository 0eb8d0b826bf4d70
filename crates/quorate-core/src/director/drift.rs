//! How fast the clocks of agents run beside the leader's (R14). Leases are safe only while they differ by
//! less than a bound, so somebody must look at it.
//!
//! A renewal says what the agent's clock showed when it was sent. How much later it arrives by the leader's
//! clock is the difference of the clocks and the time on the way; the least of a minute is nearly the
//! difference alone. From one minute to the next it changes only as far as the clocks drift. A network that
//! becomes slow looks like one step, so work is taken away only when two minutes in a row agree.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::{AgentName, Incarnation};
use crate::lease::DRIFT_PERCENT;
use crate::planted::{Planted, Plants};
use crate::time::Moment;

/// The shortest time over which rates are compared.
const WINDOW: Duration = Duration::from_secs(60);
/// More than this, in millionths, breaks the assumption that leases rest on.
pub(super) const BEYOND: u64 = DRIFT_PERCENT as u64 * 10_000;
/// More than this is told.
const TOLD: u64 = BEYOND / 2;

/// What has to be done about a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// How much faster the agent's runs, in millionths.
    pub(super) ppm: i64,
    /// Whether it is beyond what leases bear, for certain.
    pub(super) beyond: bool,
}

/// What is known of the clocks since this director leads.
#[derive(Debug, Default)]
pub(super) struct Drift {
    of: BTreeMap<AgentName, Line>,
    plants: Plants,
}

#[derive(Debug)]
struct Line {
    incarnation: Incarnation,
    begun: Moment,
    least: Sample,
    before: Option<Sample>,
    ppm: Option<i64>,
    told: bool,
}

/// By how much the leader's clock was ahead of what a renewal said, and when.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Moment,
    ahead: i128,
}

impl Drift {
    /// One with a bug, to see whether it is found.
    pub(super) fn with_plants(plants: Plants) -> Self {
        Self {
            plants,
            ..Self::default()
        }
    }

    pub(super) fn clear(&mut self) {
        self.of.clear();
    }

    pub(super) fn forget(&mut self, agent: &AgentName) {
        self.of.remove(agent);
    }

    /// How much faster the clock of an agent runs, in millionths, as last measured.
    pub(super) fn of(&self, agent: &AgentName) -> Option<i64> {
        self.of.get(agent)?.ppm
    }

    /// Takes in a renewal; tells what is worth doing something about.
    pub(super) fn note(
        &mut self,
        agent: &AgentName,
        incarnation: Incarnation,
        now: Moment,
        sent_ms: u64,
    ) -> Option<Finding> {
        let sample = Sample {
            at: now,
            ahead: i128::from(now.as_nanos()) - i128::from(sent_ms) * 1_000_000,
        };
        let line = self.of.get_mut(agent);
        let Some(line) = line.filter(|line| line.incarnation == incarnation) else {
            // Another process may be in another boot, whose clock began anew.
            self.of
                .insert(agent.clone(), Line::new(incarnation, sample));
            return None;
        };
        if sample.ahead < line.least.ahead && !self.plants.has(Planted::DelayAsDrift) {
            line.least = sample;
        }
        (now.since(line.begun) >= WINDOW).then(|| line.finish(sample))?
    }
}

impl Line {
    fn new(incarnation: Incarnation, first: Sample) -> Self {
        Self {
            incarnation,
            begun: first.at,
            least: first,
            before: None,
            ppm: None,
            told: false,
        }
    }

    /// Compares this window with the one before and begins the next.
    fn finish(&mut self, next: Sample) -> Option<Finding> {
        let least = std::mem::replace(&mut self.least, next);
        self.begun = next.at;
        let before = self.before.replace(least)?;
        let span = i128::try_from(least.at.since(before.at).as_nanos()).ok()?;
        if span == 0 {
            return None;
        }
        let ppm = (before.ahead - least.ahead) * 1_000_000 / span;
        let ppm = i64::try_from(ppm).unwrap_or(if ppm < 0 { i64::MIN } else { i64::MAX });
        let last = self.ppm.replace(ppm);
        if ppm.unsigned_abs() <= TOLD {
            self.told = false;
            return None;
        }
        let agrees = |last: i64| last.signum() == ppm.signum() && last.unsigned_abs() > BEYOND;
        let beyond = ppm.unsigned_abs() > BEYOND && last.is_some_and(agrees);
        let first = !std::mem::replace(&mut self.told, true);
        (first || beyond).then_some(Finding { ppm, beyond })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Renewals every two seconds for so many minutes; the last finding and how many there were.
    struct Agent {
        drift: Drift,
        now: f64,
        clock: f64,
    }

    impl Agent {
        fn new() -> Self {
            Self {
                drift: Drift::default(),
                now: 5_000.0,
                clock: 77.0,
            }
        }

        fn renew(&mut self, minutes: u32, rate: f64, delay: impl Fn(u32) -> f64) -> Vec<Finding> {
            let name = AgentName::new("a").unwrap();
            let mut found = Vec::new();
            for n in 0..minutes * 30 {
                self.now += 2.0;
                self.clock += 2.0 * rate;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a test"
                )]
                let (now, sent) = (
                    Moment::from_millis(((self.now + delay(n)) * 1000.0) as u64),
                    (self.clock * 1000.0) as u64,
                );
                found.extend(self.drift.note(&name, Incarnation(1), now, sent));
            }
            found
        }
    }

    #[test]
    fn usual_clocks_and_an_unsteady_network_are_no_finding() {
        let jitter = |n: u32| f64::from(n * 7919 % 97) / 200.0;
        for rate in [1.0, 1.0007, 0.9993] {
            assert_eq!(Agent::new().renew(30, rate, jitter), []);
        }
    }

    #[test]
    fn what_is_half_of_the_bound_is_told_once_and_takes_nothing_away() {
        for (rate, ppm) in [(1.007, 7_000_i64), (0.993, -7_000)] {
            let found = Agent::new().renew(30, rate, |_| 0.01);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!((found[0].ppm - ppm).abs() < 200 && !found[0].beyond);
        }
    }

    #[test]
    fn what_is_beyond_the_bound_is_certain_after_three_minutes() {
        for rate in [1.02, 0.98] {
            let found = Agent::new().renew(5, rate, |_| 0.01);
            assert!(!found[0].beyond, "one comparison may be the network");
            assert!(found[1..].iter().all(|found| found.beyond) && found.len() > 1);
        }
    }

    #[test]
    fn a_network_that_becomes_slow_takes_nothing_away() {
        let mut agent = Agent::new();
        assert_eq!(agent.renew(5, 1.0, |_| 0.01), []);
        let found = agent.renew(10, 1.0, |_| 1.5);
        assert!(found.iter().all(|found| !found.beyond), "{found:?}");
        let found = agent.renew(10, 1.0, |_| 0.01);
        assert!(found.iter().all(|found| !found.beyond), "{found:?}");
    }

    #[test]
    fn a_machine_that_stood_still_once_is_told_and_keeps_its_work() {
        let mut agent = Agent::new();
        agent.renew(5, 1.0, |_| 0.01);
        agent.now += 30.0;
        let found = agent.renew(10, 1.0, |_| 0.01);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(!found[0].beyond && found[0].ppm < 0);
    }
}
