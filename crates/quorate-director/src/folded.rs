//! What this director had folded of a store's ledger, kept in its data folder: a store that was restored from a copy,
//! or failed over to a server that had not followed, is found out also after every director was started anew.
//!
//! It may be some seconds old. It must never be newer than what the store had at that moment.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use quorate_core::ids::Position;
use serde::{Deserialize, Serialize};

/// The file in the data folder.
pub const FILE: &str = "folded.json";
/// What it is called until it is whole.
const DRAFT: &str = "folded.json.new";

/// The last entry that was folded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folded {
    /// The address of the store, for people: never with a password.
    pub ledger: String,
    /// Where the entry is; 0 when nothing was folded yet.
    pub position: u64,
    /// Its hash.
    pub hash: u64,
    /// This director has stopped because the store had lost history: it takes part again in a later era alone.
    #[serde(default)]
    pub stopped: bool,
}

impl Folded {
    /// Nothing, of this ledger.
    #[must_use]
    pub fn nothing(ledger: &str) -> Self {
        Self {
            ledger: ledger.to_owned(),
            position: 0,
            hash: 0,
            stopped: false,
        }
    }

    /// What the machine checks the store against.
    pub(crate) const fn known(&self) -> (Position, u64) {
        (Position(self.position), self.hash)
    }
}

/// Reads it; `None` when the folder is of no director over a store.
///
/// # Errors
/// When it cannot be read, or is damaged. It is not replaced then: what it remembers may be all that shows a loss.
pub fn read(data_dir: &Path) -> io::Result<Option<Folded>> {
    match std::fs::read(data_dir.join(FILE)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes it so that it is whole or the one before after a crash.
///
/// # Errors
/// When the folder cannot be written.
pub fn write(data_dir: &Path, folded: &Folded) -> io::Result<()> {
    let draft = data_dir.join(DRAFT);
    let mut file = File::create(&draft)?;
    file.write_all(&serde_json::to_vec(folded)?)?;
    file.sync_all()?;
    std::fs::rename(&draft, data_dir.join(FILE))?;
    File::open(data_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_told_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        let folded = Folded {
            ledger: "etcd://a:2379/q".to_owned(),
            position: 7,
            hash: u64::MAX,
            stopped: false,
        };
        write(dir.path(), &folded).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(folded));
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(read(dir.path()).is_err());
    }
}
