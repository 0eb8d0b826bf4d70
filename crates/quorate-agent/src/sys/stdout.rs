//! Whether standard output was open when this program was started.
//!
//! Before `main` the standard library opens `/dev/null` in the place of a standard stream that is closed, and
//! what is written there is lost in silence. Afterwards nobody can tell it from a `/dev/null` that was meant,
//! so this looks before.

use std::sync::atomic::{AtomicBool, Ordering};

static CLOSED: AtomicBool = AtomicBool::new(false);

extern "C" fn look() {
    // SAFETY: takes no pointer, and that the descriptor may not be open is what is asked.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    CLOSED.store(flags < 0, Ordering::Relaxed);
}

// SAFETY: the C runtime calls the functions of this section one after the other before `main`; this one
// needs nothing that is made ready only later.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

/// Whether whoever started this program had closed its standard output (`>&-`).
#[must_use]
pub fn stdout_was_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}
