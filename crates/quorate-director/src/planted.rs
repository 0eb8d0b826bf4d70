//! Bugs that can be planted in the director's shell, to show that the tests find them (docs/proof.md).
//!
//! Without the feature `planted`, which no manifest may turn on, [`has`] is a constant `false`: nothing of
//! them is in a production build.

quorate_core::planted_bugs! {
    /// A client that is slower than the events goes on after a gap as if nothing had been there.
    SilentGap = "silent-gap",
    /// A change does not carry the idempotency key of its request into the ledger (S4).
    LostKeys = "lost-keys",
}

quorate_core::planted_by_name!();
