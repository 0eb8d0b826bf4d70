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

/// The moment here at which the wall clock said this, as far as wall clocks can be trusted: for what is
/// shown to people. Not later than now.
pub(crate) fn moment_of(wall: WallTime, now: Now) -> Moment {
    let ago = now.wall.0.saturating_sub(wall.0);
    let ago = Duration::from_millis(u64::try_from(ago).unwrap_or_default());
    now.moment.before(ago)
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

    #[test]
    fn what_is_told_with_a_wall_time_has_its_moment_here() {
        let now = Now {
            moment: Moment::from_millis(50_000),
            wall: WallTime(1_763_850_000_000),
        };
        for (wall, moment) in [
            (1_763_850_000_000, 50_000),
            (1_763_849_990_000, 40_000),
            (0, 0),
            (i64::MIN, 0),
            (i64::MAX, 50_000),
        ] {
            assert_eq!(
                moment_of(WallTime(wall), now),
                Moment::from_millis(moment),
                "{wall}"
            );
        }
    }
}
