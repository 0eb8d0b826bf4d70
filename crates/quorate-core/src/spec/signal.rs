//! Names and numbers of Linux's signals (those of x86-64 and ARM64, which agree).

use super::suggest::closest;

const SIGNALS: [(&str, u8); 31] = [
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
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// `SIGRTMIN` as the C library gives it to programs; the two below are its own.
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

/// The number of a signal named `TERM`, `SIGTERM` or `RTMIN+3`; `None` for any other text.
#[must_use]
pub fn number(name: &str) -> Option<u8> {
    let bare = name.strip_prefix("SIG").unwrap_or(name);
    if let Some(more) = bare.strip_prefix("RTMIN") {
        let offset: u8 = match more.strip_prefix('+') {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok()?
            }
            Some(_) => return None,
            None if more.is_empty() => 0,
            None => return None,
        };
        return RTMIN.checked_add(offset).filter(|n| *n <= RTMAX);
    }
    SIGNALS
        .iter()
        .find(|(known, _)| *known == bare)
        .map(|(_, number)| *number)
}

/// The name of a signal, without `SIG`; `None` for real-time signals and what is no signal.
#[must_use]
pub fn name(number: u8) -> Option<&'static str> {
    SIGNALS
        .iter()
        .find(|(_, known)| *known == number)
        .map(|(name, _)| *name)
}

/// The signal that somebody who wrote `given` probably meant.
#[must_use]
pub fn nearest(given: &str) -> Option<&'static str> {
    let upper = given.trim().to_ascii_uppercase();
    if let Some(known) = upper.parse().ok().and_then(name) {
        return Some(known);
    }
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    closest(bare, SIGNALS.iter().map(|(name, _)| *name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_gives_its_number_and_back_with_or_without_sig() {
        for (text, expected) in SIGNALS {
            assert_eq!(number(text), Some(expected));
            assert_eq!(number(&format!("SIG{text}")), Some(expected));
            assert_eq!(name(expected), Some(text));
        }
        assert_eq!(number("RTMIN"), Some(34));
        assert_eq!(number("SIGRTMIN+3"), Some(37));
    }

    #[test]
    fn what_is_no_signal_is_none_and_the_nearest_is_known() {
        for bad in [
            "",
            "SIG",
            "term",
            "15",
            "TERMINATE",
            "RTMIN+31",
            "RTMIN-1",
            "RTMIN+",
            "RTMIN+x",
        ] {
            assert_eq!(number(bad), None, "{bad}");
        }
        assert_eq!(nearest("term"), Some("TERM"));
        assert_eq!(nearest("sigterm"), Some("TERM"));
        assert_eq!(nearest("15"), Some("TERM"));
        assert_eq!(nearest("TREM"), Some("TERM"));
        assert_eq!(nearest("0"), None);
    }
}
