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

#[cfg(all(feature = "planted", not(debug_assertions)))]
compile_error!("planted bugs are for tests: nothing with them is built at release speed");

/// Variable that names the bug to plant: it reaches every process that a test starts.
#[cfg(feature = "planted")]
const VARIABLE: &str = "QUORATE_PLANTED";

/// Whether a bug is planted in this process.
#[cfg(feature = "planted")]
pub(crate) fn has(bug: Planted) -> bool {
    std::env::var_os(VARIABLE).is_some_and(|named| named == bug.name())
}

/// Whether a bug is planted in this process: never.
#[cfg(not(feature = "planted"))]
pub(crate) const fn has(_: Planted) -> bool {
    false
}
