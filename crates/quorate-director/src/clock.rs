//! The two clocks of a director: the one that decides, and the one for people.

use std::time::Duration;

use jiff::Timestamp;
use quorate_core::director::event::Now;
use quorate_core::time::{Moment, WallTime};
use rustix::time::{ClockId, clock_gettime};

/// Both clocks now.
pub(crate) fn now() -> Now {
    Now {
        moment: moment(),
        wall: WallTime(Timestamp::now().as_millisecond()),
    }
}

/// CLOCK_BOOTTIME: never goes back, counts while suspended.
pub(crate) fn moment() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(time.tv_nsec).unwrap_or_default();
    Moment::from_nanos(seconds * 1_000_000_000 + nanos)
}

/// A span as it is told in JSON.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// RFC 3339 in UTC, to the millisecond.
pub(crate) fn text(wall: WallTime) -> String {
    match Timestamp::from_millisecond(wall.0) {
        Ok(time) => format!("{time:.3}"),
        // No clock says this; the number is still better than nothing.
        Err(_) => format!("{} ms", wall.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_for_machines() {
        assert_eq!(
            text(WallTime(1_763_850_000_120)),
            "2025-11-22T22:20:00.120Z"
        );
        assert!(moment() > Moment::default());
    }
}
