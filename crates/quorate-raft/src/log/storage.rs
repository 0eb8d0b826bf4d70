//! The log as the Raft library wants it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, RaftTypeConfig};

use super::writer::Work;
use super::{LogStore, stopped};
use crate::types::{Entry, LogId, Types, Vote};

/// Most bytes of entries in one message between directors.
const MESSAGE_BYTES: usize = 1024 * 1024;

fn range(bounds: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match bounds.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match bounds.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        bounds: R,
    ) -> Result<Vec<Entry>, io::Error> {
        let mut range = range(&bounds);
        let first = self.purged().map_or(0, |purged| purged.index + 1);
        range.start = range.start.max(first);
        self.read(range, usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.index().vote)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(start..end, MESSAGE_BYTES)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let index = self.shared.index();
        Ok(LogState {
            last_purged_log_id: index.purged,
            last_log_id: index.last(),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = *vote;
        self.ask(|done| Work::Vote(vote, done)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // It reaches the disk with the next mark. When it is lost, the leader tells it again.
        self.shared.index().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let index = self.shared.index();
        Ok(index
            .committed
            .filter(|committed| Some(*committed) <= index.last()))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = <Types as RaftTypeConfig>::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.shared.error_if_failed()?;
        let entries: Vec<Arc<Entry>> = entries.into_iter().map(Arc::new).collect();
        {
            let mut index = self.shared.index();
            for entry in &entries {
                if entry.log_id.index != index.next() {
                    let (found, next) = (entry.log_id.index, index.next());
                    return Err(io::Error::other(format!(
                        "record {found} was to be appended where record {next} belongs"
                    )));
                }
                index.push(Arc::clone(entry));
            }
        }
        self.writer
            .send(Work::Append(entries, callback))
            .await
            .map_err(|_| stopped())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |last| last.index + 1);
        // First the writer, so that nobody reads a record from a file that no longer has it.
        self.ask(|done| Work::Truncate(from, done)).await?;
        self.shared.index().truncate(from);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.shared.index().purge(upto);
        self.ask(|done| Work::Purge(upto, done)).await
    }
}
