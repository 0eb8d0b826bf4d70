//! Descriptors: who is at the other end, and the three that every program has.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The user at the other end of a unix socket. Its process id is of no use here: it is zero when the
/// peer lives outside the caller's PID namespace.
pub(crate) fn peer_uid(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut credentials = MaybeUninit::<libc::ucred>::uninit();
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    // SAFETY: the buffer is writable, has the given length and outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            credentials.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the kernel wrote all of it.
    Ok(unsafe { credentials.assume_init() }.uid)
}

/// Makes these the standard input, and the standard output and error, of this process.
pub(crate) fn standard_streams(input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> io::Result<()> {
    duplicate(input, 0)?;
    duplicate(output, 1)?;
    duplicate(output, 2)
}

/// Makes this the standard output of this process.
pub(crate) fn standard_output(output: BorrowedFd<'_>) -> io::Result<()> {
    duplicate(output, 1)
}

fn duplicate(from: BorrowedFd<'_>, to: libc::c_int) -> io::Result<()> {
    // SAFETY: takes no pointer. Standard streams are borrowed by their number wherever they are used,
    // so that what they mean may change.
    if unsafe { libc::dup2(from.as_raw_fd(), to) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
