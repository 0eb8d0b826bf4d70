//! Formats of the ledger: which kinds and meanings of records it may hold, and who reads them (ADR 19).
//!
//! | format | what entries may hold since then |
//! |---|---|
//! | 1 | every kind of record but those below |
//! | 2 | [`Record::Format`], by which the ledger itself says which one it has |
//!
//! Every cluster begins with the first. A format is written only once every director has announced that it
//! reads it, and from then on for ever. Whoever meets one that he does not read stops: nobody guesses what a
//! record may mean. What is only shown to people may come without a new format: who does not know it passes it
//! over, and it is no part of the state hash.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::record::Record;

/// One format of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Format(pub u16);

impl Format {
    /// With which every cluster begins.
    pub const FIRST: Self = Self(1);

    /// Whether it is the one with which every cluster begins: it is not written where it can be left out.
    #[must_use]
    pub fn is_first(&self) -> bool {
        *self == Self::FIRST
    }
}

impl Default for Format {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The formats that a director reads, and can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats {
    /// The lowest.
    pub oldest: Format,
    /// The highest.
    pub newest: Format,
}

/// Those of this build.
pub const FORMATS: Formats = Formats {
    oldest: Format::FIRST,
    newest: Format(2),
};

impl Formats {
    /// The same up to a format that the ledger is to be held at.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn held_at(self, format: Format) -> Result<Self, Unread> {
        self.check(format)?;
        Ok(Self {
            newest: format,
            ..self
        })
    }

    /// Whether this format is read.
    ///
    /// # Errors
    /// When it is not: whoever goes on would have to guess.
    pub fn check(self, found: Format) -> Result<(), Unread> {
        if (self.oldest..=self.newest).contains(&found) {
            Ok(())
        } else {
            Err(Unread { found, read: self })
        }
    }
}

impl fmt::Display for Formats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { oldest, newest } = self;
        if oldest == newest {
            write!(f, "{newest}")
        } else {
            write!(f, "{oldest} to {newest}")
        }
    }
}

/// Something is of a format that is not read: stop and say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger has format {found} there, and this director reads {read}")]
pub struct Unread {
    /// What it is of.
    pub found: Format,
    /// What is read.
    pub read: Formats,
}

impl Record {
    /// The lowest format of an entry that may hold it.
    #[must_use]
    pub fn since(&self) -> Format {
        match self {
            Self::Elected { .. }
            | Self::Beat
            | Self::DirectorKnown { .. }
            | Self::DirectorForgotten { .. }
            | Self::ServicePut { .. }
            | Self::ServiceRemoved { .. }
            | Self::PartitionsPut { .. }
            | Self::PartitionsRemoved { .. }
            | Self::SourceStatus { .. }
            | Self::DesiredSet { .. }
            | Self::RestartAsked { .. }
            | Self::AgentSet { .. }
            | Self::AgentForgotten { .. }
            | Self::SessionOpened { .. }
            | Self::SessionResumed { .. }
            | Self::SessionClosed { .. }
            | Self::Evicted { .. }
            | Self::Silent { .. }
            | Self::Heard { .. }
            | Self::Fenced { .. }
            | Self::Drifts { .. }
            | Self::SessionExpired { .. }
            | Self::Assigned { .. }
            | Self::Withdrawn { .. }
            | Self::Assumed { .. }
            | Self::Revoked { .. }
            | Self::Released { .. }
            | Self::Observed { .. }
            | Self::CheckpointPut { .. }
            | Self::Access(_)
            | Self::Audited(_)
            | Self::Answered(_) => Format::FIRST,
            Self::Staged { records, .. } => {
                let parts = records.iter().map(Self::since);
                parts.max().unwrap_or_default()
            }
            // An entry that says which one the ledger has from there on is of that one itself: who does not
            // read it stops before it, and not somewhere behind.
            Self::Format { format } => *format.max(&Format(2)),
        }
    }
}

/// The format of an entry with these records, in a ledger that has this one.
#[must_use]
pub fn of_entry(ledger: Format, records: &[Record]) -> Format {
    let raised = records.iter();
    let raised = raised.filter(|record| matches!(record, Record::Format { .. }));
    raised.map(Record::since).fold(ledger, Format::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_read_within_the_range_and_refused_outside_of_it() {
        let formats = Formats {
            oldest: Format(2),
            newest: Format(4),
        };
        for (found, read) in [(1, false), (2, true), (3, true), (4, true), (5, false)] {
            assert_eq!(formats.check(Format(found)).is_ok(), read, "{found}");
        }
        let unread = formats.check(Format(5)).unwrap_err();
        assert_eq!(
            unread.to_string(),
            "the ledger has format 5 there, and this director reads 2 to 4"
        );
    }

    #[test]
    fn a_director_is_held_only_at_a_format_that_it_reads() {
        let held = FORMATS.held_at(Format::FIRST).unwrap();
        assert_eq!(held.to_string(), "1");
        assert!(held.check(Format(2)).is_err());
        assert!(FORMATS.held_at(Format(FORMATS.newest.0 + 1)).is_err());
        assert!(FORMATS.held_at(Format(0)).is_err());
    }

    #[test]
    fn an_entry_is_of_the_format_of_its_ledger_or_of_the_one_that_it_begins() {
        let begins = Record::Format { format: Format(3) };
        assert_eq!(of_entry(Format(1), &[Record::Beat]), Format(1));
        assert_eq!(of_entry(Format(2), &[Record::Beat]), Format(2));
        assert_eq!(of_entry(Format(1), &[Record::Beat, begins]), Format(3));
    }
}
