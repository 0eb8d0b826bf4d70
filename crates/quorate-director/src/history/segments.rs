//! Changes on disk: files of JSON lines named by the first position they hold, the oldest removed when
//! all together are too large. A line that a crash cut in half is passed over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use quorate_core::history::Change;
use quorate_core::ids::Position;

use super::{EventId, Recorded};

/// How many files the whole is split into; one of them goes at a time.
const SEGMENTS: u64 = 8;
/// The most entries that are told of one partition: the newest.
const FOUND_MAX: usize = 1000;

/// The files. One thread writes; any may read.
#[derive(Debug)]
pub(crate) struct Segments {
    folder: PathBuf,
    bytes_max: u64,
    files: Mutex<Vec<Segment>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    first: Position,
    /// The position that was last appended by this process.
    newest: Position,
    path: PathBuf,
    bytes: u64,
}

/// What was found of a partition.
#[derive(Debug, Default)]
pub(crate) struct Searched {
    /// Its changes, oldest first.
    pub(crate) entries: Vec<Recorded>,
    /// Nothing is known before this position.
    pub(crate) known_since: Position,
}

impl Segments {
    /// Opens the folder, and tells the newest changes in it.
    pub(super) fn open(
        folder: &Path,
        bytes_max: u64,
        recent: usize,
    ) -> io::Result<(Self, Vec<Recorded>)> {
        fs::create_dir_all(folder)?;
        let mut files = Vec::new();
        for item in fs::read_dir(folder)? {
            let path = item?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let first = name.and_then(|name| name.strip_suffix(".jsonl")?.parse().ok());
            if let Some(first) = first {
                let bytes = fs::metadata(&path)?.len();
                files.push(Segment {
                    first: Position(first),
                    newest: Position(first),
                    path,
                    bytes,
                });
            }
        }
        files.sort_by_key(|segment| segment.first);
        if let Some(last) = files.last() {
            end_line(&last.path)?;
        }
        let mut newest: Vec<Vec<Recorded>> = Vec::new();
        let mut count = 0;
        for segment in files.iter().rev() {
            let mut found = Vec::new();
            read(&segment.path, |_, change| found.push(change))?;
            count += found.len();
            newest.push(found);
            if count >= recent {
                break;
            }
        }
        let mut all: Vec<Recorded> = newest.into_iter().rev().flatten().collect();
        let surplus = all.len().saturating_sub(recent);
        all.drain(..surplus);
        let segments = Self {
            folder: folder.to_owned(),
            bytes_max,
            files: Mutex::new(files),
        };
        Ok((segments, all))
    }

    /// Appends lines whose first one is of `position`. Only the writer calls this.
    pub(super) fn append(&self, position: Position, lines: &[u8]) -> io::Result<()> {
        let mut files = self.lock().clone();
        let full = self.bytes_max / SEGMENTS;
        // The parts of one entry stay together: nothing is known before the first position of a file, and
        // everything from it on.
        let fits = files
            .last()
            .is_some_and(|last| last.bytes < full || last.newest == position);
        if !fits {
            // Two directors of one name cannot be: the folder is locked.
            let path = self.folder.join(format!("{:020}.jsonl", position.0));
            files.push(Segment {
                first: position,
                newest: position,
                path,
                bytes: 0,
            });
        }
        let mut total: u64 = files.iter().map(|segment| segment.bytes).sum();
        while total > self.bytes_max && files.len() > 1 {
            let oldest = files.remove(0);
            total -= oldest.bytes;
            fs::remove_file(&oldest.path)?;
        }
        if let Some(last) = files.last_mut() {
            let mut file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&last.path)?;
            file.write_all(lines)?;
            last.bytes += lines.len() as u64;
            last.newest = position;
        }
        *self.lock() = files;
        Ok(())
    }

    /// What happened before `position` is not known: older files would pretend that nothing did.
    pub(super) fn forget_before(&self, position: Position) -> io::Result<()> {
        let files = std::mem::take(&mut *self.lock());
        for segment in files {
            fs::remove_file(&segment.path)?;
        }
        self.append(position, b"")
    }

    /// Every change that is wanted, the newest thousand of them. Lines without the needle are not looked at.
    pub(super) fn search(
        &self,
        needle: &str,
        wanted: impl Fn(&Change) -> bool,
    ) -> io::Result<Searched> {
        let files = self.lock().clone();
        let known_since = files.first().map_or(Position(0), |first| first.first);
        let mut entries = Vec::new();
        for segment in files {
            let found = read_if(&segment.path, needle, |change| {
                if wanted(&change.change) {
                    entries.push(change);
                }
            });
            match found {
                // The writer removed it meanwhile: it was the oldest.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        let surplus = entries.len().saturating_sub(FOUND_MAX);
        let known_since = match entries.get(surplus) {
            Some(first) if surplus > 0 => first.id.position,
            Some(_) | None => known_since,
        };
        entries.drain(..surplus);
        Ok(Searched {
            entries,
            known_since,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Segment>> {
        // The list is only ever replaced whole.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What follows a line that a crash cut in half begins a line of its own.
fn end_line(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).open(path)?;
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(())
}

fn read(path: &Path, mut each: impl FnMut(EventId, Recorded)) -> io::Result<()> {
    read_if(path, "", |change| each(change.id, change))
}

fn read_if(path: &Path, needle: &str, mut each: impl FnMut(Recorded)) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 16, File::open(path)?);
    let mut line = String::new();
    loop {
        line.clear();
        match reader.read_line(&mut line) {
            Ok(0) => return Ok(()),
            Ok(_) => {
                if line.contains(needle)
                    && let Ok(change) = serde_json::from_str(&line)
                {
                    each(change);
                }
            }
            // Torn in the middle of a letter: only the last line of a crash can be.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
            Err(error) => return Err(error),
        }
    }
}
