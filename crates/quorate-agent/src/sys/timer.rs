//! The kernel's own kill, and the clock that it goes by.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::planted::{self, Planted};

/// A timer of this process that sends SIGKILL to it: it needs no user code, so it works while the
/// process is stopped or frozen. It is not inherited by a fork, and ends with the process.
#[derive(Debug)]
pub(crate) struct KillTimer(libc::timer_t);

impl KillTimer {
    /// Makes one that is not armed.
    ///
    /// Must not be held by the init of a PID namespace: the kernel would ignore its signal.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: all fields of `sigevent` are integers and pointers, for which zero is a value.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGKILL;
        let mut timer = MaybeUninit::uninit();
        let clock = match planted::has(Planted::MonotonicTimer) {
            true => libc::CLOCK_MONOTONIC,
            false => libc::CLOCK_BOOTTIME,
        };
        // SAFETY: `event` is initialised and `timer` is writable; both outlive the call.
        let result = unsafe { libc::timer_create(clock, &raw mut event, timer.as_mut_ptr()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `timer_create` succeeded, so it wrote the identifier.
        Ok(Self(unsafe { timer.assume_init() }))
    }

    /// Sets the moment, CLOCK_BOOTTIME in nanoseconds; a past one kills at once.
    pub(crate) fn arm(&self, deadline: u64) -> io::Result<()> {
        let (seconds, nanos) = parts_of(deadline);
        let moment = libc::timespec {
            tv_sec: seconds,
            tv_nsec: nanos,
        };
        let once = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: moment,
        };
        // SAFETY: the timer was made by `timer_create` and is never deleted; `once` outlives the call.
        let result = unsafe {
            libc::timer_settime(
                self.0,
                libc::TIMER_ABSTIME,
                &raw const once,
                std::ptr::null_mut(),
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// A moment as the kernel takes it: seconds and nanoseconds. Zero would disarm a timer instead of
/// firing it, so there is no moment zero.
fn parts_of(deadline: u64) -> (i64, i64) {
    const NANOS: u64 = 1_000_000_000;
    let deadline = deadline.max(1);
    let seconds = i64::try_from(deadline / NANOS).unwrap_or(i64::MAX);
    let nanos = i64::try_from(deadline % NANOS).unwrap_or(0);
    (seconds, nanos)
}

/// A timer that a loop waits for: readable once its moment has come, also when the machine was
/// suspended meanwhile, which the time limit of a wait does not count.
#[derive(Debug)]
pub(crate) struct Alarm(OwnedFd);

impl Alarm {
    /// Makes one that is not set.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        if planted::has(Planted::MonotonicTimer) {
            return Ok(Self(timerfd_create(TimerfdClockId::Monotonic, flags)?));
        }
        Ok(Self(timerfd_create(TimerfdClockId::Boottime, flags)?))
    }

    /// Sets the moment, CLOCK_BOOTTIME in nanoseconds.
    pub(crate) fn set(&self, moment: u64) -> io::Result<()> {
        let (tv_sec, tv_nsec) = parts_of(moment);
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec { tv_sec, tv_nsec },
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &once)?;
        Ok(())
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// CLOCK_BOOTTIME in nanoseconds: never goes back and counts while suspended.
pub(crate) fn boot_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1_000_000_000 + nanos
}
