//! The rules of leases stated a second time, small enough to be searched exhaustively.
//!
//! The core decides, the simulator tries what a seed draws, and this crate tries *everything*, at a
//! small size. It shares no code with the core, so that the two can disagree. [`lease`] has the rules
//! about sessions, leaders, rights and processes; [`patient`] those for leases that are so long that
//! leaders must tell each other who was silent. `docs/model.md` says what is modelled and what was found.

pub mod lease;
pub mod patient;
pub mod rules;
pub mod search;
pub mod times;
