//! The clock of the referee: CLOCK_BOOTTIME, which cannot be set and counts while suspended. One machine has
//! one, so moments of all processes compare.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of a millisecond.
pub(crate) const MILLI: u64 = 1_000_000;

/// Now, in nanoseconds since the machine was started.
pub(crate) fn boot_nanos() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let part = |value: i64| u64::try_from(value).unwrap_or_default();
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}

/// A span as the clock counts it.
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
