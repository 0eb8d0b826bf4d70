//! When what stands in a log was printed: a file of marks beside each log.
//!
//! A mark says that everything from an offset on was written at its moment or later, and the next mark
//! comes with the first output a second later. So what was printed since a moment is found to within a
//! second, and nothing of it is left out unless the disk was too full for its mark; a clock that is set
//! back can only make it more.
//!
//! ```text
//!  current.log    2.log  …      current.times   16 bytes a mark: milliseconds since 1970, offset
//! ```
//!
//! Must never cost a run its output: marks that cannot be written are left out.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Output within this long of a mark belongs to it.
const EVERY: Duration = Duration::from_secs(1);
/// Bytes of a mark.
pub(crate) const MARK_BYTES: u64 = 16;

/// Milliseconds of the machine's wall clock since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, millis)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Whether output at `now` needs a mark of its own after the last one.
pub(crate) fn due(last: Option<u64>, now: u64) -> bool {
    last.is_none_or(|last| now < last || now - last >= millis(EVERY))
}

/// Everything from `offset` on is written at `now` or later.
pub(crate) fn mark(path: &Path, now: u64, offset: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let length = file.metadata()?.len();
    let whole = length - length % MARK_BYTES;
    if whole != length {
        // Of a mark that the disk took only in part.
        file.set_len(whole)?;
    }
    let mut bytes = now.to_be_bytes().to_vec();
    bytes.extend(offset.to_be_bytes());
    file.write_all(&bytes)
}

/// Where in a log what was printed since a moment begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begins {
    /// In the file before it, or with its first byte.
    Before,
    /// At this offset.
    At(u64),
    /// Not in it: all of it is older.
    After,
}

/// Looks in the marks of a log. Without marks all of it may be wanted.
pub(crate) fn begins(path: &Path, since: u64) -> Begins {
    let bytes = std::fs::read(path).unwrap_or_default();
    let word = |at: usize| {
        let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
        word.map_or(0, u64::from_be_bytes)
    };
    let marks = 0..bytes.len() / 16;
    // What belongs to an earlier mark is older than that mark and a second.
    let wanted = |mark: &usize| word(mark * 16).saturating_add(millis(EVERY)) > since;
    match marks.clone().find(wanted) {
        Some(0) => Begins::Before,
        Some(mark) => Begins::At(word(mark * 16 + 8)),
        None if marks.is_empty() => Begins::Before,
        None => Begins::After,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_printed_since_a_moment_begins_at_a_mark() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("current.times");
        assert_eq!(begins(&path, 5_000), Begins::Before);
        for (now, offset) in [(10_000, 0), (12_000, 70), (60_000, 140)] {
            mark(&path, now, offset).unwrap();
        }
        assert_eq!(begins(&path, 9_000), Begins::Before);
        assert_eq!(begins(&path, 10_999), Begins::Before);
        assert_eq!(begins(&path, 11_000), Begins::At(70));
        assert_eq!(begins(&path, 12_999), Begins::At(70));
        assert_eq!(begins(&path, 30_000), Begins::At(140));
        assert_eq!(begins(&path, 61_000), Begins::After);
    }

    #[test]
    fn a_mark_that_was_cut_short_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("current.times");
        mark(&path, 10_000, 0).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&[7; 5]).unwrap();
        mark(&path, 20_000, 99).unwrap();
        assert_eq!(begins(&path, 15_000), Begins::At(99));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 2 * MARK_BYTES);
    }

    #[test]
    fn marks_come_once_a_second_and_when_the_clock_was_set_back() {
        assert!(due(None, 5));
        assert!(!due(Some(1_000), 1_999));
        assert!(due(Some(1_000), 2_000));
        assert!(due(Some(1_000), 999));
    }
}
