//! What has happened: every director writes it down while it folds the ledger.
//!
//! The newest changes stay in memory, where streams of events read them; all go to segments on disk,
//! bounded in size, where the history of a partition is looked up. Nothing here decides anything, and
//! nothing here may hold up the loop: what cannot be written in time is counted as lost, never waited for.
//!
//! ```text
//!  loop ──record──► ring (memory) ──read──► event streams
//!           └─────► writer thread ──► segments ──search──► history of a partition
//! ```

mod batch;
mod ring;
mod segments;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_core::history::Change;
use quorate_core::ids::Position;
use quorate_core::time::WallTime;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub(crate) use batch::EventId;
pub(crate) use ring::Gone;
pub(crate) use segments::Searched;

use ring::Ring;
use segments::Segments;
use writer::Writer;

/// One change and where it was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recorded {
    /// Where in the ledger, and the how-manieth change there.
    #[serde(flatten)]
    pub(crate) id: EventId,
    /// When, by the leader's clock.
    pub(crate) wall: WallTime,
    /// What.
    pub(crate) change: Change,
}

/// The history of this director. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct History {
    ring: Arc<Mutex<Ring>>,
    newest: watch::Sender<EventId>,
    segments: Arc<Segments>,
}

/// The side of the history that the loop writes to.
#[derive(Debug)]
pub(crate) struct Recorder {
    history: History,
    writer: Writer,
    /// Everything up to here is written already: a start folds entries again.
    written: EventId,
}

/// Opens the history in a folder.
///
/// # Errors
/// When the folder cannot be used.
pub(crate) fn open(
    folder: &Path,
    bytes_max: u64,
    kept: usize,
) -> std::io::Result<(History, Recorder)> {
    let (segments, recent) = Segments::open(folder, bytes_max, kept)?;
    let written = recent.last().map_or(EventId::default(), |last| last.id);
    let ring = Ring::new(kept, recent);
    let newest = watch::Sender::new(ring.newest());
    let segments = Arc::new(segments);
    let history = History {
        ring: Arc::new(Mutex::new(ring)),
        newest,
        segments: Arc::clone(&segments),
    };
    let recorder = Recorder {
        history: history.clone(),
        writer: Writer::start(segments)?,
        written,
    };
    Ok((history, recorder))
}

impl Recorder {
    /// Takes what one entry changed.
    pub(crate) fn record(&mut self, position: Position, wall: WallTime, changes: Vec<Change>) {
        for batch in batch::split(position, wall, changes, self.written) {
            let batch = Arc::new(batch);
            self.written = batch.last();
            self.history.lock().extend(Arc::clone(&batch));
            self.writer.write(batch);
        }
        self.history.newest.send_if_modified(|newest| {
            let newer = *newest < self.written;
            *newest = self.written.max(*newest);
            newer
        });
    }

    /// The state was replaced by a snapshot: what happened before `position` is not known here.
    pub(crate) fn gap(&mut self, position: Position) {
        if position > self.written.position {
            let newest = self.history.lock().gap(position);
            self.history.newest.send_replace(newest);
            self.writer.gap(position);
            self.written = newest;
        }
    }

    /// Writes the rest and ends.
    pub(crate) fn close(self) {
        self.writer.close();
    }
}

impl History {
    /// The newest change, or where the history begins.
    pub(crate) fn newest(&self) -> EventId {
        *self.newest.borrow()
    }

    /// Tells of changes that are newer.
    pub(crate) fn watch(&self) -> watch::Receiver<EventId> {
        self.newest.subscribe()
    }

    /// At most `limit` changes after `after`.
    ///
    /// # Errors
    /// When some of them are no longer in memory.
    pub(crate) fn after(&self, after: EventId, limit: usize) -> Result<Vec<Recorded>, Gone> {
        self.lock().after(after, limit)
    }

    /// The place after which come all changes at this time or later.
    ///
    /// # Errors
    /// When some of them may no longer be in memory.
    pub(crate) fn before(&self, wall: WallTime) -> Result<EventId, Gone> {
        self.lock().before(wall)
    }

    /// Every change of one partition that is still kept, oldest first. Reads files: not for the loop.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub(crate) fn of_partition(&self, service: &str, key: &str) -> std::io::Result<Searched> {
        // A line without the key as it is written in JSON need not be taken apart.
        let needle = serde_json::to_string(key)?;
        self.search(&needle, |change| concerns(change, service, key))
    }

    /// Every change of which it is kept who asked for it, oldest first. Reads files: not for the loop.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub(crate) fn audit(&self) -> std::io::Result<Searched> {
        self.search("\"audited\"", |change| matches!(change, Change::Audited(_)))
    }

    fn search(&self, needle: &str, wanted: impl Fn(&Change) -> bool) -> std::io::Result<Searched> {
        let mut found = self.segments.search(needle, &wanted)?;
        let known = found.entries.last().map(|last| last.id);
        // The writer may be a moment behind the fold.
        let newer = self.lock().search(&wanted, known);
        found.entries.extend(newer);
        Ok(found)
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // Every change of the ring is complete before anything can panic.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a change is about this partition.
fn concerns(change: &Change, service: &str, key: &str) -> bool {
    let subject = change.subject();
    subject.is_some_and(|of| of.service.as_str() == service && of.key.as_str() == key)
}

#[cfg(test)]
mod tests;
