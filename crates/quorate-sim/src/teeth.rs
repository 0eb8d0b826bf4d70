//! How fast planted bugs are found: for each, from several places on, seeds are run until one fails.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use quorate_sim::many::{Stopwatch, run_safely};
use quorate_sim::{Bug, Settings};

/// Seeds between two tries.
const APART: u64 = 1_000_000;
/// A bug that so many seeds do not find is not found.
const SEEDS_MAX: u64 = 5_000;

/// One try.
#[derive(Clone, Debug)]
struct Found {
    seeds: u64,
    took: Duration,
    promise: &'static str,
}

/// Prints the table of docs/proof.md.
pub(crate) fn measure(
    out: &mut impl Write,
    settings: &Settings,
    tries: u64,
    jobs: usize,
) -> anyhow::Result<ExitCode> {
    let mut missed = false;
    writeln!(
        out,
        "| bug | by | seeds: median, worst | seconds: median, worst |"
    )?;
    writeln!(out, "| --- | --- | --- | --- |")?;
    let possible = Bug::all().filter(|bug| bug.is_possible());
    for bug in possible.filter(|bug| settings.bug.is_none_or(|one| one == *bug)) {
        let found = all_tries(settings, bug, tries.max(1), jobs);
        let count = found.len() as u64;
        missed |= count < tries;
        let mut seeds: Vec<u64> = found.iter().map(|found| found.seeds).collect();
        let mut times: Vec<Duration> = found.iter().map(|found| found.took).collect();
        seeds.sort_unstable();
        times.sort_unstable();
        let mut by: BTreeMap<&str, u64> = BTreeMap::new();
        for found in &found {
            *by.entry(found.promise).or_default() += 1;
        }
        let by: Vec<String> = by
            .iter()
            .map(|(by, count)| format!("{by} ({count})"))
            .collect();
        let secs = |time: Option<&Duration>| time.map_or(f64::NAN, Duration::as_secs_f64);
        writeln!(
            out,
            "| `{}` | {} | {}, {} | {:.2}, {:.2} |{}",
            bug.name(),
            by.join(", "),
            seeds.get(seeds.len() / 2).copied().unwrap_or(0),
            seeds.last().copied().unwrap_or(0),
            secs(times.get(times.len() / 2)),
            secs(times.last()),
            if count < tries {
                format!(" {} of {tries} tries found nothing", tries - count)
            } else {
                String::new()
            }
        )?;
        out.flush()?;
    }
    Ok(if missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn all_tries(settings: &Settings, bug: Bug, tries: u64, jobs: usize) -> Vec<Found> {
    std::thread::scope(|scope| {
        let jobs = jobs.max(1) as u64;
        let each = (0..jobs).map(|job| {
            scope.spawn(move || {
                let own = (0..tries).filter(move |at| at % jobs == job);
                own.filter_map(|at| find(settings, bug, at * APART))
                    .collect::<Vec<_>>()
            })
        });
        let each: Vec<_> = each.collect();
        each.into_iter()
            .filter_map(|thread| thread.join().ok())
            .flatten()
            .collect()
    })
}

fn find(settings: &Settings, bug: Bug, first: u64) -> Option<Found> {
    let watch = Stopwatch::start();
    (0..SEEDS_MAX).find_map(|nth| {
        let outcome = run_safely(&Settings {
            seed: first + nth,
            bug: Some(bug),
            ..settings.clone()
        });
        let violation = outcome.violation?;
        Some(Found {
            seeds: nth + 1,
            took: watch.busy(),
            promise: violation.promise,
        })
    })
}
