//! Bugs that can be planted in the director's shell, to show that the tests find them (docs/proof.md).
//!
//! Without the feature `planted`, which no manifest may turn on, [`has`] is a constant `false`: nothing of
//! them is in a production build.

quorate_core::planted_bugs! {
    /// A client that is slower than the events goes on after a gap as if nothing had been there.
    SilentGap = "silent-gap",
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
