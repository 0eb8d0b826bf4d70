//! `quorate-model --size leaders`, `--without proof`, `--patient rule`: searches one size of a model
//! exhaustively and tells what it found.

use std::fmt;
use std::hash::Hash;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use quorate_model::lease::{Leases, Size};
use quorate_model::patient::{Keeping, Patient};
use quorate_model::rules::{Removed, Rules};
use quorate_model::search::{search, shortest};
use quorate_model::times::Times;
use stateright::{Expectation, Model};

/// Searches a model of the lease rules exhaustively.
#[derive(Debug, Parser)]
#[command(name = "quorate-model")]
struct Arguments {
    /// How much there is: leaders, restarts, ablation, one-leader, moves, both, sessions,
    /// deposed, long.
    #[arg(long, default_value = Size::LEADERS.name)]
    size: String,
    /// Leaves a rule out; may be given more than once. See docs/model.md for the names.
    #[arg(long)]
    without: Vec<String>,
    /// Searches the model of patient leases instead: rule, no-records, no-heard, heard-not-awaited,
    /// silent-overtaken, rounded-up, divided.
    #[arg(long, conflicts_with_all = ["size", "without"])]
    patient: Option<String>,
    /// Patient leases: leaders act at once, so that the time until an expiry has a bound.
    #[arg(long, requires = "patient")]
    prompt: bool,
    /// Patient leases: units between two records of a silence.
    #[arg(long, requires = "patient")]
    step: Option<u8>,
    /// L in units of a clock.
    #[arg(long)]
    lease: Option<u8>,
    /// K in units of a clock.
    #[arg(long)]
    kill: Option<u8>,
    /// How much faster the fastest clock is than the slowest.
    #[arg(long)]
    ratio: Option<u8>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(name) = &arguments.patient {
        let keeping = Keeping::named(name).with_context(|| unknown("way of keeping", name))?;
        let mut model = Patient::small(keeping, arguments.prompt);
        model.times = times(&arguments, model.times)?;
        model.step = arguments.step.unwrap_or(model.step);
        anyhow::ensure!(model.step > 0, "a step is at least 1 unit");
        return tell(&model, arguments.threads);
    }
    let name = &arguments.size;
    let mut size = Size::named(name).with_context(|| unknown("size", name))?;
    size.times = times(&arguments, size.times)?;
    let without = arguments.without.iter();
    let without = without
        .map(|name| Removed::named(name).with_context(|| unknown("rule", name)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let rules = Rules::without(&without);
    tell(&Leases { size, rules }, arguments.threads)
}

fn unknown(what: &str, name: &str) -> String {
    format!("there is no {what} named {name}; see docs/model.md")
}

fn times(arguments: &Arguments, small: Times) -> anyhow::Result<Times> {
    let times = Times {
        lease: arguments.lease.unwrap_or(small.lease),
        kill: arguments.kill.unwrap_or(small.kill),
        ratio: arguments.ratio.unwrap_or(small.ratio),
    };
    let all = [times.lease, times.kill, times.ratio];
    anyhow::ensure!(
        all.iter().all(|one| (1..=10).contains(one)),
        "--lease, --kill and --ratio are from 1 to 10"
    );
    let expiry = (u32::from(times.lease) + u32::from(times.kill)) * u32::from(times.ratio);
    anyhow::ensure!(
        expiry <= 60,
        "(lease + kill) * ratio is {expiry}; beyond 60 no search ends"
    );
    Ok(times)
}

/// Searches, and prints every breach by a shortest trace.
fn tell<M>(model: &M, threads: usize) -> anyhow::Result<ExitCode>
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + fmt::Debug + fmt::Display + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + fmt::Debug + PartialEq,
{
    let mut out = std::io::stdout().lock();
    let found = search(model.clone(), threads);
    writeln!(out, "{found}")?;
    for property in model.properties() {
        let name = property.name;
        let line = match property.expectation {
            Expectation::Always | Expectation::Eventually => match found.breach(name) {
                Some(_) => "BROKEN",
                None => "holds",
            },
            Expectation::Sometimes if found.missed.contains(&name) => "NEVER HAPPENS",
            Expectation::Sometimes => "happens",
        };
        writeln!(out, "{line:>14}  {name}")?;
    }
    for broken in &found.broken {
        if let Some(trace) = shortest(model, broken.property) {
            write!(out, "\n{trace}")?;
        }
    }
    Ok(if found.broken.is_empty() && found.missed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
