//! The warden: a tiny process beside the agent that starts, holds and kills the runs of one lease
//! class, and owns the kernel kill timer.

pub mod protocol;
