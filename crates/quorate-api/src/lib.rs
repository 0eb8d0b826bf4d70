//! The wire contract of quorate: what goes over HTTP, for programs in any language, and a client.
//!
//! **Boundary:** these types are public and change only by addition. They know nothing of
//! `quorate-core`; the shells translate.

pub mod access;
pub mod checkpoint;
pub mod client;
pub mod logs;
pub mod problem;
pub mod resources;
pub mod routes;
pub mod session;
