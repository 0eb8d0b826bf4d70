//! A disk that does not answer: syncs in such a folder wait until it does again.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static ANSWERS: Condvar = Condvar::new();

fn folders() -> MutexGuard<'static, Vec<PathBuf>> {
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The disk under a folder hangs until this is dropped.
#[derive(Debug)]
pub(crate) struct Hung(PathBuf);

impl Hung {
    pub(crate) fn new(dir: &Path) -> Self {
        folders().push(dir.to_owned());
        Self(dir.to_owned())
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        folders().retain(|dir| *dir != self.0);
        ANSWERS.notify_all();
    }
}

/// Waits as long as the disk under the folder hangs.
pub(super) fn wait(dir: &Path) {
    let hangs = |folders: &mut Vec<PathBuf>| folders.iter().any(|hung| hung == dir);
    drop(ANSWERS.wait_while(folders(), hangs));
}
