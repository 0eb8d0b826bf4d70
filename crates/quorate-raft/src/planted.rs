//! Bugs that can be planted in what a director has on its disk, to show that the tests find them
//! (docs/proof.md).
//!
//! Without the feature `planted`, which no manifest may turn on, [`has`] is a constant `false`: nothing of
//! them is in a production build.

quorate_core::planted_bugs! {
    /// Records are acknowledged before they are synced (R15).
    AckBeforeSync = "ack-before-sync",
    /// A vote is acknowledged before it is synced (R15).
    UnsyncedVote = "unsynced-vote",
    /// The names of small files are not made durable before they count (R15).
    UnsyncedNames = "unsynced-names",
    /// Records are acknowledged without a mark that says so, so damage to them is taken for a torn write.
    UnmarkedAck = "unmarked-ack",
    /// After an error the log is written on, though nobody knows what it holds (R15).
    WriteAfterError = "write-after-error",
    /// What a killed process left unsynced counts as soon as it can be read.
    UnsyncedRestart = "unsynced-restart",
    /// A second process is let into the folder of a director.
    UnlockedDirector = "unlocked-director",
}

quorate_core::planted_by_name!();
