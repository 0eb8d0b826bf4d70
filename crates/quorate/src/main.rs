//! The `quorate` program: everything a person types.
//!
//! This crate only wires: the deciding is in `quorate-core`, the directors' and agents' shells are in
//! their crates. **Invariant:** only [`output`] writes to standard output.

mod cli;
mod failure;
mod files;
mod output;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(std::env::args_os()).into()
}
