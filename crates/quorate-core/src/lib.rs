//! The decisions of quorate, pure and simulated.
//!
//! Everything that decides is here: the fold over the ledger, who runs what, when a session has
//! expired, when an agent must stop, what follows an exit. Shells turn the network, the clock, the
//! disk and processes into events, and carry out the effects.
//!
//! **Invariant:** no IO, clock, thread, random number or hash map with random order.

pub mod access;
pub mod agent;
pub mod audit;
pub mod checkpoint;
pub mod cluster;
pub mod director;
pub mod format;
pub mod history;
pub mod ids;
pub mod lease;
pub mod placement;
pub mod planner;
pub mod planted;
pub mod record;
pub mod repeats;
pub mod spec;
pub mod supervision;
pub mod time;
