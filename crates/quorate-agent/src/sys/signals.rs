//! Signals as a descriptor, so that a loop takes them where it waits for everything else.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

/// Blocks every signal of this thread and tells them by a descriptor that does not wait.
pub(crate) fn block_signals() -> io::Result<OwnedFd> {
    let mut all = MaybeUninit::uninit();
    // SAFETY: `sigfillset` initialises the set, which the other calls only read; a null pointer for
    // the old mask is allowed.
    let descriptor = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        if libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::signalfd(-1, all.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The numbers of the signals that came; calls `each` for every one.
pub(crate) fn take_signals(descriptor: impl AsFd, mut each: impl FnMut(i32)) -> io::Result<()> {
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    let mut record = [0_u8; SIZE];
    loop {
        match rustix::io::read(&descriptor, &mut record) {
            Ok(SIZE) => {
                // The signal number is the first field.
                if let Some((number, _)) = record.split_first_chunk::<4>() {
                    each(i32::from_ne_bytes(*number));
                }
            }
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Err(cause) => return Err(cause.into()),
        }
    }
}
