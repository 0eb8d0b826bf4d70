//! One segment file: a header and frames, then zeros up to its size.
//!
//! It is written full of zeros and synced before it gets its name, so that a later sync of frames has
//! only their blocks to write and no new length; and a file with the name of a segment is always whole.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{self, Found};
use crate::disk::{self, Handle};
use crate::files::{UNFINISHED, number};
use crate::types::Entry;

/// Bytes of the header; frames begin behind it.
pub(super) const HEADER: u32 = 64;
const MAGIC: &[u8; 12] = b"quorate log\n";
pub(super) const FORMAT: u32 = 1;
/// Zeros are written in pieces of this size.
const PIECE: usize = 1024 * 1024;

/// A segment that has its name.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// Index of its first record.
    pub(super) first: u64,
    pub(super) file: Arc<Handle>,
    pub(super) path: PathBuf,
    /// Where each of its records begins.
    pub(super) offsets: Vec<u32>,
    /// Where the next one goes.
    pub(super) end: u32,
    /// Bytes of the file.
    pub(super) size: u32,
}

/// Where one record is.
#[derive(Debug)]
pub(super) struct Place {
    file: Arc<Handle>,
    offset: u32,
    size: u32,
}

impl Place {
    /// Reads the record, which must be that of `index`.
    pub(super) fn read(&self, index: u64) -> io::Result<Entry> {
        let mut bytes = vec![0; usize::try_from(self.size).map_err(io::Error::other)?];
        self.file
            .read_exact_at(&mut bytes, u64::from(self.offset))?;
        match frame::look(&bytes) {
            Found::Frame(frame) if frame.index == index => frame.entry(),
            Found::Frame(_) | Found::Nothing | Found::Broken => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("record {index} was damaged on disk after it was written"),
            )),
        }
    }
}

impl Segment {
    /// The index after its last record.
    pub(super) fn next(&self) -> u64 {
        self.first + self.offsets.len() as u64
    }

    pub(super) fn place(&self, index: u64) -> Option<Place> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        let offset = *self.offsets.get(at)?;
        let end = self.offsets.get(at + 1).copied().unwrap_or(self.end);
        Some(Place {
            file: Arc::clone(&self.file),
            offset,
            size: end - offset,
        })
    }

    /// Makes the segment that begins with record `first`, whose predecessor has the checksum `before`.
    pub(super) fn make(dir: &Path, first: u64, before: u32, size: u32) -> io::Result<Self> {
        Self::name(dir, zeros(dir, size)?, first, before, size)
    }

    /// Gives a file of zeros, made by [`zeros`], its header and its name.
    pub(super) fn name(
        dir: &Path,
        file: Handle,
        first: u64,
        before: u32,
        size: u32,
    ) -> io::Result<Self> {
        file.write_all_at(&header(first, before, size), 0)?;
        file.sync()?;
        let path = dir.join(name(first));
        disk::rename(&spare(dir), &path)?;
        disk::sync_dir(dir)?;
        Ok(Self {
            first,
            file: Arc::new(file),
            path,
            offsets: Vec::new(),
            end: HEADER,
            size,
        })
    }

    /// Writes the records once more where they are, durably.
    ///
    /// A process that ended between a write and its sync, or after a sync that failed, leaves pages that
    /// read back whole and may never reach the disk; a new sync alone does not notice the latter.
    pub(super) fn write_again(&self) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        while at < u64::from(self.end) {
            let left = usize::try_from(u64::from(self.end) - at).unwrap_or(PIECE);
            let piece = piece.get_mut(..left.min(PIECE)).unwrap_or_default();
            self.file.read_exact_at(piece, at)?;
            self.file.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
        self.file.sync()
    }

    /// Makes everything from `end` on zeros again, durably.
    pub(super) fn clear_from(&self, end: u32) -> io::Result<()> {
        let zeros = vec![0; PIECE.min(usize::try_from(self.size - end).unwrap_or(PIECE))];
        let mut at = u64::from(end);
        while at < u64::from(self.size) {
            let left = usize::try_from(u64::from(self.size) - at).unwrap_or(usize::MAX);
            let piece = zeros.get(..left).unwrap_or(&zeros);
            self.file.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
        self.file.sync()
    }
}

/// The name of a segment; names sort as their records do.
pub(super) fn name(first: u64) -> String {
    format!("log-{first:020}")
}

/// The first record of the segment with this name.
pub(super) fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log-")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

fn spare(dir: &Path) -> PathBuf {
    dir.join(format!("log-spare{UNFINISHED}"))
}

/// Makes the one file of zeros that becomes the next segment.
pub(super) fn zeros(dir: &Path, size: u32) -> io::Result<Handle> {
    let file = disk::create(&spare(dir))?;
    let zeros = vec![0; PIECE];
    let mut at = 0;
    while at < u64::from(size) {
        let left = usize::try_from(u64::from(size) - at).unwrap_or(usize::MAX);
        let piece = zeros.get(..left).unwrap_or(&zeros);
        file.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    file.sync()?;
    Ok(file)
}

fn header(first: u64, before: u32, size: u32) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(&first.to_le_bytes());
    header.extend_from_slice(&before.to_le_bytes());
    header.extend_from_slice(&size.to_le_bytes());
    header.resize(usize::try_from(HEADER).unwrap_or(0) - 4, 0);
    let crc = crc32fast::hash(&header);
    header.extend_from_slice(&crc.to_le_bytes());
    header
}

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    Whole { first: u64, before: u32, size: u32 },
    Damaged,
    Newer(u32),
}

pub(super) fn read_header(bytes: &[u8]) -> Header {
    let Some(header) = bytes.get(..HEADER as usize) else {
        return Header::Damaged;
    };
    let (covered, crc) = header.split_at(header.len() - 4);
    if crc32fast::hash(covered).to_le_bytes() != crc || !covered.starts_with(MAGIC) {
        return Header::Damaged;
    }
    let field =
        |from: usize, size: usize| number(covered.get(from..from + size).unwrap_or_default());
    let format = u32::try_from(field(12, 4)).unwrap_or(u32::MAX);
    if format > FORMAT {
        return Header::Newer(format);
    }
    Header::Whole {
        first: field(16, 8),
        before: u32::try_from(field(24, 4)).unwrap_or(u32::MAX),
        size: u32::try_from(field(28, 4)).unwrap_or(u32::MAX),
    }
}
