//! The agent's shell and the warden that holds the runs.

pub mod warden;
