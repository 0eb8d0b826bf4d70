//! The kernel's own kill.

use std::io;
use std::mem::MaybeUninit;

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
        // SAFETY: `event` is initialised and `timer` is writable; both outlive the call.
        let result =
            unsafe { libc::timer_create(libc::CLOCK_BOOTTIME, &raw mut event, timer.as_mut_ptr()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `timer_create` succeeded, so it wrote the identifier.
        Ok(Self(unsafe { timer.assume_init() }))
    }

    /// Sets the moment, CLOCK_BOOTTIME in nanoseconds; a past one kills at once.
    pub(crate) fn arm(&self, deadline: u64) -> io::Result<()> {
        const NANOS: u64 = 1_000_000_000;
        // Zero would disarm the timer instead of firing it.
        let deadline = deadline.max(1);
        let moment = libc::timespec {
            tv_sec: libc::time_t::try_from(deadline / NANOS).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::try_from(deadline % NANOS).unwrap_or(0),
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

/// CLOCK_BOOTTIME in nanoseconds: never goes back and counts while suspended.
pub(crate) fn boot_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1_000_000_000 + nanos
}
