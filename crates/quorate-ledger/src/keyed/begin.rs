//! Beginning the log anew.
//!
//! The parts of its snapshot are written first. One step then makes the pointer name them, sets `tail`, and has the key of
//! the new log take the place of that of the old one, if both are as they were seen. What is left of the old log takes
//! nothing any more, and is deleted from its oldest entry on.

use quorate_core::ids::Position;

use crate::ReadError;
use crate::shared::BeginError;
use crate::store::{Anew, sha256, unavailable};

use super::snapshots::{POINTER, TRIES, beginning};
use super::{
    Change, Done, End, KeyValue, Keyed, Pointer, StoreError, TAIL, empty_key, entry_key, occupied,
    to_json,
};

/// Whether this log has begun already: its snapshot is there, and nothing before it is.
fn has_begun(new: Anew<'_>, end: End, pointer: &Pointer) -> bool {
    let next = new.next.0;
    let is_epoch = end.next != next || end.epoch == new.epoch.0;
    let is_place = pointer.next == next && pointer.first == next;
    let is_snapshot = pointer.bytes == new.snapshot.len() && pointer.sha256 == sha256(new.snapshot);
    is_epoch && is_place && is_snapshot
}

impl<S: KeyValue> Keyed<S> {
    pub(crate) async fn begin(&self, new: Anew<'_>) -> Result<(), BeginError> {
        for _ in 0..TRIES {
            let end = self.some_end().await?;
            let kept = self.pointer().await?;
            let known = end.unwrap_or(End::NONE);
            if let Some((pointer, _)) = &kept
                && has_begun(new, known, pointer)
            {
                self.tidy(pointer).await;
                return Ok(());
            }
            if let Some(to) = self.owner().await?.and_then(|owner| owner.moved_to) {
                return Err(BeginError::Left { to });
            }
            let is_empty = end.is_none() && kept.is_none();
            new.may_begin(known.free(), is_empty)?;
            if let Some((pointer, _)) = &kept {
                // The next pointer says what is left of one log, not of two.
                self.trim(pointer).await.map_err(ReadError::from)?;
            }
            let version = kept.as_ref().map(|(_, version)| *version);
            let before = kept.map(|(pointer, _)| pointer);
            let pointer = beginning(before.as_ref(), new.next, known.free(), new.snapshot);
            self.write_parts(&pointer.folder, new.snapshot).await?;
            if self.replace(end, version, new, &pointer).await? {
                self.knows_begin(new.next.0);
                occupied(&self.hints, Position(new.next.0 - 1));
                self.tidy(&pointer).await;
                return Ok(());
            }
        }
        let cause = format!("others changed the ledger at the same time, {TRIES} times in a row");
        Err(unavailable(cause).into())
    }

    /// Has the new log take the place of the one that ends there, if that and the pointer are as they were seen; whether
    /// it has.
    async fn replace(
        &self,
        end: Option<End>,
        version: Option<u64>,
        new: Anew<'_>,
        pointer: &Pointer,
    ) -> Result<bool, BeginError> {
        let tail = to_json(&End {
            next: new.next.0,
            epoch: new.epoch.0,
            begin: new.next.0,
        });
        let snapshot = to_json(pointer);
        let log = empty_key(new.next.0);
        let known = end.unwrap_or(End::NONE);
        let (old_log, free) = (known.key(), entry_key(known.free()));
        let mut changes = vec![
            Change::Swap {
                key: POINTER,
                version,
                value: &snapshot,
            },
            Change::Swap {
                key: &log,
                version: None,
                value: b"",
            },
        ];
        match end {
            Some(_) => changes.extend([
                Change::Delete { key: &old_log },
                Change::Free { key: &free },
                Change::Set {
                    key: TAIL,
                    value: &tail,
                },
            ]),
            None => changes.push(Change::Swap {
                key: TAIL,
                version: None,
                value: &tail,
            }),
        }
        match self.store.change(&changes).await {
            Ok(Done::Done) => Ok(true),
            // Asked twice by its client, a store says no to what it has done itself the first time.
            Ok(Done::NotSo) | Err(StoreError::Unknown(_)) => {
                let found = self.pointer().await?;
                Ok(found.is_some_and(|(found, _)| found == *pointer))
            }
            Err(error @ StoreError::Refused(_)) => Err(ReadError::from(error).into()),
        }
    }
}
