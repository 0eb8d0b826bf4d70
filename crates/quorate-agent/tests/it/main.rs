//! The shell of the agent against real processes.

mod agent;
mod director;
mod local;
mod support;
mod warden_clock;
mod warden_faults;
mod warden_grades;
mod warden_groups;
mod warden_runs;
