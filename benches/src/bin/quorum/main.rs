//! What three directors do together, with certificates and tokens as in production: how soon one leads after
//! another, what the renewals of many sessions cost, and claims per second (G4, G5, G7, G10).
//!
//! `cargo build --profile ci -p quorate && cargo run --profile ci -p quorate-benches --bin quorum`
//!
//! The directors are the shipped program, each a process of its own with its folder on the same disk and
//! its ports on loopback. Agents are connections of another process, which run nothing. All share the
//! machine.

#![expect(
    clippy::print_stdout,
    reason = "a measurement is read on standard output"
)]

mod claims;
mod failover;
mod load;
mod renewals;
mod times;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use quorate_benches::program::beside_us;
use quorate_benches::quorum::Quorum;
use tempfile::TempDir;

/// Three directors: failover, renewals, and claims.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure; everything when nothing is named.
    sections: Vec<Section>,
    /// How often the leader is killed, and how often it hands over.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Sessions that renew. A director takes 10,000 connections, of which other directors need some.
    #[arg(long, default_value_t = 9_500)]
    sessions: u64,
    /// How long the cost of renewals is measured, in seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Samples of each row of claims; the medians are shown.
    #[arg(long, default_value_t = 3)]
    samples: usize,
    /// Where the data goes: the disk that is measured.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The program, if not the one that was built beside this.
    #[arg(long)]
    program: Option<PathBuf>,
    /// What the process of the agents is: reads from this file whom it renews.
    #[arg(long, value_name = "FILE", hide = true)]
    load: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Claims that a majority has on disk, beside three servers of etcd.
    Claims,
    /// The leader is killed, and hands over: how soon the next write is accepted.
    Failover,
    /// Many sessions renew, at the leader, at the others, and while leaders change.
    Renewals,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(file) = &arguments.load {
        return load::run(file).await;
    }
    let program = match &arguments.program {
        Some(path) => std::path::absolute(path)?,
        None => beside_us()?,
    };
    let place = Place {
        program,
        dir: arguments.dir.unwrap_or_else(std::env::temp_dir),
    };
    let wanted = |section| arguments.sections.is_empty() || arguments.sections.contains(&section);
    for section in [Section::Failover, Section::Renewals, Section::Claims] {
        if !wanted(section) {
            continue;
        }
        println!("load average before: {}", load_average()?);
        match section {
            Section::Claims => claims::measure(&place, arguments.samples).await?,
            Section::Failover => failover::measure(&place, arguments.rounds).await?,
            Section::Renewals => {
                let time = Duration::from_secs(arguments.seconds);
                renewals::measure(&place, arguments.sessions, time).await?;
            }
        }
        println!("load average after: {}\n", load_average()?);
    }
    Ok(())
}

/// Where directors are founded.
#[derive(Debug)]
pub(crate) struct Place {
    program: PathBuf,
    dir: PathBuf,
}

impl Place {
    /// Founds three in a folder of their own, which goes when it is dropped: after them.
    pub(crate) async fn found(&self) -> anyhow::Result<(TempDir, Quorum)> {
        let folder = tempfile::tempdir_in(&self.dir).context("no folder for the data")?;
        let quorum = Quorum::found(&self.program, folder.path()).await?;
        Ok((folder, quorum))
    }
}

/// How much the machine had to do in the last minute, five, and fifteen, this measurement included.
fn load_average() -> anyhow::Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let three: Vec<&str> = text.split(' ').take(3).collect();
    Ok(three.join(" "))
}
