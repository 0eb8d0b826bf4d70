//! New processes without a new program.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::process::Pid;

/// Exit code of a child whose own code panicked.
const PANICKED: i32 = 101;

/// Says that this process has one thread, so that a fork of it is a whole process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SingleThreaded(());

/// The namespaces that a new process gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Isolation {
    /// A PID namespace, whose init it is.
    pub(crate) pids: bool,
    /// A user namespace, in which it may make others.
    pub(crate) users: bool,
}

impl SingleThreaded {
    /// Counts the threads. Parent-death signals end with the *thread* that forked, another reason why
    /// there must be only one.
    pub(crate) fn check() -> io::Result<Self> {
        let threads = std::fs::read_dir("/proc/self/task")?.count();
        if threads == 1 {
            Ok(Self(()))
        } else {
            Err(io::Error::other(format!(
                "the warden must have one thread, not {threads}"
            )))
        }
    }

    /// Forks; the child calls `child` and ends with its result as exit code, also when it panics.
    pub(crate) fn fork(self, isolation: Isolation, child: impl FnOnce() -> i32) -> io::Result<Pid> {
        self.fork_into(isolation, None, child)
    }

    /// The same; the child is in this control group from its first instruction on.
    pub(crate) fn fork_into(
        self,
        isolation: Isolation,
        group: Option<BorrowedFd<'_>>,
        child: impl FnOnce() -> i32,
    ) -> io::Result<Pid> {
        let pid = raw_fork(isolation, group)?;
        match Pid::from_raw(pid) {
            Some(pid) => Ok(pid),
            None => exit_now(catch_unwind(AssertUnwindSafe(child)).unwrap_or(PANICKED)),
        }
    }
}

/// Zero in the child.
fn raw_fork(isolation: Isolation, group: Option<BorrowedFd<'_>>) -> io::Result<libc::pid_t> {
    let mut flags = 0;
    if isolation.pids {
        flags |= u64::from(libc::CLONE_NEWPID.unsigned_abs());
    }
    if isolation.users {
        flags |= u64::from(libc::CLONE_NEWUSER.unsigned_abs());
    }
    if group.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    let pid = if flags == 0 {
        // SAFETY: this process has one thread (`SingleThreaded`), so no lock is held in the child.
        unsafe { libc::fork() }
    } else {
        let arguments = CloneArguments {
            flags,
            exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
            group: group.map_or(0, |group| u64::from(group.as_raw_fd().unsigned_abs())),
            ..CloneArguments::default()
        };
        // A kernel that knows no groups here refuses the longer form.
        let size = match group {
            Some(_) => size_of::<CloneArguments>(),
            None => CLONE_ARGUMENTS_FIRST,
        };
        // SAFETY: the arguments are those of clone3, of the version with this size, and outlive the
        // call. Without a stack and CLONE_VM it is a fork; this process has one thread, so no lock is
        // held in the child.
        let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) };
        libc::pid_t::try_from(result).unwrap_or(-1)
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(pid)
}

/// Not in the C library's header of every system.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// Bytes of the first version of [`CloneArguments`], without its last three fields.
const CLONE_ARGUMENTS_FIRST: usize = 64;

/// The third version of the kernel's `struct clone_args`.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    chosen_pids: u64,
    chosen_pids_count: u64,
    group: u64,
}

/// Ends this process without running anything that was registered for its end: that belongs to the
/// process it was forked from.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes no pointer and does not return.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor above standard error but these. Only in a child that uses no other.
pub(crate) fn keep_only(kept: &[BorrowedFd<'_>]) {
    let mut kept: Vec<_> = kept
        .iter()
        .map(|fd| fd.as_raw_fd().unsigned_abs())
        .collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        if fd > first {
            close_range(first, fd - 1);
        }
        first = first.max(fd + 1);
    }
    close_range(first, libc::c_uint::MAX);
}

fn close_range(first: libc::c_uint, last: libc::c_uint) {
    // SAFETY: takes no pointer. Owners of these descriptors in this copy of the process never use or
    // drop them any more: the child ends by `exit_now`.
    unsafe {
        libc::syscall(libc::SYS_close_range, first, last, 0);
    }
}

/// Sends a signal to every process of this PID namespace but its init, which must be the caller.
/// Does nothing elsewhere: it would reach the whole host.
pub(crate) fn signal_everyone(signal: i32) {
    if rustix::process::getpid().is_init() {
        // SAFETY: takes no pointer.
        unsafe {
            libc::kill(-1, signal);
        }
    }
}

/// Sends a signal, by its number, to one process that the caller knows not to be reaped yet.
pub(crate) fn signal_process(pid: Pid, signal: i32) {
    // SAFETY: takes no pointer.
    unsafe {
        libc::kill(pid.as_raw_nonzero().get(), signal);
    }
}

/// Gives the pages of the heap back that a fork shares with its parent: each would become a copy of
/// its own as soon as the parent writes to it.
///
/// After this call the process must neither allocate nor free nor read anything on the heap.
pub(crate) fn forget_heap(start: usize) {
    // SAFETY: with zero the break is only told.
    let end = unsafe { libc::sbrk(0) } as usize;
    if start == 0 || end <= start {
        return;
    }
    // SAFETY: the range is the heap of this process, which the caller never touches again.
    unsafe {
        libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_second_thread_may_not_fork() {
        // This one and that of the test harness, or the other way round.
        let refused = std::thread::spawn(SingleThreaded::check).join().unwrap();
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("one thread, not"), "{refused}");
    }
}
