//! The newest changes in memory. Readers come with the last id they have seen, so no reader costs
//! anything while it is slow: it finds later that what it missed is gone.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use quorate_core::history::Change;
use quorate_core::ids::{Epoch, Position};
use quorate_core::time::WallTime;
use serde::{Deserialize, Serialize};

use super::{Recorded, concerns};

/// Names one change for ever: where in the ledger, and the how-manieth change of that entry.
/// Written `812.3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct EventId {
    /// Where in the ledger.
    pub(crate) position: Position,
    /// The how-manieth change of the entry, from 1.
    pub(crate) sequence: u32,
}

impl EventId {
    /// After every change of this entry.
    pub(crate) const fn end_of(position: Position) -> Self {
        Self {
            position,
            sequence: u32::MAX,
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.position, self.sequence)
    }
}

impl FromStr for EventId {
    type Err = ();

    /// `812.3`, or `812` for the end of that entry.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (position, sequence) = match text.split_once('.') {
            Some((position, sequence)) => (position, sequence.parse().map_err(|_| ())?),
            None => (text, u32::MAX),
        };
        let position = Position(position.parse().map_err(|_| ())?);
        Ok(Self { position, sequence })
    }
}

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
    /// Everything after this one is in `changes`.
    known_after: EventId,
    changes: VecDeque<Arc<Recorded>>,
}

impl Ring {
    /// A ring that keeps this many, beginning with what an earlier process wrote.
    pub(super) fn new(kept: usize, recent: Vec<Recorded>) -> Self {
        let changes: VecDeque<_> = recent.into_iter().map(Arc::new).collect();
        // What came before the first one that was read is not known: it may have been anything.
        let known_after = changes.front().map_or(EventId::default(), |first| first.id);
        Self {
            kept: kept.max(1),
            known_after,
            changes,
        }
    }

    pub(super) fn newest(&self) -> EventId {
        self.changes.back().map_or(self.known_after, |last| last.id)
    }

    pub(super) fn extend(&mut self, recorded: &[Arc<Recorded>]) -> EventId {
        for change in recorded {
            if self.changes.len() >= self.kept
                && let Some(dropped) = self.changes.pop_front()
            {
                self.known_after = dropped.id;
            }
            self.changes.push_back(Arc::clone(change));
        }
        self.newest()
    }

    pub(super) fn gap(&mut self, position: Position) -> EventId {
        self.changes.clear();
        self.known_after = EventId::end_of(position);
        self.known_after
    }

    /// Changes after this one. The beginning, `0.0`, stands for all that is kept: whoever asks from
    /// there has seen nothing that it could miss a part of.
    pub(super) fn after(&self, after: EventId, limit: usize) -> Result<Vec<Arc<Recorded>>, Gone> {
        if after != EventId::default() && after < self.known_after {
            return Err(Gone {
                known_after: self.known_after,
            });
        }
        let first = self.changes.partition_point(|change| change.id <= after);
        let later = self.changes.range(first..).take(limit);
        Ok(later.map(Arc::clone).collect())
    }

    /// The place before the first change at this time or later; after it come all of them.
    ///
    /// # Errors
    /// When there may have been some that are not kept.
    pub(super) fn before(&self, wall: WallTime) -> Result<EventId, Gone> {
        let first = self.changes.iter().position(|change| change.wall >= wall);
        match first.map(|first| first.checked_sub(1)) {
            Some(Some(before)) => Ok(self.changes.get(before).map_or(self.known_after, |c| c.id)),
            None => Ok(self.newest()),
            Some(None) if self.is_whole() => Ok(EventId::default()),
            Some(None) => Err(Gone {
                known_after: self.known_after,
            }),
        }
    }

    /// Whether nothing that has ever happened is missing at the beginning.
    fn is_whole(&self) -> bool {
        let first = self.changes.front().map(|first| &first.change);
        let begins = match first {
            Some(Change::Elected { epoch, .. }) => *epoch == Epoch(1),
            Some(_) | None => false,
        };
        begins || self.known_after == EventId::default()
    }

    pub(super) fn of_partition(
        &self,
        service: &str,
        key: &str,
        after: Option<EventId>,
    ) -> Vec<Recorded> {
        let newer = |id: EventId| after.is_none_or(|after| id > after);
        let ours = self.changes.iter();
        ours.filter(|c| newer(c.id) && concerns(&c.change, service, key))
            .map(|c| Recorded::clone(c))
            .collect()
    }
}
