//! A file read as a whole and at rest, from below the folders that this director may read.
//!
//! Must never hand out half of what somebody is writing: half a list looks like partitions that went.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Largest file that is read.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// A file counts as written once it has not changed for this long. Longer than the ticks in which
/// the kernel stamps files, so that a later change always has another stamp.
pub(super) const SETTLE: Duration = Duration::from_millis(100);

/// A file that is still changing after this many looks is told as a problem.
pub(super) const LOOKS_MAX: u32 = 50;

/// The folders that this director may read sources from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots(Vec<PathBuf>);

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file, or a folder on the way to it, is not there or closed to this director.
    #[error("{path} cannot be read: {}", plain(cause))]
    Io {
        /// The file.
        path: String,
        /// What the kernel says.
        #[source]
        cause: io::Error,
    },
    /// It is not below any of the folders.
    #[error("{path} {leads}is outside the folders that this director may read ({}); start the director, or `up`, with --source-root and its folder, or move the file", roots.shown())]
    Outside {
        /// The file.
        path: String,
        /// Where links lead it, empty when nowhere else.
        leads: String,
        /// The folders.
        roots: Roots,
    },
    /// It is a folder, a device or the like.
    #[error("{path} is not a file")]
    NotAFile {
        /// The file.
        path: String,
    },
    /// More than [`FILE_BYTES_MAX`].
    #[error(
        "{path} has {bytes} bytes, and at most {FILE_BYTES_MAX} are read; split it over several services"
    )]
    TooLarge {
        /// The file.
        path: String,
        /// Its size.
        bytes: u64,
    },
    /// Somebody keeps writing it.
    #[error(
        "{path} never stopped changing while it was read; write a new file beside it and rename it over"
    )]
    Restless {
        /// The file.
        path: String,
    },
}

fn plain(cause: &io::Error) -> String {
    if cause.kind() == io::ErrorKind::NotFound {
        "it does not exist".to_owned()
    } else if cause.kind() == io::ErrorKind::PermissionDenied {
        "this director has no permission".to_owned()
    } else {
        cause.to_string()
    }
}

impl Roots {
    /// The folders, as the director's own configuration names them.
    #[must_use]
    pub fn new(folders: Vec<PathBuf>) -> Self {
        Self(folders)
    }

    /// Whether a path without links is below one of the folders.
    fn hold(&self, resolved: &Path) -> bool {
        self.0
            .iter()
            .any(|folder| fs::canonicalize(folder).is_ok_and(|folder| resolved.starts_with(folder)))
    }

    fn shown(&self) -> String {
        if self.0.is_empty() {
            return "none are configured".to_owned();
        }
        let folders: Vec<String> = self
            .0
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        folders.join(", ")
    }
}

/// Tells one state of a file from another: it changes with every write and every rename over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A file and the folders in which a change of it shows.
#[derive(Clone, Debug)]
pub(super) struct Source {
    path: PathBuf,
    roots: Roots,
}

impl Source {
    pub(super) fn new(path: &str, roots: Roots) -> Self {
        Self {
            path: PathBuf::from(path),
            roots,
        }
    }

    /// The folder of the name, and that of the file that links lead to.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> = Vec::new();
        let resolved = fs::canonicalize(&self.path).ok();
        for path in [Some(&self.path), resolved.as_ref()].into_iter().flatten() {
            if let Some(folder) = path.parent()
                && !folders.iter().any(|known| known == folder)
            {
                folders.push(folder.to_owned());
            }
        }
        folders
    }

    /// The state of the file now.
    pub(super) fn stamp(&self) -> Result<Stamp, ReadError> {
        fs::metadata(&self.path)
            .map(|metadata| Stamp::of(&metadata))
            .map_err(|cause| self.io(cause))
    }

    /// The whole file, unless it is no longer in the state `expected`, before or after.
    pub(super) fn read(&self, expected: Stamp) -> Result<Option<Vec<u8>>, ReadError> {
        let mut file = self.open()?;
        let metadata = file.metadata().map_err(|cause| self.io(cause))?;
        if Stamp::of(&metadata) != expected {
            return Ok(None);
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(ReadError::TooLarge {
                path: self.shown(),
                bytes: metadata.len(),
            });
        }
        let mut bytes = Vec::new();
        Read::by_ref(&mut file)
            .take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|cause| self.io(cause))?;
        let unchanged = file
            .metadata()
            .is_ok_and(|metadata| Stamp::of(&metadata) == expected)
            && self.stamp().is_ok_and(|stamp| stamp == expected);
        Ok(unchanged.then_some(bytes))
    }

    fn open(&self) -> Result<File, ReadError> {
        let file = OpenOptions::new()
            .read(true)
            // Opening a pipe would otherwise wait for somebody to write to it.
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(&self.path)
            .map_err(|cause| self.io(cause))?;
        // The path of what is open now: between a look at the path and opening it, a link could be swapped.
        let resolved = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .map_err(|cause| self.io(cause))?;
        if !self.roots.hold(&resolved) {
            let leads = if resolved == self.path {
                String::new()
            } else {
                format!("leads to {}, which ", resolved.display())
            };
            return Err(ReadError::Outside {
                path: self.shown(),
                leads,
                roots: self.roots.clone(),
            });
        }
        let metadata = file.metadata().map_err(|cause| self.io(cause))?;
        if !metadata.is_file() {
            return Err(ReadError::NotAFile { path: self.shown() });
        }
        Ok(file)
    }

    fn io(&self, cause: io::Error) -> ReadError {
        ReadError::Io {
            path: self.shown(),
            cause,
        }
    }

    pub(super) fn shown(&self) -> String {
        self.path.display().to_string()
    }

    pub(super) fn restless(&self) -> ReadError {
        ReadError::Restless { path: self.shown() }
    }
}
