//! Signals by name, with Linux's numbers, which are those of every architecture that quorate runs on.

/// Asks a program to read its data again.
pub const HUP: u8 = 1;

const NAMES: [(&str, u8); 19] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CONT", 18),
    ("WINCH", 28),
    ("PWR", 30),
    ("SYS", 31),
];

/// The number of a signal, named with or without `SIG`.
#[must_use]
pub fn number(name: &str) -> Option<u8> {
    let short = name.strip_prefix("SIG").unwrap_or(name);
    NAMES
        .iter()
        .find(|(known, _)| *known == short)
        .map(|&(_, number)| number)
}

/// Whether a process ended by this signal was at fault itself (SEGV, ABRT, BUS, FPE, ILL, SYS).
#[must_use]
pub(super) fn is_fault(signal: u8) -> bool {
    matches!(signal, 4 | 6 | 7 | 8 | 11 | 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_found_with_and_without_its_prefix() {
        assert_eq!(number("TERM"), Some(15));
        assert_eq!(number("SIGINT"), Some(2));
        assert_eq!(number("term"), None);
        assert_eq!(number("SIG"), None);
    }
}
