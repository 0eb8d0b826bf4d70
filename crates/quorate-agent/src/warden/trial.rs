//! The kill path is proven before it is trusted (R19): a child that hides as daemons do is stopped,
//! with everything above it, and must be gone all the same. One trial for each grade of containment;
//! one that fails says why, for people.
//!
//! Called by a timekeeper that has no child yet. Every wait has a limit; nothing of a trial is left
//! when it returns, as far as it can be killed at all.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, set_child_subreaper,
    set_parent_process_death_signal, setsid, wait, waitpid,
};

use super::birth::map_user;
use super::group::Groups;
use super::protocol::RunId;
use super::scan::Scan;
use crate::sys::{
    Isolation, KillTimer, SingleThreaded, boot_nanos, exit_now, signal_everyone, signal_process,
};

/// A host on which a few forks take longer is not one to start runs on.
const HIDDEN_WITHIN: Duration = Duration::from_secs(5);
/// How long the kernel may take to end everything: K of the lease arithmetic.
const GONE_WITHIN: Duration = Duration::from_secs(1);
/// How far ahead the trial's deadline is. The next is tried when a busy host did not come to stop
/// everything before it.
const AHEAD: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
];
/// Between two looks at processes that cannot be waited for otherwise.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// No run has this token.
const TRIAL: RunId = RunId {
    token: 0,
    attempt: 0,
};

/// Whether the kernel's timer ends a namespace, with one nested in it and a hidden process in that,
/// while everything including the holder of the timer is stopped.
pub(crate) fn timer_ends_namespace(
    alone: SingleThreaded,
    isolation: Isolation,
) -> Result<(), String> {
    let reaper = Reaper::begin()?;
    for ahead in AHEAD {
        if reaper.attempt(alone, isolation, ahead)? {
            return Ok(());
        }
    }
    Err("this host is too slow to stop a process before a deadline".to_owned())
}

/// Whether a hidden process that is stopped can be killed by its control group, and the group says so.
pub(crate) fn group_ends(alone: SingleThreaded, groups: &Groups) -> Result<(), String> {
    let reaper = Reaper::begin()?;
    let group = groups.make_run(TRIAL).map_err(shown)?;
    let (watch, child) = hidden_child(alone, Some(group.as_fd()))?;
    kill_process(child, Signal::STOP).map_err(shown)?;
    groups.kill_run(TRIAL);
    let gone = is_closed_within(watch.as_fd(), GONE_WITHIN);
    reaper.clear();
    if !gone {
        return Err("a hidden process outlived the kill of its control group".to_owned());
    }
    let began = Instant::now();
    while !groups.is_run_gone(TRIAL) {
        if began.elapsed() > GONE_WITHIN {
            return Err("a control group without processes cannot be removed".to_owned());
        }
        pause();
    }
    Ok(())
}

/// Whether a hidden process that is stopped is found in the process table.
pub(crate) fn scan_ends(alone: SingleThreaded, scan: &Scan) -> Result<(), String> {
    let reaper = Reaper::begin()?;
    let (watch, _child) = hidden_child(alone, None)?;
    let began = Instant::now();
    let mut empty_passes = 0;
    while empty_passes < 2 && began.elapsed() < GONE_WITHIN {
        empty_passes = if scan.kill_everything() {
            0
        } else {
            empty_passes + 1
        };
        reaper.reap();
        pause();
    }
    let gone = empty_passes == 2 && is_closed_within(watch.as_fd(), Duration::ZERO);
    reaper.clear();
    if gone {
        Ok(())
    } else {
        Err("a hidden process is not found in /proc".to_owned())
    }
}

/// Makes this process the one that gets the orphans of a trial, until it is over.
struct Reaper;

impl Reaper {
    fn begin() -> Result<Self, String> {
        set_child_subreaper(Some(getpid())).map_err(shown)?;
        Ok(Self)
    }

    /// `false` when the deadline came before everything was stopped.
    fn attempt(
        &self,
        alone: SingleThreaded,
        isolation: Isolation,
        ahead: Duration,
    ) -> Result<bool, String> {
        let (watch, held) = pipe()?;
        let (reason, tell) = pipe()?;
        let keeper = alone
            .fork(Isolation::default(), || {
                let held = held.as_fd();
                match keep_time(alone, isolation, held, ahead) {
                    // Its own timer is to end it.
                    Ok(()) => rest(),
                    Err(cause) => {
                        let _gone = rustix::io::write(&tell, cause.as_bytes());
                        1
                    }
                }
            })
            .map_err(shown)?;
        drop(held);
        drop(tell);
        // It stops itself, fails, or is killed: each after a time that has a limit.
        let (_, first) = waitpid(Some(keeper), WaitOptions::UNTRACED)
            .map_err(shown)?
            .ok_or("a process of the trial is lost")?;
        let stopped = first.stopped();
        let ended = !stopped || ended_within(keeper, ahead + GONE_WITHIN)?;
        let gone = ended && is_closed_within(watch.as_fd(), GONE_WITHIN);
        self.clear();
        match (first.exit_status(), ended, gone) {
            (Some(code), _, _) => {
                let told = read_text(&reason);
                Err(if told.is_empty() {
                    format!("a process of the trial ended with exit code {code}")
                } else {
                    told
                })
            }
            (None, false, _) => Err("the kernel's timer did not kill a stopped process".to_owned()),
            (None, true, false) => Err("a hidden process outlived its namespace".to_owned()),
            (None, true, true) => Ok(stopped),
        }
    }

    /// Takes in the children that have ended.
    fn reap(&self) {
        while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
    }

    /// Kills and reaps what a trial has left: a namespace can be reaped only when it is empty.
    fn clear(&self) {
        let began = Instant::now();
        while began.elapsed() < GONE_WITHIN {
            for pid in super::scan::children().unwrap_or_default() {
                signal_process(pid, libc::SIGKILL);
            }
            loop {
                match wait(WaitOptions::NOHANG) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_no_child) => return,
                }
            }
            pause();
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        let _unchanged = set_child_subreaper(None);
    }
}

/// The timekeeper of a trial: has a namespace made in which a process hides, stops all of it, arms its
/// own kill and stops itself.
fn keep_time(
    alone: SingleThreaded,
    isolation: Isolation,
    held: BorrowedFd<'_>,
    ahead: Duration,
) -> Result<(), String> {
    // A warden that dies in the middle of a trial leaves nothing.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(shown)?;
    let timer = KillTimer::new().map_err(shown)?;
    let (up, tell) = pipe()?;
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let holder = alone
        .fork(isolation, || {
            let mapped = if isolation.users {
                map_user(uid, gid)
            } else {
                Ok(())
            };
            let held = mapped
                .map_err(|cause| format!("the user cannot be mapped: {cause}"))
                .and_then(|()| hold(alone, held));
            // An empty text tells that all is up; what is told by it is shorter than a pipe is long.
            let text = held.as_ref().err().map_or("", String::as_str);
            let told = rustix::io::write(&tell, format!("{text}\n").as_bytes());
            match (held, told) {
                (Ok(()), Ok(_)) => rest(),
                (_, _) => 1,
            }
        })
        .map_err(|cause| format!("no namespace can be made: {cause}"))?;
    drop(tell);
    if !is_readable_within(up.as_fd(), HIDDEN_WITHIN) {
        return Err("the process that is to hide does not come up".to_owned());
    }
    let told = read_text(&up);
    if !told.is_empty() {
        return Err(told);
    }
    kill_process(holder, Signal::STOP).map_err(shown)?;
    let ahead = u64::try_from(ahead.as_nanos()).unwrap_or(u64::MAX);
    timer
        .arm(boot_nanos().saturating_add(ahead))
        .map_err(|cause| format!("the timer cannot be armed: {cause}"))?;
    kill_process(getpid(), Signal::STOP).map_err(shown)
}

/// The holder of a trial, init of its namespace: has a process hide in a nested one, and stops both.
fn hold(alone: SingleThreaded, held: BorrowedFd<'_>) -> Result<(), String> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(shown)?;
    let isolation = Isolation {
        pids: true,
        users: false,
    };
    let (up, tell) = pipe()?;
    alone
        .fork(isolation, || hide(alone, tell.as_fd(), held))
        .map_err(|cause| format!("no namespace can be nested: {cause}"))?;
    drop(tell);
    if !is_readable_within(up.as_fd(), HIDDEN_WITHIN) || read_text(&up).is_empty() {
        return Err("a process cannot hide".to_owned());
    }
    signal_everyone(libc::SIGSTOP);
    Ok(())
}

/// A child with a hidden process below it, which stops itself: the end that closes with both of them,
/// and the child.
fn hidden_child(
    alone: SingleThreaded,
    group: Option<BorrowedFd<'_>>,
) -> Result<(OwnedFd, Pid), String> {
    let (watch, held) = pipe()?;
    let (up, tell) = pipe()?;
    let child = alone
        .fork_into(Isolation::default(), group, || {
            hide(alone, tell.as_fd(), held.as_fd())
        })
        .map_err(shown)?;
    drop(tell);
    if !is_readable_within(up.as_fd(), HIDDEN_WITHIN) || read_text(&up).is_empty() {
        signal_process(child, libc::SIGKILL);
        let why = match group {
            // Linux since 2025 compares how often the group of the parent and that of the child were killed.
            Some(_) => {
                "what is forked into a group is killed at once; the agent needs a group that was never killed as a whole"
            }
            None => "a process cannot hide",
        };
        return Err(why.to_owned());
    }
    Ok((watch, child))
}

/// Forks twice and begins a session of its own, as daemons do. Both that stay keep `held` open.
fn hide(alone: SingleThreaded, tell: BorrowedFd<'_>, _held: BorrowedFd<'_>) -> i32 {
    let middle = alone.fork(Isolation::default(), || {
        if setsid().is_err() {
            return 1;
        }
        let hidden = alone.fork(Isolation::default(), || {
            if rustix::io::write(tell, b"h") != Ok(1) {
                return 1;
            }
            let _unstopped = kill_process(getpid(), Signal::STOP);
            rest()
        });
        i32::from(hidden.is_err())
    });
    if middle.is_err() {
        return 1;
    }
    rest()
}

/// Until it is killed.
fn rest() -> i32 {
    while poll(&mut [], None).is_ok() {}
    exit_now(1)
}

fn pause() {
    let _interrupted = poll(&mut [], Timespec::try_from(LOOK_EVERY).ok().as_ref());
}

fn pipe() -> Result<(OwnedFd, OwnedFd), String> {
    pipe_with(PipeFlags::CLOEXEC).map_err(shown)
}

fn shown(cause: impl Into<io::Error>) -> String {
    cause.into().to_string()
}

/// Whether something can be read, or the end.
fn is_readable_within(pipe: BorrowedFd<'_>, within: Duration) -> bool {
    let mut waits = [PollFd::from_borrowed_fd(pipe, PollFlags::IN)];
    let within = Timespec::try_from(within).ok();
    poll(&mut waits, within.as_ref()).is_ok_and(|ready| ready > 0)
}

/// Whether nobody holds the other end any more, into which nobody writes.
fn is_closed_within(pipe: BorrowedFd<'_>, within: Duration) -> bool {
    is_readable_within(pipe, within) && rustix::io::read(pipe, &mut [0; 1]) == Ok(0)
}

/// A child that nobody else reaps.
fn ended_within(child: Pid, within: Duration) -> Result<bool, String> {
    let began = Instant::now();
    loop {
        let ended: Option<(Pid, WaitStatus)> =
            waitpid(Some(child), WaitOptions::NOHANG).map_err(shown)?;
        if ended.is_some() {
            return Ok(true);
        }
        if began.elapsed() > within {
            return Ok(false);
        }
        pause();
    }
}

/// One message that is there, without the end of its line.
fn read_text(pipe: &OwnedFd) -> String {
    let mut bytes = [0; 512];
    if !is_readable_within(pipe.as_fd(), Duration::ZERO) {
        return String::new();
    }
    let count = rustix::io::read(pipe, &mut bytes).unwrap_or(0);
    let text = String::from_utf8_lossy(bytes.get(..count).unwrap_or_default());
    text.trim_end().to_owned()
}
