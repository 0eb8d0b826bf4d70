//! The replicated state machine: the next position, the last epoch, where each entry is in the log, and
//! the last snapshot that was kept. The rule of appends is checked here, when a record is applied, so
//! that every director finds the same.
//!
//! It has no clock and must never look at an entry: what entries mean is folded elsewhere.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt};
use openraft::alias::SnapshotOf;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, Snapshot};
use quorate_core::ids::{Epoch, Position};
use quorate_ledger::{Hints, READ_BYTES_MAX};
use tokio::sync::watch;

use crate::log::LogStore;
use crate::snapshot::{self, Head};
use crate::types::{Entry, LogId, Outcome, Proposal, SnapshotMeta, StoredMembership, Types};

/// The state machine, for the Raft library.
#[derive(Debug)]
pub(crate) struct Machine {
    view: Arc<View>,
}

/// What was applied, for the ledger's calls.
#[derive(Debug)]
pub(crate) struct View {
    dir: PathBuf,
    applied: Mutex<Applied>,
    hints: watch::Sender<Hints>,
    /// Held while a snapshot is written, so that the newest file is always the newest snapshot: one from
    /// another director may arrive while one of this director is on its way.
    writing: Mutex<()>,
}

/// The state after the last applied record.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    last: Option<LogId>,
    /// The memberships since the last snapshot, oldest first; never empty.
    memberships: Vec<StoredMembership>,
    pub(crate) next: Position,
    pub(crate) epoch: Epoch,
    /// Position of the first of `places`.
    pub(crate) first: Position,
    places: VecDeque<Place>,
    pub(crate) kept: Option<Head>,
}

/// One entry in the log.
#[derive(Clone, Copy, Debug)]
struct Place {
    index: u64,
    epoch: Epoch,
}

impl Default for Applied {
    fn default() -> Self {
        Self {
            last: None,
            memberships: vec![StoredMembership::default()],
            next: Position(1),
            epoch: Epoch(0),
            first: Position(1),
            places: VecDeque::new(),
            kept: None,
        }
    }
}

impl Applied {
    /// The state that a snapshot holds, with no entry.
    fn from_snapshot(head: Head) -> Self {
        Self {
            last: Some(head.last),
            memberships: vec![head.membership.clone()],
            next: head.next,
            epoch: head.epoch,
            first: head.next,
            places: VecDeque::new(),
            kept: Some(head),
        }
    }

    /// The rule: only the first free position can be taken.
    fn propose(&mut self, index: u64, proposal: &Proposal) -> Outcome {
        if proposal.at < self.next {
            return Outcome::PositionTaken;
        }
        if proposal.at > self.next {
            return Outcome::Gap { next: self.next };
        }
        self.places.push_back(Place {
            index,
            epoch: proposal.epoch,
        });
        self.next = self.next.next();
        self.epoch = proposal.epoch;
        Outcome::Appended
    }

    fn apply(&mut self, entry: &Entry) -> Outcome {
        self.last = Some(entry.log_id);
        match &entry.payload {
            EntryPayload::Blank => Outcome::Nothing,
            EntryPayload::Normal(proposal) => self.propose(entry.log_id.index, proposal),
            EntryPayload::Membership(membership) => {
                let stored = StoredMembership::new(Some(entry.log_id), membership.clone());
                self.memberships.push(stored);
                Outcome::Nothing
            }
        }
    }

    fn place(&self, position: Position) -> Option<Place> {
        let offset = usize::try_from(position.0.checked_sub(self.first.0)?).ok()?;
        self.places.get(offset).copied()
    }

    /// Log indices of the entries from `from` on, at most `limit`.
    pub(crate) fn indices(&self, from: Position, limit: usize) -> Vec<u64> {
        let offset = usize::try_from(from.0.saturating_sub(self.first.0)).unwrap_or(usize::MAX);
        let places = self.places.iter().skip(offset).take(limit);
        places.map(|place| place.index).collect()
    }

    /// The head of a snapshot of the state before `next`; `None` when nothing can be cut there.
    pub(crate) fn cut(&self, next: Position, log: &LogStore) -> Option<Head> {
        let last = if next == self.next {
            self.last?
        } else {
            // Whatever stands before the entry at `next` and holds no position belongs to the snapshot.
            log.id_at(self.place(next)?.index.checked_sub(1)?)?
        };
        let epoch = match next.0.checked_sub(1) {
            None | Some(0) => Epoch(0),
            Some(before) => self.place(Position(before))?.epoch,
        };
        let membership = self
            .memberships
            .iter()
            .rfind(|membership| membership.log_id().is_none_or(|from| from <= last))?;
        // One snapshot behind: entries that the one before does not cover are kept.
        let (kept, kept_after) = match &self.kept {
            Some(before) => (before.next, Some(before.last.index)),
            None => (Position(1), None),
        };
        Some(Head {
            last,
            membership: membership.clone(),
            next,
            epoch,
            kept,
            kept_after,
        })
    }

    /// Takes a snapshot that is on disk for the newest, and lets go of what it trims.
    pub(crate) fn keep(&mut self, head: Head) {
        while self.first < head.kept && self.places.len() > 1 {
            self.places.pop_front();
            self.first = self.first.next();
        }
        while let [first, second, ..] = self.memberships.as_slice()
            && second.log_id().is_some_and(|from| from <= head.last)
        {
            debug_assert!(first.log_id() < second.log_id(), "memberships are in order");
            self.memberships.remove(0);
        }
        self.kept = Some(head);
    }
}

impl View {
    /// Restores the state of the newest snapshot and finds the entries that were kept behind it.
    pub(crate) fn restore(
        dir: PathBuf,
        head: Option<Head>,
        log: &LogStore,
    ) -> io::Result<Arc<Self>> {
        let applied = match head {
            Some(head) => behind(head, log)?,
            None => Applied::default(),
        };
        let hints = Hints {
            occupied: Position(applied.next.0 - 1),
            should_lead: Some(false),
            leader: None,
        };
        Ok(Arc::new(Self {
            dir,
            applied: Mutex::new(applied),
            hints: watch::Sender::new(hints),
            writing: Mutex::new(()),
        }))
    }

    pub(crate) fn applied(&self) -> MutexGuard<'_, Applied> {
        // Each record is applied whole; a panic while one is would be a bug that repeats everywhere.
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) const fn hints(&self) -> &watch::Sender<Hints> {
        &self.hints
    }

    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// Writes a snapshot of this director's own durably and takes it for the newest, unless a later one
    /// came in between. Blocks.
    pub(crate) fn keep(&self, head: Head, fold: &[u8]) -> io::Result<()> {
        let _alone = self.alone();
        let later = |kept: &Head| kept.next >= head.next;
        if self.applied().kept.as_ref().is_some_and(later) {
            return Ok(());
        }
        snapshot::save(&self.dir, &head, fold)?;
        self.applied().keep(head);
        Ok(())
    }

    /// Makes a snapshot of another director the state of this one; until it is durable, the one before
    /// is. Blocks.
    fn install(&self, meta: &SnapshotMeta, mut received: File) -> io::Result<()> {
        let loaded = snapshot::read(&mut received)?;
        let head = Head {
            kept: loaded.head.next,
            kept_after: Some(loaded.head.last.index),
            ..loaded.head
        };
        if head.meta() != *meta {
            return Err(io::Error::other(
                "a snapshot holds another state than was announced",
            ));
        }
        let _alone = self.alone();
        snapshot::save(&self.dir, &head, &loaded.fold)?;
        // What was kept before may lead elsewhere than the history of this snapshot.
        snapshot::forget_before(&self.dir)?;
        let next = head.next;
        *self.applied() = Applied::from_snapshot(head);
        self.hint_occupied(next);
        Ok(())
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        // It guards files, which are whole whatever happened to who held it.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hint_occupied(&self, next: Position) {
        let occupied = Position(next.0 - 1);
        self.hints.send_if_modified(|hints| {
            let newer = occupied > hints.occupied;
            hints.occupied = hints.occupied.max(occupied);
            newer
        });
    }
}

/// The state of a snapshot together with the entries before it that are still in the log.
fn behind(head: Head, log: &LogStore) -> io::Result<Applied> {
    let after = head.kept_after.map_or(0, |after| after + 1);
    let purged = log.purged().map_or(0, |purged| purged.index + 1);
    let end = head.last.index + 1;
    let mut applied = Applied::from_snapshot(head.clone());
    // With the snapshot before in use, its entries may be gone already.
    if purged > after || log.last().is_none_or(|last| last.index + 1 < end) {
        return Ok(applied);
    }
    let mut scanned = Applied {
        next: head.kept,
        first: head.kept,
        ..Applied::default()
    };
    let mut index = after;
    while index < end {
        let entries = log.read(index..end, READ_BYTES_MAX)?;
        if entries.is_empty() {
            return Err(io::Error::other(format!("record {index} is gone")));
        }
        for entry in &entries {
            scanned.apply(entry);
            index = entry.log_id.index + 1;
        }
    }
    if scanned.next != head.next {
        let (found, next) = (scanned.next, head.next);
        return Err(io::Error::other(format!(
            "the log leads to position {found} where the snapshot has {next}"
        )));
    }
    applied.first = scanned.first;
    applied.places = scanned.places;
    Ok(applied)
}

impl Machine {
    pub(crate) const fn new(view: Arc<View>) -> Self {
        Self { view }
    }

    fn snapshot(&self) -> io::Result<Option<SnapshotOf<Types, File>>> {
        let Some(head) = self.view.applied().kept.clone() else {
            return Ok(None);
        };
        Ok(Some(Snapshot {
            meta: head.meta(),
            snapshot: snapshot::open_newest(&self.view.dir)?,
        }))
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = File;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.view.applied();
        let membership = applied.memberships.last().cloned().unwrap_or_default();
        Ok((applied.last, membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let (outcome, next) = {
                let mut applied = self.view.applied();
                (applied.apply(&entry), applied.next)
            };
            // The hint first: who is answered may look at once.
            if outcome == Outcome::Appended {
                self.view.hint_occupied(next);
            }
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        let kept = self.view.applied().kept.is_some();
        (kept || force).then(|| Builder(Self::new(Arc::clone(&self.view))))
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder(Self::new(Arc::clone(&self.view)))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        received: File,
    ) -> Result<(), io::Error> {
        let (view, meta) = (Arc::clone(&self.view), meta.clone());
        let installed = tokio::task::spawn_blocking(move || view.install(&meta, received));
        installed.await.map_err(io::Error::other)?
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types, File>>, io::Error> {
        self.snapshot()
    }
}

/// Tells the Raft library of the snapshot that the keeper wrote.
#[derive(Debug)]
pub(crate) struct Builder(Machine);

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = File;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, File>, io::Error> {
        let snapshot = self.0.snapshot()?;
        snapshot.ok_or_else(|| io::Error::other("no snapshot of the fold was kept yet"))
    }
}
