//! The lease files: where a run can see, before it writes, until when it may execute.
//!
//! They are kept in memory, so that neither a renewal nor a run that looks ever waits for a disk; where
//! there is no memory that programs share, in the data folder. What is in one is a promise to programs
//! (`docs/fencing.md`): lines are added, never changed. A file must never tell a later deadline than the
//! warden was asked to keep. One that is slow or stopped may still keep the earlier one, and then kills
//! earlier than a run has read, which takes nothing from exclusivity.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use quorate_core::agent::WardenId;
use quorate_core::ids::ClusterId;
use quorate_core::time::Moment;

use super::clock;
use super::data_dir::{DataDir, lives, make_dir, warden_of, write_whole};
use super::files::Job;

/// Where Linux keeps what programs share in memory.
const SHARED_MEMORY: &str = "/dev/shm";
/// File systems without a disk: tmpfs and ramfs, as in `linux/magic.h`.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
const DEADLINE: &str = "deadline_boottime_ms";
/// Everybody may read a lease; runs can have users of their own.
const MODE: u32 = 0o644;
/// For the same reason everybody may go through; but the names, which tell the agents' identities, can be
/// listed by the agents' user only.
const FOLDER_MODE: u32 = 0o711;

/// What a lease file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// When the kernel ends the runs of the session, unless it is renewed.
    pub(crate) deadline: Moment,
    /// Whose session it is.
    pub(crate) cluster: ClusterId,
}

impl Lease {
    fn text(self) -> String {
        let Self { deadline, cluster } = self;
        let deadline = deadline.as_nanos() / 1_000_000;
        format!("{DEADLINE}={deadline}\ncluster={cluster}\n")
    }
}

/// Ends the name of the file that says where an agent has its data folder.
const HOME: &str = "home";
/// Nobody but the user of the agents needs to know.
const HOME_MODE: u32 = 0o600;
/// More agents than one machine has, with all their wardens.
const LOOKED_AT_MAX: usize = 10_000;

/// The lease files of one agent.
#[derive(Debug)]
pub(crate) struct LeaseFiles {
    /// Folder of all agents of this user in shared memory, where there is one.
    memory: Option<PathBuf>,
    /// Folder in the data folder.
    disk: PathBuf,
    /// Those that were in the data folder when the agent began: their runs look for them there.
    on_disk: BTreeSet<WardenId>,
    agent_id: u64,
    /// Whether the last write failed, and was told.
    failing: bool,
}

impl LeaseFiles {
    /// Finds a place, and removes what agents of this user have left there that are gone.
    pub(crate) fn open(data: &DataDir) -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let memory = Path::new(SHARED_MEMORY).join(format!("quorate-{uid}"));
        Self::at(memory, data.root(), data.leases(), data.agent_id())
    }

    fn at(memory: PathBuf, home: &Path, disk: PathBuf, agent_id: u64) -> Self {
        let memory = match own_memory(&memory) {
            Ok(()) => Some(memory),
            Err(error) => {
                tracing::warn!(
                    folder = %memory.display(), %error,
                    "lease files are kept on disk, and may lag behind when that does not answer"
                );
                None
            }
        };
        let on_disk = files(&disk).filter_map(|path| warden_of(&path)).collect();
        let leases = Self {
            memory,
            disk,
            on_disk,
            agent_id,
            failing: false,
        };
        leases.sweep();
        leases.leave_home(home);
        leases
    }

    /// Where a run of this warden finds its lease.
    pub(crate) fn path(&self, warden: WardenId) -> PathBuf {
        match &self.memory {
            Some(memory) if !self.on_disk.contains(&warden) => {
                memory.join(format!("{}{}", self.prefix(), warden.0))
            }
            Some(_) | None => self.disk.join(warden.0.to_string()),
        }
    }

    /// Writes a lease: at once, or by the job that is returned.
    pub(crate) fn write(&mut self, warden: WardenId, lease: Lease) -> Option<Job> {
        let path = self.path(warden);
        let bytes = lease.text().into_bytes();
        let Some(memory) = self.memory.as_ref().filter(|at| path.starts_with(at)) else {
            return Some(Job::Write {
                what: "the lease file of a session",
                path,
                mode: MODE,
                bytes,
            });
        };
        let written = write_whole(&path, MODE, &bytes).or_else(|error| {
            // A service manager may clear what a user shares in memory when the user logs out.
            if error.kind() != io::ErrorKind::NotFound {
                return Err(error);
            }
            own_memory(memory)?;
            write_whole(&path, MODE, &bytes)
        });
        match written {
            Ok(()) => self.failing = false,
            // Once, not with every renewal. The file then tells an earlier deadline, which is safe.
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(path = %path.display(), %error, "a lease file cannot be written");
            }
            Err(_) => {}
        }
        None
    }

    /// Removes the lease of a session that has ended: at once, or by the job that is returned.
    pub(crate) fn remove(&self, warden: WardenId) -> Option<Job> {
        let path = self.path(warden);
        if self.memory.as_ref().is_some_and(|at| path.starts_with(at)) {
            let _gone = fs::remove_file(path);
            return None;
        }
        Some(Job::Remove(path))
    }

    /// Removes what wardens of this agent that are gone have left in memory, kept leases included, which
    /// are never over by themselves; and in the data folder by the jobs that are returned.
    pub(crate) fn forget_gone(&mut self, lives: impl Fn(WardenId) -> bool) -> Vec<Job> {
        for (path, owner, warden) in self.in_memory() {
            if owner == self.agent_id && warden.is_some_and(|warden| !lives(warden)) {
                let _gone = fs::remove_file(path);
            }
        }
        let gone = self.on_disk.extract_if(.., |warden| !lives(*warden));
        let paths = gone.map(|warden| self.disk.join(warden.0.to_string()));
        paths.map(Job::Remove).collect()
    }

    /// In a folder of many agents the names tell whose a file is.
    fn prefix(&self) -> String {
        format!("{:016x}-", self.agent_id)
    }

    /// Removes leases in memory that are over, whoever's they are: at its deadline a session has ended
    /// for ever, so nobody writes such a file again. What this agent was just writing when it ended. And
    /// everything of agents whose data folder is gone, because no process can begin again as one of them.
    fn sweep(&self) {
        let mut gone = BTreeMap::new();
        for (path, owner, warden) in self.in_memory() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let own = owner == self.agent_id;
            let half = own && name.ends_with(".new");
            let over = || deadline_of(&path).is_some_and(|deadline| deadline <= clock::now());
            let lost = !own && *gone.entry(owner).or_insert_with(|| self.is_gone(owner));
            if half || (warden.is_some() && over()) || lost {
                let _gone = fs::remove_file(&path);
            }
        }
    }

    /// Notes where this agent has its data folder: who finds that gone removes the rest.
    fn leave_home(&self, home: &Path) {
        if let Some(memory) = &self.memory {
            let path = memory.join(format!("{}{HOME}", self.prefix()));
            // Without it nobody removes what may be left here, which is in nobody's way.
            let mut note = namespace().into_bytes();
            note.push(b'\n');
            note.extend(home.as_os_str().as_bytes());
            let _unnoted = write_whole(&path, HOME_MODE, &note);
        }
    }

    /// Whether an agent does not live and its data folder is certainly not there any more.
    fn is_gone(&self, agent_id: u64) -> bool {
        let note = self.memory.as_ref();
        let note = note.map(|memory| memory.join(format!("{agent_id:016x}-{HOME}")));
        let Some(Ok(note)) = note.map(fs::read) else {
            return false;
        };
        // In another container the same path leads elsewhere.
        let here = [namespace().as_bytes(), b"\n"].concat();
        let Some(home) = note.strip_prefix(here.as_slice()) else {
            return false;
        };
        let home = Path::new(OsStr::from_bytes(home));
        // What cannot be read may be there all the same.
        let missing = match fs::symlink_metadata(home) {
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        missing && !lives(agent_id)
    }

    /// What is in memory, whose it is, and the warden if it is a lease; at most so many files that it
    /// takes a moment.
    fn in_memory(&self) -> Vec<(PathBuf, u64, Option<WardenId>)> {
        let all = self.memory.iter().flat_map(|memory| files(memory));
        let all = all.take(LOOKED_AT_MAX);
        let known = all.filter_map(|path| {
            let (owner, what) = path.file_name()?.to_str()?.split_once('-')?;
            let owner = u64::from_str_radix(owner, 16).ok()?;
            let warden = what.parse().ok().map(WardenId);
            Some((path, owner, warden))
        });
        known.collect()
    }
}

/// In which view of the file systems this process is.
fn namespace() -> String {
    let link = fs::read_link("/proc/self/ns/mnt").unwrap_or_default();
    link.to_string_lossy().into_owned()
}

fn files(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(Result::ok).map(|entry| entry.path())
}

fn deadline_of(path: &Path) -> Option<Moment> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(DEADLINE))?;
    line.strip_prefix('=')?
        .parse()
        .ok()
        .map(Moment::from_millis)
}

/// Makes a folder in memory that nobody but this user can change.
fn own_memory(folder: &Path) -> io::Result<()> {
    let parent = folder.parent().unwrap_or(Path::new("/"));
    let kind = u64::try_from(rustix::fs::statfs(parent)?.f_type).unwrap_or_default();
    if !IN_MEMORY.contains(&kind) {
        return Err(io::Error::other("it would not be in memory"));
    }
    make_dir(folder, FOLDER_MODE)?;
    // Not followed: in a folder of everybody, somebody else may have put a link there.
    let there = fs::symlink_metadata(folder)?;
    let own = there.is_dir() && there.uid() == rustix::process::geteuid().as_raw();
    if !own || there.mode() & 0o022 != 0 {
        return Err(io::Error::other("somebody else can write there"));
    }
    if there.mode() & 0o777 != FOLDER_MODE {
        fs::set_permissions(folder, fs::Permissions::from_mode(FOLDER_MODE))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const AGENT: u64 = 0xa1;
    const W: WardenId = WardenId(3);

    fn lease(deadline: Moment) -> Lease {
        let cluster = ClusterId(0xc1);
        Lease { deadline, cluster }
    }

    /// A folder in memory, as every Linux has it, that is gone after the test.
    fn memory() -> tempfile::TempDir {
        tempfile::Builder::new()
            .prefix("quorate-test-")
            .tempdir_in(SHARED_MEMORY)
            .unwrap()
    }

    #[test]
    fn a_lease_is_readable_by_everybody_at_once_and_never_half() {
        let (shared, disk) = (memory(), tempfile::tempdir().unwrap());
        let (at, disk) = (shared.path().join("own"), disk.path().to_owned());
        let mut leases = LeaseFiles::at(at.clone(), &disk, disk.clone(), AGENT);
        let path = leases.path(W);
        assert!(path.starts_with(&at));
        assert!(leases.write(W, lease(Moment::from_millis(9))).is_none());
        let before = fs::File::open(&path).unwrap();
        assert!(
            leases
                .write(W, lease(Moment::from_millis(12_345)))
                .is_none()
        );
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "deadline_boottime_ms=12345\ncluster=00000000000000c1\n"
        );
        // Who has it open still sees the whole of the one before.
        assert_eq!(
            io::read_to_string(before).unwrap(),
            "deadline_boottime_ms=9\ncluster=00000000000000c1\n"
        );
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(&at)), (0o644, 0o711));
        assert!(leases.remove(W).is_none());
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_that_was_cleared_is_made_again() {
        let (shared, disk) = (memory(), tempfile::tempdir().unwrap());
        let at = shared.path().join("own");
        let mut leases = LeaseFiles::at(at.clone(), disk.path(), disk.path().to_owned(), AGENT);
        fs::remove_dir_all(&at).unwrap();
        assert!(leases.write(W, lease(Moment::from_millis(9))).is_none());
        assert!(leases.path(W).exists());
    }

    #[test]
    fn what_others_can_write_is_not_used_and_what_is_no_memory_neither() {
        let (shared, disk) = (memory(), tempfile::tempdir().unwrap());
        let (open, link) = (shared.path().join("open"), shared.path().join("link"));
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        std::os::unix::fs::symlink(shared.path(), &link).unwrap();
        for memory in [open, link, PathBuf::from("/proc/quorate")] {
            let mut leases = LeaseFiles::at(memory, disk.path(), disk.path().to_owned(), AGENT);
            assert_eq!(leases.path(W), disk.path().join("3"));
            let job = leases.write(W, lease(Moment::from_millis(9)));
            assert!(matches!(job, Some(Job::Write { .. })), "{job:?}");
            assert!(matches!(leases.remove(W), Some(Job::Remove(_))));
        }
    }

    #[test]
    fn runs_of_an_earlier_agent_process_find_their_lease_where_it_was() {
        let (shared, disk) = (memory(), tempfile::tempdir().unwrap());
        fs::write(disk.path().join("3"), "deadline_boottime_ms=1\n").unwrap();
        let at = shared.path().join("own");
        let mut leases = LeaseFiles::at(at.clone(), disk.path(), disk.path().to_owned(), AGENT);
        assert_eq!(leases.path(W), disk.path().join("3"));
        assert!(leases.path(WardenId(4)).starts_with(&at));
        assert!(leases.forget_gone(|warden| warden == W).is_empty());
        assert_eq!(leases.path(W), disk.path().join("3"));
        assert_eq!(leases.forget_gone(|_| false).len(), 1);
    }

    #[test]
    fn what_is_over_is_swept_and_what_runs_is_left() {
        let (shared, disk) = (memory(), tempfile::tempdir().unwrap());
        let at = shared.path().join("own");
        let open = |agent| LeaseFiles::at(at.clone(), disk.path(), disk.path().to_owned(), agent);
        let (mut dead, mut alive) = (open(1), open(2));
        dead.write(W, lease(clock::now()));
        alive.write(W, lease(clock::now() + Duration::from_secs(3600)));
        for half in [alive.prefix(), dead.prefix()] {
            fs::write(at.join(format!("{half}3.new")), "deadline_boot").unwrap();
        }
        let _third = open(1);
        assert!(!dead.path(W).exists());
        assert!(alive.path(W).exists());
        // Another agent may be writing it just now.
        assert!(at.join(format!("{}3.new", alive.prefix())).exists());
        assert!(!at.join(format!("{}3.new", dead.prefix())).exists());
    }

    #[test]
    fn kept_leases_of_dead_wardens_and_of_lost_data_folders_are_removed_and_no_others() {
        let (shared, disk) = (memory(), tempfile::tempdir().unwrap());
        let at = shared.path().join("own");
        let homes = ["own", "lost", "there"].map(|name| disk.path().join(name));
        for home in &homes {
            fs::create_dir(home).unwrap();
        }
        let open =
            |agent, home: &Path| LeaseFiles::at(at.clone(), home, home.join("leases"), agent);
        let never = lease(clock::now() + quorate_core::lease::KEPT);
        let all = [1, 2, 3].map(|n| open(n, &homes[usize::try_from(n).unwrap() - 1]));
        let [mut own, mut lost, mut there] = all;
        for leases in [&mut own, &mut lost, &mut there] {
            leases.write(W, never);
        }
        own.write(WardenId(4), never);
        // Of a version that did not note where its folder is: nothing is known of it.
        let unknown = at.join("00000000000000ff-3");
        fs::copy(own.path(W), &unknown).unwrap();
        fs::remove_dir(&homes[1]).unwrap();
        let mut again = open(1, &homes[0]);
        assert!(!lost.path(W).exists());
        assert!(!at.join("0000000000000002-home").exists());
        assert!(there.path(W).exists() && unknown.exists());
        assert!(own.path(W).exists(), "its warden may live");
        again.forget_gone(|warden| warden == WardenId(4));
        assert!(!own.path(W).exists());
        assert!(own.path(WardenId(4)).exists() && there.path(W).exists());
    }
}
