//! What the loop asks of the ledger, each in a task beside it, so that a slow store never holds it up.

use std::future;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::director::event::{AppendId, AppendOutcome, Event, ProofId, ReadOutcome};
use quorate_core::ids::{Epoch, Position};
use quorate_ledger::{AppendError, Appended, Ledger, ReadError};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;

use super::times::LedgerTimes;

/// Entries of one read; the ledger bounds the bytes.
const READ_LIMIT: usize = 1024;
/// How long to wait before asking for a snapshot again.
const SNAPSHOT_AGAIN: Duration = Duration::from_millis(200);
/// How long outstanding tasks may take when the director ends.
const END_TIME: Duration = Duration::from_secs(2);

/// The ledger and the tasks that ask it. The machine orders at most one append, one proof, one read and
/// one snapshot at a time.
#[derive(Debug)]
pub(super) struct LedgerTasks<L> {
    ledger: Arc<L>,
    times: Arc<LedgerTimes>,
    tasks: JoinSet<Option<Event>>,
}

impl<L: Ledger> LedgerTasks<L> {
    pub(super) fn new(ledger: Arc<L>, times: Arc<LedgerTimes>) -> Self {
        Self {
            ledger,
            times,
            tasks: JoinSet::new(),
        }
    }

    /// The next answer; waits for ever when nothing was asked.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            match self.tasks.join_next().await {
                None => future::pending().await,
                Some(Ok(Some(event))) => return event,
                Some(Ok(None)) => {}
                Some(Err(error)) => broken(error),
            }
        }
    }

    /// An answer that is there already.
    pub(super) fn ready(&mut self) -> Option<Event> {
        loop {
            match self.tasks.try_join_next()? {
                Ok(Some(event)) => return Some(event),
                Ok(None) => {}
                Err(error) => broken(error),
            }
        }
    }

    /// Waits for what is outstanding, so that its outcome is known to the next process sooner.
    pub(super) async fn end(&mut self) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(END_TIME, all).await.is_err() {
            tracing::warn!("the ledger has not answered; stopping without it");
        }
        self.tasks.shutdown().await;
    }

    pub(super) fn append(
        &mut self,
        append: AppendId,
        position: Position,
        epoch: Epoch,
        bytes: Vec<u8>,
    ) {
        let (ledger, times) = (Arc::clone(&self.ledger), Arc::clone(&self.times));
        self.tasks.spawn(async move {
            let begun = clock::moment();
            let appended = ledger.append(position, epoch, bytes).await;
            let took = clock::moment().since(begun);
            times.append.note(took, appended.is_err());
            let outcome = match appended {
                Ok(Appended::Appended) => AppendOutcome::Appended,
                Ok(Appended::PositionTaken) => AppendOutcome::PositionTaken,
                Err(error) => {
                    let outcome = match &error {
                        AppendError::Refused { .. } => AppendOutcome::Refused,
                        AppendError::OutcomeUnknown { .. } => AppendOutcome::Unknown,
                    };
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "ledger append failed"
                    );
                    outcome
                }
            };
            Some(Event::AppendAnswered { append, outcome })
        });
    }

    pub(super) fn prove(&mut self, proof: ProofId) {
        let (ledger, times) = (Arc::clone(&self.ledger), Arc::clone(&self.times));
        self.tasks.spawn(async move {
            let begun = clock::moment();
            let told = ledger.tail().await;
            times.tail.note(clock::moment().since(begun), told.is_err());
            let tail = match told {
                Ok(tail) => Some((tail.next, tail.epoch)),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "ledger tail failed"
                    );
                    None
                }
            };
            Some(Event::TailAnswered { proof, tail })
        });
    }

    pub(super) fn read(&mut self, from: Position) {
        let ledger = Arc::clone(&self.ledger);
        self.tasks.spawn(async move {
            let outcome = match ledger.read(from, READ_LIMIT).await {
                Ok(entries) => {
                    ReadOutcome::Entries(entries.into_iter().map(|found| found.entry).collect())
                }
                Err(ReadError::Trimmed { .. }) => ReadOutcome::Trimmed,
                Err(error @ ReadError::Unavailable(_)) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "ledger read failed"
                    );
                    ReadOutcome::Failed
                }
            };
            Some(Event::ReadAnswered { from, outcome })
        });
    }

    /// Loads the snapshot, for as long as it takes: without it this director cannot go on.
    pub(super) fn load_snapshot(&mut self) {
        let ledger = Arc::clone(&self.ledger);
        self.tasks.spawn(async move {
            loop {
                match load(&*ledger).await {
                    Ok(Some(event)) => return Some(event),
                    Ok(None) | Err(()) => tokio::time::sleep(SNAPSHOT_AGAIN).await,
                }
            }
        });
    }

    pub(super) fn save_snapshot(&mut self, next: Position, bytes: Vec<u8>) {
        let ledger = Arc::clone(&self.ledger);
        self.tasks.spawn(async move {
            let size = bytes.len();
            match ledger.save_snapshot(next, bytes).await {
                Ok(()) => tracing::info!(%next, bytes = size, "snapshot saved"),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "snapshot not saved"
                    );
                }
            }
            None
        });
    }

    /// The snapshot at start, if there is one.
    pub(super) async fn snapshot(&self, shutdown: &CancellationToken) -> Option<Event> {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return None,
                loaded = load(&*self.ledger) => if let Ok(event) = loaded {
                    return event;
                },
            }
            tokio::time::sleep(SNAPSHOT_AGAIN).await;
        }
    }
}

async fn load<L: Ledger>(ledger: &L) -> Result<Option<Event>, ()> {
    match ledger.load_snapshot().await {
        Ok(snapshot) => Ok(snapshot.map(|snapshot| Event::Reset {
            next: snapshot.next,
            bytes: snapshot.bytes,
        })),
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "snapshot not loaded"
            );
            Err(())
        }
    }
}

/// A ledger that panics has a broken invariant: the director must not go on without the answer.
fn broken(error: tokio::task::JoinError) {
    if let Ok(panic) = error.try_into_panic() {
        std::panic::resume_unwind(panic);
    }
}
