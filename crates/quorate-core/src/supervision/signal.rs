//! What signals mean to the life of a run.

/// Asks a program to read its data again.
pub(super) const HUP: u8 = 1;

/// Whether a process ended by this signal was at fault itself (SEGV, ABRT, BUS, FPE, ILL, SYS).
#[must_use]
pub(super) fn is_fault(signal: u8) -> bool {
    matches!(signal, 4 | 6 | 7 | 8 | 11 | 31)
}
