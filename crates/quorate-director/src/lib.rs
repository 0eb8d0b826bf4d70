//! The director's shell: the loop around the machine of `quorate-core`, sessions, HTTP, history, duties.
//!
//! ```text
//!  HTTP ──► routes ──message──► engine (owns the state) ──► ledger
//!                    ◄─answer──        └──► history ──► event streams
//! ```
//!
//! **Invariant:** nothing but the loop in `engine` holds or changes the state of the cluster.
//! **Invariant:** whoever is asked who he is gets nothing that the table in `access::needs` does not give.
//! **Invariant:** nothing listens beyond loopback without TLS and authentication.

pub mod access;
pub mod backup;
mod clock;
mod config;
pub mod descriptors;
pub mod duties;
mod engine;
pub mod folded;
mod history;
mod http;
mod identity;
pub mod planted;
pub mod quorum;
mod routes;
mod run;
mod tally;
mod views;

pub use access::write_bootstrap_token;
pub use config::{Config, FenceHook, Limits, RunError, Store};
pub use duties::join::Joining;
pub use http::PeerIdentity;
pub use run::{Bound, bind, run};
