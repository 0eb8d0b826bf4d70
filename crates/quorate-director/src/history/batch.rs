//! What an entry changed, as it is shared by the ring and the writer.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use quorate_core::history::{Change, Subject};
use quorate_core::ids::Position;
use quorate_core::time::WallTime;
use serde::{Deserialize, Serialize};

use super::Recorded;

/// Most changes of a batch. One entry may create a million partitions; they are written, and let go of,
/// in parts of this size.
const CHANGES_MAX: usize = 1024;

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

/// Changes of one entry, one after the other.
#[derive(Debug)]
pub(super) struct Batch {
    first: EventId,
    wall: WallTime,
    changes: Vec<Change>,
}

/// What an entry changed, less what was written before.
pub(super) fn split(
    position: Position,
    wall: WallTime,
    changes: Vec<Change>,
    written: EventId,
) -> impl Iterator<Item = Batch> {
    let known = match position.cmp(&written.position) {
        Ordering::Less => changes.len(),
        Ordering::Equal => (written.sequence as usize).min(changes.len()),
        Ordering::Greater => 0,
    };
    let mut sequence = narrow(known) + 1;
    let mut changes = changes.into_iter().skip(known);
    std::iter::from_fn(move || {
        let changes: Vec<Change> = changes.by_ref().take(CHANGES_MAX).collect();
        let first = EventId { position, sequence };
        sequence += narrow(changes.len());
        let batch = Batch {
            first,
            wall,
            changes,
        };
        (batch.len() > 0).then_some(batch)
    })
}

/// An entry has fewer changes than this type can count: it has fewer bytes.
fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl Batch {
    /// One change that was read back.
    pub(super) fn of(recorded: Recorded) -> Self {
        Self {
            first: recorded.id,
            wall: recorded.wall,
            changes: vec![recorded.change],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn wall(&self) -> WallTime {
        self.wall
    }

    pub(super) fn first(&self) -> EventId {
        self.first
    }

    pub(super) fn last(&self) -> EventId {
        self.id(self.changes.len().saturating_sub(1))
    }

    /// The name of the change at this place, counted from 0.
    pub(super) fn id(&self, at: usize) -> EventId {
        EventId {
            position: self.first.position,
            sequence: self.first.sequence + narrow(at),
        }
    }

    pub(super) fn change(&self, at: usize) -> Option<&Change> {
        self.changes.get(at)
    }

    pub(super) fn recorded(&self, at: usize) -> Option<Recorded> {
        Some(Recorded {
            id: self.id(at),
            wall: self.wall,
            change: self.change(at)?.clone(),
        })
    }

    /// As lines of JSON, in the shape of [`Recorded`].
    pub(super) fn lines(&self) -> serde_json::Result<Vec<u8>> {
        let mut lines = Vec::with_capacity(self.changes.len() * 224);
        let (position, wall) = (self.first.position, self.wall.0);
        let head = format!("{{\"position\":{position},\"sequence\":");
        let wall = format!(",\"wall\":{wall},\"change\":");
        for (change, sequence) in self.changes.iter().zip(self.first.sequence..) {
            lines.extend_from_slice(head.as_bytes());
            serde_json::to_writer(&mut lines, &sequence)?;
            lines.extend_from_slice(wall.as_bytes());
            write_change(&mut lines, change)?;
            lines.extend_from_slice(b"}\n");
        }
        Ok(lines)
    }
}

/// As it is derived. Nearly all changes are of one kind, and a large cluster makes millions of them: what
/// is the same in each is written as a whole.
fn write_change(to: &mut Vec<u8>, change: &Change) -> serde_json::Result<()> {
    let Change::Partition {
        subject,
        token,
        agent,
        what,
    } = change
    else {
        return serde_json::to_writer(to, change);
    };
    let Subject {
        partition,
        service,
        key,
    } = subject;
    to.extend_from_slice(b"{\"kind\":\"partition\",\"subject\":{\"partition\":");
    serde_json::to_writer(&mut *to, partition)?;
    to.extend_from_slice(b",\"service\":");
    serde_json::to_writer(&mut *to, service)?;
    to.extend_from_slice(b",\"key\":");
    serde_json::to_writer(&mut *to, key)?;
    to.extend_from_slice(b"},\"token\":");
    serde_json::to_writer(&mut *to, token)?;
    to.extend_from_slice(b",\"agent\":");
    serde_json::to_writer(&mut *to, agent)?;
    to.extend_from_slice(b",\"what\":");
    serde_json::to_writer(&mut *to, what)?;
    to.push(b'}');
    Ok(())
}
