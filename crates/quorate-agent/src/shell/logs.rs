//! The output of runs: one thread reads every pipe and writes rotated files.
//!
//! Must never make the agent wait: a run whose disk is slow is slowed by its full pipe, nobody else.
//! Memory does not grow with the output: there is one buffer for all pipes.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::config::RunError;
use super::launch::LogTarget;
use super::times;

/// What is read at once.
const BUFFER_BYTES: usize = 64 * 1024;
/// After so many bytes of one run the others have their turn.
const TURN_BYTES: usize = 1024 * 1024;
/// Pipes that wait to be taken over: a warden starts a few thousand per second, taking one over is
/// microseconds.
const WAITING_MAX: usize = 16 * 1024;
/// How long the rest of what ended runs have printed may take when the agent leaves.
const LAST_READ: Duration = Duration::from_millis(500);
/// Name of the file that is written now.
pub(crate) const CURRENT: &str = "current.log";
/// Its marks.
const CURRENT_TIMES: &str = "current.times";

/// The log that is so many rotations old, and its marks.
pub(crate) fn names(number: u32) -> (String, String) {
    match number {
        0 => (CURRENT.to_owned(), CURRENT_TIMES.to_owned()),
        older => (format!("{older}.log"), format!("{older}.times")),
    }
}

/// Where output goes.
#[derive(Debug)]
struct Place {
    folder: PathBuf,
    max_size: u64,
    keep: u32,
}

/// What is to be written.
#[derive(Debug)]
enum Output {
    /// Everything that comes through a pipe.
    Pipe(OwnedFd),
    /// A line of the agent's own.
    Note(String),
}

/// Takes pipes over.
#[derive(Debug)]
pub(crate) struct Logs {
    root: PathBuf,
    sender: Option<mpsc::Sender<(Place, Output)>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Logs {
    /// Starts the thread.
    pub(crate) fn start(root: PathBuf) -> Result<Self, RunError> {
        const NAME: &str = "logs";
        let fail = |cause| RunError::Thread { name: NAME, cause };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(fail)?;
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let thread = std::thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || {
                tokio::task::LocalSet::new().block_on(&runtime, serve(receiver));
            })
            .map_err(fail)?;
        Ok(Self {
            root,
            sender: Some(sender),
            thread: Some(thread),
        })
    }

    /// Writes what comes through a pipe from here on.
    pub(crate) fn attach(&self, pipe: OwnedFd, target: &LogTarget) {
        self.hand(target, Output::Pipe(pipe));
    }

    /// Writes a line of the agent's own.
    pub(crate) fn note(&self, target: &LogTarget, line: String) {
        self.hand(target, Output::Note(line));
    }

    fn hand(&self, target: &LogTarget, output: Output) {
        let place = Place {
            folder: target.folder(&self.root),
            max_size: target.max_size.max(1),
            keep: target.keep,
        };
        let taken = self
            .sender
            .as_ref()
            .is_some_and(|s| s.try_send((place, output)).is_ok());
        if !taken {
            tracing::error!(
                service = target.service,
                key = target.key,
                "output of a run is lost: too many runs start at once"
            );
        }
    }
}

impl Drop for Logs {
    /// Pipes of runs that live on are closed here and taken up again by the next agent process.
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was already told; there is nothing more to lose.
            let _ended = thread.join();
        }
    }
}

async fn serve(mut receiver: mpsc::Receiver<(Place, Output)>) {
    let buffer = Rc::new(RefCell::new(vec![0; BUFFER_BYTES]));
    let mut copies = JoinSet::new();
    loop {
        tokio::select! {
            next = receiver.recv() => match next {
                Some((place, Output::Pipe(pipe))) => {
                    copies.spawn_local(follow(place, pipe, Rc::clone(&buffer)));
                }
                Some((place, Output::Note(line))) => {
                    RotatingFile::new(place).put(line.as_bytes());
                }
                None => break,
            },
            Some(_ended) = copies.join_next() => {}
        }
    }
    // What has ended has perhaps not been read to its end; what lives on is not waited for.
    let rest = async { while copies.join_next().await.is_some() {} };
    let _living = tokio::time::timeout(LAST_READ, rest).await;
}

async fn follow(place: Place, pipe: OwnedFd, buffer: Rc<RefCell<Vec<u8>>>) {
    let folder = place.folder.clone();
    if let Err(error) = copy(place, pipe, &buffer).await {
        tracing::warn!(folder = %folder.display(), %error, "output of a run cannot be kept");
    }
}

async fn copy(place: Place, pipe: OwnedFd, buffer: &RefCell<Vec<u8>>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&pipe)?;
    rustix::fs::fcntl_setfl(&pipe, flags | OFlags::NONBLOCK)?;
    let pipe = crate::sys::watch(pipe)?;
    let mut file = RotatingFile::new(place);
    loop {
        let mut ready = pipe.readable().await?;
        let mut turn = 0;
        while turn < TURN_BYTES {
            let read = ready.try_io(|pipe| file.take(pipe.get_ref(), &mut buffer.borrow_mut()));
            match read {
                Ok(Ok(0)) => {
                    file.end_line();
                    return Ok(());
                }
                Ok(Ok(count)) => turn += count,
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => break,
            }
        }
        tokio::task::yield_now().await;
    }
}

/// `current.log`, and `1.log`, `2.log` … from the newest to the oldest; each with its marks, which count
/// towards its size.
#[derive(Debug)]
struct RotatingFile {
    folder: PathBuf,
    max_size: u64,
    keep: u32,
    /// Opened with the first output: a silent run has no file.
    open: Option<Open>,
    /// It was said that output is lost, and none could be written since.
    complained: bool,
    /// What was written last did not end its line.
    in_line: bool,
}

/// The current file.
#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
    /// Bytes of its marks.
    marks: u64,
    /// The moment of the last mark that this process has written.
    marked: Option<u64>,
}

impl RotatingFile {
    fn new(place: Place) -> Self {
        let Place {
            folder,
            max_size,
            keep,
        } = place;
        Self {
            folder,
            max_size,
            keep,
            open: None,
            complained: false,
            in_line: false,
        }
    }

    /// Reads once and writes what was read. A full disk must not stop the run: what cannot be
    /// written is dropped.
    fn take(&mut self, pipe: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
        let count = rustix::io::read(pipe, &mut *buffer)?;
        self.put(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }

    /// The run has ended: what the next one prints begins on a line of its own.
    fn end_line(&mut self) {
        if self.in_line {
            self.put(b"\n");
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        let written = self.write(bytes, times::now_ms());
        if let (Err(error), false) = (&written, self.complained) {
            tracing::warn!(%error, folder = %self.folder.display(), "output of a run is dropped");
        }
        self.complained = written.is_err();
    }

    fn write(&mut self, bytes: &[u8], now: u64) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.size + open.marks >= self.max_size)
        {
            self.open = None;
            self.rotate()?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open_current()?,
        };
        if times::due(open.marked, now) {
            let path = self.folder.join(CURRENT_TIMES);
            // A disk that is full takes no mark; the next output tries again.
            if times::mark(&path, now, open.size).is_ok() {
                open.marks += times::MARK_BYTES;
                open.marked = Some(now);
            }
        }
        open.file.write_all(bytes)?;
        open.size += bytes.len() as u64;
        self.in_line = !bytes.ends_with(b"\n");
        self.open = Some(open);
        Ok(())
    }

    fn open_current(&self) -> io::Result<Open> {
        super::data_dir::make_dir(&self.folder, 0o755)?;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join(CURRENT))?;
        let size = file.metadata()?.len();
        let marks = fs::metadata(self.folder.join(CURRENT_TIMES)).map_or(0, |marks| marks.len());
        Ok(Open {
            file,
            size,
            marks,
            marked: None,
        })
    }

    /// The log goes first: who has opened it and finds it in its place afterwards has read its own marks.
    fn rotate(&self) -> io::Result<()> {
        let path = |name: &str| self.folder.join(name);
        if self.keep == 0 {
            let (log, times) = names(0);
            return remove(&path(&log)).and(remove(&path(&times)));
        }
        for number in (0..self.keep).rev() {
            let ((log, times), (older_log, older_times)) = (names(number), names(number + 1));
            rename(&path(&log), &path(&older_log))?;
            // Those of a log that has gone must not stay for the one that takes its name.
            remove(&path(&older_times))?;
            rename(&path(&times), &path(&older_times))?;
        }
        Ok(())
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotating(folder: PathBuf, max_size: u64, keep: u32) -> RotatingFile {
        RotatingFile::new(Place {
            folder,
            max_size,
            keep,
        })
    }

    #[test]
    fn files_are_rotated_at_their_size_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = rotating(dir.path().join("s/k"), 4, 2);
        for line in ["aaaa", "bbbb", "cccc", "dddd"] {
            file.write(line.as_bytes(), 1).unwrap();
        }
        let read = |name| fs::read_to_string(dir.path().join("s/k").join(name)).ok();
        assert_eq!(read(CURRENT).as_deref(), Some("dddd"));
        assert_eq!(read("1.log").as_deref(), Some("cccc"));
        assert_eq!(read("2.log").as_deref(), Some("bbbb"));
        assert_eq!(read("3.log"), None);
        let times = |name| dir.path().join("s/k").join(name).exists();
        assert!(times("current.times") && times("1.times") && times("2.times"));
        assert!(!times("3.times"));
    }

    #[test]
    fn what_is_kept_is_bounded_with_its_marks_however_slowly_it_comes() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = rotating(dir.path().to_owned(), 4096, 2);
        for second in 0..10_000 {
            file.write(b"\n", second * 1000).unwrap();
        }
        let all = fs::read_dir(dir.path()).unwrap();
        let bytes: u64 = all
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum();
        assert!(bytes > 2 * 4096 && bytes <= 3 * (4096 + 17), "{bytes}");
    }

    #[tokio::test]
    async fn what_a_run_leaves_unfinished_is_a_line_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["no end", "whole\n", "", "last"] {
            let (reader, mut writer) = io::pipe().unwrap();
            writer.write_all(text.as_bytes()).unwrap();
            drop(writer);
            let place = Place {
                folder: dir.path().to_owned(),
                max_size: 1000,
                keep: 1,
            };
            let buffer = RefCell::new(vec![0; 16]);
            copy(place, reader.into(), &buffer).await.unwrap();
        }
        let text = fs::read_to_string(dir.path().join(CURRENT)).unwrap();
        assert_eq!(text, "no end\nwhole\nlast\n");
    }

    #[test]
    fn a_new_attempt_goes_on_in_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let mut file = rotating(dir.path().to_owned(), 1000, 1);
            file.write(b"x\n", 1).unwrap();
        }
        let text = fs::read_to_string(dir.path().join(CURRENT)).unwrap();
        assert_eq!(text, "x\nx\n");
    }
}
