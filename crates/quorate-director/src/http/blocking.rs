//! Blocking queries: `?index=N&wait=60s` is answered when something has changed past N.

use std::sync::Arc;
use std::time::Duration;

use quorate_api::problem::Code;
use quorate_api::routes::WAIT_SECONDS_MAX;
use quorate_core::ids::Position;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::App;
use super::answer::Failure;
use crate::engine::Reading;

/// After a change, more of them are usually on their way: one answer for all of them.
const GATHER: Duration = Duration::from_millis(20);
/// How long to wait when the query does not say.
const WAIT_DEFAULT: Duration = Duration::from_secs(60);

/// What a query says about waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocking {
    /// What the client knows already; `None`: answer at once.
    pub(crate) index: Option<u64>,
    /// How long to wait, already cut down to the longest allowed.
    pub(crate) wait: Duration,
}

impl Blocking {
    pub(crate) fn new(index: Option<u64>, wait: Option<Duration>) -> Self {
        let longest = Duration::from_secs(WAIT_SECONDS_MAX);
        Self {
            index,
            wait: wait.unwrap_or(WAIT_DEFAULT).min(longest),
        }
    }
}

impl App {
    /// The right to let a request of a person wait for something to happen. Those of agents need none:
    /// each session has one of a kind.
    pub(crate) fn hold(&self) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.held).try_acquire_owned().map_err(|_| {
            let detail = format!(
                "{} requests wait for something to happen, as many as may at once",
                self.held_max
            );
            Failure::new(Code::TooManyRequests, detail)
                .next_step("ask without index and follow, another director, or again in a moment")
        })
    }

    /// Waits until `changed` is past the index, the time is over, or the director stops.
    pub(crate) async fn wait(
        &self,
        blocking: Blocking,
        changed: impl Fn(&Reading<'_>) -> Position + Clone + Send + 'static,
    ) -> Result<(), Failure> {
        let Some(index) = blocking.index.map(Position) else {
            return Ok(());
        };
        let until = Instant::now() + blocking.wait;
        let mut seen = self.handle.watch();
        let era = seen.borrow().era;
        if index > Position(0) && index.0 < era.first() {
            let detail =
                format!("index {index} is of before the cluster was restored from a backup");
            return Err(Failure::new(Code::Gone, detail).next_step(
                "ask without an index, and follow from the one that comes with the answer",
            ));
        }
        let mut held = None;
        loop {
            // Most changes are noticed without asking the loop.
            if seen.borrow_and_update().changed > index {
                let changed = changed.clone();
                if self.query(move |reading| changed(reading)).await? > index {
                    let gather = Instant::now() + GATHER;
                    tokio::time::sleep_until(gather.min(until)).await;
                    return Ok(());
                }
            }
            if held.is_none() {
                held = Some(self.hold()?);
            }
            tokio::select! {
                changed = seen.changed() => if changed.is_err() {
                    return Err(Failure::stopping());
                },
                () = tokio::time::sleep_until(until) => return Ok(()),
                () = self.shutdown.cancelled() => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_beyond_the_longest_is_cut_and_one_that_is_not_said_is_a_minute() {
        let wait = |asked| Blocking::new(Some(1), asked).wait;
        let longest = Duration::from_secs(WAIT_SECONDS_MAX);
        assert_eq!(wait(Some(Duration::MAX)), longest);
        assert_eq!(wait(Some(longest + Duration::from_millis(1))), longest);
        assert_eq!(
            wait(Some(Duration::from_millis(1))),
            Duration::from_millis(1)
        );
        assert_eq!(wait(None), WAIT_DEFAULT);
    }
}
