//! Up to where a director must have folded before it may answer, so that what it tells holds everything that
//! was committed when it was asked.

use std::sync::Arc;

use quorate_core::ids::Position;
use quorate_ledger::Ledger;
use tokio::sync::{mpsc, oneshot};

/// Questions that are answered together.
const TOGETHER_MAX: usize = 4096;

/// The last position that was occupied at some moment after the question; `None`: the ledger does not tell.
pub(super) type Ask = oneshot::Sender<Option<Position>>;

/// Answers until nobody can ask any more. One look at the ledger answers all who waited for it; who comes
/// during a look waits for the next, since that one may be older than the question.
pub(super) async fn run<L: Ledger>(ledger: Arc<L>, mut asks: mpsc::Receiver<Ask>) {
    let mut waiting = Vec::new();
    while asks.recv_many(&mut waiting, TOGETHER_MAX).await > 0 {
        let occupied = match ledger.tail().await {
            Ok(tail) => Some(Position(tail.next.0.saturating_sub(1))),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "the end of the ledger is not known");
                None
            }
        };
        for ask in waiting.drain(..) {
            // Whoever asked may have gone.
            let _ = ask.send(occupied);
        }
    }
}
