//! The machine's clock that counts while suspended. Every lease is measured by it.

use std::time::Duration;

use quorate_core::time::Moment;
use rustix::time::{ClockId, clock_gettime};

/// Timers of the runtime stop in suspend, so a long wait looks at the clock this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// CLOCK_BOOTTIME now.
pub(crate) fn now() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(time.tv_nsec).unwrap_or_default();
    Moment::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Waits until the moment has come.
pub(crate) async fn until(moment: Moment) {
    loop {
        let left = moment.since(now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK_EVERY)).await;
    }
}

/// Waits until the moment has come; for ever when there is none.
pub(crate) async fn until_some(moment: Option<Moment>) {
    match moment {
        Some(moment) => until(moment).await,
        None => std::future::pending().await,
    }
}
