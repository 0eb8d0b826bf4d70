//! Control groups (version 2) as the second line of the kill: one for a warden, with one for each run
//! below it. A write to `cgroup.kill` ends everything in a group at once, also what is stopped, hidden
//! or just being forked, and a group that can be removed is proven empty.
//!
//! The warden's group is made below the one that the warden is in itself and named after its folder, so
//! that a later agent finds what a warden left that died with everything. Must never touch a group that
//! no warden made, and nothing here may be needed to be safe where there are namespaces.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::process::Pid;

use super::protocol::RunId;

/// Name of the file in a warden's folder that says where its group is.
const FILE: &str = "group";
/// Begins the name of every group that a warden makes.
const PREFIX: &str = "quorate-warden-";
/// What `statfs` tells of a file system of control groups, version 2.
const MAGIC: u64 = 0x6367_7270;
/// Groups that a run may have nested; whatever made more is left to the operator.
const DEPTH_MAX: u32 = 64;
/// A group that is older and that no warden holds belongs to nobody. A younger one may be that of a warden
/// that is just being born and does not hold it yet.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// More entries than a folder of control groups has.
const LOOKED_AT_MAX: usize = 10_000;
/// The kernel empties a group in milliseconds; what takes longer waits for a device.
const CLEAR_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks at a group that is being emptied.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// The group of a warden.
#[derive(Debug)]
pub(crate) struct Groups {
    path: PathBuf,
    /// `cgroup.kill`, open from the beginning: a kill must not fail for want of a descriptor.
    kill: File,
}

impl Groups {
    /// Makes the group of the warden in this folder, for its timekeeper.
    ///
    /// # Errors
    /// When the host has no control groups of version 2 that this user may use.
    pub(crate) fn make(dir: &Path) -> io::Result<Self> {
        let path = own_group()?.join(name_of(dir)?);
        // Before the group is made: one that nobody knows of would never be removed.
        fs::write(dir.join(FILE), path.as_os_str().as_encoded_bytes())?;
        match fs::create_dir(&path) {
            Ok(()) => {}
            // Of a warden that lived here before and is dead, which the lock of the folder says.
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
                open_kill(&path)?.write_all(b"1")?;
                if !wait_gone(&path, CLEAR_WITHIN) {
                    return Err(io::Error::other(
                        "what a warden before left in its group cannot be killed",
                    ));
                }
                fs::create_dir(&path)?;
            }
            Err(cause) => return Err(cause),
        }
        let kill = open_kill(&path)?;
        // Held as long as a process of this warden has it: whoever can hold it instead finds it dead.
        flock(&kill, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path, kill })
    }

    /// Another handle of the same group.
    pub(crate) fn again(&self) -> io::Result<Self> {
        Ok(Self {
            path: self.path.clone(),
            kill: self.kill.try_clone()?,
        })
    }

    /// Makes the group of a run, for the fork of its init.
    pub(crate) fn make_run(&self, run: RunId) -> io::Result<OwnedFd> {
        let path = self.of_run(run);
        fs::create_dir(&path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(group) => Ok(group),
            Err(cause) => {
                let _empty = fs::remove_dir(&path);
                Err(cause.into())
            }
        }
    }

    fn of_run(&self, run: RunId) -> PathBuf {
        self.path.join(format!("{}.{}", run.token, run.attempt))
    }

    /// Kills everything of a run that is in its group.
    pub(crate) fn kill_run(&self, run: RunId) {
        // One that is gone already, or cannot be opened now, is looked at again before an end is told.
        let _gone = open_kill(&self.of_run(run)).and_then(|mut kill| kill.write_all(b"1"));
    }

    /// Kills everything of every run.
    pub(crate) fn kill_all(&self) {
        let _gone = (&self.kill).write_all(b"1");
    }

    /// Whether a process is in the group of a run, which then answers for it.
    pub(crate) fn holds(&self, pid: Pid) -> bool {
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero()));
        let own = self.path.file_name();
        groups.is_ok_and(|groups| {
            let group = groups.lines().find_map(|line| line.strip_prefix("0::"));
            let above = group.and_then(|group| Path::new(group).parent());
            above.is_some_and(|above| above.ancestors().any(|one| one.file_name() == own))
        })
    }

    /// Removes the group of a run if nothing in it can execute any more; tells whether that is so.
    pub(crate) fn is_run_gone(&self, run: RunId) -> bool {
        is_gone(&self.of_run(run), 0)
    }

    /// Removes the group if nothing in it can execute any more; tells whether that is so.
    pub(crate) fn is_gone(&self) -> bool {
        is_gone(&self.path, 0)
    }

    /// Kills everything in it and removes it; tells whether nothing was left within that time.
    pub(crate) fn clear(&self, within: Duration) -> bool {
        self.kill_all();
        wait_gone(&self.path, within)
    }
}

impl AsFd for Groups {
    /// What a fork has to keep open.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kill.as_fd()
    }
}

/// What a warden may have left in a control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    path: PathBuf,
}

impl Leftover {
    /// The group of the warden in this folder; `None` when it had none, or it is gone.
    #[must_use]
    pub fn of(dir: &Path) -> Option<Self> {
        let path = PathBuf::from(fs::read_to_string(dir.join(FILE)).ok()?);
        // The folder may be a copy of another one, whose warden lives.
        let is_own = path.file_name()?.to_str()? == name_of(dir).ok()?;
        (is_own && is_group(&path)).then_some(Self { path })
    }

    /// Kills everything in it and removes it; waits for that, with this limit. Tells whether nothing of
    /// it executes any more.
    #[must_use]
    pub fn clear(&self, within: Duration) -> bool {
        // What cannot be killed is seen by the group not becoming empty.
        let _gone = open_kill(&self.path).and_then(|mut kill| kill.write_all(b"1"));
        wait_gone(&self.path, within)
    }
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// Removes the groups beside this process's own wardens' whose wardens are dead and in which nothing
/// executes: of those whose folder is gone, nobody else ever would. What executes in one is left to the
/// agent that finds its folder.
pub fn sweep() {
    if let Ok(folder) = own_group() {
        sweep_in(&folder, FORGOTTEN_AFTER);
    }
}

fn sweep_in(folder: &Path, old: Duration) {
    let all = fs::read_dir(folder).into_iter().flatten();
    for entry in all.filter_map(Result::ok).take(LOOKED_AT_MAX) {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let made = entry.metadata().and_then(|group| group.modified()).ok();
        let age = made.and_then(|made| made.elapsed().ok());
        if !ours || age.is_none_or(|age| age < old) {
            continue;
        }
        let path = entry.path();
        if let Ok(kill) = open_kill(&path)
            && flock(&kill, FlockOperation::NonBlockingLockExclusive).is_ok()
            && is_gone(&path, 0)
        {
            tracing::info!(group = %path.display(), "a control group of a dead warden is removed");
        }
    }
}

/// Unique on this host while the folder is there, and the same for every warden that lives in it.
fn name_of(dir: &Path) -> io::Result<String> {
    let folder = fs::metadata(dir)?;
    Ok(format!("{PREFIX}{:x}-{:x}", folder.dev(), folder.ino()))
}

fn open_kill(group: &Path) -> io::Result<File> {
    File::options().write(true).open(group.join("cgroup.kill"))
}

fn is_group(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|system| u64::try_from(system.f_type) == Ok(MAGIC))
}

fn wait_gone(group: &Path, within: Duration) -> bool {
    let began = Instant::now();
    while !is_gone(group, 0) {
        if began.elapsed() >= within {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    true
}

/// The kernel removes a group only when it has no process that could execute. One that has groups of a
/// run's own below it says so itself; they are removed first.
fn is_gone(group: &Path, depth: u32) -> bool {
    match fs::remove_dir(group) {
        Ok(()) => return true,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return true,
        Err(_in_use) => {}
    }
    let events = fs::read_to_string(group.join("cgroup.events"));
    if !events.is_ok_and(|events| events.lines().any(|line| line == "populated 0")) {
        return false;
    }
    let below = fs::read_dir(group).into_iter().flatten();
    for entry in below.filter_map(Result::ok) {
        if depth < DEPTH_MAX && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            is_gone(&entry.path(), depth + 1);
        }
    }
    // What stays for a moment has nothing in it that executes.
    let _again = fs::remove_dir(group);
    true
}

/// The folder of the group that this process is in.
fn own_group() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    folder_of(&mounts, &groups)
        .ok_or_else(|| io::Error::other("no control groups of version 2 are mounted here"))
}

fn folder_of(mounts: &str, groups: &str) -> Option<PathBuf> {
    let own = Path::new(groups.lines().find_map(|line| line.strip_prefix("0::"))?);
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        if !kind.starts_with("cgroup2 ") {
            return None;
        }
        let mut fields = place.split(' ').skip(3);
        let (root, folder) = (fields.next()?, fields.next()?);
        // Spaces and the like are written as numbers, and nobody mounts control groups there.
        let below = own.strip_prefix(root).ok()?;
        let plain = below.components().all(|part| part.as_os_str() != "..");
        (plain && !folder.contains('\\')).then(|| Path::new(folder).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_on_every_kind_of_mount() {
        const UNIFIED: &str =
            "25 20 0:22 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        const HYBRID: &str = "30 25 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
             31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        const BOUND: &str = "40 20 0:22 /docker/ab /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        const OLD: &str = "30 25 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        let cases = [
            (UNIFIED, "0::/a.slice/b\n", Some("/sys/fs/cgroup/a.slice/b")),
            (UNIFIED, "0::/\n", Some("/sys/fs/cgroup/")),
            (
                HYBRID,
                "4:cpu:/x\n0::/y\n",
                Some("/sys/fs/cgroup/unified/y"),
            ),
            (BOUND, "0::/docker/ab/c\n", Some("/sys/fs/cgroup/c")),
            // Of another namespace: it is not below what is mounted here.
            (BOUND, "0::/c\n", None),
            (UNIFIED, "0::/../c\n", None),
            (UNIFIED, "4:cpu:/x\n", None),
            (OLD, "4:cpu:/x\n0::/\n", None),
            ("", "", None),
        ];
        for (mounts, groups, wanted) in cases {
            let found = folder_of(mounts, groups);
            assert_eq!(found.as_deref(), wanted.map(Path::new), "{mounts}{groups}");
        }
    }

    /// A failure where everything is asked for; told past the capture of output elsewhere.
    fn lacks(why: &str) {
        let required = std::env::var_os("QUORATE_TEST_REQUIRE").is_some_and(|value| value == "all");
        assert!(!required, "not run: {why}");
        let mut out = std::io::stderr();
        std::io::Write::write_fmt(&mut out, format_args!("not run: {why}\n")).unwrap();
    }

    #[test]
    fn only_old_groups_that_no_warden_holds_and_that_are_empty_are_swept() {
        let name = format!("quorate-test-{}", std::process::id());
        let Ok(top) = own_group().map(|own| own.join(name)) else {
            lacks("this host has no control groups of version 2");
            return;
        };
        if let Err(why) = fs::create_dir(&top) {
            lacks(&format!("this user may not make control groups: {why}"));
            return;
        }
        let named = |name: &str| top.join(format!("{PREFIX}{name}"));
        let (dead, held, other) = (named("dead"), named("held"), top.join("other"));
        for path in [&dead, &dead.join("5.1"), &held, &other] {
            fs::create_dir(path).unwrap();
        }
        let warden = open_kill(&held).unwrap();
        flock(&warden, FlockOperation::NonBlockingLockExclusive).unwrap();
        sweep_in(&top, FORGOTTEN_AFTER);
        let young = dead.exists();
        sweep_in(&top, Duration::ZERO);
        let left = [&dead, &held, &other].map(|path| path.exists());
        // Closing it would leave it to a process that another test has just forked.
        flock(&warden, FlockOperation::Unlock).unwrap();
        sweep_in(&top, Duration::ZERO);
        let held = held.exists();
        assert!(is_gone(&top, 0), "what the test has made is gone");
        assert!(young, "it may be of a warden that is being born");
        assert_eq!(left, [false, true, true]);
        assert!(!held, "its warden is dead now");
    }

    #[test]
    fn only_a_group_named_after_the_folder_is_taken_for_a_leftover() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(Leftover::of(dir.path()), None);
        for path in [
            "/sys/fs/cgroup".to_owned(),
            format!("/sys/fs/cgroup/{}", name_of(other.path()).unwrap()),
            // No file system of control groups.
            format!("/tmp/{}", name_of(dir.path()).unwrap()),
        ] {
            fs::write(dir.path().join(FILE), &path).unwrap();
            assert_eq!(Leftover::of(dir.path()), None, "{path}");
        }
    }
}
