//! Tests of the director's shell with real files, sockets and processes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod bad_bodies;
mod bad_http;
mod bad_http2;
mod bad_input;
mod changes;
mod checkpoints;
mod conditions;
mod connections;
mod desk;
mod eras;
mod example;
mod fencing;
mod job_files;
mod life;
mod openapi;
mod operations;
mod relay;
mod repeats;
mod secured;
mod sessions;
mod sources;
mod tls;
mod watching;
mod wire;
