//! What the key `snapshot` has.

use quorate_core::ids::Position;
use serde::{Deserialize, Serialize};

/// Points to the newest snapshot, and says how far the log is trimmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pointer {
    /// One more than that of the pointer before; 1 at first.
    pub(super) serial: u64,
    /// Name of the folder with its parts: the serial number, and what the writer has drawn.
    pub(super) folder: String,
    /// First position that the snapshot does not cover.
    pub(super) next: u64,
    pub(super) parts: usize,
    pub(super) bytes: usize,
    /// Of the whole, in hexadecimal: a store is trusted to keep values, and asked whether it did.
    pub(super) sha256: String,
    /// Entries from here up to `trimmed_to` may still be there, when whoever was to delete them could not.
    pub(super) trimmed_from: u64,
    /// `first`, but for a log that was begun anew: then the end of the one before it.
    pub(super) trimmed_to: u64,
    /// First position that is left, always: the one after the snapshot before, the last entry, or where the log begins.
    pub(super) first: u64,
}

impl Pointer {
    pub(super) fn first(&self) -> Position {
        Position(self.first)
    }

    /// The name of a folder for the parts of a snapshot: it begins with the serial number of the pointer to it, so
    /// that whoever tidies up knows which can no longer become anybody's.
    pub(super) fn folder_name(serial: u64, drawn: u64) -> String {
        format!("{serial:020}-{drawn:016x}")
    }

    /// The serial number in the name of a folder of parts; `None` when it is not one of ours.
    pub(super) fn serial_of(folder: &str) -> Option<u64> {
        let (serial, _) = folder.split_once('-')?;
        serial.parse().ok()
    }

    /// Whether no pointer names a folder of parts, now or later. Parts are written for the pointer that follows the one
    /// which their writer has seen, so another writer of this serial number has lost.
    pub(super) fn leaves_behind(&self, folder: &str) -> bool {
        folder != self.folder && Self::serial_of(folder).is_some_and(|its| its <= self.serial)
    }
}
