//! The director's shell: loop, sessions, duties and HTTP routes.

pub mod duties;
