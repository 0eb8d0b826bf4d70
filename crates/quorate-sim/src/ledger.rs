//! A model of the ledger: the trait's rules and nothing else.

use quorate_core::director::event::{AppendOutcome, ReadOutcome};
use quorate_core::ids::{Epoch, Position};

/// Most entries that one read brings.
const READ_MAX: usize = 8;

/// The log and its snapshot.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Position before the first entry, and the epoch there: where a restored cluster begins.
    base: (Position, Epoch),
    /// Every entry ever appended.
    entries: Vec<(Epoch, Vec<u8>)>,
    /// So many of them can no longer be read.
    trimmed: usize,
    snapshot: Option<(Position, Vec<u8>)>,
}

impl Ledger {
    /// A new one, whose first entry follows a state that is not made of entries.
    #[must_use]
    pub fn behind(state: (Position, Epoch), bytes: Vec<u8>) -> Self {
        Self {
            base: state,
            snapshot: Some((state.0.next(), bytes)),
            ..Self::default()
        }
    }

    /// Position of the last entry.
    #[must_use]
    pub fn last(&self) -> Position {
        Position(self.base.0.0 + self.entries.len() as u64)
    }

    /// How many entries were appended.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Creates the entry at exactly this position, if it is free and the one before is not.
    pub fn append(&mut self, at: Position, epoch: Epoch, bytes: Vec<u8>) -> AppendOutcome {
        let free = self.last().next();
        if at < free {
            return AppendOutcome::PositionTaken;
        }
        if at > free {
            return AppendOutcome::Refused;
        }
        self.entries.push((epoch, bytes));
        AppendOutcome::Appended
    }

    /// The first free position and the epoch before it.
    #[must_use]
    pub fn tail(&self) -> (Position, Epoch) {
        let epoch = self.entries.last();
        let epoch = epoch.map_or(self.base.1, |(epoch, _)| *epoch);
        (self.last().next(), epoch)
    }

    /// A run of entries.
    #[must_use]
    pub fn read(&self, from: Position) -> ReadOutcome {
        let base = self.base.0;
        let skip = usize::try_from(from.0.saturating_sub(base.0 + 1)).unwrap_or(usize::MAX);
        if from <= base && base > Position(0) || skip < self.trimmed {
            return ReadOutcome::Trimmed;
        }
        let entries = self.entries.iter().skip(skip).take(READ_MAX);
        ReadOutcome::Entries(entries.map(|(_, bytes)| bytes.clone()).collect())
    }

    /// Keeps a snapshot unless a later one is kept, and trims one snapshot behind.
    pub fn save(&mut self, next: Position, bytes: Vec<u8>) {
        let before = self
            .snapshot
            .as_ref()
            .map_or(Position(0), |(next, _)| *next);
        if next <= before {
            return;
        }
        let covered = before.0.saturating_sub(self.base.0.0 + 1);
        let covered = usize::try_from(covered).unwrap_or(0);
        self.trimmed = self.trimmed.max(covered);
        self.snapshot = Some((next, bytes));
    }

    /// The newest snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Option<(Position, Vec<u8>)> {
        self.snapshot.clone()
    }
}
