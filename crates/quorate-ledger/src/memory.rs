//! The ledger in memory: the smallest thing that keeps every rule of [`Ledger`], and so the model that
//! the others are compared with. It is for tests, simulations and trials.
//!
//! It must never be more lenient than a durable ledger: what it accepts, all accept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_core::ids::{Epoch, Position};
use quorate_core::record::ENTRY_BYTES_MAX;
use tokio::sync::watch;

use crate::{
    AppendError, Appended, Committed, Hints, Leader, Ledger, READ_BYTES_MAX, ReadError, Snapshot,
    Tail,
};

/// A ledger in memory. Clones are the same client of the store; [`another`](MemoryLedger::another) makes one
/// more.
#[derive(Clone, Debug)]
pub struct MemoryLedger {
    store: Arc<Mutex<Store>>,
    hints: watch::Sender<Hints>,
}

/// What the store holds.
#[derive(Debug)]
struct Store {
    /// Position of the oldest entry in `entries`, or the first free one when there is none.
    first: Position,
    entries: VecDeque<(Epoch, Vec<u8>)>,
    snapshot: Option<Snapshot>,
    /// The hints of every client.
    clients: Vec<watch::Sender<Hints>>,
}

impl Store {
    fn next(&self) -> Position {
        Position(self.first.0 + self.entries.len() as u64)
    }

    fn entry(&self, at: Position) -> Option<&(Epoch, Vec<u8>)> {
        let offset = usize::try_from(at.0.checked_sub(self.first.0)?).ok()?;
        self.entries.get(offset)
    }
}

impl Default for MemoryLedger {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLedger {
    /// An empty store that gives no hint who should lead, as a shared store does.
    #[must_use]
    pub fn new() -> Self {
        let hints = watch::Sender::new(Hints::default());
        Self {
            store: Arc::new(Mutex::new(Store {
                first: Position(1),
                entries: VecDeque::new(),
                snapshot: None,
                clients: vec![hints.clone()],
            })),
            hints,
        }
    }

    /// One more client of this store, which is hinted at by itself: that of another director.
    #[must_use]
    pub fn another(&self) -> Self {
        let mut store = self.lock();
        let occupied = Position(store.next().0 - 1);
        let hints = watch::Sender::new(Hints {
            occupied,
            ..Hints::default()
        });
        store.clients.push(hints.clone());
        drop(store);
        Self {
            store: Arc::clone(&self.store),
            hints,
        }
    }

    /// Hints to this client whether it should lead, as the embedded quorum does.
    pub fn hint_leadership(&self, should_lead: Option<bool>) {
        self.hints
            .send_modify(|hints| hints.should_lead = should_lead);
    }

    /// Hints to this client whether it should lead, and who does.
    pub fn hint_leader(&self, should_lead: bool, leader: Option<Leader>) {
        self.hints.send_modify(|hints| {
            hints.should_lead = Some(should_lead);
            hints.leader = leader;
        });
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        // Every change below is complete before anything can panic, so a poisoned store is whole.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append_now(
        &self,
        at: Position,
        epoch: Epoch,
        entry: Vec<u8>,
    ) -> Result<Appended, AppendError> {
        let refused = |cause: String| AppendError::Refused {
            at,
            cause: cause.into(),
        };
        if entry.len() > ENTRY_BYTES_MAX {
            return Err(refused(format!(
                "an entry has at most {ENTRY_BYTES_MAX} bytes, this one has {}",
                entry.len()
            )));
        }
        let mut store = self.lock();
        let next = store.next();
        if at < next {
            return Ok(Appended::PositionTaken);
        }
        if at > next {
            return Err(refused(format!("position {next} before it is still free")));
        }
        store.entries.push_back((epoch, entry));
        for client in &store.clients {
            client.send_modify(|hints| hints.occupied = hints.occupied.max(at));
        }
        Ok(Appended::Appended)
    }

    fn read_now(&self, from: Position, limit: usize) -> Result<Vec<Committed>, ReadError> {
        let store = self.lock();
        if from < store.first {
            return Err(ReadError::Trimmed { first: store.first });
        }
        let mut bytes = 0;
        let mut found = Vec::new();
        let mut position = from;
        while found.len() < limit
            && let Some((_, entry)) = store.entry(position)
        {
            bytes += entry.len();
            if bytes > READ_BYTES_MAX && !found.is_empty() {
                break;
            }
            found.push(Committed {
                position,
                entry: entry.clone(),
            });
            position = position.next();
        }
        Ok(found)
    }

    fn save_now(&self, next: Position, bytes: Vec<u8>) -> Result<(), ReadError> {
        let mut store = self.lock();
        if next > store.next() {
            let cause =
                format!("a snapshot up to position {next} covers entries that are not there");
            return Err(ReadError::Unavailable(cause.into()));
        }
        let before = match &store.snapshot {
            Some(kept) if kept.next >= next => return Ok(()),
            Some(kept) => kept.next,
            None => store.first,
        };
        store.snapshot = Some(Snapshot { next, bytes });
        // Whoever is reading up to the snapshot before this one must still find what follows it.
        while store.first < before && store.entries.len() > 1 {
            store.entries.pop_front();
            store.first = store.first.next();
        }
        Ok(())
    }
}

impl Ledger for MemoryLedger {
    async fn append(
        &self,
        at: Position,
        epoch: Epoch,
        entry: Vec<u8>,
    ) -> Result<Appended, AppendError> {
        self.append_now(at, epoch, entry)
    }

    async fn tail(&self) -> Result<Tail, ReadError> {
        let store = self.lock();
        Ok(Tail {
            next: store.next(),
            epoch: store.entries.back().map_or(Epoch(0), |(epoch, _)| *epoch),
        })
    }

    async fn read(&self, from: Position, limit: usize) -> Result<Vec<Committed>, ReadError> {
        self.read_now(from.max(Position(1)), limit)
    }

    async fn save_snapshot(&self, next: Position, snapshot: Vec<u8>) -> Result<(), ReadError> {
        self.save_now(next, snapshot)
    }

    async fn load_snapshot(&self) -> Result<Option<Snapshot>, ReadError> {
        Ok(self.lock().snapshot.clone())
    }

    fn hints(&self) -> watch::Receiver<Hints> {
        self.hints.subscribe()
    }
}
