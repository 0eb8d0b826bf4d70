//! The wait between failed attempts, written `1s..1m`: it doubles from the shortest to the longest,
//! with a jitter that the caller's seed decides, so that what failed together does not return together.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::values::{Span, ValueError};

/// Shortest and longest wait before the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffRange {
    shortest: Duration,
    longest: Duration,
}

impl BackoffRange {
    /// That of a specification that says nothing: `1s..1m`.
    pub const DEFAULT: Self = Self {
        shortest: Duration::from_secs(1),
        longest: Duration::from_secs(60),
    };

    /// Reads `1s..1m`; one span alone, `5s`, waits that long every time.
    ///
    /// # Errors
    /// When it is not two spans of time, the first not zero and not longer than the second.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError {
            what: "back-off",
            given: text.to_owned(),
            example: "the shortest and the longest wait, such as 1s..1m",
        };
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let span = |text: &str| text.trim().parse::<Span>().map_err(|_| error());
        let (shortest, longest) = (span(first)?.0, span(last)?.0);
        if shortest.is_zero() || shortest > longest {
            return Err(error());
        }
        Ok(Self { shortest, longest })
    }

    /// The shortest wait.
    #[must_use]
    pub const fn shortest(&self) -> Duration {
        self.shortest
    }

    /// The longest wait.
    #[must_use]
    pub const fn longest(&self) -> Duration {
        self.longest
    }

    /// How long to wait after this many failures in a row (0 counts as 1).
    ///
    /// Always within the range. The wait is spread over a quarter of itself by `jitter_seed`: equal
    /// seeds give equal waits, so a replay waits as long as the original did.
    #[must_use]
    pub fn delay(&self, failures: u32, jitter_seed: u64) -> Duration {
        let doublings = failures.saturating_sub(1).min(63);
        let wanted = self.shortest.as_nanos() << doublings;
        let longest = self.longest.as_nanos();
        // Upwards from the wanted wait, but downwards from the longest one, which is a promise too.
        let high = (wanted + wanted / 4).min(longest);
        let low = (high - high / 5).max(self.shortest.as_nanos()).min(high);
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(&failures.to_le_bytes(), jitter_seed);
        let share = u128::from(hash >> 32);
        let nanos = low + (((high - low) * share) >> 32);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl FromStr for BackoffRange {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::parse(text)
    }
}

impl fmt::Display for BackoffRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", Span(self.shortest), Span(self.longest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_double_from_the_shortest_to_the_longest() {
        let range = BackoffRange::parse("1s..1m").unwrap();
        let near = |failures, seconds: f64| {
            let delay = range.delay(failures, 7).as_secs_f64();
            assert!(
                (seconds..=seconds * 1.25).contains(&delay),
                "{failures}: {delay}"
            );
        };
        near(0, 1.0);
        near(1, 1.0);
        near(2, 2.0);
        near(5, 16.0);
        near(7, 48.0);
        near(400, 48.0);
    }

    #[test]
    fn what_failed_together_does_not_return_together() {
        let range = BackoffRange::parse("1s..1m").unwrap();
        let mut delays: Vec<_> = (0..100).map(|seed| range.delay(1, seed)).collect();
        delays.sort();
        delays.dedup();
        assert_eq!(delays.len(), 100);
    }

    #[test]
    fn ranges_that_could_be_misread_are_refused() {
        for bad in [
            "",
            "..",
            "0s..1m",
            "1m..1s",
            "1..60",
            "1s..",
            "1s-1m",
            "1s..1m..2m",
        ] {
            let error = BackoffRange::parse(bad).unwrap_err().to_string();
            assert!(error.contains("such as 1s..1m"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn every_delay_is_within_the_range_and_repeats(
            shortest in 1u64..10_000_000, more in 0u64..100_000_000, failures: u32, seed: u64,
        ) {
            let longest = shortest + more;
            let text = format!("{}..{}",
                Span(Duration::from_millis(shortest)), Span(Duration::from_millis(longest)));
            let range = BackoffRange::parse(&text).unwrap();
            let delay = range.delay(failures, seed);
            prop_assert!(delay >= range.shortest() && delay <= range.longest());
            prop_assert_eq!(delay, range.delay(failures, seed));
            prop_assert_eq!(BackoffRange::parse(&range.to_string()).unwrap(), range);
        }
    }
}
