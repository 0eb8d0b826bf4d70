//! The warden: a tiny process beside the agent that starts, holds and kills the runs of one lease
//! class, and owns the kernel kill timer.

pub mod client;
pub mod protocol;
mod wire;

/// Name of the socket in a warden's folder.
pub const SOCKET: &str = "warden.sock";
/// Name of the file in a warden's folder that the agent writes so that its session can be closed
/// when no agent comes back.
pub const LAST_WILL: &str = "last-will.json";
/// Name of the file in a warden's folder with what it says to people.
pub const LOG: &str = "warden.log";
/// Containment that the kernel itself proves.
pub const KERNEL: &str = "kernel";
/// Containment by scanning the process table.
pub const SCAN: &str = "scan";
