//! What was acknowledged, kept apart from the log: it tells a group that a crash cut off from damage to
//! one that somebody was already told of.
//!
//! A mark is written after the sync of its group and before the acknowledgement. It is synced a moment
//! later, not before the acknowledgement, which would double the time of every append. So a killed
//! process always leaves the mark of what it acknowledged; a power cut may lose those of the last
//! moment, and then only damage to these very groups goes unnoticed, if it happens together with it.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{self, Handle};
use crate::error::OpenError;
use crate::files::{self, number};

pub(super) const FILE: &str = "acknowledged";
const MAGIC: &[u8; 8] = b"quorate\x01";
/// Two marks, each in a block of its own, written in turn: a torn one leaves the other.
const BLOCK: u64 = 4096;
const SIZE: usize = 8 + 8 + 8 + 8 + 4 + 8 + 8 + 1;

/// One acknowledged group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Counts the marks.
    pub(super) sequence: u64,
    /// The index after the last record of the group.
    pub(super) next: u64,
    /// Term of the last record.
    pub(super) term: u64,
    /// Checksum of the last record.
    pub(super) crc: u32,
    /// The index after the last committed record known then, and its term.
    pub(super) committed: (u64, u64),
    /// Whether the records from `next` on are being removed: what is left of them counts for nothing.
    pub(super) withdrawing: bool,
}

impl Mark {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.next.to_le_bytes());
        bytes.extend_from_slice(&self.term.to_le_bytes());
        bytes.extend_from_slice(&self.crc.to_le_bytes());
        bytes.extend_from_slice(&self.committed.0.to_le_bytes());
        bytes.extend_from_slice(&self.committed.1.to_le_bytes());
        bytes.push(u8::from(self.withdrawing));
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (covered, rest) = bytes.split_at_checked(SIZE)?;
        let crc = rest.get(..4)?;
        if crc32fast::hash(covered).to_le_bytes() != crc || !covered.starts_with(MAGIC) {
            return None;
        }
        let field = |from: usize, size: usize| covered.get(from..from + size).map(number);
        Some(Self {
            sequence: field(8, 8)?,
            next: field(16, 8)?,
            term: field(24, 8)?,
            crc: u32::try_from(field(32, 4)?).ok()?,
            committed: (field(36, 8)?, field(44, 8)?),
            withdrawing: field(52, 1)? != 0,
        })
    }
}

/// The file of marks.
#[derive(Debug)]
pub(super) struct Marks {
    file: Handle,
    last: Mark,
    synced: bool,
}

impl Marks {
    /// Makes the file of a new log.
    pub(super) fn make(dir: &Path) -> io::Result<Self> {
        let mut bytes = vec![0; usize::try_from(2 * BLOCK).unwrap_or(0)];
        let last = Mark::default();
        for (to, from) in bytes.iter_mut().zip(last.encode()) {
            *to = from;
        }
        files::replace(dir, FILE, &bytes)?;
        let file = disk::open(&dir.join(FILE))?;
        Ok(Self {
            file,
            last,
            synced: true,
        })
    }

    /// Opens the file; `None` when there is none.
    pub(super) fn open(dir: &Path) -> Result<Option<Self>, OpenError> {
        let path: PathBuf = dir.join(FILE);
        let file = match disk::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::disk("open for writing", &path)(error)),
        };
        let read = |block: u64| {
            let mut bytes = [0; SIZE + 4];
            match file.read_exact_at(&mut bytes, block * BLOCK) {
                Ok(()) => Ok(Mark::decode(&bytes)),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
                Err(error) => Err(error),
            }
        };
        let both = read(0).and_then(|first| Ok([first, read(1)?]));
        let both = both.map_err(OpenError::disk("read", &path))?;
        match both.into_iter().flatten().max_by_key(|mark| mark.sequence) {
            // A killed process may have left it to the system unsynced.
            Some(last) => Ok(Some(Self {
                file,
                last,
                synced: false,
            })),
            None => Err(OpenError::damaged(
                &path,
                "is damaged: it says which records were acknowledged",
            )),
        }
    }

    pub(super) const fn last(&self) -> Mark {
        self.last
    }

    /// Writes the next mark, which is durable with the next [`sync`](Self::sync).
    pub(super) fn write(&mut self, mark: Mark) -> io::Result<()> {
        let mark = Mark {
            sequence: self.last.sequence + 1,
            ..mark
        };
        let block = mark.sequence % 2;
        self.synced = false;
        self.file.write_all_at(&mark.encode(), block * BLOCK)?;
        self.last = mark;
        Ok(())
    }

    /// Makes the last mark durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if !self.synced {
            self.file.sync()?;
            self.synced = true;
        }
        Ok(())
    }
}
