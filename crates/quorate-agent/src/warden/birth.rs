//! How a timekeeper gets its holder: the grades of containment are tried from the best down, each
//! proven before it is used, and what falls short is kept for people.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    PidfdFlags, Signal, WaitOptions, getpid, pidfd_open, set_child_subreaper,
    set_parent_process_death_signal, waitpid,
};

use super::client::socket_path;
use super::group::Groups;
use super::holder::{self, Inheritance};
use super::init::Common;
use super::scan::Scan;
use super::timekeeper::{Guard, Holder};
use super::{CGROUP, Options, SCAN, SOCKET, say, trial};
use crate::planted::{self, Planted};
use crate::sys::{
    Alarm, Isolation, KillTimer, SingleThreaded, block_signals, boot_nanos, keep_only,
};

/// What a holder says when it listens.
const LISTENS: &[u8] = b"listens";
/// Variable by which an operator asks for a weaker containment on a host where namespaces harm.
const CONTAINMENT: &str = "QUORATE_WARDEN_CONTAINMENT";

const OWN: Isolation = Isolation {
    pids: true,
    users: false,
};
const IN_USER_NAMESPACE: Isolation = Isolation {
    pids: true,
    users: true,
};

/// What a holder is made from.
pub(super) struct Birth<'a> {
    pub(super) options: &'a Options,
    pub(super) alone: SingleThreaded,
    pub(super) lock: &'a File,
    pub(super) oom_score: Option<Vec<u8>>,
    pub(super) files: (u64, u64),
}

/// What was proven of the kill path.
struct Proven {
    isolation: Isolation,
    groups: Option<Groups>,
    scan: Option<Scan>,
    /// Why it is not better, for people.
    shortfalls: Vec<String>,
}

impl Birth<'_> {
    /// A holder of the best kind that this host allows.
    pub(super) fn holder(&self) -> io::Result<Holder> {
        let proven = self.prove()?;
        for shortfall in &proven.shortfalls {
            say(format_args!("{shortfall}"));
        }
        if proven.scan.is_some() {
            // It gets what the holder leaves behind.
            set_child_subreaper(Some(getpid()))?;
        }
        self.fork(proven)
    }

    fn prove(&self) -> io::Result<Proven> {
        let mut shortfalls = Vec::new();
        if planted::has(Planted::GroupKill) {
            return Ok(Proven {
                isolation: Isolation::default(),
                groups: None,
                scan: None,
                shortfalls,
            });
        }
        let wanted = std::env::var_os(CONTAINMENT);
        let only = |grade: &str| wanted.as_ref().is_some_and(|wanted| wanted == grade);
        let groups = if only(SCAN) {
            None
        } else {
            self.groups()
                .inspect_err(|why| shortfalls.push(format!("no kill by control groups: {why}")))
                .ok()
        };
        if only(SCAN) || only(CGROUP) {
            shortfalls.push(format!("no namespaces: {CONTAINMENT} is set"));
        } else {
            for (isolation, what) in [(OWN, ""), (IN_USER_NAMESPACE, " of a user")] {
                match trial::timer_ends_namespace(self.alone, isolation) {
                    Ok(()) => {
                        // What stood in the way of the first is no shortfall of the second.
                        shortfalls.retain(|text| !text.starts_with("no namespaces"));
                        return Ok(Proven {
                            isolation,
                            groups,
                            scan: None,
                            shortfalls,
                        });
                    }
                    Err(why) => shortfalls.push(format!("no namespaces{what}: {why}")),
                }
            }
        }
        let scan = Scan::new(std::process::id(), boot_nanos());
        trial::scan_ends(self.alone, &scan).map_err(|why| {
            io::Error::other(format!(
                "this host gives no way to end a process tree: {why}"
            ))
        })?;
        Ok(Proven {
            isolation: Isolation::default(),
            groups,
            scan: Some(scan),
            shortfalls,
        })
    }

    fn groups(&self) -> Result<Groups, String> {
        let groups = Groups::make(&self.options.dir).map_err(|cause| cause.to_string())?;
        match trial::group_ends(self.alone, &groups) {
            Ok(()) => Ok(groups),
            Err(why) => {
                groups.is_gone();
                Err(why)
            }
        }
    }

    fn fork(&self, proven: Proven) -> io::Result<Holder> {
        let (near, far) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let (scanned, scan_writes) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&scanned, true)?;
        let guard = match &proven.scan {
            None => Guard::Kernel(KillTimer::new()?),
            Some(scan) => Guard::Scan {
                scan: scan.clone(),
                alarm: Alarm::new()?,
                proof: scan_writes.try_clone()?,
            },
        };
        let groups = proven.groups.as_ref().map(Groups::again).transpose()?;
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let timekeeper = std::process::id();
        let isolation = proven.isolation;
        let pid = self.alone.fork(isolation, || {
            let descriptors = [far.as_fd(), scanned.as_fd(), scan_writes.as_fd()];
            // Above all not the other end of the line: its closing tells the timekeeper's death.
            let kept: Vec<_> = descriptors
                .into_iter()
                .chain([self.lock.as_fd()])
                .chain(proven.groups.iter().map(Groups::as_fd))
                .collect();
            keep_only(&kept);
            let mapped = if isolation.users {
                map_user(uid, gid)
            } else {
                Ok(())
            };
            mapped
                .and_then(|()| self.begin(proven, timekeeper, descriptors))
                .unwrap_or_else(|cause| {
                    say(format_args!("{cause}"));
                    holder::BROKEN
                })
        })?;
        drop(far);
        let mut answer = [0; 16];
        let (_, count) = recv(&near, &mut answer, RecvFlags::empty())?;
        if answer.get(..count) != Some(LISTENS) {
            waitpid(Some(pid), WaitOptions::empty())?;
            return Err(io::Error::other("the holder of the runs ended at once"));
        }
        Ok(Holder::new(pid, near, guard, groups, self.options.lease))
    }

    /// In the holder: listens, says so, and serves.
    fn begin(
        &self,
        proven: Proven,
        timekeeper_pid: u32,
        [line, scanned, scan_writes]: [BorrowedFd<'_>; 3],
    ) -> io::Result<i32> {
        let contained = proven.scan.is_none();
        if contained {
            if !planted::has(Planted::OrphanedHolder) {
                set_parent_process_death_signal(Some(Signal::KILL))?;
            }
            // One that died before that call has closed its end of the line before.
            if matches!(
                recv(line, &mut [0; 1], RecvFlags::DONTWAIT | RecvFlags::PEEK),
                Ok((_, 0))
            ) {
                return Ok(holder::BROKEN);
            }
        } else {
            // Not killed together with the timekeeper: somebody must look for what is left.
            set_child_subreaper(Some(getpid()))?;
        }
        let inheritance = Inheritance {
            alone: self.alone,
            signals: block_signals()?,
            listener: listen(&self.options.dir)?,
            timekeeper: line.try_clone_to_owned()?,
            // The init of a namespace would be spared by its own timer.
            timer: (!contained).then(KillTimer::new).transpose()?,
            alarm: Alarm::new()?,
            timekeeper_pid,
            adopt_within: self.options.adopt_within,
            lease: self.options.lease,
            common: Common {
                null: open_null()?,
                oom_score: self.oom_score.clone(),
                files: self.files,
                isolation: Isolation {
                    users: false,
                    ..proven.isolation
                },
                heap: heap_start(),
            },
            scan: proven.scan,
            groups: proven.groups,
            shortfalls: proven.shortfalls,
            proof: [
                pidfd_open(getpid(), PidfdFlags::empty())?,
                scanned.try_clone_to_owned()?,
            ],
            socket: self.options.dir.join(SOCKET),
        };
        send(line, LISTENS, SendFlags::NOSIGNAL)?;
        let code = holder::run(inheritance);
        if !contained && code != holder::BROKEN {
            rustix::io::write(scan_writes, b"e")?;
        }
        Ok(code)
    }
}

/// The only user of the new namespace is that of the old one.
pub(super) fn map_user(uid: u32, gid: u32) -> io::Result<()> {
    std::fs::write("/proc/self/setgroups", b"deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

fn listen(dir: &Path) -> io::Result<UnixListener> {
    let (path, _folder) = socket_path(dir)?;
    // The lock says that whoever made it is gone.
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => return Err(cause),
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Where the heap begins; zero when it cannot be known.
fn heap_start() -> usize {
    std::fs::read_to_string("/proc/self/maps")
        .ok()
        .and_then(|maps| {
            let line = maps.lines().find(|line| line.ends_with("[heap]"))?;
            usize::from_str_radix(line.split_once('-')?.0, 16).ok()
        })
        .unwrap_or(0)
}

pub(super) fn open_null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        c"/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}
