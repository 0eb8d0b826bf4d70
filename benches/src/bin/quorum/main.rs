//! What three directors do together, with certificates and tokens as in production: how soon one leads after
//! another (G10), what the renewals of many sessions cost (G7), claims per second (G4, G5), and a million
//! partitions (G5, G14).
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

mod agents;
mod claims;
mod failover;
mod load;
mod ready;
mod renewals;
mod takeover;

mod workers;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use quorate_benches::program::beside_us;
use quorate_benches::quorum::Quorum;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// Three directors: failover, renewals, claims, and very many partitions.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure; everything when nothing is named.
    sections: Vec<Section>,
    /// How often the leader is killed.
    #[arg(long, default_value_t = 30)]
    kills: usize,
    /// How often the leader stands still.
    #[arg(long, default_value_t = 10)]
    stops: usize,
    /// How often the leader hands over.
    #[arg(long, default_value_t = 30)]
    hand_overs: usize,
    /// Sessions that renew.
    #[arg(long, default_value_t = 10_000)]
    sessions: u64,
    /// How long the cost of renewals is measured, in seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Samples of each row of claims; the medians are shown.
    #[arg(long, default_value_t = 3)]
    samples: usize,
    /// Partitions that are assumed over three directors.
    #[arg(long, default_value_t = 1_000_000)]
    partitions: usize,
    /// Services that they are of, applied one after the other.
    #[arg(long, default_value = "1")]
    services: std::num::NonZeroUsize,
    /// Agents that assume them.
    #[arg(long, default_value_t = 1_000)]
    agents: usize,
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
    /// The leader is killed, stands still, and hands over: how soon the next claim is committed.
    Failover,
    /// Many sessions renew, at the leader, at the others, and while leaders change.
    Renewals,
    /// Claims that a majority has on disk, beside three servers of etcd.
    Claims,
    /// Very many partitions are assumed, and a new leader serves with them.
    Ready,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(file) = &arguments.load {
        return load::run(file).await;
    }
    // What was started ends with what is dropped here, so being told to end must come this way, too.
    let mut ended = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    tokio::select! {
        done = measure(arguments) => done,
        _ = ended.0.recv() => anyhow::bail!("interrupted"),
        _ = ended.1.recv() => anyhow::bail!("told to end"),
    }
}

async fn measure(arguments: Arguments) -> anyhow::Result<()> {
    let program = match &arguments.program {
        Some(path) => std::path::absolute(path)?,
        None => beside_us()?,
    };
    let place = Place {
        program,
        dir: arguments.dir.unwrap_or_else(std::env::temp_dir),
    };
    let chosen = &arguments.sections;
    for section in Section::value_variants() {
        if !chosen.is_empty() && !chosen.contains(section) {
            continue;
        }
        println!("load average before: {}", load_average()?);
        match section {
            Section::Failover => {
                let rounds = failover::Rounds {
                    kills: arguments.kills,
                    stops: arguments.stops,
                    hand_overs: arguments.hand_overs,
                };
                failover::measure(&place, rounds).await?;
            }
            Section::Renewals => {
                let time = Duration::from_secs(arguments.seconds);
                renewals::measure(&place, arguments.sessions, time).await?;
            }
            Section::Claims => claims::measure(&place, arguments.samples).await?,
            Section::Ready => {
                let size = ready::Size {
                    partitions: arguments.partitions,
                    services: arguments.services.get(),
                    agents: arguments.agents,
                };
                ready::measure(&place, size).await?;
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
