//! The agent's shell and the warden that holds the runs.

// It panics when standard error cannot be written, which must end neither an agent nor a warden.
#![cfg_attr(not(test), deny(clippy::print_stderr))]

mod files_limit;
pub mod machine;
pub mod planted;
mod shell;
#[expect(unsafe_code, reason = "system calls that no safe library offers")]
pub mod sys;
pub mod warden;

pub use shell::{Allow, Config, LastWillError, RunError, Stops, is_running, last_will, run};
