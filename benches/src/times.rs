//! Times that were seen, and what is told of them.

use std::fmt;
use std::time::Duration;

/// Times of one kind.
#[derive(Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// One more.
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
        self.0.sort_unstable();
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// That of so many of a hundred, in milliseconds; not a number when there are none.
    #[must_use]
    pub fn quantile(&self, of_a_hundred: usize) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let at = (self.0.len() * of_a_hundred / 100).min(last);
        self.0
            .get(at)
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

impl fmt::Display for Times {
    /// Two cells of a table: how many, and what they were.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, worst] = [50, 99, 100].map(|of_a_hundred| self.quantile(of_a_hundred));
        let count = self.0.len();
        write!(f, "{count} | {p50:.0}, {p99:.0}, {worst:.0}")
    }
}
