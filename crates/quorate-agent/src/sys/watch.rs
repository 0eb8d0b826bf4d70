//! Descriptors in the reactor.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets the reactor tell when a descriptor (pidfd, pipe) becomes readable.
///
/// # Errors
/// When the descriptor cannot be watched, as is so for files.
pub fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always names the same open descriptor until it is dropped, and `AsyncFd`
    // drops it only after taking it out of the reactor.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    watched.map_err(|refused| refused.into_parts().1)
}
