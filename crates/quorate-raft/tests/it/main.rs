//! Tests of the embedded ledger on a real disk.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in a test a panic is the report"
)]

mod conformance;
mod damage;
mod killed;
mod opening;
mod seed;
mod support;
