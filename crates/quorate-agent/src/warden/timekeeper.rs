//! The timekeeper: the process that the agent starts. It holds the kernel timer that ends everything
//! at the deadline, and outlives the holder to tell that it is dead.
//!
//! ```text
//! agent ──starts──► timekeeper ──forks──► holder ──forks──► init of a run ──► command ──► …
//!                   kill timer            namespace         namespace
//! ```
//!
//! The timer must be held outside of the holder's namespace: the kernel ignores a SIGKILL that the
//! init of a namespace sends to itself. When the timekeeper dies, for whatever reason, the kernel
//! kills the holder, and with it everything. Must do nothing that can wait or fail beside that.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, pidfd_open, set_child_subreaper,
    set_parent_process_death_signal, setsid, waitpid,
};

use super::client::{READY, socket_path};
use super::holder::{self, Arming, Inheritance};
use super::init::Common;
use super::scan::Scan;
use super::{LAST_WILL, Options, SOCKET, trial};
use crate::files_limit::raise_files_limit;
use crate::sys::{
    Isolation, KillTimer, SingleThreaded, block_signals, boot_nanos, keep_only, standard_output,
    take_signals,
};

/// How long the last will may take: a handful of attempts to reach a director.
const LAST_WILL_WITHIN: Duration = Duration::from_secs(20);
/// Between two passes over the process table.
const SCAN_EVERY: Duration = Duration::from_millis(10);
/// What a holder says when its kill path is proven and it listens.
const PROVEN: &[u8] = b"proven";
/// Variable by which an operator asks for the weaker containment on a host where namespaces harm.
const CONTAINMENT: &str = "QUORATE_WARDEN_CONTAINMENT";

/// Serves until everything is dead.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let alone = SingleThreaded::check()?;
    // Also the socket and the log, which only this user shall open.
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let lock = lock(&options.dir)?;
    // The leader of a group cannot begin a session; it has then been given one by a service manager.
    let _leader = setsid();
    let signals = block_signals()?;
    let mut holder = Birth {
        options,
        alone,
        lock: &lock,
        oom_score: spare_from_oom(),
        files: files_of_runs(options),
    }
    .holder()?;
    rustix::io::write(std::io::stdout(), format!("{READY}\n").as_bytes())?;
    // The pipe to the agent that started it is done with; standard error remains the log.
    standard_output(open_null()?.as_fd())?;
    let code = holder.attend(&signals)?;
    holder.bury(code, options, &signals)
}

/// Keeps a second warden out of the folder.
fn lock(dir: &Path) -> io::Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("warden.lock"))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_held| io::Error::other("another warden lives in this folder"))?;
    Ok(file)
}

/// Makes the kernel look for memory elsewhere first, where it allows that. Tells what was set before.
fn spare_from_oom() -> Option<Vec<u8>> {
    const FILE: &str = "/proc/self/oom_score_adj";
    let before = std::fs::read(FILE).ok()?;
    std::fs::write(FILE, b"-999").ok()?;
    Some(before)
}

/// The limits of open files that runs are started with: soft and hard.
fn files_of_runs(options: &Options) -> (u64, u64) {
    let (soft, hard) = raise_files_limit();
    (options.files.unwrap_or(soft).min(hard), hard)
}

fn open_null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        c"/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// What a holder is made from.
struct Birth<'a> {
    options: &'a Options,
    alone: SingleThreaded,
    lock: &'a File,
    oom_score: Option<Vec<u8>>,
    files: (u64, u64),
}

/// A holder that lives, as its timekeeper sees it.
struct Holder {
    pid: Pid,
    line: OwnedFd,
    timer: Option<KillTimer>,
    /// For the byte that proves a death by scanning, and the way to it.
    scan: Option<(Scan, OwnedFd)>,
}

impl Birth<'_> {
    /// The best kind of holder that this host allows, proven.
    fn holder(&self) -> io::Result<Holder> {
        let own = Isolation {
            pids: true,
            users: false,
        };
        let in_user_namespace = Isolation {
            pids: true,
            users: true,
        };
        if std::env::var_os(CONTAINMENT).is_none_or(|wanted| wanted != super::SCAN) {
            for isolation in [own, in_user_namespace] {
                match self.try_holder(isolation) {
                    Ok(Some(holder)) => return Ok(holder),
                    Ok(None) => {}
                    Err(cause) => eprintln!("warden: no containment by the kernel: {cause}"),
                }
            }
        }
        set_child_subreaper(Some(getpid()))?;
        self.try_holder(Isolation::default())?
            .ok_or_else(|| io::Error::other("the holder of the runs ended at once"))
    }

    /// `None` when it ended without having proven its kill path.
    fn try_holder(&self, isolation: Isolation) -> io::Result<Option<Holder>> {
        let (near, far) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let (scanned, scan_writes) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&scanned, true)?;
        let scan = (!isolation.pids).then(|| Scan::new(own_pid(), boot_nanos()));
        let timer = isolation.pids.then(KillTimer::new).transpose()?;
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let timekeeper = own_pid();
        let pid = self.alone.fork(isolation, || {
            // Above all not the other end of the line: its closing tells the timekeeper's death.
            let kept = [
                far.as_fd(),
                scanned.as_fd(),
                scan_writes.as_fd(),
                self.lock.as_fd(),
            ];
            keep_only(&kept);
            let mapped = if isolation.users {
                map_user(uid, gid)
            } else {
                Ok(())
            };
            let descriptors = [far.as_fd(), scanned.as_fd(), scan_writes.as_fd()];
            mapped
                .and_then(|()| self.begin(isolation, timekeeper, descriptors, scan.clone()))
                .unwrap_or_else(|cause| {
                    eprintln!("warden: {cause}");
                    holder::BROKEN
                })
        })?;
        drop(far);
        let mut answer = [0; 16];
        let (_, count) = recv(&near, &mut answer, RecvFlags::empty())?;
        if answer.get(..count) != Some(PROVEN) {
            waitpid(Some(pid), WaitOptions::empty())?;
            return Ok(None);
        }
        Ok(Some(Holder {
            pid,
            line: near,
            timer,
            scan: scan.map(|scan| (scan, scan_writes)),
        }))
    }

    /// In the holder: proves the kill path, listens, says so, and serves.
    fn begin(
        &self,
        isolation: Isolation,
        timekeeper_pid: u32,
        [line, scanned, scan_writes]: [BorrowedFd<'_>; 3],
        scan: Option<Scan>,
    ) -> io::Result<i32> {
        let contained = scan.is_none();
        if contained {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // One that died before that call has closed its end of the line before.
            if matches!(
                recv(line, &mut [0; 1], RecvFlags::DONTWAIT | RecvFlags::PEEK),
                Ok((_, 0))
            ) {
                return Ok(holder::BROKEN);
            }
            if !trial::namespace_holds(self.alone)? {
                return Err(io::Error::other("a hidden process outlived its namespace"));
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
            arming: if contained {
                Arming::Timekeeper
            } else {
                Arming::Own(KillTimer::new()?)
            },
            timekeeper_pid,
            adopt_within: self.options.adopt_within,
            common: Common {
                null: open_null()?,
                oom_score: self.oom_score.clone(),
                files: self.files,
                isolation: Isolation {
                    pids: isolation.pids,
                    users: false,
                },
                heap: heap_start(),
            },
            scan,
            proof: [
                pidfd_open(getpid(), PidfdFlags::empty())?,
                scanned.try_clone_to_owned()?,
            ],
            socket: self.options.dir.join(SOCKET),
        };
        send(line, PROVEN, SendFlags::NOSIGNAL)?;
        let code = holder::run(inheritance);
        if !contained && code != holder::BROKEN {
            rustix::io::write(scan_writes, b"e")?;
        }
        Ok(code)
    }
}

/// The only user of the new namespace is that of the old one.
fn map_user(uid: u32, gid: u32) -> io::Result<()> {
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

fn own_pid() -> u32 {
    std::process::id()
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

impl Holder {
    /// Arms the timer and passes SIGTERM on until the holder has ended; its exit code, or `None` when
    /// it was killed.
    fn attend(&mut self, signals: &OwnedFd) -> io::Result<Option<i32>> {
        let mut armed = false;
        let mut line_open = true;
        loop {
            let mut waits = vec![PollFd::new(signals, PollFlags::IN)];
            if line_open {
                waits.push(PollFd::new(&self.line, PollFlags::IN));
            }
            match poll(&mut waits, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(cause) => return Err(cause.into()),
            }
            let mut terminate = false;
            take_signals(signals, |signal| terminate |= signal == libc::SIGTERM)?;
            if terminate {
                kill_process(self.pid, Signal::TERM)?;
            }
            if line_open {
                line_open = self.take_deadline(&mut armed)?;
            }
            while let Some((pid, status)) = waitpid_any()? {
                if pid == self.pid {
                    return Ok(status.exit_status());
                }
            }
        }
    }

    /// Takes one deadline, if there is one; tells whether the line is open. The holder passes only
    /// later ones on.
    fn take_deadline(&mut self, armed: &mut bool) -> io::Result<bool> {
        let mut deadline = [0; 8];
        match recv(&self.line, &mut deadline, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Ok(false),
            Ok((_, 8)) => {
                if let Some(timer) = &self.timer {
                    timer.arm(u64::from_le_bytes(deadline))?;
                }
                if !*armed {
                    *armed = true;
                    send(&self.line, &deadline, SendFlags::NOSIGNAL)?;
                }
                Ok(true)
            }
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(true),
            Err(_) => Ok(false),
        }
    }

    /// The holder is reaped: proves what the kernel has not proven, and closes the session if nobody
    /// else can.
    fn bury(self, code: Option<i32>, options: &Options, signals: &OwnedFd) -> io::Result<()> {
        if let Some((scan, proof)) = &self.scan {
            let mut empty_passes = 0;
            while empty_passes < 2 {
                empty_passes = if scan.kill_everything() {
                    0
                } else {
                    empty_passes + 1
                };
                while waitpid_any()?.is_some() {}
                poll(&mut [], Timespec::try_from(SCAN_EVERY).ok().as_ref())?;
            }
            rustix::io::write(proof, b"e")?;
        }
        let _gone = std::fs::remove_file(options.dir.join(SOCKET));
        match code {
            None => eprintln!("warden: the holder of the runs was killed, and they with it"),
            Some(holder::ABANDONED) => execute_last_will(options)?,
            Some(_) => {}
        }
        // Kept to the end: a SIGTERM from here on finds nothing to end.
        take_signals(signals, |_| ())
    }
}

/// The next child that ended, if one has.
fn waitpid_any() -> io::Result<Option<(Pid, rustix::process::WaitStatus)>> {
    match rustix::process::wait(WaitOptions::NOHANG) {
        Ok(ended) => Ok(ended),
        Err(rustix::io::Errno::CHILD) => Ok(None),
        Err(cause) => Err(cause.into()),
    }
}

fn execute_last_will(options: &Options) -> io::Result<()> {
    if !options.dir.join(LAST_WILL).exists() {
        return Ok(());
    }
    let mut child = Command::new(&options.program)
        .arg("agent")
        .arg("--last-will")
        .arg(&options.dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let mut waits = [PollFd::new(&pidfd, PollFlags::IN)];
    if poll(
        &mut waits,
        Timespec::try_from(LAST_WILL_WITHIN).ok().as_ref(),
    )? == 0
    {
        eprintln!("warden: the last will takes longer than {LAST_WILL_WITHIN:?} and is given up");
        child.kill()?;
    }
    child.wait()?;
    Ok(())
}
