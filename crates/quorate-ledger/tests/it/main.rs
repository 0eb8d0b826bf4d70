//! Tests of the ledgers of this crate.

mod faulty;
mod memory;
