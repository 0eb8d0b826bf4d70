//! Small files that are replaced as a whole and survive a power cut whole, and the lock of the folder.
//!
//! Nothing here may overwrite a file in place, or return before what it wrote is on disk.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::disk;
use crate::error::OpenError;
use crate::planted::{self, Planted};

/// Ends the names of files that were not finished.
pub(crate) const UNFINISHED: &str = ".unfinished";

const MAGIC: &[u8; 8] = b"quorate\n";
const HEAD: usize = 8 + 8 + 4 + 8 + 4;

/// The kinds of sealed files, so that one is never taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Identity,
    Vote,
    Purged,
    Snapshot,
}

impl Kind {
    const fn tag(self) -> &'static [u8; 8] {
        match self {
            Self::Identity => b"identity",
            Self::Vote => b"vote    ",
            Self::Purged => b"purged  ",
            Self::Snapshot => b"snapshot",
        }
    }

    /// The format that this build writes and the highest that it reads.
    const fn format(self) -> u32 {
        match self {
            Self::Identity | Self::Vote | Self::Purged | Self::Snapshot => 1,
        }
    }
}

/// Puts the parts of a payload under a head with kind, format, length and checksum.
pub(crate) fn seal(kind: Kind, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut sealed = Vec::with_capacity(HEAD + length);
    sealed.extend_from_slice(MAGIC);
    sealed.extend_from_slice(kind.tag());
    sealed.extend_from_slice(&kind.format().to_le_bytes());
    sealed.extend_from_slice(&(length as u64).to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&sealed);
    for part in parts {
        crc.update(part);
    }
    sealed.extend_from_slice(&crc.finalize().to_le_bytes());
    for part in parts {
        sealed.extend_from_slice(part);
    }
    sealed
}

/// What is wrong with a sealed file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unsealed<'a> {
    Whole(&'a [u8]),
    Damaged(&'static str),
    Newer { found: u32, known: u32 },
}

/// Checks the head and gives the payload.
pub(crate) fn unseal(kind: Kind, sealed: &[u8]) -> Unsealed<'_> {
    if sealed.is_empty() {
        return Unsealed::Damaged("is empty");
    }
    let Some((head, payload)) = sealed.split_at_checked(HEAD) else {
        return Unsealed::Damaged("is too short");
    };
    let (covered, crc) = head.split_at(HEAD - 4);
    let (magic, rest) = covered.split_at(8);
    let (tag, rest) = rest.split_at(8);
    let (format, length) = rest.split_at(4);
    if magic != MAGIC || tag != kind.tag() {
        return Unsealed::Damaged("is not what its name says");
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(covered);
    hasher.update(payload);
    if hasher.finalize().to_le_bytes() != crc {
        return Unsealed::Damaged(if payload.len() as u64 != number(length) {
            "was cut short or has more than was written"
        } else {
            "has a wrong checksum"
        });
    }
    let found = u32::try_from(number(format)).unwrap_or(u32::MAX);
    if found > kind.format() {
        return Unsealed::Newer {
            found,
            known: kind.format(),
        };
    }
    Unsealed::Whole(payload)
}

/// Reads a little-endian number of up to eight bytes.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// Reads a sealed file; `None` when there is none.
pub(crate) fn read_sealed(path: &Path, kind: Kind) -> Result<Option<Vec<u8>>, OpenError> {
    let sealed = match fs::read(path) {
        Ok(sealed) => sealed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::disk("read", path)(error)),
    };
    match unseal(kind, &sealed) {
        Unsealed::Whole(payload) => Ok(Some(payload.to_vec())),
        Unsealed::Damaged(what) => Err(OpenError::damaged(path, what)),
        Unsealed::Newer { found, known } => Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known,
        }),
    }
}

/// Replaces a file: whoever looks later, even after a power cut, finds the old or the new one whole.
pub(crate) fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = dir.join(format!("{name}{UNFINISHED}"));
    let file = disk::create(&unfinished)?;
    file.write_all_at(bytes, 0)?;
    if !(name == "vote" && planted::has(Planted::UnsyncedVote)) {
        file.sync()?;
    }
    disk::rename(&unfinished, &dir.join(name))?;
    if planted::has(Planted::UnsyncedNames) {
        return Ok(());
    }
    disk::sync_dir(dir)
}

/// The folder, for this process alone while it lives.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "holding it open is what it is for")] File);

/// A director that was killed may still be ending, and a process that it has just forked holds the lock
/// until it executes its program.
const LOCK_PATIENCE: Duration = Duration::from_millis(1500);
/// Pause between two tries.
const LOCK_AGAIN: Duration = Duration::from_millis(10);

/// Creates the folder if need be, locks it and removes what was left unfinished.
pub(crate) fn lock(dir: &Path) -> Result<Lock, OpenError> {
    disk::create_dir(dir).map_err(OpenError::disk("create the folder", dir))?;
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(OpenError::disk("open for writing", &path))?;
    match try_for(LOCK_PATIENCE, &file) {
        Ok(()) => {}
        Err(_) if planted::has(Planted::UnlockedDirector) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::Locked {
                dir: dir.to_owned(),
            });
        }
        Err(TryLockError::Error(error)) => return Err(OpenError::disk("lock", &path)(error)),
    }
    for name in names(dir)? {
        if name.ends_with(UNFINISHED) {
            let path = dir.join(&name);
            disk::remove(&path).map_err(OpenError::disk("remove", &path))?;
        }
    }
    Ok(Lock(file))
}

fn try_for(patience: Duration, file: &File) -> Result<(), TryLockError> {
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

/// The names in a folder, sorted.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>, OpenError> {
    let listed = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for item in fs::read_dir(dir)? {
            names.extend(item?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    };
    listed().map_err(OpenError::disk("list the folder", dir))
}

/// A random number that is exact in JSON, from the system.
pub(crate) fn random_id() -> io::Result<u64> {
    let mut bytes = [0; 8];
    loop {
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let id = u64::from_le_bytes(bytes) >> 11;
        if id != 0 {
            return Ok(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_file_with_any_byte_changed_added_or_missing_is_refused() {
        let sealed = seal(Kind::Vote, &[b"some", b" vote"]);
        assert_eq!(unseal(Kind::Vote, &sealed), Unsealed::Whole(b"some vote"));
        assert!(matches!(
            unseal(Kind::Purged, &sealed),
            Unsealed::Damaged(_)
        ));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 0x40;
            assert!(
                matches!(unseal(Kind::Vote, &changed), Unsealed::Damaged(_)),
                "{at}"
            );
            assert!(
                matches!(unseal(Kind::Vote, &sealed[..at]), Unsealed::Damaged(_)),
                "{at}"
            );
        }
        let longer = [sealed.as_slice(), b"x"].concat();
        assert!(matches!(unseal(Kind::Vote, &longer), Unsealed::Damaged(_)));
    }

    #[test]
    fn a_sealed_file_of_a_newer_version_is_told_from_a_damaged_one() {
        let mut sealed = seal(Kind::Vote, &[b"vote"]);
        sealed[16..20].copy_from_slice(&2_u32.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&sealed[..HEAD - 4]);
        crc.update(b"vote");
        sealed[HEAD - 4..HEAD].copy_from_slice(&crc.finalize().to_le_bytes());
        assert_eq!(
            unseal(Kind::Vote, &sealed),
            Unsealed::Newer { found: 2, known: 1 }
        );
    }
}
