//! The director's decisions as a step machine.

pub mod call;
pub mod effect;
pub mod event;
