//! The embedded ledger: a Raft library, its log on disk, its transport and membership.
//!
//! [`Embedded`] is a [`Ledger`](quorate_ledger::Ledger) that needs no other service: a quorum of
//! directors, each with its own folder on disk: one, three, five or seven voters, and learners. The
//! replicated state machine is only the next position, the last epoch and the entries, and the last snapshot that it was handed.
//!
//! ```text
//!  Ledger calls ──► Embedded ──► Raft library ──► log::LogStore ──► writer thread ──► segments, vote
//!                      │               └────────► machine::Machine ──► View (positions, hints)
//!                      ├── keeper task (snapshots, trimming) ──────────► snapshot file
//!                      ├── watcher task (should it lead, may it be elected, does the disk answer)
//!                      ├── orphaned task (elects at once when the process of the leader has ended)
//!                      └── peer::Client, peer::Server ◄── mutual TLS ──► other directors
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
mod link;
mod log;
mod machine;
mod members;
mod network;
mod options;
mod orphaned;
mod peer;
pub mod planted;
mod seed;
mod snapshot;
mod start;
mod stopped;
mod types;
mod watch;

#[cfg(test)]
mod tests;

pub use embedded::Embedded;
pub use error::{Failure, OpenError};
pub use identity::{Ids, ids};
pub use members::{ChangeError, MemberStatus};
pub use options::{Options, Start, Timing};
pub use peer::{DIRECTOR_DNS_NAME, PeerTls, Peers, director_uri};
pub use seed::{Beginning, found_with};
pub use stopped::Stopped;
