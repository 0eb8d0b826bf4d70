//! The agent's folder: held by one process at a time, with its identity, wardens, runs and logs.
//!
//! ```text
//! agent.lock  agent_id  directors  era  last_warden
//! wardens/<n>/           socket, log and last will of a warden
//! leases/<n>             deadline of a session, where there is no memory to keep it in
//! runs/<token>/          what a run needs: its data, its checkpoint, its sockets, where its output goes
//! logs/<service>/<key>/  current.log, 1.log, 2.log …
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorate_core::agent::WardenId;
use quorate_core::ids::Token;
use rustix::fs::FlockOperation;

use super::config::RunError;
use super::files::Job;
use super::short;
use crate::planted::{self, Planted};

/// Name of the file with the identity.
const IDENTITY: &str = "agent_id";
/// Where the directors were last, a line for each.
const DIRECTORS: &str = "directors";
/// The highest number of a warden that there has been.
const WARDEN: &str = "last_warden";

/// A folder that this process holds.
#[derive(Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
    agent_id: u64,
    folder: u64,
    /// The folder of the runs under a name that is short enough for their sockets.
    short_runs: PathBuf,
    highest_warden: Arc<Mutex<u64>>,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "holding it open is what it is for")
    )]
    lock: File,
    /// Held beside the file lock, which network file systems may not keep and copies do not share.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "holding it open is what it is for")
    )]
    name: UnixListener,
}

impl DataDir {
    /// Makes the folder if it is missing, and holds it.
    pub(crate) fn open(path: &Path) -> Result<Self, RunError> {
        let fail = |cause| RunError::DataDir {
            path: path.to_owned(),
            cause,
        };
        make_dir(path, 0o755).map_err(fail)?;
        let root = path.canonicalize().map_err(fail)?;
        let taken = io::ErrorKind::WouldBlock;
        let lock = unless(taken, || lock(&root)).map_err(|cause| {
            if cause.kind() == taken {
                RunError::InUse { path: root.clone() }
            } else {
                fail(cause)
            }
        })?;
        let agent_id = identity(&root.join(IDENTITY))?;
        let taken = io::ErrorKind::AddrInUse;
        let name = unless(taken, || claim(agent_id)).map_err(|cause| {
            if cause.kind() == taken {
                RunError::Copied { path: root.clone() }
            } else {
                fail(cause)
            }
        })?;
        for (below, mode) in [
            ("wardens", 0o700),
            ("leases", 0o755),
            ("runs", 0o711),
            ("logs", 0o755),
        ] {
            make_dir(&root.join(below), mode).map_err(fail)?;
        }
        let folder = folder_of(&root.join(IDENTITY)).map_err(fail)?;
        Ok(Self {
            folder,
            short_runs: short::way_to(&root.join("runs"), folder).map_err(fail)?,
            highest_warden: Arc::new(Mutex::new(noted_warden(&root))),
            root,
            agent_id,
            lock,
            name,
        })
    }

    pub(crate) const fn agent_id(&self) -> u64 {
        self.agent_id
    }

    /// Tells this folder from a copy of it on the same machine.
    pub(crate) const fn folder(&self) -> u64 {
        self.folder
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn wardens(&self) -> PathBuf {
        self.root.join("wardens")
    }

    pub(crate) fn warden(&self, warden: WardenId) -> PathBuf {
        self.wardens().join(warden.0.to_string())
    }

    /// A number that no warden of this folder has had.
    pub(crate) fn first_warden(&self) -> WardenId {
        let noted = *locked(&self.highest_warden);
        let there = fs::read_dir(self.wardens())
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .filter_map(|entry| warden_of(&entry.path()).map(|warden| warden.0))
            .max();
        WardenId(noted.max(there.unwrap_or(0)) + 1)
    }

    /// Notes the number of a warden that is about to be, so that no later process gives it to another: a warden may
    /// outlive its folder, and knows that only by its path.
    pub(crate) fn note_warden(&self, warden: WardenId) -> impl FnOnce() + Send + 'static {
        let highest = Arc::clone(&self.highest_warden);
        let path = self.root.join(WARDEN);
        move || {
            let mut highest = locked(&highest);
            if warden.0 <= *highest {
                return;
            }
            *highest = warden.0;
            let text = format!("{}\n", warden.0);
            if let Err(error) = write_whole(&path, 0o600, text.as_bytes()) {
                tracing::warn!(%error, path = %path.display(), "the number of a warden was not noted");
            }
        }
    }

    /// Where the directors were when this agent last heard of them; none when that cannot be read.
    pub(crate) fn directors(&self) -> Vec<String> {
        let read = fs::read_to_string(self.root.join(DIRECTORS));
        let read = read.unwrap_or_default();
        read.lines().map(str::to_owned).collect()
    }

    /// Writes them down.
    pub(crate) fn keep_directors(&self, directors: &[String]) -> Job {
        let mut text = directors.join("\n");
        text.push('\n');
        Job::Write {
            what: "where the directors are",
            path: self.root.join(DIRECTORS),
            mode: 0o644,
            bytes: text.into_bytes(),
        }
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    pub(crate) fn run(&self, token: Token) -> PathBuf {
        self.runs().join(token.to_string())
    }

    /// The same folder, under a name that leaves room for those of sockets.
    pub(crate) fn sockets(&self, token: Token) -> PathBuf {
        self.short_runs.join(token.to_string())
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // Still under the lock. What goes on needs the way.
        let unused = fs::read_dir(self.runs()).is_ok_and(|mut runs| runs.next().is_none());
        if self.short_runs != self.runs() && unused {
            let _ = fs::remove_file(&self.short_runs);
        }
    }
}

/// The highest number that an earlier process noted; none when that cannot be read.
fn noted_warden(root: &Path) -> u64 {
    let text = fs::read_to_string(root.join(WARDEN));
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// A number is whole whoever panics.
fn locked(number: &Mutex<u64>) -> MutexGuard<'_, u64> {
    number.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of the warden in this folder.
pub(crate) fn warden_of(dir: &Path) -> Option<WardenId> {
    dir.file_name()?.to_str()?.parse().ok().map(WardenId)
}

/// Makes a folder and those above it.
pub(crate) fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
}

/// Writes a file as a whole: a reader sees the old or the new one. It gets this mode whatever the umask
/// of the process is.
pub(crate) fn write_whole(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&beside)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    drop(file);
    fs::rename(&beside, path)
}

/// An agent that was killed may still be ending, and a process that it has just forked holds what it held until
/// it executes its program.
const TAKEN_PATIENCE: Duration = Duration::from_millis(1500);
/// Pause between two tries.
const TAKEN_AGAIN: Duration = Duration::from_millis(10);

/// Takes what another may hold, who may be about to let go.
fn unless<T>(taken: io::ErrorKind, take: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let until = Instant::now() + TAKEN_PATIENCE;
    loop {
        match take() {
            Err(cause) if cause.kind() == taken && Instant::now() < until => {
                std::thread::sleep(TAKEN_AGAIN);
            }
            other => return other,
        }
    }
}

fn lock(root: &Path) -> io::Result<File> {
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(root.join("agent.lock"))?;
    if !planted::has(Planted::UnlockedFolder) && !planted::has(Planted::UnheldFolder) {
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    }
    Ok(lock)
}

/// At most one process on this machine (strictly: in its network namespace) is this agent (S7).
fn claim(agent_id: u64) -> io::Result<UnixListener> {
    let unheld = planted::has(Planted::UnclaimedIdentity) || planted::has(Planted::UnheldFolder);
    let agent_id = if unheld { rand::random() } else { agent_id };
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(claimed(agent_id))?)
}

fn claimed(agent_id: u64) -> String {
    format!("quorate-agent:{agent_id:016x}")
}

/// Whether a process is the agent with this identity now. Only looks: who tried to claim it could be in the
/// way of one that starts.
pub(crate) fn lives(agent_id: u64) -> bool {
    let name = format!("@{}", claimed(agent_id));
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    sockets
        .lines()
        .any(|line| line.split(' ').next_back() == Some(&name))
}

/// Whether a process is the agent of this data folder now.
#[must_use]
pub fn is_running(data_dir: &Path) -> bool {
    let id = fs::read_to_string(data_dir.join(IDENTITY));
    let id = id.map(|text| u64::from_str_radix(text.trim(), 16));
    matches!(id, Ok(Ok(id)) if lives(id))
}

fn identity(path: &Path) -> Result<u64, RunError> {
    let fail = |cause| RunError::DataDir {
        path: path.to_owned(),
        cause,
    };
    match fs::read_to_string(path) {
        Ok(text) => u64::from_str_radix(text.trim(), 16).map_err(|_| RunError::Identity {
            path: path.to_owned(),
        }),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            // 53 bits: other languages read it from JSON.
            let id = rand::random::<u64>() >> 11;
            write_whole(path, 0o600, format!("{id:016x}\n").as_bytes()).map_err(fail)?;
            Ok(id)
        }
        Err(cause) => Err(fail(cause)),
    }
}

/// Where the file of the identity is on its disk: a copy is somewhere else. 53 bits, as the identity.
fn folder_of(identity: &Path) -> io::Result<u64> {
    let found = fs::metadata(identity)?;
    Ok((found.ino() ^ found.dev().rotate_left(32)) & ((1 << 53) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_on_the_same_folder_is_told_so_and_the_identity_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        let id = first.agent_id();
        let refused = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(refused, RunError::InUse { .. }), "{refused}");
        assert!(is_running(dir.path()));
        drop(first);
        // A process that another test has just forked may hold it a little longer.
        assert_eq!(DataDir::open(dir.path()).unwrap().agent_id(), id);
        let until = Instant::now() + TAKEN_PATIENCE;
        while is_running(dir.path()) {
            assert!(Instant::now() < until, "nobody holds it any more");
            std::thread::sleep(TAKEN_AGAIN);
        }
    }

    #[test]
    fn what_a_dead_agent_has_just_forked_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        let forked = (
            first.lock.try_clone().unwrap(),
            first.name.try_clone().unwrap(),
        );
        drop(first);
        let executes = std::thread::spawn(move || {
            std::thread::sleep(TAKEN_AGAIN * 5);
            drop(forked.0);
            std::thread::sleep(TAKEN_AGAIN * 5);
            drop(forked.1);
        });
        DataDir::open(dir.path()).unwrap();
        executes.join().unwrap();
    }

    #[test]
    fn a_copy_of_a_folder_is_not_a_second_agent_until_it_has_an_identity_of_its_own() {
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = DataDir::open(dir.path()).unwrap();
        fs::copy(dir.path().join("agent_id"), copy.path().join("agent_id")).unwrap();
        let refused = DataDir::open(copy.path()).unwrap_err();
        assert!(matches!(refused, RunError::Copied { .. }), "{refused}");
        let copied = folder_of(&copy.path().join("agent_id")).unwrap();
        assert_ne!(copied, first.folder(), "the directors could tell it, too");
        fs::remove_file(copy.path().join("agent_id")).unwrap();
        let second = DataDir::open(copy.path()).unwrap();
        assert_ne!(first.agent_id(), second.agent_id());
    }

    #[test]
    fn the_number_of_a_warden_is_never_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        assert_eq!(data.first_warden(), WardenId(1));
        make_dir(&data.warden(WardenId(10)), 0o700).unwrap();
        make_dir(&data.warden(WardenId(9)), 0o700).unwrap();
        assert_eq!(data.first_warden(), WardenId(11));
        data.note_warden(WardenId(12))();
        data.note_warden(WardenId(11))();
        fs::remove_dir_all(data.wardens()).unwrap();
        drop(data);
        let again = DataDir::open(dir.path()).unwrap();
        assert_eq!(again.first_warden(), WardenId(13));
    }
}
