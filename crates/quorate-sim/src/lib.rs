//! Whole clusters of the core's machines on virtual time.
//!
//! The very machines of production, [`Director`](quorate_core::director::Director) and
//! [`Agent`](quorate_core::agent::Agent), run over a model of the ledger, of the network, of wardens and
//! of processes. Everything else is drawn from one seed: delays, losses, repeats, crashes, freezes,
//! clock rates, what people ask for. So a seed replays exactly.
//!
//! A run has two phases. In the first, faults happen and the [`oracle`] watches every start and
//! every entry (safety). Then all faults stop, everybody is healthy, and everything that is to run must
//! run, evenly, and stay where it is (liveness).
//!
//! The oracle shares no code with the machines: it reads records and watches processes, it never asks a
//! machine what it believes.

pub mod bug;
mod calls;
pub mod clock;
mod directors;
mod disaster;
mod faults;
mod hooks;
mod hosts;
pub mod ledger;
mod liveness;
mod machines;
pub mod many;
mod operator;
pub mod oracle;
mod profile;
mod queue;
pub mod random;
pub mod settings;
pub mod shrink;
mod trip;
mod wardens;
mod words;
pub mod world;

pub use bug::Bug;
pub use settings::Settings;
pub use world::{Outcome, run};
