//! The real program as a person meets it: what it prints, where, and how it ends.
#![expect(
    clippy::expect_used,
    reason = "a test that cannot be set up has failed"
)]

mod files;
mod support;
mod terminal;
