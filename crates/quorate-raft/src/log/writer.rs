//! The thread that writes the log. It alone changes the files of the log, in the order it is told.
//!
//! Appends that wait while it writes are the next group: one write, one sync, one mark, then all their
//! acknowledgements. After the first error it writes nothing more: what a failed sync left on disk is
//! known only after reopening (R15).

use std::io;
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::frame::{self, Stand};
use super::marks::{Mark, Marks};
use super::recover::{PURGED, StoredId, StoredVote, VOTE};
use super::segment::{HEADER, Segment, zeros};
use crate::disk::{self, Handle};
use crate::files::{self, Kind, Lock};
use crate::planted::{self, Planted};
use crate::types::{Entry, LogId, Types, Vote, term_of};

/// Work that may wait. The Raft library sends one append per batch and merges those that wait itself, so
/// a full queue means a stuck disk; senders then wait too.
pub(super) const QUEUE: usize = 256;

/// Most bytes in one group: bounds the memory of a write, far above what waits during one sync.
const GROUP_BYTES: usize = 4 * 1024 * 1024;

/// How long after its group a mark may stay unsynced.
const MARK_DELAY: Duration = Duration::from_millis(50);

type Done = oneshot::Sender<io::Result<()>>;

/// What the thread is told to do.
pub(super) enum Work {
    /// Write the entries, then call back.
    Append(Vec<Arc<Entry>>, IOFlushed<Types>),
    /// Make the vote durable.
    Vote(Vote, Done),
    /// Remove the records from this index on.
    Truncate(u64, Done),
    /// Forget the records up to this one.
    Purge(LogId, Done),
    /// Sync everything and end.
    Close(Done),
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Append(..) => "Append",
            Self::Vote(..) => "Vote",
            Self::Truncate(..) => "Truncate",
            Self::Purge(..) => "Purge",
            Self::Close(..) => "Close",
        })
    }
}

/// What the thread owns.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    marks: Marks,
    marks_synced: Instant,
    /// Checksum of the last record.
    crc: u32,
    /// The next segment, being made while this one fills.
    spare: Option<JoinHandle<io::Result<Handle>>>,
    /// Held until nothing can write any more.
    _lock: Lock,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, marks: Marks, crc: u32, lock: Lock) -> Self {
        Self {
            shared,
            marks,
            marks_synced: Instant::now(),
            crc,
            spare: None,
            _lock: lock,
        }
    }

    /// Starts the thread. It ends when it is told to close or when every sender is gone.
    pub(super) fn spawn(mut self, mut work: mpsc::Receiver<Work>) -> io::Result<()> {
        let waiting = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        thread::Builder::new()
            .name("quorate-log".to_owned())
            .spawn(move || {
                while let Some(first) = self.wait(&waiting, &mut work) {
                    self.note_busy(true);
                    let closed = self.work(first, &mut work);
                    self.note_busy(false);
                    if let Some(done) = closed {
                        drop(self);
                        drop(done.send(Ok(())));
                        return;
                    }
                }
            })?;
        Ok(())
    }

    fn note_busy(&self, busy: bool) {
        let since = busy.then(Instant::now);
        *self
            .shared
            .busy
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Waits for work; syncs the marks when none comes for a moment.
    fn wait(
        &mut self,
        waiting: &tokio::runtime::Runtime,
        work: &mut mpsc::Receiver<Work>,
    ) -> Option<Work> {
        if let Ok(work) = work.try_recv() {
            return Some(work);
        }
        let soon = waiting.block_on(async { tokio::time::timeout(MARK_DELAY, work.recv()).await });
        match soon {
            Ok(work) => work,
            Err(_) => {
                self.sync_marks();
                waiting.block_on(work.recv())
            }
        }
    }

    fn sync_marks(&mut self) {
        if self.shared.error_if_failed().is_err() {
            return;
        }
        if let Err(error) = self.marks.sync() {
            self.shared
                .fail(format!("the marks of the log cannot be synced: {error}"));
        }
        self.marks_synced = Instant::now();
    }

    /// Does one thing, or one group of appends and the thing that ended it; tells when to end.
    fn work(&mut self, first: Work, queue: &mut mpsc::Receiver<Work>) -> Option<Done> {
        let mut next = Some(first);
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(Work::Append(entries, callback)) = next {
            bytes += entries
                .iter()
                .map(|entry| frame::weight(entry))
                .sum::<usize>();
            group.push((entries, callback));
            next = if bytes < GROUP_BYTES {
                queue.try_recv().ok()
            } else {
                None
            };
        }
        if !group.is_empty() {
            self.append(group);
        }
        match next? {
            Work::Append(..) => None,
            Work::Vote(vote, done) => self.answer(done, |writer| writer.save_vote(vote)),
            Work::Truncate(from, done) => self.answer(done, |writer| writer.truncate(from)),
            Work::Purge(upto, done) => self.answer(done, |writer| writer.purge(upto)),
            Work::Close(done) => {
                self.sync_marks();
                if let Some(spare) = self.spare.take() {
                    drop(spare.join());
                }
                Some(done)
            }
        }
    }

    fn answer(
        &mut self,
        done: Done,
        work: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> Option<Done> {
        let result = self.shared.error_if_failed().and_then(|()| work(self));
        if let Err(error) = &result {
            self.shared
                .fail(format!("the log cannot be changed: {error}"));
        }
        // Whoever asked may have been cancelled; the work is done all the same.
        drop(done.send(result));
        None
    }

    /// Writes a group and answers for it.
    fn append(&mut self, group: Vec<(Vec<Arc<Entry>>, IOFlushed<Types>)>) {
        let (entries, callbacks): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let entries: Vec<Arc<Entry>> = entries.into_iter().flatten().collect();
        let written = self
            .shared
            .error_if_failed()
            .and_then(|()| self.write(&entries));
        match written {
            Ok(()) => {
                for callback in callbacks {
                    callback.io_completed(Ok(()));
                }
                if self.marks_synced.elapsed() > MARK_DELAY {
                    self.sync_marks();
                }
            }
            Err(error) => {
                self.shared
                    .fail(format!("the log cannot be written: {error}"));
                for callback in callbacks {
                    callback.io_completed(Err(io::Error::new(error.kind(), error.to_string())));
                }
            }
        }
    }

    /// Makes entries durable and marks them as acknowledged.
    fn write(&mut self, entries: &[Arc<Entry>]) -> io::Result<()> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(());
        };
        let group = first.log_id.index;
        let mut bytes = Vec::new();
        let mut sizes = Vec::new();
        for entry in entries {
            let start = bytes.len();
            let stand = Stand {
                before: self.crc,
                group,
            };
            let crc = frame::encode(entry, stand, &mut bytes)?;
            let size = bytes.len() - start;
            if !self.fits(bytes.len())? {
                let frame = bytes.split_off(start);
                self.write_out(&bytes, &sizes)?;
                self.next_segment(entry.log_id.index, size)?;
                bytes = frame;
                sizes.clear();
            }
            sizes.push(u32::try_from(size).map_err(io::Error::other)?);
            self.crc = crc;
        }
        self.write_out(&bytes, &sizes)?;
        let committed = self.shared.index().committed;
        if planted::has(Planted::UnmarkedAck) {
            return Ok(());
        }
        self.marks.write(Mark {
            next: last.log_id.index + 1,
            term: term_of(&last.log_id),
            crc: self.crc,
            committed: committed.map_or((0, 0), |id| (id.index + 1, term_of(&id))),
            ..Mark::default()
        })?;
        self.shared.index().evict(self.shared.sizes.cache);
        Ok(())
    }

    /// Whether the current segment has room for so many bytes more.
    fn fits(&self, bytes: usize) -> io::Result<bool> {
        let bytes = u32::try_from(bytes).map_err(io::Error::other)?;
        let index = self.shared.index();
        Ok(index
            .segments
            .back()
            .is_some_and(|last| last.size - last.end >= bytes))
    }

    /// Writes and syncs frames at the end of the current segment, and shows them to readers.
    fn write_out(&mut self, bytes: &[u8], sizes: &[u32]) -> io::Result<()> {
        if sizes.is_empty() {
            return Ok(());
        }
        let (file, end) = {
            let index = self.shared.index();
            let last = index.segments.back().ok_or_else(no_segment)?;
            (Arc::clone(&last.file), last.end)
        };
        file.write_all_at(bytes, u64::from(end))?;
        if !planted::has(Planted::AckBeforeSync) {
            file.sync()?;
        }
        let mut index = self.shared.index();
        let last = index.segments.back_mut().ok_or_else(no_segment)?;
        for size in sizes {
            last.offsets.push(last.end);
            last.end += size;
        }
        let half_full = last.end > last.size / 2;
        drop(index);
        if half_full && self.spare.is_none() {
            self.prepare_spare()?;
        }
        Ok(())
    }

    /// Lets another thread make the next segment, which takes as long as many appends.
    fn prepare_spare(&mut self) -> io::Result<()> {
        let (dir, size) = (self.shared.dir.clone(), self.shared.sizes.segment);
        let spare = thread::Builder::new()
            .name("quorate-log-spare".to_owned())
            .spawn(move || zeros(&dir, size))?;
        self.spare = Some(spare);
        Ok(())
    }

    fn next_segment(&mut self, first: u64, frame: usize) -> io::Result<()> {
        let dir = &self.shared.dir;
        let least = HEADER + u32::try_from(frame).map_err(io::Error::other)?;
        let size = self.shared.sizes.segment;
        let spare = match self.spare.take() {
            Some(spare) => Some(
                spare
                    .join()
                    .map_err(|_| io::Error::other("the next segment was not made"))??,
            ),
            None => None,
        };
        let segment = match spare {
            Some(file) if least <= size => Segment::name(dir, file, first, self.crc, size)?,
            Some(_) | None => Segment::make(dir, first, self.crc, size.max(least))?,
        };
        self.shared.index().segments.push_back(segment);
        Ok(())
    }

    fn save_vote(&mut self, vote: Vote) -> io::Result<()> {
        let stored = StoredVote {
            term: vote.leader_id().term,
            voted_for: vote.leader_id().voted_for,
            committed: vote.is_committed(),
        };
        let payload = rmp_serde::to_vec_named(&stored).map_err(io::Error::other)?;
        files::replace(
            &self.shared.dir,
            VOTE,
            &files::seal(Kind::Vote, &[&payload]),
        )?;
        self.shared.index().vote = Some(vote);
        Ok(())
    }

    /// Removes records that another leader's log does not have. They were acknowledged to the Raft
    /// library, so first the mark goes back and says what is going on, then the records go; whoever opens
    /// the log in between ends it. The next append comes only when the mark says that it is over.
    fn truncate(&mut self, from: u64) -> io::Result<()> {
        let crc = self.crc_before(from)?;
        let mark = Mark {
            next: from,
            term: self.term_before(from),
            crc,
            withdrawing: true,
            ..self.marks.last()
        };
        self.marks.write(mark)?;
        self.marks.sync()?;
        loop {
            let removed = {
                let mut index = self.shared.index();
                match index.segments.back() {
                    Some(last) if last.first >= from && index.segments.len() > 1 => {
                        index.segments.pop_back()
                    }
                    Some(_) | None => None,
                }
            };
            let Some(removed) = removed else { break };
            disk::remove(&removed.path)?;
        }
        disk::sync_dir(&self.shared.dir)?;
        let kept = self.shared.index().segments.back().cloned();
        if let Some(kept) = kept.filter(|kept| kept.first <= from) {
            self.cut(&kept, from)?;
        }
        self.marks.write(Mark {
            withdrawing: false,
            ..mark
        })?;
        self.marks.sync()?;
        self.crc = crc;
        Ok(())
    }

    /// Term of the record before `from`; 0 when there is none.
    fn term_before(&self, from: u64) -> u64 {
        let Some(before) = from.checked_sub(1) else {
            return 0;
        };
        let index = self.shared.index();
        let purged = || index.purged.filter(|purged| purged.index == before);
        index
            .record(before)
            .map(|record| record.term)
            .or_else(|| purged().map(|purged| term_of(&purged)))
            .unwrap_or(0)
    }

    /// Ends the last segment before record `from`.
    fn cut(&self, kept: &Segment, from: u64) -> io::Result<()> {
        let at = usize::try_from(from - kept.first).map_err(io::Error::other)?;
        let Some(end) = kept.offsets.get(at).copied() else {
            return Ok(());
        };
        kept.clear_from(end)?;
        let mut index = self.shared.index();
        if let Some(last) = index.segments.back_mut() {
            last.offsets.truncate(at);
            last.end = end;
        }
        Ok(())
    }

    /// The checksum that the record at `from` builds on.
    fn crc_before(&self, from: u64) -> io::Result<u32> {
        let index = self.shared.index();
        let holding = |index_of: u64| {
            index
                .segments
                .iter()
                .rev()
                .find(|segment| segment.first <= index_of && index_of < segment.next())
        };
        let read = |segment: &Segment, offset: u32, skip: u32| -> io::Result<u32> {
            let mut crc = [0; 4];
            let at = u64::from(offset) + u64::from(skip);
            segment.file.read_exact_at(&mut crc, at)?;
            Ok(u32::from_le_bytes(crc))
        };
        // The record there says it itself: its checksum of the one before is the first of its body.
        if let Some(segment) = holding(from) {
            let at = usize::try_from(from - segment.first).map_err(io::Error::other)?;
            let offset = segment.offsets.get(at).copied().unwrap_or(segment.end);
            return read(segment, offset, 8);
        }
        Ok(self.crc)
    }

    fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let stored = StoredId {
            term: term_of(&upto),
            index: upto.index,
        };
        let payload = rmp_serde::to_vec_named(&stored).map_err(io::Error::other)?;
        files::replace(
            &self.shared.dir,
            PURGED,
            &files::seal(Kind::Purged, &[&payload]),
        )?;
        loop {
            let removed = {
                let mut index = self.shared.index();
                let whole = |first: &Segment, others: bool| {
                    // The last segment goes only when the log jumps: it is the one being written.
                    first.next() <= upto.index + u64::from(others)
                };
                match index.segments.front() {
                    Some(first) if whole(first, index.segments.len() > 1) => {
                        index.segments.pop_front()
                    }
                    Some(_) | None => None,
                }
            };
            let Some(removed) = removed else { break };
            disk::remove(&removed.path)?;
        }
        disk::sync_dir(&self.shared.dir)
    }
}

fn no_segment() -> io::Error {
    io::Error::other("there is no segment to write to")
}
