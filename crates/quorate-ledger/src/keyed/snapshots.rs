//! Snapshots in parts below the store's limit of a value, and trimming.
//!
//! Parts are written first, under a name that nobody has used; then the pointer moves forward if it is still the one
//! that was seen; then what no pointer can name any more is deleted. Whatever is cut short in between leaves the
//! snapshot before in place, and what is left over is deleted with the next one.

use quorate_core::ids::Position;

use crate::store::{sha256, unavailable};
use crate::{ReadError, Snapshot};

use super::{Done, KeyValue, Keyed, Pointer, StoreError, from_json, to_json};

/// Where the pointer is.
pub(super) const POINTER: &str = "snapshot";

/// Below it are the parts.
const PARTS: &str = "parts";

/// Size of a part: every store that is supported takes values of this size (Consul 512 KiB, encoded).
const PART_BYTES: usize = 256 * 1024;

/// How often to begin again when others move the pointer at the same time: they are at most a handful of directors,
/// and each time one of them has got further.
pub(super) const TRIES: usize = 5;

fn part_key(folder: &str, part: usize) -> String {
    format!("{PARTS}/{folder}/{part:05}")
}

impl<S: KeyValue> Keyed<S> {
    /// The pointer and its version in the store.
    pub(super) async fn pointer(&self) -> Result<Option<(Pointer, u64)>, ReadError> {
        let Some(found) = self.store.get(POINTER).await? else {
            return Ok(None);
        };
        Ok(Some((from_json(POINTER, &found.value)?, found.version)))
    }

    pub(super) async fn keep(&self, next: Position, snapshot: &[u8]) -> Result<(), ReadError> {
        for _ in 0..TRIES {
            let end = self.end().await?;
            if next.0 > end.next {
                return Err(unavailable(format!(
                    "a snapshot up to position {next} covers entries that are not there"
                )));
            }
            let kept = self.pointer().await?;
            if let Some((pointer, _)) = &kept {
                if pointer.next >= next.0 {
                    return Ok(());
                }
                // Whoever kept that one may have been cut short; two trimmings behind, the log would only grow.
                self.trim(pointer).await?;
            }
            let version = kept.as_ref().map(|(_, version)| *version);
            let before = kept.map(|(pointer, _)| pointer);
            let new = following(before.as_ref(), next, end.last(), snapshot);
            self.write_parts(&new.folder, snapshot).await?;
            if self.point(version, &new).await? {
                self.tidy(&new).await;
                return Ok(());
            }
        }
        Err(unavailable(format!(
            "others kept snapshots at the same time, {TRIES} times in a row"
        )))
    }

    /// Moves the pointer, if it is still the one that was seen; whether this one is there now.
    async fn point(&self, version: Option<u64>, new: &Pointer) -> Result<bool, ReadError> {
        match self.store.swap(POINTER, version, &to_json(new)).await {
            Ok(Done::Done) => Ok(true),
            // Asked twice by its client, a store says no to what it has done itself the first time.
            Ok(Done::NotSo) | Err(StoreError::Unknown(_)) => {
                let found = self.pointer().await?;
                Ok(found.is_some_and(|(pointer, _)| pointer == *new))
            }
            Err(error @ StoreError::Refused(_)) => Err(error.into()),
        }
    }

    pub(super) async fn write_parts(&self, folder: &str, snapshot: &[u8]) -> Result<(), ReadError> {
        for (part, bytes) in snapshot.chunks(PART_BYTES).enumerate() {
            self.store.put(&part_key(folder, part), bytes).await?;
        }
        Ok(())
    }

    /// Deletes what no pointer names any more. The snapshot is kept already, so an error is for the next one to mend.
    pub(super) async fn tidy(&self, new: &Pointer) {
        if let Err(error) = self.delete_leftovers(new).await {
            tracing::debug!(%error, "what an earlier snapshot left could not be deleted yet");
        }
        if let Err(error) = self.trim(new).await {
            tracing::debug!(%error, "the ledger could not be trimmed yet");
        }
    }

    async fn delete_leftovers(&self, new: &Pointer) -> Result<(), StoreError> {
        let folders = self.store.list(PARTS).await?;
        for folder in folders.iter().filter(|folder| new.leaves_behind(folder)) {
            self.store.delete_folder(PARTS, folder).await?;
        }
        Ok(())
    }

    pub(super) async fn trim(&self, pointer: &Pointer) -> Result<(), StoreError> {
        let (from, to) = (pointer.trimmed_from, pointer.trimmed_to);
        if from >= to {
            return Ok(());
        }
        self.store
            .delete_entries(Position(from), Position(to))
            .await
    }

    pub(super) async fn load(&self) -> Result<Option<Snapshot>, ReadError> {
        for _ in 0..TRIES {
            let Some((pointer, _)) = self.pointer().await? else {
                return Ok(None);
            };
            if let Some(bytes) = self.read_parts(&pointer).await? {
                let next = Position(pointer.next);
                return Ok(Some(Snapshot { next, bytes }));
            }
            // A newer one may have replaced it meanwhile. The same one again is damaged.
            let again = self.pointer().await?;
            if again.is_some_and(|(now, _)| now == pointer) {
                return Err(unavailable(format!(
                    "the snapshot up to position {} is damaged: its parts below {PARTS}/{} are not those that were \
                     written; restore the store or the cluster from a backup",
                    pointer.next, pointer.folder
                )));
            }
        }
        Err(unavailable(format!(
            "the snapshot was replaced while it was read, {TRIES} times in a row"
        )))
    }

    /// The whole snapshot; `None` when it is not what the pointer says.
    async fn read_parts(&self, pointer: &Pointer) -> Result<Option<Vec<u8>>, ReadError> {
        let mut bytes = Vec::new();
        let keys: Vec<String> = (0..pointer.parts)
            .map(|part| part_key(&pointer.folder, part))
            .collect();
        // A few at a time: together they have no more than entries have.
        for keys in keys.chunks(super::CHUNK) {
            for value in self.store.get_all(keys).await? {
                match value {
                    Some(part) => bytes.extend(part),
                    None => return Ok(None),
                }
            }
        }
        let whole = bytes.len() == pointer.bytes && sha256(&bytes) == pointer.sha256;
        Ok(whole.then_some(bytes))
    }
}

/// The pointer after `before` to a snapshot. What the snapshot before it covers is trimmed, but for the last entry.
fn following(before: Option<&Pointer>, next: Position, last: Position, snapshot: &[u8]) -> Pointer {
    let trimmed_from = before.map_or(1, |before| before.first);
    let covered = before.map_or(1, |before| before.next);
    let first = covered.min(last.0).max(trimmed_from);
    Pointer {
        trimmed_from,
        trimmed_to: first,
        first,
        ..beginning(before, next, next, snapshot)
    }
}

/// The pointer after `before` to the snapshot with which a log begins, instead of one that ended before `end`.
pub(super) fn beginning(
    before: Option<&Pointer>,
    next: Position,
    end: Position,
    snapshot: &[u8],
) -> Pointer {
    let serial = before.map_or(0, |before| before.serial) + 1;
    Pointer {
        serial,
        folder: Pointer::folder_name(serial, rand::random()),
        next: next.0,
        parts: snapshot.chunks(PART_BYTES).count(),
        bytes: snapshot.len(),
        sha256: sha256(snapshot),
        trimmed_from: before.map_or(1, |before| before.first),
        trimmed_to: end.0,
        first: next.0,
    }
}
