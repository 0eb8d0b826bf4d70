//! What a director does by itself, periodically or when something changes. Every duty is idempotent.

pub(crate) mod announce;
pub(crate) mod join;
pub(crate) mod note_folded;
pub(crate) mod readings;
pub mod sources;
