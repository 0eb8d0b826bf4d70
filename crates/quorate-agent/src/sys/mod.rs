//! System calls that no safe library offers. The only unsafe code of the project.
//!
//! Must decide nothing: each function is one call, or the steps of a child before it executes a program.

mod discipline;
mod fork;
mod launch;
mod signals;
mod socket;
mod stdout;
mod timer;
mod user;
mod watch;

pub use discipline::{Discipline, discipline};
pub(crate) use fork::{
    Isolation, SingleThreaded, exit_now, forget_heap, keep_only, signal_everyone, signal_process,
};
pub(crate) use launch::{Failure, Launch, Launched, Step, launch};
pub(crate) use signals::{block_signals, take_signals};
pub(crate) use socket::{peer_uid, standard_output, standard_streams};
pub use stdout::stdout_was_closed;
pub(crate) use timer::{Alarm, KillTimer, boot_nanos};
pub(crate) use user::{User, find_user};
pub use watch::watch;
