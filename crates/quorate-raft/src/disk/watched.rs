//! What was done in a folder, recorded, and what a power cut may leave of it.
//!
//! The model is that of POSIX with a journal for names, as ext4 and XFS have it: of what was written and
//! not synced, any sectors may be on disk and others not; of the names that changed since the folder was
//! synced, those up to some moment are there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::RngExt;
use rand::rngs::StdRng;

const SECTOR: usize = 512;

/// The recordings, by folder.
static FOLDERS: Mutex<BTreeMap<PathBuf, Recording>> = Mutex::new(BTreeMap::new());

/// A file in a watched folder.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    dir: PathBuf,
    file: usize,
}

/// One thing that was done; files are numbered in the order of being made.
#[derive(Clone, Debug)]
enum Done {
    Created {
        name: String,
        file: usize,
    },
    Written {
        file: usize,
        at: u64,
        bytes: Vec<u8>,
    },
    Synced {
        file: usize,
    },
    Renamed {
        from: String,
        to: String,
    },
    Linked {
        from: String,
        to: String,
    },
    Removed {
        name: String,
    },
    FolderSynced,
}

#[derive(Debug)]
struct Recording {
    names: BTreeMap<String, usize>,
    files: usize,
    done: Vec<Done>,
}

fn folders() -> MutexGuard<'static, BTreeMap<PathBuf, Recording>> {
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records into the folder that holds `path`, if it is watched.
fn record<T>(path: &Path, what: impl FnOnce(&mut Recording, String) -> T) -> Option<T> {
    let mut folders = folders();
    let recording = folders.get_mut(path.parent()?)?;
    let name = path.file_name()?.to_str()?.to_owned();
    Some(what(recording, name))
}

pub(super) fn created(path: &Path) -> Option<Open> {
    let dir = path.parent()?.to_owned();
    let file = record(path, |recording, name| {
        let file = recording.files;
        recording.files += 1;
        recording.names.insert(name.clone(), file);
        recording.done.push(Done::Created { name, file });
        file
    })?;
    Some(Open { dir, file })
}

pub(super) fn opened(path: &Path) -> Option<Open> {
    let dir = path.parent()?.to_owned();
    let file = record(path, |recording, name| recording.names.get(&name).copied())??;
    Some(Open { dir, file })
}

fn push(open: Option<&Open>, done: impl FnOnce(usize) -> Done) {
    let Some(open) = open else { return };
    if let Some(recording) = folders().get_mut(&open.dir) {
        recording.done.push(done(open.file));
    }
}

pub(super) fn written(open: Option<&Open>, bytes: &[u8], at: u64) {
    push(open, |file| Done::Written {
        file,
        at,
        bytes: bytes.to_vec(),
    });
}

pub(super) fn synced(open: Option<&Open>) {
    push(open, |file| Done::Synced { file });
}

fn other(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

pub(super) fn renamed(from: &Path, to: &Path) {
    record(from, |recording, from| {
        let to = other(to);
        if let Some(file) = recording.names.remove(&from) {
            recording.names.insert(to.clone(), file);
        }
        recording.done.push(Done::Renamed { from, to });
    });
}

pub(super) fn linked(from: &Path, to: &Path) {
    record(from, |recording, from| {
        let to = other(to);
        if let Some(file) = recording.names.get(&from).copied() {
            recording.names.insert(to.clone(), file);
        }
        recording.done.push(Done::Linked { from, to });
    });
}

pub(super) fn removed(path: &Path) {
    record(path, |recording, name| {
        recording.names.remove(&name);
        recording.done.push(Done::Removed { name });
    });
}

pub(super) fn dir_synced(dir: &Path) {
    if let Some(recording) = folders().get_mut(dir) {
        recording.done.push(Done::FolderSynced);
    }
}

/// A folder whose changes are recorded until this is dropped.
#[derive(Debug)]
pub(crate) struct Watched {
    dir: PathBuf,
    start: Drive,
}

impl Watched {
    /// Watches a folder that has what `drive` shows to a running system.
    pub(crate) fn new(dir: &Path, drive: Drive) -> Self {
        let recording = Recording {
            names: drive.names.clone(),
            files: drive.files.len(),
            done: Vec::new(),
        };
        folders().insert(dir.to_owned(), recording);
        Self {
            dir: dir.to_owned(),
            start: drive,
        }
    }

    /// How much was done so far.
    pub(crate) fn done(&self) -> usize {
        folders().get(&self.dir).unwrap().done.len()
    }

    /// The drive after the first `done` things.
    pub(crate) fn drive(&self, done: usize) -> Drive {
        let mut drive = self.start.clone();
        for done in folders().get(&self.dir).unwrap().done.iter().take(done) {
            drive.apply(done);
        }
        drive
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        folders().remove(&self.dir);
    }
}

#[derive(Clone, Debug, Default)]
struct Content {
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

/// A disk with one folder on it: what is durable, and what is only on its way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drive {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// The names after each change since the folder was synced.
    pending_names: Vec<BTreeMap<String, usize>>,
}

impl Drive {
    fn apply(&mut self, done: &Done) {
        match done {
            Done::Created { name, file } => {
                self.files.resize_with(file + 1, Content::default);
                self.names.insert(name.clone(), *file);
            }
            Done::Written { file, at, bytes } => {
                let at = usize::try_from(*at).unwrap();
                self.files[*file].pending.push((at, bytes.clone()));
                return;
            }
            Done::Synced { file } => {
                let content = &mut self.files[*file];
                for (at, bytes) in std::mem::take(&mut content.pending) {
                    put(&mut content.durable, at, &bytes);
                }
                return;
            }
            Done::Renamed { from, to } => {
                let file = self.names.remove(from).unwrap();
                self.names.insert(to.clone(), file);
            }
            Done::Linked { from, to } => {
                self.names.insert(to.clone(), self.names[from]);
            }
            Done::Removed { name } => {
                self.names.remove(name);
            }
            Done::FolderSynced => {
                self.durable_names = self.names.clone();
                self.pending_names.clear();
                return;
            }
        }
        self.pending_names.push(self.names.clone());
    }

    /// What a process that is started next sees while the power stays on.
    pub(crate) fn seen(&self) -> BTreeMap<String, Vec<u8>> {
        let all = |content: &Content| {
            let mut bytes = content.durable.clone();
            for (at, piece) in &content.pending {
                put(&mut bytes, *at, piece);
            }
            bytes
        };
        self.names
            .iter()
            .map(|(name, file)| (name.clone(), all(&self.files[*file])))
            .collect()
    }

    /// One of the things that may be there after the power was cut and came back.
    pub(crate) fn after_cut(&self, chance: &mut StdRng) -> BTreeMap<String, Vec<u8>> {
        let kept = chance.random_range(0..=self.pending_names.len());
        let names = match kept.checked_sub(1) {
            Some(last) => &self.pending_names[last],
            None => &self.durable_names,
        };
        names
            .iter()
            .map(|(name, file)| (name.clone(), left(&self.files[*file], chance)))
            .collect()
    }

    /// A drive on which all of this is durable.
    pub(crate) fn holding(files: &BTreeMap<String, Vec<u8>>) -> Self {
        let names: BTreeMap<String, usize> = files.keys().cloned().zip(0..).collect();
        let content = |bytes: &Vec<u8>| Content {
            durable: bytes.clone(),
            pending: Vec::new(),
        };
        Self {
            files: files.values().map(content).collect(),
            durable_names: names.clone(),
            names,
            pending_names: Vec::new(),
        }
    }
}

/// The durable bytes with some of the sectors that were on their way.
fn left(content: &Content, chance: &mut StdRng) -> Vec<u8> {
    let mut bytes = content.durable.clone();
    // Mostly a part of what is pending got there; all and nothing are as likely as any such part.
    let share = chance.random_range(0..5);
    for (at, piece) in &content.pending {
        let mut offset = 0;
        while offset < piece.len() {
            let end = ((at + offset) / SECTOR + 1) * SECTOR - at;
            let sector = &piece[offset..end.min(piece.len())];
            if chance.random_range(0..4) < share {
                put(&mut bytes, at + offset, sector);
            }
            offset += sector.len();
        }
    }
    bytes
}

fn put(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let end = at + piece.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(piece);
}

/// Writes these files into an empty folder.
pub(crate) fn lay_out(dir: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).unwrap();
    }
}
