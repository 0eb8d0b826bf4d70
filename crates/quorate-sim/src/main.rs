//! `quorate-sim --seed N`, `--seeds A..B`: whole clusters on virtual time, and the one command that
//! replays what went wrong.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Parser;
use quorate_sim::{Outcome, Settings, run};

/// Simulates whole clusters with faults and judges what happened.
#[derive(Debug, Parser)]
#[command(name = "quorate-sim")]
struct Arguments {
    /// One seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Many seeds, written `0..1000`.
    #[arg(long)]
    seeds: Option<String>,
    /// Seconds of virtual time in which faults happen.
    #[arg(long, default_value_t = Settings::of(0).fault_seconds)]
    fault_seconds: u64,
    /// Writes everything that happens to standard output (one seed only).
    #[arg(long)]
    trace: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut out = std::io::stdout().lock();
    let seeds = match (&arguments.seed, &arguments.seeds) {
        (Some(seed), _) => *seed..seed + 1,
        (None, Some(range)) => {
            let (first, last) = range.split_once("..").context("write seeds as 0..1000")?;
            first.parse()?..last.parse()?
        }
        (None, None) => bail!("say which: --seed 7 or --seeds 0..1000"),
    };
    let (begin, mut failed, mut last) = (Instant::now(), 0, None);
    let count = seeds.end.saturating_sub(seeds.start);
    for seed in seeds {
        let outcome = run(Settings {
            seed,
            fault_seconds: arguments.fault_seconds,
            trace: arguments.trace && count == 1,
        });
        for line in &outcome.trace {
            writeln!(out, "{line}")?;
        }
        if let Some(violation) = &outcome.violation {
            failed += 1;
            writeln!(
                out,
                "seed {seed}: {} violated: {}",
                violation.promise, violation.seen
            )?;
            writeln!(
                out,
                "  replay: cargo run -p quorate-sim -- --seed {seed} --fault-seconds {}",
                arguments.fault_seconds
            )?;
        }
        last = Some(outcome);
    }
    let took = begin.elapsed();
    if let (1, Some(outcome)) = (count, &last) {
        describe(&mut out, outcome)?;
    }
    writeln!(
        out,
        "{count} seeds, {failed} failed, {:.1} s",
        took.as_secs_f64()
    )?;
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn describe(out: &mut impl std::io::Write, outcome: &Outcome) -> std::io::Result<()> {
    writeln!(
        out,
        "seed {}: {} happenings, {} entries, {} starts, {} faults, trace {:016x}",
        outcome.seed,
        outcome.happenings,
        outcome.entries,
        outcome.starts,
        outcome.faults,
        outcome.trace_hash
    )
}
