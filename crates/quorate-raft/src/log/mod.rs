//! The log on disk: segment files of checksummed frames, written by one thread that groups what waits
//! into one write and one sync.
//!
//! ```text
//!  log-00000000000000000000   frames of the records from 0 on, zeros up to its size
//!  log-00000000000000041234   … from 41234 on; its header repeats the checksum before it
//!  acknowledged               (index, term, checksum) of the last acknowledged group, twice
//!  vote, purged               small sealed files
//! ```
//!
//! It must never acknowledge what is not synced, and never drop what was acknowledged: a group that was
//! cut off by a crash before its acknowledgement is removed when the log is opened; a record that was
//! acknowledged and is damaged or gone refuses the opening.

mod frame;
mod marks;
mod recover;
mod segment;
mod storage;
mod writer;

#[cfg(test)]
mod power;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot, watch};

use crate::error::Failure;
use crate::planted::{self, Planted};
use crate::types::{Entry, LogId, Vote, log_id, term_of};

pub(crate) use frame::Members;
pub(crate) use recover::{begin_behind, open};
use segment::Segment;
use writer::Work;

/// Sizes that a test makes small.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Bytes of a segment file, all of which are written when it is made.
    pub(crate) segment: u32,
    /// Bytes of entries kept in memory for reading; those not yet on disk are kept beyond it.
    pub(crate) cache: usize,
}

/// The log, for the Raft library and for reading entries. Clones are the same log.
#[derive(Clone, Debug)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    writer: mpsc::Sender<Work>,
}

/// What the writer thread and the readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    dir: PathBuf,
    sizes: Sizes,
    index: Mutex<Index>,
    failed: watch::Sender<Option<Failure>>,
    /// Since when the writer has been busy with the disk; `None` while it waits for work.
    busy: Mutex<Option<Instant>>,
}

/// Where every record of the log is.
#[derive(Debug)]
struct Index {
    purged: Option<LogId>,
    /// Index of the first of `records`.
    base: u64,
    records: VecDeque<Record>,
    /// Segments in order; a record that none of them has yet is in the cache.
    segments: VecDeque<Segment>,
    cached_bytes: usize,
    /// Nothing below it is in the cache.
    evicted: u64,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

#[derive(Debug)]
struct Record {
    term: u64,
    entry: Option<Arc<Entry>>,
}

impl Index {
    fn next(&self) -> u64 {
        self.base + self.records.len() as u64
    }

    /// First index that is on disk no more, or not yet.
    fn written(&self) -> u64 {
        self.segments.back().map_or(self.base, Segment::next)
    }

    fn record(&self, index: u64) -> Option<&Record> {
        let offset = usize::try_from(index.checked_sub(self.base)?).ok()?;
        self.records.get(offset)
    }

    fn last(&self) -> Option<LogId> {
        match self.records.back() {
            Some(record) => Some(log_id(record.term, self.next() - 1)),
            None => self.purged,
        }
    }

    fn push(&mut self, entry: Arc<Entry>) {
        self.cached_bytes += frame::weight(&entry);
        self.records.push_back(Record {
            term: term_of(&entry.log_id),
            entry: Some(entry),
        });
    }

    /// Drops the records from `from` on.
    fn truncate(&mut self, from: u64) {
        while self.next() > from
            && let Some(record) = self.records.pop_back()
        {
            self.forget(&record);
        }
        self.evicted = self.evicted.min(from);
    }

    /// Drops the records up to `upto`, which may lie beyond the last one.
    fn purge(&mut self, upto: LogId) {
        while self.base <= upto.index
            && let Some(record) = self.records.pop_front()
        {
            self.forget(&record);
            self.base += 1;
        }
        self.base = upto.index + 1;
        self.evicted = self.evicted.max(self.base);
        self.purged = Some(upto);
    }

    fn forget(&mut self, record: &Record) {
        if let Some(entry) = &record.entry {
            self.cached_bytes -= frame::weight(entry);
        }
    }

    /// Frees the oldest cached entries that are on disk, until the cache fits.
    fn evict(&mut self, limit: usize) {
        self.evicted = self.evicted.max(self.base);
        while self.cached_bytes > limit && self.evicted < self.written() {
            let offset = usize::try_from(self.evicted - self.base).unwrap_or(usize::MAX);
            let Some(record) = self.records.get_mut(offset) else {
                return;
            };
            if let Some(entry) = record.entry.take() {
                self.cached_bytes -= frame::weight(&entry);
            }
            self.evicted += 1;
        }
    }
}

/// Where to get one entry from.
enum Source {
    Cache(Arc<Entry>),
    Disk(segment::Place),
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        // Each change is whole before anything can panic; a panicking writer fails the log anyhow.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, why: String) {
        tracing::error!(
            error = why,
            "the log cannot be written any more; the director must stop"
        );
        self.failed.send_if_modified(|failed| match failed {
            Some(_) => false,
            None => {
                *failed = Some(Failure::new(why));
                true
            }
        });
    }

    fn error_if_failed(&self) -> io::Result<()> {
        match &*self.failed.borrow() {
            Some(_) if planted::has(Planted::WriteAfterError) => Ok(()),
            Some(failure) => Err(io::Error::other(failure.clone())),
            None => Ok(()),
        }
    }
}

impl LogStore {
    /// Reads the entries at these indices until one is not there, up to about `bytes` of them but at least one.
    ///
    /// Reads the disk for those that are no longer in memory: on an async task only where few are.
    pub(crate) fn read(
        &self,
        indices: impl IntoIterator<Item = u64>,
        bytes: usize,
    ) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut read = 0;
        for index in indices {
            let Some(source) = self.source(index)? else {
                break;
            };
            let entry = match source {
                Source::Cache(entry) => (*entry).clone(),
                Source::Disk(place) => place.read(index)?,
            };
            read += frame::weight(&entry);
            if read > bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Whether all of these can be read without the disk.
    pub(crate) fn in_memory(&self, indices: &[u64]) -> bool {
        let shared = self.shared.index();
        indices.iter().all(|index| {
            let record = shared.record(*index);
            record.is_none_or(|record| record.entry.is_some())
        })
    }

    fn source(&self, index: u64) -> io::Result<Option<Source>> {
        let shared = self.shared.index();
        let Some(record) = shared.record(index) else {
            return Ok(None);
        };
        if let Some(entry) = &record.entry {
            return Ok(Some(Source::Cache(Arc::clone(entry))));
        }
        let found = shared
            .segments
            .iter()
            .rev()
            .find(|segment| segment.first <= index);
        match found.and_then(|segment| segment.place(index)) {
            Some(place) => Ok(Some(Source::Disk(place))),
            None => Err(io::Error::other(format!(
                "record {index} is neither in memory nor in a segment"
            ))),
        }
    }

    /// The id of a record that is there.
    pub(crate) fn id_at(&self, index: u64) -> Option<LogId> {
        let shared = self.shared.index();
        match shared.record(index) {
            Some(record) => Some(log_id(record.term, index)),
            None => shared.purged.filter(|purged| purged.index == index),
        }
    }

    /// The last record that was purged.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.shared.index().purged
    }

    /// The last record, on disk or on its way there.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.shared.index().last()
    }

    /// Bytes of entries in memory.
    #[cfg(test)]
    pub(crate) fn cached_bytes(&self) -> usize {
        self.shared.index().cached_bytes
    }

    /// Tells when the log failed for good.
    pub(crate) fn failed(&self) -> watch::Receiver<Option<Failure>> {
        self.shared.failed.subscribe()
    }

    /// Fails the log: nothing is written from here on.
    pub(crate) fn fail(&self, why: String) {
        self.shared.fail(why);
    }

    /// Since when the disk has owed an answer.
    pub(crate) fn busy_since(&self) -> Option<Instant> {
        *self
            .shared
            .busy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the writer something to do and waits for it.
    async fn ask(
        &self,
        work: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Work,
    ) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.writer.send(work(done)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Writes what is left to write and ends the writer thread, which gives the folder free.
    pub(crate) async fn close(&self) -> io::Result<()> {
        self.ask(Work::Close).await
    }
}

fn stopped() -> io::Error {
    io::Error::other("the log was closed")
}
