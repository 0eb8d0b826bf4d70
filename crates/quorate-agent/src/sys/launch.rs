//! From init to the command: a child that shares the memory of its parent until it executes the
//! program, so that nothing is copied.
//!
//! Between the clone and the execution only plain system calls are made: no allocation, no lock.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::process::Pid;

use super::user::User;

/// Bytes of the stack on which the child lives until it executes the program.
const STACK_BYTES: usize = 256 * 1024;

/// The highest signal number of the kernel, and the bytes of its set of signals.
const SIGNAL_MAX: c_int = 64;
const SIGNAL_SET_BYTES: usize = 8;

/// All that a child needs to become the command.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// Where the program may be, tried in order.
    pub(crate) candidates: &'a [CString],
    /// Its arguments, the name first.
    pub(crate) arguments: &'a [CString],
    /// Its environment, `NAME=value`.
    pub(crate) environment: &'a [CString],
    /// The folder to run in.
    pub(crate) folder: &'a CStr,
    /// Most open files: soft and hard limit.
    pub(crate) files: Option<(u64, u64)>,
    /// Whom to become.
    pub(crate) user: Option<&'a User>,
    /// What to write to `oom_score_adj`.
    pub(crate) oom_score: Option<&'a [u8]>,
    /// Whether the command dies with its parent.
    pub(crate) dies_with_parent: bool,
}

/// What a child did when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Beginning a session.
    Session,
    /// Limiting open files.
    Files,
    /// Becoming the user.
    User,
    /// Entering the folder.
    Folder,
    /// Executing the program.
    Execute,
}

/// Why the command does not execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// At which step.
    pub(crate) step: Step,
    /// What the kernel said.
    pub(crate) errno: i32,
}

/// A command that executes, or was killed before it could.
#[derive(Debug)]
pub(crate) struct Launched {
    /// Process id as this process sees it.
    pub(crate) pid: Pid,
    /// Names it for good.
    pub(crate) pidfd: OwnedFd,
}

struct Child<'a> {
    launch: &'a Launch<'a>,
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    failure: Option<Failure>,
}

/// Starts the command; returns once it executes or has failed.
pub(crate) fn launch(launch: &Launch<'_>) -> io::Result<Result<Launched, Failure>> {
    let mut child = Child {
        launch,
        arguments: pointers(launch.arguments),
        environment: pointers(launch.environment),
        failure: None,
    };
    let mut stack = Vec::<u128>::with_capacity(STACK_BYTES / size_of::<u128>());
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: the stack is unused memory of this size, aligned to 16 bytes, and grows down from its
    // end. CLONE_VFORK suspends this process until the child has executed a program or ended, so
    // that `child`, `pidfd` and the stack outlive it and are used by one of both at a time.
    let pid = unsafe {
        let top = stack.as_mut_ptr().add(stack.capacity());
        libc::clone(
            become_command,
            top.cast(),
            flags,
            (&raw mut child).cast(),
            &raw mut pidfd,
        )
    };
    let Some(pid) = (pid > 0).then(|| Pid::from_raw(pid)).flatten() else {
        return Err(io::Error::last_os_error());
    };
    // SAFETY: the kernel has just made this descriptor and nothing else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(match child.failure {
        None => Ok(Launched { pid, pidfd }),
        Some(failure) => Err(failure),
    })
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts
        .iter()
        .map(|text| text.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

/// Runs in the memory of the suspended parent: must neither panic nor allocate.
extern "C" fn become_command(child: *mut c_void) -> c_int {
    // SAFETY: `launch` passes a `Child` that outlives this call and is used by nobody else meanwhile.
    let child = unsafe { &mut *child.cast::<Child<'_>>() };
    let (step, errno) = match prepare(child.launch) {
        Err(failure) => failure,
        Ok(()) => (Step::Execute, execute(child)),
    };
    child.failure = Some(Failure { step, errno });
    // SAFETY: takes no pointer and does not return.
    unsafe { libc::_exit(127) }
}

fn errno() -> c_int {
    // SAFETY: the C library always has an address for it; the parent that shares it is suspended.
    unsafe { *libc::__errno_location() }
}

fn check(step: Step, result: libc::c_long) -> Result<(), (Step, c_int)> {
    if result < 0 {
        Err((step, errno()))
    } else {
        Ok(())
    }
}

fn prepare(launch: &Launch<'_>) -> Result<(), (Step, c_int)> {
    // SAFETY: plain system calls of a child that owns its descriptors, signals, limits and
    // credentials (none of them is shared by CLONE_VM); all pointers are to values that outlive the
    // calls. Credentials are set by the kernel's own call, not by that of the C library, which would
    // tell other threads about it.
    unsafe {
        check(Step::Session, libc::setsid().into())?;
        // The kernel's own call: that of the C library leaves out the signals it uses itself, which a
        // careless ancestor may have had ignored. All zero is the default disposition.
        let default = [0_u64; 8];
        for signal in 1..=SIGNAL_MAX {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                SIGNAL_SET_BYTES,
            );
        }
        if let Some(score) = launch.oom_score {
            let file = libc::open(
                c"/proc/self/oom_score_adj".as_ptr(),
                libc::O_WRONLY | libc::O_CLOEXEC,
            );
            if file >= 0 {
                libc::write(file, score.as_ptr().cast(), score.len());
            }
        }
        if let Some((soft, hard)) = launch.files {
            let limit = libc::rlimit64 {
                rlim_cur: soft,
                rlim_max: hard,
            };
            let result = libc::setrlimit64(libc::RLIMIT_NOFILE, &raw const limit);
            check(Step::Files, result.into())?;
        }
        libc::umask(0o077);
        if let Some(user) = launch.user {
            become_user(user)?;
        }
        if launch.dies_with_parent {
            // After the change of user, which clears it.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        }
        check(Step::Folder, libc::chdir(launch.folder.as_ptr()).into())?;
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
        let mut none = std::mem::MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
    Ok(())
}

/// # Safety
/// Only in a child that shares its credentials with nobody.
unsafe fn become_user(user: &User) -> Result<(), (Step, c_int)> {
    // SAFETY: the list of groups outlives the call; the others take no pointer.
    unsafe {
        let groups = libc::syscall(libc::SYS_setgroups, user.groups.len(), user.groups.as_ptr());
        check(Step::User, groups)?;
        let gid = libc::syscall(libc::SYS_setresgid, user.gid, user.gid, user.gid);
        check(Step::User, gid)?;
        let uid = libc::syscall(libc::SYS_setresuid, user.uid, user.uid, user.uid);
        check(Step::User, uid)?;
        let privileges = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        check(Step::User, privileges.into())
    }
}

/// Tries each place as a shell does; returns only when none could be executed.
fn execute(child: &Child<'_>) -> c_int {
    let mut worst = libc::ENOENT;
    for candidate in child.launch.candidates {
        // SAFETY: the path is a C string, and both lists end with a null pointer and point to C
        // strings that the suspended parent keeps.
        unsafe {
            libc::execve(
                candidate.as_ptr(),
                child.arguments.as_ptr(),
                child.environment.as_ptr(),
            );
        }
        match errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => worst = libc::EACCES,
            other => return other,
        }
    }
    worst
}
