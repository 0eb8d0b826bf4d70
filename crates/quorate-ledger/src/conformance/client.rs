//! How the rules speak to a ledger: as a director does, who asks again until it knows.

use std::time::Duration;

use quorate_core::ids::{ClusterId, Epoch, Position};

use super::InStore;
use crate::shared::{BeginError, Owner};
use crate::{AppendError, Appended, Committed, Ledger, ReadError, Snapshot, Tail};

/// How long anything here may take before the ledger is called stuck: far more than any healthy one
/// needs on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The same of what takes many calls, and waits for the disk with most of them.
const LONG_PATIENCE: Duration = Duration::from_secs(120);

/// Pause before asking again, so that a store that is down is not asked in a tight loop.
const PAUSE: Duration = Duration::from_millis(2);

/// Who holds a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Mine,
    Others,
}

/// Waits with a limit.
pub(super) fn within<T>(what: &str, work: impl Future<Output = T>) -> impl Future<Output = T> {
    within_limit(PATIENCE, what, work)
}

/// The same of what takes many calls.
pub(super) fn within_long<T>(what: &str, work: impl Future<Output = T>) -> impl Future<Output = T> {
    within_limit(LONG_PATIENCE, what, work)
}

fn within_limit<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = T>,
) -> impl Future<Output = T> {
    // Rules wait within what they wait for: each would hold the other as it is, and be moved with it.
    let work = Box::pin(work);
    async move {
        match tokio::time::timeout(limit, work).await {
            Ok(done) => done,
            Err(_) => panic!("{what} took more than {limit:?}"),
        }
    }
}

/// Appends the entry at `at` until it is known who holds the position. Entries must be unique.
pub(super) async fn claim<L: Ledger>(ledger: &L, at: Position, epoch: u64, entry: &[u8]) -> Claim {
    within("an append", async {
        let mut certain = true;
        loop {
            match ledger.append(at, Epoch(epoch), entry.to_vec()).await {
                Ok(Appended::Appended) => return Claim::Mine,
                // Only who never had an unknown outcome can be sure that it is not its own entry.
                Ok(Appended::PositionTaken) => {
                    let held = entry_at(ledger, at).await;
                    let mine = held.as_deref() == Some(entry);
                    assert!(
                        held.is_some() || certain,
                        "position {at} is taken, yet nobody can read who holds it"
                    );
                    return if mine { Claim::Mine } else { Claim::Others };
                }
                Err(AppendError::OutcomeUnknown { .. }) => certain = false,
                Err(AppendError::Refused { .. }) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await
}

/// Appends `count` entries from position `from` on, each of which must find its position free.
pub(super) async fn fill<L: Ledger>(ledger: &L, from: u64, count: u64, epoch: u64) {
    for position in from..from + count {
        let claim = claim(ledger, Position(position), epoch, &text(position)).await;
        assert_eq!(claim, Claim::Mine, "position {position} was taken");
    }
}

/// The entry that [`fill`] appends at a position.
pub(super) fn text(position: u64) -> Vec<u8> {
    format!("entry {position}").into_bytes()
}

/// Asks again while the ledger is unavailable; every other answer is one.
async fn answer<T, F>(what: &str, mut ask: impl FnMut() -> F) -> Result<T, ReadError>
where
    F: Future<Output = Result<T, ReadError>>,
{
    within(what, async {
        loop {
            match ask().await {
                Err(ReadError::Unavailable(_)) => tokio::time::sleep(PAUSE).await,
                told => return told,
            }
        }
    })
    .await
}

pub(super) async fn tail<L: Ledger>(ledger: &L) -> Tail {
    match answer("a tail", || ledger.tail()).await {
        Ok(tail) => tail,
        Err(error) => panic!("a tail was answered by {error}"),
    }
}

pub(super) async fn read<L: Ledger>(
    ledger: &L,
    from: Position,
    limit: usize,
) -> Result<Vec<Committed>, ReadError> {
    answer("a read", || ledger.read(from, limit)).await
}

pub(super) async fn save<L: Ledger>(ledger: &L, next: u64, snapshot: &[u8]) {
    let saved = answer("the keeping of a snapshot", || {
        ledger.save_snapshot(Position(next), snapshot.to_vec())
    })
    .await;
    assert!(saved.is_ok(), "the snapshot was refused: {saved:?}");
}

pub(super) async fn load<L: Ledger>(ledger: &L) -> Option<Snapshot> {
    match answer("the loading of a snapshot", || ledger.load_snapshot()).await {
        Ok(snapshot) => snapshot,
        Err(error) => panic!("the loading of a snapshot was answered by {error}"),
    }
}

pub(super) async fn owner<L: InStore>(ledger: &L) -> Option<Owner> {
    match answer("an owner", || ledger.owner()).await {
        Ok(owner) => owner,
        Err(error) => panic!("who owns it was answered by {error}"),
    }
}

/// Whose ledger it is after this cluster has claimed it.
pub(super) async fn claim_for<L: InStore>(ledger: &L, cluster: u64) -> Owner {
    match answer("a claim", || ledger.claim(ClusterId(cluster))).await {
        Ok(owner) => owner,
        Err(error) => panic!("a claim was answered by {error}"),
    }
}

pub(super) async fn mark_moved<L: InStore>(ledger: &L, cluster: u64, to: &str) {
    let marked = answer("a move", || ledger.mark_moved(ClusterId(cluster), to)).await;
    assert!(marked.is_ok(), "the move was refused: {marked:?}");
}

/// A log that is to begin.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) next: u64,
    pub(super) epoch: u64,
    pub(super) snapshot: Vec<u8>,
}

impl Log {
    /// Its snapshot has several parts, whatever the size of a part may be.
    pub(super) fn at(next: u64, epoch: u64) -> Self {
        let bytes = (next..).map(|at| at.to_le_bytes()).take(40 * 1024);
        Self {
            next,
            epoch,
            snapshot: bytes.flatten().collect(),
        }
    }

    pub(super) fn tail(&self) -> Tail {
        Tail {
            next: Position(self.next),
            epoch: Epoch(self.epoch),
        }
    }

    pub(super) fn state(&self) -> Snapshot {
        Snapshot {
            next: Position(self.next),
            bytes: self.snapshot.clone(),
        }
    }
}

/// Begins a log, and asks again until it is known what came of it.
pub(super) async fn begin<L: InStore>(
    ledger: &L,
    log: &Log,
    instead_of: Option<u64>,
) -> Result<(), BeginError> {
    let instead_of = instead_of.map(Position);
    within_long("a begin", async {
        loop {
            let (next, epoch) = (Position(log.next), Epoch(log.epoch));
            let snapshot = log.snapshot.clone();
            match ledger.begin(next, epoch, snapshot, instead_of).await {
                Err(BeginError::Unavailable(_)) => tokio::time::sleep(PAUSE).await,
                told => return told,
            }
        }
    })
    .await
}

/// The entry at `at`; `None` when it was trimmed.
async fn entry_at<L: Ledger>(ledger: &L, at: Position) -> Option<Vec<u8>> {
    within("a read of what is there", async {
        loop {
            match read(ledger, at, 1).await {
                Ok(found) => {
                    if let Some(first) = found.into_iter().next() {
                        assert_eq!(first.position, at, "a read begins where it was asked to");
                        return Some(first.entry);
                    }
                }
                Err(ReadError::Trimmed { .. }) => return None,
                Err(error @ ReadError::Unavailable(_)) => panic!("asked again already: {error}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await
}

/// Every entry from `from` to `end`, exclusive, in as many reads as it takes.
pub(super) async fn read_all<L: Ledger>(
    ledger: &L,
    from: Position,
    end: Position,
) -> Vec<Committed> {
    within("a read of everything", async {
        let mut all: Vec<Committed> = Vec::new();
        let mut position = from;
        while position < end {
            let found = match read(ledger, position, 100).await {
                Ok(found) => found,
                Err(error) => panic!("a read from {position} was answered by {error}"),
            };
            for committed in found {
                assert_eq!(committed.position, position, "a read leaves nothing out");
                position = position.next();
                all.push(committed);
            }
            tokio::task::yield_now().await;
        }
        all.truncate(usize::try_from(end.0 - from.0).unwrap_or(usize::MAX));
        all
    })
    .await
}
