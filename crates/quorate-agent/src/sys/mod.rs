//! System calls that no safe library offers. The only unsafe code of the project.
//!
//! Must decide nothing: each function is one call or one step of a child before it executes a program.

mod watch;

pub use watch::watch;
