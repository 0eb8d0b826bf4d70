//! The kill path is proven before it is trusted: a child that hides as daemons do must be gone when
//! the kernel says that its namespace is empty.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitOptions, kill_process, setsid, waitpid};

use crate::sys::{Isolation, SingleThreaded, exit_now};

/// A host on which two forks take longer is not one to start runs on.
const HIDDEN_WITHIN: Duration = Duration::from_secs(5);

/// Whether a namespace made from here takes a hidden process with it.
pub(crate) fn namespace_holds(alone: SingleThreaded) -> io::Result<bool> {
    let (watch, held) = pipe_with(PipeFlags::CLOEXEC)?;
    let isolation = Isolation {
        pids: true,
        users: false,
    };
    let init = alone.fork(isolation, || hide(alone, held.as_fd()))?;
    drop(held);
    let hidden = byte_within(watch.as_fd(), HIDDEN_WITHIN)?;
    kill_process(init, Signal::KILL)?;
    waitpid(Some(init), WaitOptions::empty())?;
    // Init is reaped. Had the hidden process survived, it would still hold the pipe open.
    let mut byte = [0];
    rustix::io::ioctl_fionbio(&watch, true)?;
    let gone = matches!(rustix::io::read(&watch, &mut byte), Ok(0));
    Ok(hidden && gone)
}

/// In init: forks twice and begins a session of its own, as daemons do.
fn hide(alone: SingleThreaded, held: BorrowedFd<'_>) -> i32 {
    let middle = alone.fork(Isolation::default(), || {
        if setsid().is_err() {
            return 1;
        }
        let hidden = alone.fork(Isolation::default(), || {
            if rustix::io::write(held, b"h") != Ok(1) {
                return 1;
            }
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

fn byte_within(pipe: BorrowedFd<'_>, within: Duration) -> io::Result<bool> {
    let mut waits = [PollFd::from_borrowed_fd(pipe, PollFlags::IN)];
    let within = Timespec::try_from(within).ok();
    if poll(&mut waits, within.as_ref())? == 0 {
        return Ok(false);
    }
    Ok(rustix::io::read(pipe, &mut [0])? == 1)
}
