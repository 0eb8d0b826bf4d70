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
//! kills the holder, and with it everything. Without namespaces both have a timer, and each ends what
//! the other leaves. Must do nothing that can wait or fail beside that.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, flock};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, setsid};

use super::birth::{Birth, open_null};
use super::client::READY;
use super::group::Groups;
use super::holder;
use super::scan::Scan;
use super::{LAST_WILL, Options, PROVEN_DEAD, SOCKET, say};
use crate::files_limit::raise_files_limit;
use crate::planted::{self, Planted};
use crate::sys::{
    Alarm, KillTimer, SingleThreaded, block_signals, boot_nanos, standard_output, take_signals,
};

/// How long the last will may take: a little longer than it tries of its own accord, which is as long as the lease
/// lasts and a day at most. Nobody else waits for it.
const LAST_WILL_WITHIN: Duration = Duration::from_secs(24 * 3600 + 60);
/// Between two passes over the process table.
const SCAN_EVERY: Duration = Duration::from_millis(10);
/// How long an empty control group may take to be removed.
const TIDY_WITHIN: Duration = Duration::from_secs(1);

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

/// Keeps a second warden out of the folder, and the folder where it is: whoever holds this is a warden that lives.
/// The holder of the runs shares it, and both keep it to their end.
pub(crate) fn lock(dir: &Path) -> io::Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("warden.lock"))?;
    if planted::has(Planted::UnlockedWarden) {
        return Ok(file);
    }
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

/// A holder that lives, as its timekeeper sees it.
pub(super) struct Holder {
    pid: Pid,
    line: OwnedFd,
    guard: Guard,
    groups: Option<Groups>,
    /// No deadline is farther ahead than this.
    lease: Duration,
    /// Moves forward only.
    deadline: Option<u64>,
}

/// What ends everything at the deadline, and proves the end.
pub(super) enum Guard {
    /// The kernel: its timer kills this process, whose end is that of every namespace.
    Kernel(KillTimer),
    /// This process, beside the holder with a timer of its own: each ends what the other leaves.
    Scan {
        scan: Scan,
        alarm: Alarm,
        /// Takes the byte that proves the death.
        proof: OwnedFd,
    },
}

impl Holder {
    pub(super) fn new(
        pid: Pid,
        line: OwnedFd,
        guard: Guard,
        groups: Option<Groups>,
        lease: Duration,
    ) -> Self {
        Self {
            pid,
            lease,
            line,
            guard,
            groups,
            deadline: None,
        }
    }

    /// Arms the timer and passes SIGTERM on until the holder has ended; its exit code, or `None` when
    /// it was killed.
    fn attend(&mut self, signals: &OwnedFd) -> io::Result<Option<i32>> {
        let mut line_open = true;
        loop {
            let mut waits = vec![PollFd::new(signals, PollFlags::IN)];
            if line_open {
                waits.push(PollFd::new(&self.line, PollFlags::IN));
            }
            if let Guard::Scan { alarm, .. } = &self.guard {
                waits.push(PollFd::new(alarm, PollFlags::IN));
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
                line_open = self.take_deadlines()?;
            }
            if self
                .deadline
                .is_some_and(|deadline| deadline <= boot_nanos())
            {
                self.strike();
            }
            while let Some((pid, status)) = waitpid_any()? {
                if pid == self.pid {
                    return Ok(status.exit_status());
                }
            }
        }
    }

    /// Takes the deadlines that are there, so that none is acted on that has been moved; tells whether the
    /// line is open. Whatever is said on it, the timer only moves forward, and never out of reach.
    fn take_deadlines(&mut self) -> io::Result<bool> {
        loop {
            let mut bytes = [0; 8];
            match recv(&self.line, &mut bytes, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Ok(false),
                Ok((_, 8)) => self.arm(u64::from_le_bytes(bytes))?,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(true),
                Err(_) => return Ok(false),
            }
        }
    }

    /// The first time it is answered, so that the holder knows that the timer is armed.
    fn arm(&mut self, deadline: u64) -> io::Result<()> {
        let deadline = super::reachable(deadline, self.lease);
        let backward = self.deadline.is_some_and(|armed| armed >= deadline);
        if backward && !planted::has(Planted::BackwardDeadline) {
            return Ok(());
        }
        match &self.guard {
            Guard::Kernel(_) if planted::has(Planted::UserTimer) => {}
            Guard::Kernel(timer) => timer.arm(deadline)?,
            Guard::Scan { alarm, .. } => alarm.set(deadline)?,
        }
        if self.deadline.replace(deadline).is_none() {
            send(&self.line, &deadline.to_le_bytes(), SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    /// The deadline has come, and the holder may be frozen in a way that not even its timer ends.
    fn strike(&mut self) {
        // In grade `kernel` the timer has been quicker than this, or is about to be.
        let _gone = kill_process(self.pid, Signal::KILL);
        if let Some(groups) = &self.groups {
            groups.kill_all();
        }
        match &self.guard {
            Guard::Kernel(_) => {}
            Guard::Scan { scan, alarm, .. } => {
                scan.kill_everything();
                // Everything that is left is looked for until the holder is reaped, but not in a spin.
                let next = boot_nanos().saturating_add(super::nanos(SCAN_EVERY));
                let _unset = alarm.set(next);
            }
        }
    }

    /// The holder is reaped: proves what the kernel has not proven, and closes the session if nobody
    /// else can.
    fn bury(self, code: Option<i32>, options: &Options, signals: &OwnedFd) -> io::Result<()> {
        let groups = self.groups.as_ref();
        match &self.guard {
            Guard::Kernel(_) => {
                // The namespace is empty, so this only tidies up.
                if groups.is_some_and(|groups| !groups.clear(TIDY_WITHIN)) {
                    say(format_args!("its control group cannot be removed"));
                }
            }
            Guard::Scan { scan, proof, .. } => {
                let mut empty_passes = 0;
                while empty_passes < 2 {
                    let left = scan.kill_everything()
                        | groups.is_some_and(|groups| !groups.clear(Duration::ZERO));
                    empty_passes = if left { 0 } else { empty_passes + 1 };
                    while waitpid_any()?.is_some() {}
                    poll(&mut [], Timespec::try_from(SCAN_EVERY).ok().as_ref())?;
                }
                rustix::io::write(proof, b"e")?;
            }
        }
        // Whatever ends this process from here on: the next agent knows that nobody has to wait.
        if let Err(cause) = std::fs::write(options.dir.join(PROVEN_DEAD), []) {
            say(format_args!(
                "the proof of its end cannot be noted: {cause}"
            ));
        }
        let _gone = std::fs::remove_file(options.dir.join(SOCKET));
        match code {
            None => say(format_args!(
                "the holder of the runs was killed, and they with it"
            )),
            Some(holder::ABANDONED) => execute_last_will(options, signals)?,
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

fn execute_last_will(options: &Options, signals: &OwnedFd) -> io::Result<()> {
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
    if !ends_in_time(&pidfd, signals)? {
        say(format_args!("the last will is left to the next agent"));
        child.kill()?;
    }
    child.wait()?;
    Ok(())
}

/// Whether a process ends by itself, before its time is over and before somebody wants this one to end.
fn ends_in_time(pidfd: &OwnedFd, signals: &OwnedFd) -> io::Result<bool> {
    let until = boot_nanos().saturating_add(super::nanos(LAST_WILL_WITHIN));
    loop {
        let left = Duration::from_nanos(until.saturating_sub(boot_nanos()));
        let mut waits = [
            PollFd::new(pidfd, PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
        ];
        match poll(&mut waits, Timespec::try_from(left).ok().as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(cause) => return Err(cause.into()),
        }
        let [ended, signalled] = waits.map(|wait| !wait.revents().is_empty());
        if ended {
            return Ok(true);
        }
        let mut terminate = false;
        if signalled {
            take_signals(signals, |signal| terminate |= signal == libc::SIGTERM)?;
        }
        if terminate {
            return Ok(false);
        }
    }
}
