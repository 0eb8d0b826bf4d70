//! What each process of a run has written down of itself: a file of its own, a line for a moment.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::Result;

/// The words of a line; the moment follows.
pub(crate) const START: &str = "START";
pub(crate) const BEAT: &str = "BEAT";
pub(crate) const STOPPING: &str = "STOPPING";
pub(crate) const STOP: &str = "STOP";

/// Folder of the records.
pub(crate) const FOLDER: &str = "records";

/// What a process has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// The first and the last moment of which it says that it executed; zero when it came to nothing.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// How often it has said so.
    pub(crate) beats: u64,
    /// When it heard that it is to stop.
    pub(crate) stopping: Option<u64>,
    /// Lines that are none.
    pub(crate) broken: u64,
}

impl Record {
    /// Reads it. The last line may be cut short, as the process may have been.
    pub(crate) fn parse(text: &str) -> Self {
        let mut record = Self::default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            let Some((what, at)) = line.split_once(' ') else {
                record.broken += 1;
                continue;
            };
            let Ok(at) = at.parse::<u64>() else {
                record.broken += 1;
                continue;
            };
            match what {
                START => record.first = at,
                BEAT => record.beats += 1,
                STOPPING => record.stopping = Some(at),
                STOP => {}
                _ => record.broken += 1,
            }
            record.last = record.last.max(at);
        }
        record
    }
}

/// The file of a process.
pub(crate) fn path(folder: &Path, id: u64) -> PathBuf {
    folder.join(FOLDER).join(id.to_string())
}

/// Makes it, to be appended to.
pub(crate) fn create(folder: &Path, id: u64) -> Result<File> {
    let file = OpenOptions::new()
        .create_new(true)
        .append(true)
        .open(path(folder, id))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_up_to_its_last_whole_line() {
        let record = Record::parse("START 5\nBEAT 7\nBEAT 9\nSTOPPING 10\nSTOP 11\nBEAT 1");
        let expected = Record {
            first: 5,
            last: 11,
            beats: 2,
            stopping: Some(10),
            broken: 0,
        };
        assert_eq!(record, expected);
        assert_eq!(Record::parse("what\nBEAT x\nNOISE 1\n").broken, 3);
        assert_eq!(Record::parse(""), Record::default());
    }
}
