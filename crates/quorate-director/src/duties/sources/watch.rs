//! Hints that a file may have changed. They can be lost, late, or about something else; what counts
//! is the look at the file itself, which also happens without any hint.

use std::path::PathBuf;
use std::sync::Arc;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// Watches the folders of one file.
pub(super) struct Hints {
    /// Absent when the kernel has no watch to give; then only the regular look remains.
    watcher: Option<RecommendedWatcher>,
    watched: Vec<PathBuf>,
    changed: Arc<Notify>,
}

impl Hints {
    pub(super) fn new() -> Self {
        let changed = Arc::new(Notify::new());
        let hint = Arc::clone(&changed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Opening and reading, which the look itself does, is no hint; an error may hide one.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                hint.notify_one();
            }
        })
        .inspect_err(|error| tracing::debug!(%error, "no watch on files, looking regularly only"))
        .ok();
        Self {
            watcher,
            watched: Vec::new(),
            changed,
        }
    }

    /// Watches these folders from now on, and no others. Files are not watched themselves, because
    /// a file that is renamed over takes its watch with it.
    pub(super) fn follow(&mut self, folders: Vec<PathBuf>) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        for gone in self.watched.iter().filter(|old| !folders.contains(old)) {
            // It may be gone with its folder already.
            watcher.unwatch(gone).ok();
        }
        let mut watched = Vec::new();
        for folder in folders {
            if self.watched.contains(&folder)
                || watcher.watch(&folder, RecursiveMode::NonRecursive).is_ok()
            {
                watched.push(folder);
            }
        }
        self.watched = watched;
    }

    /// The next hint. One that came since the last call counts.
    pub(super) async fn next(&self) {
        self.changed.notified().await;
    }
}
