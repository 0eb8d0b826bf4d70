//! How often the ledger was asked, how long it took, and how often it did not do what was asked: for those who watch.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Of one kind of call, since this process began.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    answered: AtomicU64,
    micros: AtomicU64,
    failed: AtomicU64,
}

impl Calls {
    /// It was answered after so long; a failure is counted apart, for it mostly takes the whole time limit.
    pub(super) fn note(&self, took: Duration, failed: bool) {
        if failed {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were answered, how long these took together, and how many failed.
    pub(crate) fn told(&self) -> (u64, Duration, u64) {
        (
            self.answered.load(Ordering::Relaxed),
            Duration::from_micros(self.micros.load(Ordering::Relaxed)),
            self.failed.load(Ordering::Relaxed),
        )
    }
}

/// Of the kinds that everything waits for.
#[derive(Debug, Default)]
pub(crate) struct LedgerTimes {
    pub(crate) append: Calls,
    pub(crate) tail: Calls,
}
