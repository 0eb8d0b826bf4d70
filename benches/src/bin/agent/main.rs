//! What a whole agent with 1,000 runs costs, logs captured (G12, G13): from `apply` until all of them
//! execute, beside a bare spawn loop of the same processes; memory and processor of the agent and its
//! warden; and how soon a killed run executes again.
//!
//! `cargo build --profile ci -p quorate && cargo run --profile ci -p quorate-benches --bin agent`
//!
//! A run is this program, which says by itself that it executes: it connects to a socket, sends its key and
//! the clock, and stays. All processes share the machine, so ratios are what counts. Wait five minutes before you
//! run it again: ext4 without a journal is slow to make files where many were removed within minutes, and an
//! agent makes two for each run.

#![expect(
    clippy::print_stdout,
    reason = "a measurement is read on standard output"
)]

mod cost;
mod runs;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use quorate_api::resources::ApplyRequest;
use quorate_benches::program::{Director, beside_us};
use serde_json::json;

use crate::cost::Cost;
use crate::runs::Runs;

/// A whole agent: starts, memory, idle processor, restarts.
#[derive(Debug, Parser)]
struct Arguments {
    /// Runs of the agent.
    #[arg(long, default_value_t = 1000)]
    runs: usize,
    /// Runs that are killed, one after the other.
    #[arg(long, default_value_t = 300)]
    restarts: usize,
    /// Seconds that the idle agent is watched.
    #[arg(long, default_value_t = 20)]
    idle: u64,
    /// The program, if not the one that was built beside this.
    #[arg(long)]
    program: Option<PathBuf>,
    /// What a run is: tells this socket that it executes, and stays.
    #[arg(long, num_args = 2, value_names = ["SOCKET", "KEY"], hide = true)]
    run: Option<Vec<String>>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some([socket, key]) = arguments.run.as_deref() {
        return runs::execute(Path::new(socket), key);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(&arguments))
}

async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let count = arguments.runs;
    let program = match &arguments.program {
        Some(path) => path.clone(),
        None => beside_us()?,
    };
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("runs.sock");
    let mut runs = Runs::listen(&socket)?;

    let before = floor(&mut runs, &socket, count).await?;
    let director = Director::start(&program, &folder.path().join("director")).await?;
    let agent = Agent::start(&program, folder.path(), &director)?;
    agent.joined(&director).await?;
    let began = Instant::now();
    apply(&director, &socket, 1).await?;
    runs.expect(1).await?;
    println!("first run after {:.0} ms", milliseconds(began.elapsed()));
    let one = Cost::of(agent.child.id())?;

    let began = Instant::now();
    apply(&director, &socket, count).await?;
    runs.expect(count - 1).await?;
    let ours = began.elapsed();
    let all = Cost::of(agent.child.id())?;
    all.print(&one, count);
    all.print_idle(Duration::from_secs(arguments.idle)).await?;
    restarts(&mut runs, arguments.restarts, count).await?;

    drop(agent);
    drop(director);
    let after = floor(&mut runs, &socket, count).await?;
    let bare = (before + after) / 2;
    println!(
        "apply to {count} running: {:.0} ms; spawn loop of the same {:.0} and {:.0} ms: {:.0} % of its rate",
        milliseconds(ours),
        milliseconds(before),
        milliseconds(after),
        100.0 * bare.as_secs_f64() / ours.as_secs_f64()
    );
    Ok(())
}

/// The same processes, started by nothing but a loop with `posix_spawn`.
async fn floor(runs: &mut Runs, socket: &Path, count: usize) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut children = Vec::new();
    for key in 0..count {
        let child = Command::new(std::env::current_exe()?)
            .arg("--run")
            .arg(socket)
            .arg(key.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        children.push(child);
    }
    let executing = runs.expect(count).await;
    let took = began.elapsed();
    for child in &mut children {
        child.kill()?;
        child.wait()?;
    }
    executing?;
    runs.forget();
    Ok(took)
}

/// Asks for so many partitions; says when that was answered.
async fn apply(director: &Director, socket: &Path, count: usize) -> anyhow::Result<()> {
    let spec = json!({ "service": { "runs": {
        "command": [std::env::current_exe()?, "--run", socket, "{{key}}"],
        "partitions": { "range": format!("0..{count}") },
        "restart": { "backoff": "1ms..1s" },
        "ramp": { "settle": "0s" },
    }}});
    let request = ApplyRequest { spec, base: None };
    director.client.apply(&request).await?;
    Ok(())
}

/// Kills runs one after the other, and prints how soon each executes again.
async fn restarts(runs: &mut Runs, restarts: usize, count: usize) -> anyhow::Result<()> {
    let mut times = Vec::new();
    for n in 0..restarts {
        times.push(runs.kill(n % count).await?);
    }
    times.sort_unstable();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len() - 1));
    if let (Some(&median), Some(&most)) = (at(50), at(99)) {
        println!(
            "executes again after SIGKILL, {restarts} times, a back-off of 1 ms in it: p50 {:.1} ms, p99 {:.1} ms",
            milliseconds(median),
            milliseconds(most)
        );
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// An agent process. Its warden ends with it.
#[derive(Debug)]
struct Agent {
    child: Child,
}

impl Agent {
    fn start(program: &Path, folder: &Path, director: &Director) -> anyhow::Result<Self> {
        let child = Command::new(program)
            .args(["agent", "--name", "a1", "--log-level", "error"])
            .args(["--adopt-within", "0s", "--join"])
            .arg(director.address.to_string())
            .arg("--data-dir")
            .arg(folder.join("agent"))
            .stdin(Stdio::null())
            .spawn()
            .context("the agent does not start")?;
        Ok(Self { child })
    }

    /// Waits until the director knows it.
    async fn joined(&self, director: &Director) -> anyhow::Result<()> {
        let began = Instant::now();
        while director.client.agents(None).await?.value.is_empty() {
            anyhow::ensure!(began.elapsed() < runs::LIMIT, "the agent does not join");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself. Nothing is to adopt its warden, which ends the runs at once.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
