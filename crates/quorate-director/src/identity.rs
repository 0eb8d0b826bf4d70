//! Who this director is: a random number minted with its data folder, and a lock on that folder.
//!
//! A director that lost its folder comes back under a new number, so that nobody takes it for the one
//! that remembers. Two processes must never use one folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::RunError;

/// The identity, held while the director lives.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) id: u64,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "holding it open is what it is for")
    )]
    lock: File,
}

/// A director that was killed may still be ending, and a hook that it has just forked holds the lock until it
/// executes its program.
const LOCK_PATIENCE: Duration = Duration::from_millis(1500);
/// Pause between two tries.
const LOCK_AGAIN: Duration = Duration::from_millis(10);

#[derive(Serialize, Deserialize)]
struct Stored {
    id: u64,
}

/// Locks the folder and reads the identity in it, or mints one.
pub(crate) fn open(data_dir: &Path) -> Result<Identity, RunError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |cause| RunError::DataDir { path, cause }
    };
    std::fs::create_dir_all(data_dir).map_err(at(data_dir))?;
    let lock_path = data_dir.join("director.lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(at(&lock_path))?;
    lock_within(LOCK_PATIENCE, &lock).map_err(|error| match error {
        TryLockError::WouldBlock => RunError::InUse {
            path: data_dir.to_owned(),
        },
        TryLockError::Error(cause) => at(&lock_path)(cause),
    })?;
    let path = data_dir.join("director.json");
    let id = match std::fs::read(&path) {
        Ok(bytes) => read(&path, &bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            mint(data_dir, &path).map_err(at(&path))?
        }
        Err(error) => return Err(at(&path)(error)),
    };
    Ok(Identity { id, lock })
}

fn lock_within(patience: Duration, file: &File) -> Result<(), TryLockError> {
    let until = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(LOCK_AGAIN);
            }
            other => return other,
        }
    }
}

fn read(path: &Path, bytes: &[u8]) -> Result<u64, RunError> {
    match serde_json::from_slice::<Stored>(bytes) {
        Ok(stored) => Ok(stored.id),
        Err(error) => Err(RunError::Identity {
            path: path.to_owned(),
            what: error.to_string(),
        }),
    }
}

/// Writes a new identity so that it is whole or not there after a crash.
fn mint(data_dir: &Path, path: &PathBuf) -> io::Result<u64> {
    // Numbers in JSON are exact up to 2^53 in every language.
    let id = rand::random_range(1..1_u64 << 53);
    let draft = data_dir.join("director.json.new");
    let mut file = File::create(&draft)?;
    file.write_all(&serde_json::to_vec(&Stored { id })?)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    File::open(data_dir)?.sync_all()?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_identity_and_takes_one_director_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).unwrap();
        assert!(matches!(open(dir.path()), Err(RunError::InUse { .. })));
        let id = first.id;
        drop(first);
        assert_eq!(open(dir.path()).unwrap().id, id);
    }

    #[test]
    fn what_a_dead_director_has_just_forked_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).unwrap();
        let forked = first.lock.try_clone().unwrap();
        drop(first);
        let executes = std::thread::spawn(move || {
            std::thread::sleep(LOCK_AGAIN * 5);
            drop(forked);
        });
        open(dir.path()).unwrap();
        executes.join().unwrap();
    }

    #[test]
    fn a_damaged_identity_is_told_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("director.json"), "{").unwrap();
        let error = open(dir.path()).unwrap_err();
        assert!(matches!(error, RunError::Identity { .. }), "{error}");
    }
}
