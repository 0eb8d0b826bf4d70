//! A backup as one file: a head that says what it is of, the state, and a checksum over both.
//!
//! ```text
//! "quorate backup 1\n" · length of the head (4 bytes, little-endian) · head (JSON) · state · SHA-256
//! ```
//!
//! The head is there to be read by people and by whoever sorts such files; what is restored is the state. Secrets
//! are in it only as hashes. Nothing of a file is believed before its checksum was compared.

use quorate_core::cluster::{Cluster, SnapshotError};
use quorate_core::ids::{ClusterId, DirectorName};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::clock;

/// How every backup begins, up to the number of its format.
const KIND: &[u8] = b"quorate backup ";
/// How those begin that this build writes and reads.
const MAGIC: &[u8] = b"quorate backup 1\n";
const LENGTH: usize = 4;
const CHECKSUM: usize = 32;
/// A head is some hundred bytes; more is damage.
const HEAD_MAX: usize = 64 * 1024;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Random identity of the cluster, 16 hexadecimal digits.
    pub cluster: String,
    /// The era that it is of; a cluster that is restored from it begins the next one.
    pub era: u16,
    /// The term of the leader then.
    pub epoch: u64,
    /// The last ledger position that it covers.
    pub position: u64,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Which director it was made from.
    pub director: String,
    /// Version of the program that made it.
    pub version: String,
    /// Services.
    pub services: u64,
    /// Partitions of all services.
    pub partitions: u64,
    /// Agents that had a session.
    pub agents: u64,
    /// Bytes of the state.
    pub bytes: u64,
}

/// A whole backup.
#[derive(Debug)]
pub struct Backup {
    /// What it says of itself.
    pub head: Head,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its state.
    pub state: Cluster,
}

/// Why a file is not taken for a backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It is something else.
    #[error("it is no backup of a quorate cluster")]
    Foreign,
    /// A newer version wrote it.
    #[error("it has a format that is newer than format 1, which this version reads")]
    Newer,
    /// Its end is missing.
    #[error("it is cut off: {missing} bytes are missing")]
    Cut {
        /// How many bytes are missing, at least.
        missing: u64,
    },
    /// Something in it is not as it was written.
    #[error("it is damaged: its checksum is another")]
    Damaged,
    /// It is whole, and this version cannot read what is in it.
    #[error("the state in it cannot be read")]
    State(#[source] SnapshotError),
    /// It is whole, and says something else of itself than is in it.
    #[error("it contradicts itself: {0}")]
    Contradiction(&'static str),
}

/// A state as a backup.
#[must_use]
pub fn write(cluster: ClusterId, director: &DirectorName, state: &Cluster) -> Vec<u8> {
    let fold = state.encode();
    let present = state.agents().values();
    let present = present.filter(|agent| !agent.sessions().is_empty()).count();
    let head = Head {
        cluster: cluster.to_string(),
        era: state.era().0,
        epoch: state.epoch().0,
        position: state.position().0,
        created: clock::text(clock::now().wall),
        director: director.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        services: state.services().filter(|(_, s)| !s.removed()).count() as u64,
        partitions: state.partition_count() as u64,
        agents: present as u64,
        bytes: fold.len() as u64,
    };
    seal(&head, &fold)
}

fn seal(head: &Head, fold: &[u8]) -> Vec<u8> {
    // All of its fields are texts and numbers, which encode.
    let head = serde_json::to_vec(head).unwrap_or_default();
    let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
    let mut file = Vec::with_capacity(MAGIC.len() + LENGTH + head.len() + fold.len() + CHECKSUM);
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&length.to_le_bytes());
    file.extend_from_slice(&head);
    file.extend_from_slice(fold);
    let checksum = Sha256::digest(&file);
    file.extend_from_slice(&checksum);
    file
}

/// Reads and checks a backup.
///
/// # Errors
/// When it is anything but a whole backup that this version can restore.
pub fn read(file: &[u8]) -> Result<Backup, BackupError> {
    let (head, fold) = unseal(file)?;
    let state = Cluster::decode(fold).map_err(BackupError::State)?;
    if state.position().0 != head.position || state.era().0 != head.era {
        return Err(BackupError::Contradiction("position and era of its state"));
    }
    let cluster = u64::from_str_radix(&head.cluster, 16);
    let cluster = cluster.map_err(|_| BackupError::Contradiction("it names no cluster"))?;
    Ok(Backup {
        head,
        cluster: ClusterId(cluster),
        state,
    })
}

fn unseal(file: &[u8]) -> Result<(Head, &[u8]), BackupError> {
    let Some(rest) = file.strip_prefix(MAGIC) else {
        return Err(match file.strip_prefix(KIND) {
            Some([digit, ..]) if digit.is_ascii_digit() => BackupError::Newer,
            Some(_) if MAGIC.starts_with(file) => BackupError::Cut {
                missing: (MAGIC.len() - file.len() + LENGTH + CHECKSUM) as u64,
            },
            Some(_) | None => BackupError::Foreign,
        });
    };
    let whole = file.len().checked_sub(CHECKSUM).and_then(|covered| {
        let (covered, checksum) = file.split_at_checked(covered)?;
        (Sha256::digest(covered).as_slice() == checksum).then_some(())
    });
    // Looked at first, only to say better what is wrong: nothing else in it is used unless it is whole.
    let parts = parts(rest);
    if whole.is_none() {
        let length = parts.map(|(head, fold)| (head.bytes + CHECKSUM as u64, fold.len() as u64));
        return Err(match length {
            Some((expected, found)) if expected > found => BackupError::Cut {
                missing: expected - found,
            },
            Some(_) | None if rest.len() < LENGTH + CHECKSUM => BackupError::Cut {
                missing: (LENGTH + CHECKSUM - rest.len()) as u64,
            },
            Some(_) | None => BackupError::Damaged,
        });
    }
    let (head, fold) = parts.ok_or(BackupError::Contradiction("it has no head"))?;
    let (fold, _) = fold
        .split_at_checked(usize::try_from(head.bytes).unwrap_or(usize::MAX))
        .filter(|(_, rest)| rest.len() == CHECKSUM)
        .ok_or(BackupError::Contradiction("its length"))?;
    Ok((head, fold))
}

/// The head and what follows it, the checksum included.
fn parts(rest: &[u8]) -> Option<(Head, &[u8])> {
    let (length, rest) = rest.split_first_chunk::<LENGTH>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (head, fold) = rest.split_at_checked(length.min(HEAD_MAX))?;
    Some((serde_json::from_slice(head).ok()?, fold))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup() -> Vec<u8> {
        let name = DirectorName::new("d1").unwrap();
        write(ClusterId(0xabc), &name, &Cluster::default())
    }

    #[test]
    fn what_was_written_is_read() {
        let read = read(&backup()).unwrap();
        assert_eq!(read.cluster, ClusterId(0xabc));
        assert_eq!(read.head.director, "d1");
        assert_eq!(read.state, Cluster::default());
    }

    #[test]
    fn a_file_with_any_byte_changed_added_or_missing_is_refused() {
        let whole = backup();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x20;
            assert!(read(&changed).is_err(), "byte {at}");
            assert!(read(&whole[..at]).is_err(), "{at} bytes");
        }
        let longer = [whole.as_slice(), b"x"].concat();
        assert!(matches!(read(&longer), Err(BackupError::Damaged)));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_apart() {
        let whole = backup();
        let cut = read(&whole[..whole.len() - 7]).unwrap_err();
        assert!(matches!(cut, BackupError::Cut { missing: 7 }), "{cut}");
        let mut flipped = whole.clone();
        let middle = flipped.len() - CHECKSUM - 5;
        flipped[middle] ^= 1;
        assert!(matches!(read(&flipped), Err(BackupError::Damaged)));
        let newer = [b"quorate backup 2\n".as_slice(), &whole[MAGIC.len()..]].concat();
        assert!(matches!(read(&newer), Err(BackupError::Newer)));
        for foreign in [b"".as_slice(), b"{}", b"PK\x03\x04", b"quorate backupx"] {
            assert!(
                matches!(read(foreign), Err(BackupError::Foreign)),
                "{foreign:?}"
            );
        }
    }

    #[test]
    fn a_whole_file_that_lies_about_its_state_is_refused() {
        let head = unseal(&backup()).unwrap().0;
        let fold = Cluster::default().encode();
        let later = Head {
            position: 7,
            ..head.clone()
        };
        let lies = seal(&later, &fold);
        assert!(matches!(read(&lies), Err(BackupError::Contradiction(_))));
        let longer = Head {
            bytes: head.bytes - 1,
            ..head
        };
        assert!(read(&seal(&longer, &fold)).is_err());
    }
}
