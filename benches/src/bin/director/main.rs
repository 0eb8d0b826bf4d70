//! What a whole director does over HTTP, beside etcd: from `apply` until every agent has heard of its
//! partitions, and claims per second (G4 and G5).
//!
//! `cargo build --profile ci -p quorate && cargo run --profile ci -p quorate-benches --bin director`
//!
//! The director is the shipped program in a process of its own, leading alone, with its log on disk. The
//! agents are in this process and run nothing. A claim is an agent's acknowledgement of one partition
//! that it was given, which is answered when it is on disk; a batch is a report with 128 of them. etcd's
//! claim is a transaction through its JSON gateway that puts a key if it does not exist. All processes
//! share the machine, so the ratio is what counts.

#![expect(
    clippy::print_stdout,
    reason = "a measurement is read on standard output"
)]

mod claims;
mod rollout;

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;

/// A director over HTTP: roll-out of many partitions, and claims per second.
#[derive(Debug, Parser)]
struct Arguments {
    /// Partitions of the roll-out.
    #[arg(long, default_value_t = 1_000_000)]
    partitions: usize,
    /// Agents of the roll-out.
    #[arg(long, default_value_t = 1_000)]
    agents: usize,
    /// Seconds of each sample of claims.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Samples of each row of claims; the medians are shown. 0 leaves them out.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where the data goes: the disk that is measured.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The program, if not the one that was built beside this.
    #[arg(long)]
    program: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let program = match arguments.program {
        Some(path) => path,
        None => quorate_benches::program::beside_us()?,
    };
    let folder = match &arguments.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    }
    .context("no folder for the data")?;
    if arguments.partitions > 0 {
        let size = (arguments.partitions, arguments.agents);
        rollout::measure(&program, folder.path(), size).await?;
    }
    if arguments.rounds > 0 {
        let time = std::time::Duration::from_secs_f64(arguments.seconds);
        claims::measure(&program, folder.path(), arguments.rounds, time).await?;
    }
    Ok(())
}
