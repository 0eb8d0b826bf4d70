//! The `quorate` program: everything a person types.
//!
//! This crate only wires: the deciding is in `quorate-core`, the directors' and agents' shells are in
//! their crates. **Invariant:** only [`output`] writes to standard output.

mod cli;
mod config;
mod daemon;
mod director;
mod failure;
mod files;
mod output;
mod papers;
mod quorum;
mod reference;
mod telemetry;
mod up;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    // A warden forks, so it must never have had a second thread: nothing else may come before.
    if args.nth(1).is_some_and(|word| word == "warden") {
        return cli::warden(args);
    }
    cli::run(std::env::args_os()).into()
}
