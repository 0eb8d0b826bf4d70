//! The newest changes in memory. Readers come with the last id they have seen, so no reader costs
//! anything while it is slow: it finds later that what it missed is gone.

use std::collections::VecDeque;
use std::sync::Arc;

use quorate_core::history::Change;
use quorate_core::ids::{Epoch, Position};
use quorate_core::time::WallTime;

use super::batch::Batch;
use super::{EventId, Recorded};

/// Changes after the one that was named are no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    /// Everything after this one is kept.
    pub(crate) known_after: EventId,
}

/// The newest changes, oldest first.
#[derive(Debug)]
pub(super) struct Ring {
    kept: usize,
    /// Everything after this one is in `batches`.
    known_after: EventId,
    batches: VecDeque<Arc<Batch>>,
    /// So many of the first batch are let go of already.
    passed: usize,
    /// How many changes are kept.
    count: usize,
}

impl Ring {
    /// A ring that keeps this many, beginning with what an earlier process wrote.
    pub(super) fn new(kept: usize, recent: Vec<Recorded>) -> Self {
        let count = recent.len();
        let batches: VecDeque<_> = recent.into_iter().map(Batch::of).map(Arc::new).collect();
        // What came before the first one that was read is not known: it may have been anything.
        let known_after = batches
            .front()
            .map_or(EventId::default(), |first| first.first());
        Self {
            kept: kept.max(1),
            known_after,
            batches,
            passed: 0,
            count,
        }
    }

    pub(super) fn newest(&self) -> EventId {
        let last = self.batches.back();
        last.map_or(self.known_after, |last| last.last())
    }

    pub(super) fn extend(&mut self, batch: Arc<Batch>) {
        self.count += batch.len();
        self.batches.push_back(batch);
        while self.count > self.kept
            && let Some(first) = self.batches.front()
        {
            let dropped = (first.len() - self.passed).min(self.count - self.kept);
            self.count -= dropped;
            self.passed += dropped;
            self.known_after = first.id(self.passed - 1);
            if self.passed == first.len() {
                self.batches.pop_front();
                self.passed = 0;
            }
        }
    }

    pub(super) fn gap(&mut self, position: Position) -> EventId {
        self.batches.clear();
        self.passed = 0;
        self.count = 0;
        self.known_after = EventId::end_of(position);
        self.known_after
    }

    /// Changes after this one. The beginning, `0.0`, stands for all that is kept: whoever asks from
    /// there has seen nothing that it could miss a part of.
    pub(super) fn after(&self, after: EventId, limit: usize) -> Result<Vec<Recorded>, Gone> {
        if after != EventId::default() && after < self.known_after {
            return Err(Gone {
                known_after: self.known_after,
            });
        }
        let first = self.batches.partition_point(|batch| batch.last() <= after);
        let later = self.from(first).filter(|(batch, at)| batch.id(*at) > after);
        let later = later.take(limit);
        Ok(later.filter_map(|(batch, at)| batch.recorded(at)).collect())
    }

    /// The place before the first change at this time or later; after it come all of them.
    ///
    /// # Errors
    /// When there may have been some that are not kept.
    pub(super) fn before(&self, wall: WallTime) -> Result<EventId, Gone> {
        let mut batches = self.batches.iter();
        match batches.position(|batch| batch.wall() >= wall) {
            None => Ok(self.newest()),
            Some(0) if self.is_whole() => Ok(EventId::default()),
            Some(0) => Err(Gone {
                known_after: self.known_after,
            }),
            Some(first) => {
                let before = self.batches.get(first - 1);
                Ok(before.map_or(self.known_after, |before| before.last()))
            }
        }
    }

    /// Whether nothing that has ever happened is missing at the beginning.
    fn is_whole(&self) -> bool {
        let mut changes = self.from(0);
        let first = changes.next().and_then(|(batch, at)| batch.change(at));
        let begins = match first {
            Some(Change::Elected { epoch, .. }) => *epoch == Epoch(1),
            Some(_) | None => false,
        };
        begins || self.known_after == EventId::default()
    }

    /// The changes that are wanted, after one of them.
    pub(super) fn search(
        &self,
        wanted: impl Fn(&Change) -> bool,
        after: Option<EventId>,
    ) -> Vec<Recorded> {
        let newer = |id: EventId| after.is_none_or(|after| id > after);
        let ours = self.from(0).filter(|(batch, at)| {
            let change = batch.change(*at);
            newer(batch.id(*at)) && change.is_some_and(&wanted)
        });
        ours.filter_map(|(batch, at)| batch.recorded(at)).collect()
    }

    /// Every change that is kept, from the batch with this number on.
    fn from(&self, first: usize) -> impl Iterator<Item = (&Batch, usize)> {
        let batches = self.batches.iter().enumerate().skip(first);
        batches.flat_map(|(number, batch)| {
            let begin = if number == 0 { self.passed } else { 0 };
            (begin..batch.len()).map(move |at| (&**batch, at))
        })
    }
}
