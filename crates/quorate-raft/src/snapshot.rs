//! The snapshot file: the state machine up to one record, with the fold that the director handed over.
//!
//! The one before is kept beside it. Entries are trimmed only up to that one, so when the newest is
//! damaged the ledger still opens, from the one before and the log.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use quorate_core::ids::{Epoch, Position};
use serde::{Deserialize, Serialize};

use crate::disk;
use crate::error::OpenError;
use crate::files::{self, Kind, UNFINISHED, number};
use crate::log::Members;
use crate::types::{LogId, SnapshotMeta, StoredMembership, log_id, term_of};

const NEWEST: &str = "snapshot";
const BEFORE: &str = "snapshot-before";

/// The head of a snapshot, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    /// The last record that it covers.
    term: u64,
    index: u64,
    /// Who were the members then, and the record that said so.
    members: Members,
    members_from: Option<(u64, u64)>,
    /// First position that it does not cover, and the epoch of the entry before.
    next: u64,
    epoch: u64,
    /// The first entry that was kept in the log, and the record it stands behind.
    kept: u64,
    kept_after: Option<u64>,
}

/// What a snapshot says besides the fold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The last record that it covers.
    pub(crate) last: LogId,
    pub(crate) membership: StoredMembership,
    /// First position that it does not cover.
    pub(crate) next: Position,
    /// Epoch of the entry before `next`.
    pub(crate) epoch: Epoch,
    /// First entry that was kept in the log, which follows …
    pub(crate) kept: Position,
    /// … this record.
    pub(crate) kept_after: Option<u64>,
}

impl Head {
    pub(crate) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: Some(self.last),
            last_membership: self.membership.clone(),
        }
    }

    fn encode(&self) -> io::Result<Vec<u8>> {
        let stored = Stored {
            term: term_of(&self.last),
            index: self.last.index,
            members: Members::of(self.membership.membership()),
            members_from: self
                .membership
                .log_id()
                .as_ref()
                .map(|id| (term_of(id), id.index)),
            next: self.next.0,
            epoch: self.epoch.0,
            kept: self.kept.0,
            kept_after: self.kept_after,
        };
        rmp_serde::to_vec_named(&stored).map_err(io::Error::other)
    }

    fn decode(bytes: &[u8]) -> io::Result<Self> {
        let stored: Stored = rmp_serde::from_slice(bytes).map_err(io::Error::other)?;
        let from = stored.members_from.map(|(term, index)| log_id(term, index));
        Ok(Self {
            last: log_id(stored.term, stored.index),
            membership: stored.members.stored(from)?,
            next: Position(stored.next),
            epoch: Epoch(stored.epoch),
            kept: Position(stored.kept),
            kept_after: stored.kept_after,
        })
    }
}

/// A snapshot that was read.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) head: Head,
    pub(crate) fold: Vec<u8>,
}

/// Writes a snapshot durably; until that is done the newest is the one that was.
pub(crate) fn save(dir: &Path, head: &Head, fold: &[u8]) -> io::Result<()> {
    let encoded = head.encode()?;
    let length = u32::try_from(encoded.len()).map_err(io::Error::other)?;
    let sealed = files::seal(Kind::Snapshot, &[&length.to_le_bytes(), &encoded, fold]);
    keep_before(dir)?;
    files::replace(dir, NEWEST, &sealed)
}

/// Gives the newest snapshot its second name, under which it outlives its successor.
fn keep_before(dir: &Path) -> io::Result<()> {
    let link = dir.join(format!("{BEFORE}{UNFINISHED}"));
    match disk::link(&dir.join(NEWEST), &link) {
        Ok(()) => disk::rename(&link, &dir.join(BEFORE)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk::remove(&link)?;
            disk::link(&dir.join(NEWEST), &link)?;
            disk::rename(&link, &dir.join(BEFORE))
        }
        Err(error) => Err(error),
    }
}

/// Forgets the snapshot before the newest, because another history replaced it.
pub(crate) fn forget_before(dir: &Path) -> io::Result<()> {
    match disk::remove(&dir.join(BEFORE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => disk::sync_dir(dir),
    }
}

/// Loads the newest snapshot that is whole, if there is any.
pub(crate) fn load_newest(dir: &Path) -> Result<Option<Head>, OpenError> {
    let newest = dir.join(NEWEST);
    match load_whole(&newest) {
        Ok(loaded) => Ok(loaded.map(|loaded| loaded.head)),
        Err(damage @ OpenError::Damaged { .. }) => match load_whole(&dir.join(BEFORE)) {
            Ok(Some(before)) => {
                tracing::warn!(
                    snapshot = %newest.display(),
                    error = %damage,
                    "using the snapshot before; the log has what follows it"
                );
                disk::remove(&newest).map_err(OpenError::disk("remove", &newest))?;
                disk::link(&dir.join(BEFORE), &newest)
                    .map_err(OpenError::disk("write", &newest))?;
                disk::sync_dir(dir).map_err(OpenError::disk("sync the folder", dir))?;
                Ok(Some(before.head))
            }
            Ok(None) | Err(_) => Err(damage),
        },
        Err(error) => Err(error),
    }
}

fn load_whole(path: &Path) -> Result<Option<Loaded>, OpenError> {
    let Some(payload) = files::read_sealed(path, Kind::Snapshot)? else {
        return Ok(None);
    };
    parse(payload)
        .map(Some)
        .map_err(|error| OpenError::damaged(path, format!("cannot be read: {error}")))
}

fn parse(mut payload: Vec<u8>) -> io::Result<Loaded> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "the snapshot is short");
    let (length, rest) = payload.split_at_checked(4).ok_or_else(short)?;
    let length = usize::try_from(number(length)).map_err(io::Error::other)?;
    let head = Head::decode(rest.get(..length).ok_or_else(short)?)?;
    let fold = payload.split_off(4 + length);
    Ok(Loaded { head, fold })
}

/// Opens the newest snapshot for streaming; it stays readable when a newer one takes its name.
pub(crate) fn open_newest(dir: &Path) -> io::Result<File> {
    File::open(path(dir))
}

/// Where the newest snapshot is.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join(NEWEST)
}

/// Checks that a file holds the snapshot that was announced. Blocks.
pub(crate) fn check(file: &mut File, announced: &SnapshotMeta) -> io::Result<()> {
    if read(file)?.head.meta() == *announced {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it holds another state than was announced",
        ))
    }
}

/// Reads and checks a whole snapshot.
pub(crate) fn read(file: &mut File) -> io::Result<Loaded> {
    file.rewind()?;
    let mut sealed = Vec::new();
    file.read_to_end(&mut sealed)?;
    match files::unseal(Kind::Snapshot, &sealed) {
        files::Unsealed::Whole(payload) => parse(payload.to_vec()),
        files::Unsealed::Damaged(what) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the snapshot {what}"),
        )),
        files::Unsealed::Newer { found, known } => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("the snapshot has format {found}, this version reads up to {known}"),
        )),
    }
}
