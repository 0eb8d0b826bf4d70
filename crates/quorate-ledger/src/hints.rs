//! Follows the end of a log in a store for hints.

use std::sync::Arc;
use std::time::Duration;

use quorate_core::ids::Position;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::{Cause, Hints};

/// Pause after the store could not be followed, which grows with every failure up to the longest: a store that is
/// down is not helped by questions.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Something whose end can be followed.
pub(crate) trait Followed: Send + Sync + 'static {
    /// Raises the hints as the log grows, until it can no longer: why.
    fn follow(&self, hints: &watch::Sender<Hints>) -> impl Future<Output = Cause> + Send;
}

/// The task that follows; it ends with this.
#[derive(Debug)]
pub(crate) struct Follower(AbortHandle);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Follower {
    pub(crate) fn spawn(followed: Arc<impl Followed>, hints: watch::Sender<Hints>) -> Self {
        Self(tokio::spawn(follow(followed, hints)).abort_handle())
    }
}

async fn follow(followed: Arc<impl Followed>, hints: watch::Sender<Hints>) {
    let mut pause = PAUSE;
    loop {
        let before = hints.borrow().occupied;
        let error = followed.follow(&hints).await;
        tracing::debug!(%error, "the end of the ledger could not be followed");
        if hints.borrow().occupied > before {
            pause = PAUSE;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// A position is occupied. Hints only ever grow.
pub(crate) fn occupied(hints: &watch::Sender<Hints>, at: Position) {
    hints.send_if_modified(|hints| {
        let news = at > hints.occupied;
        hints.occupied = hints.occupied.max(at);
        news
    });
}
