//! The real program as a person meets it: what it prints, where, and how it ends; then whole clusters
//! of real processes, judged by a referee that shares no code with it.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot be set up has failed"
)]

mod access;
mod changes;
mod checkpoints;
mod clocks;
mod cluster;
mod cluster_demonstration;
mod cluster_faults;
mod cluster_operate;
mod docs;
mod docs_cluster;
mod fencing;
mod files;
mod joining;
mod kill_path;
mod lists;
mod one;
mod quorum;
mod recorder;
mod recovery;
mod referee;
mod repeats;
mod slips;
mod stores;
mod support;
mod terminal;
mod up;
mod upgrade;
mod watching;
