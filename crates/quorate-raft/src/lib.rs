//! The embedded ledger: a Raft library, its log on disk, its transport and membership.
//!
//! [`Embedded`] is a [`Ledger`](quorate_ledger::Ledger) that needs no other service: a quorum of
//! directors, each with its own folder on disk; here a quorum of one voter. The replicated state machine
//! is only the next position, the last epoch and the entries, and the last snapshot that it was handed.
//!
//! ```text
//!  Ledger calls ──► Embedded ──► Raft library ──► log::LogStore ──► writer thread ──► segments, vote
//!                      │               └────────► machine::Machine ──► View (positions, hints)
//!                      └── keeper task (snapshots, trimming) ──────────► snapshot file
//! ```
//!
//! This crate alone knows the Raft library: no type of it leaves, neither to callers nor to the disk. It
//! must never answer for an entry that is not on disk, and never repair damage by guessing.

mod disk;
mod embedded;
mod error;
mod files;
mod identity;
mod keeper;
mod log;
mod machine;
mod network;
mod snapshot;
mod types;
mod watch;

pub use embedded::{Embedded, Options};
pub use error::{Failure, OpenError};
