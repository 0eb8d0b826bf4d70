//! The director's decisions as a step machine.

pub mod call;
