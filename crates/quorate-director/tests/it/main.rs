//! Tests of the director's shell with real files, sockets and processes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bad_input;
mod checkpoints;
mod desk;
mod example;
mod job_files;
mod life;
mod openapi;
mod operations;
mod sessions;
mod sources;
mod watching;
