//! The folder of a director that does not run, read for what it holds: a backup can be made of it when nobody
//! is left to be asked.
//!
//! It may hold entries at its end that no majority ever had. They count here: whether they were acknowledged
//! cannot be known, and what was must not be lost.

use std::path::Path;

use openraft::EntryPayload;
use quorate_core::ids::Position;
use quorate_ledger::READ_BYTES_MAX;

use crate::error::OpenError;
use crate::files;
use crate::identity;
use crate::log::{self, LogStore, Sizes};
use crate::snapshot::{self, Head};

/// The folder, held so that no director can be started on it meanwhile.
#[derive(Debug)]
pub struct Stopped {
    /// The cluster.
    pub cluster: u64,
    /// The name of the director.
    pub name: String,
    head: Option<Head>,
    fold: Option<Vec<u8>>,
    log: LogStore,
}

impl Stopped {
    /// Opens a folder that has a ledger; `None` when it has none. Blocks.
    ///
    /// # Errors
    /// As [`Embedded::open`](crate::Embedded::open).
    pub fn open(dir: &Path) -> Result<Option<Self>, OpenError> {
        if !dir.is_dir() {
            return Ok(None);
        }
        let lock = files::lock(dir)?;
        let Some(identity) = identity::load(dir)? else {
            return Ok(None);
        };
        let head = snapshot::load_newest(dir)?;
        let fold = match &head {
            Some(_) => {
                let path = snapshot::path(dir);
                let read =
                    snapshot::open_newest(dir).and_then(|mut file| snapshot::read(&mut file));
                Some(read.map_err(OpenError::disk("read", &path))?.fold)
            }
            None => None,
        };
        let sizes = Sizes {
            segment: crate::options::SEGMENT_BYTES,
            cache: 0,
        };
        Ok(Some(Self {
            cluster: identity.cluster,
            name: identity.name,
            head,
            fold,
            log: log::open(dir, sizes, lock)?,
        }))
    }

    /// The snapshot of the fold that the entries follow, if there is one.
    #[must_use]
    pub fn fold(&self) -> Option<&[u8]> {
        self.fold.as_deref()
    }

    /// Every entry behind the snapshot, in order, as long as the last one was taken. Blocks.
    ///
    /// # Errors
    /// When the disk does not do what is asked.
    pub fn entries(&self, mut take: impl FnMut(Position, &[u8]) -> bool) -> std::io::Result<()> {
        let mut next = self.head.as_ref().map_or(Position(1), |head| head.next);
        let purged = self.log.purged().map_or(0, |purged| purged.index + 1);
        let covered = self.head.as_ref().map_or(0, |head| head.last.index + 1);
        let mut index = covered.max(purged);
        let end = self.log.last().map_or(0, |last| last.index + 1);
        while index < end {
            let entries = self.log.read(index..end, READ_BYTES_MAX)?;
            if entries.is_empty() {
                return Err(std::io::Error::other(format!("record {index} is gone")));
            }
            for entry in entries {
                index = entry.log_id.index + 1;
                let EntryPayload::Normal(proposal) = entry.payload else {
                    continue;
                };
                // The rule of appends, as it is applied.
                if proposal.at == next {
                    if !take(next, &proposal.entry) {
                        return Ok(());
                    }
                    next = next.next();
                }
            }
        }
        Ok(())
    }
}
