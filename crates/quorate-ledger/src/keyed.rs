//! The ledger on any store of keys and values that can create one key only if another exists.
//!
//! What stores have in common is written here once: which keys there are, snapshots in parts, trimming, and what an
//! answer means. A store brings the few steps of [`KeyValue`]. Beside those nothing is asked of it: no lock, no
//! lease and no session of a store is evidence of anything here.
//!
//! | key | value |
//! | --- | --- |
//! | `entries/00000000000000000007` | the entry at position 7, as it is |
//! | `tail` | JSON: the first free position, the epoch of the entry before it, the position at which the log begins; set in the step that creates that entry |
//! | `log/00000000000000000001` | nothing: it is there while the log that begins at this position has entries and takes more |
//! | `log/00000000000000000042-empty` | the same of one that was begun with a snapshot, until its first entry |
//! | `owner` | JSON: whose ledger it is |
//! | `snapshot` | JSON: the [`Pointer`] to the newest snapshot; only ever moved forward |
//! | `parts/00000000000000000003-9f…/00000` | a part of the snapshot with serial number 3 |
//!
//! Every append has the condition that the key of its log is there. Whoever begins the log anew or closes it takes that
//! key away in one step with all else, so that an append that was on its way never lands, whatever is left of its log.

mod begin;
mod owner;
mod pointer;
mod snapshots;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_core::ids::{Epoch, Position};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::hints::{Followed, Follower, occupied};
use crate::{
    AppendError, Appended, Cause, Committed, Hints, Ledger, READ_BYTES_MAX, ReadError, Snapshot,
    Tail,
};

pub(crate) use crate::store::StoreError;
use crate::store::{fits, has_moved, not_put};

use pointer::Pointer;

/// Where the end of the log is told.
pub(crate) const TAIL: &str = "tail";

/// How many entries a store is asked for at once. Most have a few KiB, the largest 256 KiB: an answer stays within
/// 4 MiB.
pub(crate) const CHUNK: usize = 16;

/// The key of the entry at a position; keys are in the order of their positions.
pub(crate) fn entry_key(at: Position) -> String {
    format!("entries/{:020}", at.0)
}

/// The key that is there while the log which begins at this position has entries and takes more.
fn log_key(begin: u64) -> String {
    format!("log/{begin:020}")
}

/// The key that is there instead until the first entry of a log that was begun with a snapshot. That entry may be trimmed
/// later, and its position is free no more.
fn empty_key(begin: u64) -> String {
    format!("log/{begin:020}-empty")
}

/// Whether a step that has a condition was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Done,
    /// The condition did not hold. With a store that was asked twice it may be this very step that made it so.
    NotSo,
}

/// A value, and what the store calls its version: equal versions of one key are the same value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Versioned {
    pub(crate) value: Vec<u8>,
    pub(crate) version: u64,
}

/// What makes an append right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After<'a> {
    /// This key exists, the entry before, and that of the log.
    Key(&'a str),
    /// This key exists: a log was begun and has no entry yet. That of the log takes its place.
    Begin(&'a str),
    /// `tail` does not exist: this is the first entry of all. The key of the log is made with it.
    Nothing,
}

/// An entry and the end that it makes, in one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewEntry<'a> {
    pub(crate) key: &'a str,
    pub(crate) value: &'a [u8],
    pub(crate) after: After<'a>,
    /// The key of the log.
    pub(crate) log: &'a str,
    /// What [`TAIL`] is set to.
    pub(crate) tail: &'a [u8],
}

/// A part of a step that changes several keys, each of them once.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change<'a> {
    /// Sets a key if it still has this version; `None`: if it is not there.
    Swap {
        key: &'a str,
        version: Option<u64>,
        value: &'a [u8],
    },
    /// Sets a key that is there, whatever it has.
    Set { key: &'a str, value: &'a [u8] },
    /// Deletes a key if it is there.
    Delete { key: &'a str },
    /// Changes nothing, if the key is not there.
    Free { key: &'a str },
}

/// The steps of a store. Keys are relative: the store puts the prefix of the cluster before them. Each step has its
/// own time limit, and may be called from several tasks at once.
pub(crate) trait KeyValue: Send + Sync + 'static {
    /// Creates an entry and sets `tail`, both or neither, if its key is free and its condition holds.
    fn create_entry(
        &self,
        entry: NewEntry<'_>,
    ) -> impl Future<Output = Result<Done, StoreError>> + Send;

    /// What a key has, linearizable: true at some moment after the call began.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Versioned>, StoreError>> + Send;

    /// The values of these keys, in their order; at most [`CHUNK`] of them. It may lag behind [`get`](Self::get), but
    /// not behind what this client has seen.
    fn get_all(
        &self,
        keys: &[String],
    ) -> impl Future<Output = Result<Vec<Option<Vec<u8>>>, StoreError>> + Send;

    /// Sets a key, whatever it had.
    fn put(&self, key: &str, value: &[u8]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Sets a key if it still has this version; `None`: if it is not there.
    fn swap(
        &self,
        key: &str,
        version: Option<u64>,
        value: &[u8],
    ) -> impl Future<Output = Result<Done, StoreError>> + Send;

    /// Makes these changes, all or none: none if what one of them asks for is not so. They are few.
    fn change(
        &self,
        changes: &[Change<'_>],
    ) -> impl Future<Output = Result<Done, StoreError>> + Send;

    /// Deletes entries from `from` up to `to`, exclusive, none of which is missing before one that is left: a
    /// position whose predecessor is still there must never become free. Entries that are not there are passed over.
    fn delete_entries(
        &self,
        from: Position,
        to: Position,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The names below `folder/`, one level, without it, in any order.
    fn list(&self, folder: &str) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;

    /// Deletes `folder/name` and all below it; no error where nothing is.
    fn delete_folder(
        &self,
        folder: &str,
        name: &str,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Tells each value of `tail` that it sees, at once and after every change, until it can no longer; values may be
    /// passed over. It waits for ever while nothing changes and the store answers.
    fn follow(
        &self,
        told: &(dyn Fn(&[u8]) + Send + Sync),
    ) -> impl Future<Output = StoreError> + Send;
}

impl<S: KeyValue> Followed for S {
    async fn follow(&self, hints: &watch::Sender<Hints>) -> Cause {
        let told = |value: &[u8]| {
            // What cannot be read is told by those who ask for the tail.
            if let Ok(end) = serde_json::from_slice::<End>(value) {
                occupied(hints, end.last());
            }
        };
        KeyValue::follow(self, &told).await.cause()
    }
}

/// The ledger on a store `S`.
#[derive(Debug)]
pub(crate) struct Keyed<S> {
    store: Arc<S>,
    hints: watch::Sender<Hints>,
    /// Where the log begins, as it was told last; 0 before that. Another one may have begun since: then no append of
    /// this client lands until it hears of it.
    begin: AtomicU64,
    _follower: Follower,
}

/// What `tail` has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    next: u64,
    epoch: u64,
    /// Where the log begins.
    begin: u64,
}

impl End {
    const NONE: Self = Self {
        next: 1,
        epoch: 0,
        begin: 1,
    };

    fn last(self) -> Position {
        Position(self.next - 1)
    }

    fn free(self) -> Position {
        Position(self.next)
    }

    /// The key without which nothing is appended here.
    fn key(self) -> String {
        if self.next == self.begin {
            empty_key(self.begin)
        } else {
            log_key(self.begin)
        }
    }
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    match serde_json::to_vec(value) {
        Ok(json) => json,
        Err(error) => unreachable!("numbers and text are always JSON: {error}"),
    }
}

fn from_json<'a, T: Deserialize<'a>>(key: &str, json: &'a [u8]) -> Result<T, ReadError> {
    serde_json::from_slice(json).map_err(|error| {
        let cause = format!(
            "key {key} is not what this version of quorate writes there ({error}); is the prefix used by something \
             else?"
        );
        ReadError::Unavailable(cause.into())
    })
}

/// `count` positions from `passed` after `from` on; fewer at the end of all numbers.
fn positions(from: Position, passed: usize, count: usize) -> Vec<Position> {
    let steps = (passed..passed + count).map_while(|step| u64::try_from(step).ok());
    let numbers = steps.map_while(|step| from.0.checked_add(step));
    numbers.map(Position).collect()
}

impl<S: KeyValue> Keyed<S> {
    /// The ledger in this store. Must be called within a Tokio runtime, which runs the task that follows the end.
    pub(crate) fn new(store: S) -> Self {
        let store = Arc::new(store);
        let hints = watch::Sender::new(Hints::default());
        let follower = Follower::spawn(Arc::clone(&store), hints.clone());
        Self {
            store,
            hints,
            begin: AtomicU64::new(0),
            _follower: follower,
        }
    }

    /// The end; `None` if nothing was ever appended.
    async fn some_end(&self) -> Result<Option<End>, ReadError> {
        let end = match self.store.get(TAIL).await? {
            Some(tail) => Some(from_json::<End>(TAIL, &tail.value)?),
            None => None,
        };
        self.knows_begin(end.unwrap_or(End::NONE).begin);
        Ok(end)
    }

    async fn end(&self) -> Result<End, ReadError> {
        Ok(self.some_end().await?.unwrap_or(End::NONE))
    }

    fn knows_begin(&self, begin: u64) {
        self.begin.store(begin, Ordering::SeqCst);
    }

    fn known_begin(&self) -> Option<u64> {
        let begin = self.begin.load(Ordering::SeqCst);
        (begin > 0).then_some(begin)
    }

    /// Appends to the log that begins there, if it still does.
    async fn create(
        &self,
        begin: u64,
        at: Position,
        epoch: Epoch,
        entry: &[u8],
    ) -> Result<Done, StoreError> {
        let before = entry_key(Position(at.0.saturating_sub(1)));
        let empty = empty_key(begin);
        let after = if at <= Position(1) {
            After::Nothing
        } else if at.0 == begin {
            After::Begin(&empty)
        } else {
            After::Key(&before)
        };
        let tail = to_json(&End {
            next: at.0.saturating_add(1),
            epoch: epoch.0,
            begin,
        });
        let new = NewEntry {
            key: &entry_key(at),
            value: entry,
            after,
            log: &log_key(begin),
            tail: &tail,
        };
        self.store.create_entry(new).await
    }

    /// What it means that an append was not done, when this is the end.
    async fn not_created(&self, at: Position, end: End) -> Result<Appended, AppendError> {
        if at.0 == end.next
            && let Ok(Some(owner)) = self.owner().await
            && let Some(to) = owner.moved_to
        {
            return Err(has_moved(at, &to));
        }
        not_put(at, Ok(end.next))
    }

    /// What is left of a log in which nothing was found at `from`.
    async fn nothing_at(&self, from: Position) -> Result<Vec<Committed>, ReadError> {
        let pointer = self.pointer().await?;
        let first = pointer.map_or(Position(1), |(pointer, _)| pointer.first());
        if from < first {
            return Err(ReadError::Trimmed { first });
        }
        Ok(Vec::new())
    }
}

impl<S: KeyValue> Ledger for Keyed<S> {
    async fn append(
        &self,
        at: Position,
        epoch: Epoch,
        entry: Vec<u8>,
    ) -> Result<Appended, AppendError> {
        fits(at, &entry)?;
        let mut begin = self.known_begin().unwrap_or(End::NONE.begin);
        loop {
            // Positions before are given up, though some of their entries may still be there.
            if at.0 < begin {
                return Ok(Appended::PositionTaken);
            }
            match self.create(begin, at, epoch, &entry).await {
                Ok(Done::Done) => {
                    self.knows_begin(begin);
                    occupied(&self.hints, at);
                    return Ok(Appended::Appended);
                }
                Ok(Done::NotSo) => {}
                Err(error) => return Err(error.of_append(at)),
            }
            let end = match self.end().await {
                Ok(end) => end,
                Err(error) => return not_put(at, Err(error)),
            };
            if end.begin <= begin {
                // It is rare, and need not be part of every append.
                return Box::pin(self.not_created(at, end)).await;
            }
            // Nothing was done, and this client did not know of the log that has begun.
            begin = end.begin;
        }
    }

    async fn tail(&self) -> Result<Tail, ReadError> {
        let end = self.end().await?;
        Ok(Tail {
            next: Position(end.next),
            epoch: Epoch(end.epoch),
        })
    }

    async fn read(&self, from: Position, limit: usize) -> Result<Vec<Committed>, ReadError> {
        let from = from.max(Position(1));
        let begin = match self.known_begin() {
            Some(begin) => begin,
            None => self.end().await?.begin,
        };
        if from.0 < begin && limit > 0 {
            return self.nothing_at(from).await;
        }
        let mut found: Vec<Committed> = Vec::new();
        let mut bytes = 0;
        while found.len() < limit && bytes < READ_BYTES_MAX {
            let positions = positions(from, found.len(), CHUNK.min(limit - found.len()));
            let keys: Vec<String> = positions.iter().map(|at| entry_key(*at)).collect();
            let values = self.store.get_all(&keys).await?;
            let present = values.into_iter().map_while(|value| value);
            let before = found.len();
            for (position, entry) in positions.iter().copied().zip(present) {
                bytes += entry.len();
                if bytes > READ_BYTES_MAX && !found.is_empty() {
                    return Ok(found);
                }
                found.push(Committed { position, entry });
            }
            if found.len() - before < CHUNK {
                break;
            }
        }
        if found.is_empty() && limit > 0 {
            return self.nothing_at(from).await;
        }
        Ok(found)
    }

    async fn save_snapshot(&self, next: Position, snapshot: Vec<u8>) -> Result<(), ReadError> {
        self.keep(next, &snapshot).await
    }

    async fn load_snapshot(&self) -> Result<Option<Snapshot>, ReadError> {
        self.load().await
    }

    fn hints(&self) -> watch::Receiver<Hints> {
        self.hints.subscribe()
    }
}
