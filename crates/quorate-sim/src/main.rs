//! `quorate-sim --seed 7`, `--seeds 0..2000`, `--minutes 10`: whole clusters on virtual time, and the one
//! command that replays what went wrong. `quorate-sim --teeth`: how fast planted bugs are found.

mod teeth;

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use mimalloc::MiMalloc;
use quorate_sim::many::{Many, Sum, run_many, run_safely};
use quorate_sim::settings::{Numbers, Schedule, Size};
use quorate_sim::shrink::shrink;
use quorate_sim::{Bug, Outcome, Settings};

/// Messages, records and maps come and go all the time: a tenth of what a run costs is to allocate them.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Simulates whole clusters with faults and judges what happened.
#[derive(Debug, Parser)]
#[command(name = "quorate-sim")]
struct Arguments {
    /// One seed.
    #[arg(long, conflicts_with_all = ["seeds", "minutes", "fresh"])]
    seed: Option<u64>,
    /// Seeds, written `0..1000`.
    #[arg(long)]
    seeds: Option<String>,
    /// So many seeds that nobody has run before, after those of `--seeds`.
    #[arg(long)]
    fresh: Option<u64>,
    /// Fresh seeds until so many minutes are over, after those of `--seeds`.
    #[arg(long, conflicts_with = "fresh")]
    minutes: Option<f64>,
    /// Threads; as many as there are processors when not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Directors, 1 to 7; drawn when no size is given.
    #[arg(long)]
    directors: Option<u64>,
    /// Agents in the beginning.
    #[arg(long)]
    agents: Option<u64>,
    /// Most partitions of one service.
    #[arg(long)]
    partitions: Option<u64>,
    /// Seconds of virtual time in which faults happen.
    #[arg(long, default_value_t = Settings::FAULT_SECONDS)]
    fault_seconds: u64,
    /// Leaves these faults and operations out, written `3,9,17-20`.
    #[arg(long, conflicts_with = "only")]
    without: Option<Numbers>,
    /// Leaves all faults and operations out but these.
    #[arg(long)]
    only: Option<Numbers>,
    /// Plants a bug.
    #[arg(long, value_parser = bug)]
    bug: Option<Bug>,
    /// Writes everything that happens to standard output (one seed only).
    #[arg(long)]
    trace: bool,
    /// Does not make failures smaller.
    #[arg(long)]
    no_shrink: bool,
    /// Measures how fast each planted bug is found, with so many tries for each.
    #[arg(long, value_name = "TRIES")]
    teeth: Option<u64>,
}

fn bug(name: &str) -> Result<Bug, String> {
    let known = || Bug::all().map(Bug::name).collect::<Vec<_>>().join(", ");
    let bug = Bug::named(name).ok_or_else(|| format!("no such bug; there are {}", known()))?;
    if bug.is_possible() {
        Ok(bug)
    } else {
        Err("this build has no bugs to plant; build it with --features planted".to_owned())
    }
}

impl Arguments {
    fn settings(&self) -> anyhow::Result<Settings> {
        let size = match (self.directors, self.agents, self.partitions) {
            (None, None, None) => None,
            (directors, agents, partitions) => Some(Size {
                directors: directors.unwrap_or(Size::BIG.directors),
                agents: agents.unwrap_or(Size::BIG.agents),
                partitions: partitions.unwrap_or(Size::BIG.partitions),
            }),
        };
        if let Some(size) = size {
            let fits = (1..=7).contains(&size.directors) && size.agents > 0 && size.partitions > 0;
            ensure!(
                fits,
                "1 to 7 directors, at least one agent and one partition"
            );
        }
        let schedule = match (&self.without, &self.only) {
            (Some(numbers), _) => Schedule::Without(numbers.clone()),
            (None, Some(numbers)) => Schedule::Only(numbers.clone()),
            (None, None) => Schedule::All,
        };
        Ok(Settings {
            seed: self.seed.unwrap_or(0),
            size,
            fault_seconds: self.fault_seconds,
            schedule,
            bug: self.bug,
            trace: self.trace,
        })
    }

    fn jobs(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        self.jobs.unwrap_or_else(processors)
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let settings = arguments.settings()?;
    let mut out = std::io::stdout().lock();
    if let Some(tries) = arguments.teeth {
        return teeth::measure(&mut out, &settings, tries, arguments.jobs());
    }
    if arguments.seed.is_some() {
        return one(&mut out, &arguments, &settings);
    }
    let mut ranges: Vec<(Settings, u64, Option<Duration>)> = Vec::new();
    if let Some(range) = &arguments.seeds {
        let (first, last) = range.split_once("..").context("write seeds as 0..1000")?;
        let (first, last): (u64, u64) = (first.parse()?, last.parse()?);
        let seed = Settings {
            seed: first,
            ..settings.clone()
        };
        ranges.push((seed, last.saturating_sub(first), None));
    }
    let fresh = Settings {
        seed: fresh_seed(),
        ..settings.clone()
    };
    if let Some(count) = arguments.fresh {
        ranges.push((fresh.clone(), count, None));
    }
    if let Some(minutes) = arguments.minutes {
        let within = Duration::try_from_secs_f64(minutes * 60.0).context("so many minutes")?;
        ranges.push((fresh, u64::MAX, Some(within)));
    }
    if ranges.is_empty() {
        bail!("say which: --seed 7, --seeds 0..1000, --fresh 1000 or --minutes 10");
    }
    let mut failed = false;
    for (settings, count, within) in ranges {
        let many = Many {
            settings,
            count,
            within,
            jobs: arguments.jobs(),
            failures_max: 5,
        };
        failed |= some(&mut out, &arguments, &many)?;
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// A seed that nobody has run before.
fn fresh_seed() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs()) * 1_000_000
}

fn one(
    out: &mut impl Write,
    arguments: &Arguments,
    settings: &Settings,
) -> anyhow::Result<ExitCode> {
    let outcome = run_safely(settings);
    for line in &outcome.trace {
        writeln!(out, "{line}")?;
    }
    writeln!(
        out,
        "seed {}: {:.0} s, {} happenings, {} entries, {} starts, {} faults, trace {:016x}",
        outcome.seed,
        Duration::from_nanos(outcome.nanos).as_secs_f64(),
        outcome.happenings,
        outcome.entries,
        outcome.starts,
        outcome.faults,
        outcome.trace_hash
    )?;
    if outcome.violation.is_none() {
        return Ok(ExitCode::SUCCESS);
    }
    tell(out, arguments, settings, &outcome)?;
    Ok(ExitCode::FAILURE)
}

fn some(out: &mut impl Write, arguments: &Arguments, many: &Many) -> anyhow::Result<bool> {
    writeln!(
        out,
        "seeds from {}{} on {} threads",
        many.settings.seed,
        many.within.map_or(
            format!(" to {}", many.settings.seed.saturating_add(many.count)),
            |within| { format!(" for {:.0} s", within.as_secs_f64()) }
        ),
        many.jobs
    )?;
    let Sum {
        runs,
        faults,
        simulated,
        spent,
        failures,
    } = run_many(many);
    for outcome in &failures {
        let settings = Settings {
            seed: outcome.seed,
            ..many.settings.clone()
        };
        tell(out, arguments, &settings, outcome)?;
    }
    writeln!(
        out,
        "{runs} seeds, {faults} faults, {:.0} s simulated at {:.0} times real time per processor, {} failed",
        simulated.as_secs_f64(),
        simulated.as_secs_f64() / spent.as_secs_f64().max(1e-9),
        failures.len()
    )?;
    Ok(!failures.is_empty())
}

/// A failure, how to replay it, and the smallest form of it.
fn tell(
    out: &mut impl Write,
    arguments: &Arguments,
    settings: &Settings,
    outcome: &Outcome,
) -> anyhow::Result<()> {
    let Some(violation) = &outcome.violation else {
        return Ok(());
    };
    let command = if settings.bug.is_some() {
        "cargo run --profile ci -p quorate-sim --features planted --"
    } else {
        "cargo run --profile ci -p quorate-sim --"
    };
    let (seed, promise) = (settings.seed, violation.promise);
    writeln!(out, "seed {seed}: {promise} violated: {}", violation.seen)?;
    writeln!(out, "  replay: {command} {settings} --trace")?;
    if arguments.no_shrink || arguments.trace {
        return Ok(());
    }
    let small = shrink(settings, outcome);
    writeln!(
        out,
        "  shrunk to {} faults and operations in {} runs: {command} {} --trace",
        small.happen, small.runs, small.settings
    )?;
    if let Some(violation) = small.outcome.violation {
        writeln!(out, "  where {}", violation.seen)?;
    }
    Ok(())
}
