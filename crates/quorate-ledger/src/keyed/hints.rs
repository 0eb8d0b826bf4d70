//! Follows the end of the log for hints.

use std::sync::Arc;
use std::time::Duration;

use quorate_core::ids::Position;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::Hints;

use super::{End, KeyValue};

/// Pause after the store could not be followed, which grows with every failure up to the longest: a store that is
/// down is not helped by questions.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The task that follows; it ends with this.
#[derive(Debug)]
pub(super) struct Follower(AbortHandle);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Follower {
    pub(super) fn spawn(store: Arc<impl KeyValue>, hints: watch::Sender<Hints>) -> Self {
        Self(tokio::spawn(follow(store, hints)).abort_handle())
    }
}

async fn follow(store: Arc<impl KeyValue>, hints: watch::Sender<Hints>) {
    let mut pause = PAUSE;
    loop {
        let before = hints.borrow().occupied;
        let error = store.follow(&|value| tell(&hints, value)).await;
        tracing::debug!(%error, "the end of the ledger could not be followed");
        if hints.borrow().occupied > before {
            pause = PAUSE;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn tell(hints: &watch::Sender<Hints>, tail: &[u8]) {
    // What cannot be read is told by those who ask for the tail.
    if let Ok(end) = serde_json::from_slice::<End>(tail) {
        occupied(hints, end.last());
    }
}

/// Hints only ever grow.
pub(super) fn occupied(hints: &watch::Sender<Hints>, at: Position) {
    hints.send_if_modified(|hints| {
        let news = at > hints.occupied;
        hints.occupied = hints.occupied.max(at);
        news
    });
}
