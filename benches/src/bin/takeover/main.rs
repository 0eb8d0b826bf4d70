//! How soon work is taken over, each kind of loss by itself on a machine with nothing else to do (G8, G9, G16):
//! an agent's machine that stands still, an agent that dies, and a planned hand-over.
//!
//! `cargo build --profile ci -p quorate && cargo run --profile ci -p quorate-benches --bin takeover`
//!
//! The shipped director and three agents. A run is this program, which writes down on the clock of the machine
//! when it starts and when it stops.

#![expect(
    clippy::print_stdout,
    reason = "a measurement is read on standard output"
)]

mod cluster;
mod record;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use quorate_core::lease::LeaseTimes;

use crate::cluster::Cluster;
use crate::record::{boot_nanos, execute};

/// Agents.
const AGENTS: usize = 3;
/// The shortest lease that people use: what stands still is taken over soonest.
const LEASE: Duration = Duration::from_secs(3);

/// Takeover after silence and after a death, and planned hand-over.
#[derive(Debug, Parser)]
struct Arguments {
    /// Partitions of all agents together.
    #[arg(long, default_value_t = 30)]
    partitions: usize,
    /// How often each kind of loss happens.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// The program, if not the one that was built beside this.
    #[arg(long)]
    program: Option<PathBuf>,
    /// What a run is: writes down in this file that it executes.
    #[arg(long, value_name = "FILE", hide = true)]
    run: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let threads = if arguments.run.is_some() { 1 } else { 2 };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?;
    match &arguments.run {
        Some(file) => runtime.block_on(execute(file)),
        None => runtime.block_on(measure(&arguments)),
    }
}

async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let program = match &arguments.program {
        Some(path) => path.clone(),
        None => quorate_benches::program::beside_us()?,
    };
    let mut cluster = Cluster::start(&program, AGENTS, arguments.partitions, LEASE).await?;
    let mut died = Times::default();
    let mut first = Times::default();
    let mut stood = Times::default();
    let mut gaps = Times::default();
    let x = LeaseTimes::of(LEASE).expiry();
    for round in 0..arguments.rounds {
        let agent = round % AGENTS;

        let held = cluster.held_by(agent).await?;
        let since = boot_nanos();
        cluster.kill(agent)?;
        let starts = cluster.starts_elsewhere(&held, since).await?;
        first.add(starts.iter().min().map(|at| at.saturating_sub(since)));
        starts.iter().for_each(|at| died.add(at.checked_sub(since)));
        cluster.revive(agent)?;
        cluster.settled().await?;

        let held = cluster.held_by(agent).await?;
        let stopped = cluster.stand_still(agent)?;
        let since = boot_nanos();
        let starts = cluster.starts_elsewhere(&held, since).await?;
        stopped.go_on();
        for at in starts {
            stood.add_signed(i128::from(at) - i128::from(since), x);
        }
        cluster.settled().await?;

        let held = cluster.held_by(agent).await?;
        let since = boot_nanos();
        cluster.drain(agent).await?;
        cluster.starts_elsewhere(&held, since).await?;
        for gap in cluster.gaps(&held, since)? {
            gaps.add(Some(gap));
        }
        cluster.uncordon(agent).await?;
        cluster.settled().await?;
    }
    println!(
        "{} partitions on {AGENTS} agents, lease {LEASE:?}, X {x:?}, {} rounds\n",
        arguments.partitions, arguments.rounds
    );
    first.print("agent killed: until the first start elsewhere");
    died.print("agent killed: until each start elsewhere");
    stood.print("everything of an agent stands still: start elsewhere, beyond X");
    gaps.print("drain: from the end of a run to its next start");
    Ok(())
}

/// Times in milliseconds.
#[derive(Debug, Default)]
struct Times(Vec<f64>);

impl Times {
    fn add(&mut self, nanos: Option<u64>) {
        if let Some(nanos) = nanos {
            self.0.push(Duration::from_nanos(nanos).as_secs_f64() * 1e3);
        }
    }

    /// How much later than a span; less than nothing when it was sooner.
    fn add_signed(&mut self, nanos: i128, beyond: Duration) {
        let beyond = i128::try_from(beyond.as_nanos()).unwrap_or(i128::MAX);
        let late = nanos - beyond;
        let size = Duration::from_nanos(u64::try_from(late.unsigned_abs()).unwrap_or(u64::MAX));
        self.0
            .push(size.as_secs_f64() * 1e3 * if late < 0 { -1.0 } else { 1.0 });
    }

    fn print(&mut self, what: &str) {
        self.0.sort_by(f64::total_cmp);
        let at = |share: usize| {
            let last = self.0.len().saturating_sub(1);
            let value = self.0.get((self.0.len() * share / 100).min(last));
            value.copied().unwrap_or(f64::NAN)
        };
        println!(
            "{what:<64} {:>5} times  p50 {:>8.1}  p99 {:>8.1}  worst {:>8.1} ms",
            self.0.len(),
            at(50),
            at(99),
            at(100)
        );
    }
}
