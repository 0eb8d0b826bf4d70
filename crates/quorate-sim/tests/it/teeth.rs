//! Whether the simulator finds what was planted, within a bounded number of seeds each.

use quorate_core::planted::Planted;
use quorate_sim::many::{Many, run_many, run_safely};
use quorate_sim::shrink::shrink;
use quorate_sim::{Bug, Settings};

/// Most seeds that a planted bug may survive; docs/proof.md says how many it takes usually.
const SEEDS_MAX: u64 = 5_000;

fn failing(bug: Bug, failures_max: usize) -> Vec<quorate_sim::Outcome> {
    let settings = Settings {
        bug: Some(bug),
        ..Settings::of(0)
    };
    let many = Many {
        settings,
        count: SEEDS_MAX,
        within: None,
        jobs: std::thread::available_parallelism().map_or(1, usize::from),
        failures_max,
    };
    run_many(&many).failures
}

#[test]
fn every_planted_bug_is_found() {
    let missed: Vec<&str> = Bug::all()
        .filter(|bug| failing(*bug, 1).is_empty())
        .map(Bug::name)
        .collect();
    assert!(
        missed.is_empty(),
        "not found in {SEEDS_MAX} seeds: {missed:?}"
    );
}

#[test]
fn a_failure_is_made_small_and_is_still_one() {
    let failures = failing(Bug::Machine(Planted::OldStamps), 1);
    let failed = failures.first().unwrap();
    let settings = Settings {
        bug: Some(Bug::Machine(Planted::OldStamps)),
        ..Settings::of(failed.seed)
    };
    let small = shrink(&settings, failed);
    assert!((small.happen as u64) < failed.drawn / 2, "{small:?}");
    let again = run_safely(&small.settings).violation.unwrap();
    assert_eq!(again.promise, failed.violation.as_ref().unwrap().promise);
}
