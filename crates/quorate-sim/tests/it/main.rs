//! The simulator on fixed seeds, its own promises, and whether it finds what was planted.

#[cfg(feature = "planted")]
mod teeth;

use quorate_sim::settings::{Numbers, Schedule, Size};
use quorate_sim::{Outcome, Settings, run};

fn assert_clean(settings: &Settings) {
    let outcome = run(settings);
    if let Some(violation) = outcome.violation {
        panic!(
            "{} violated: {}; replay: cargo run --profile ci -p quorate-sim -- {settings} --trace",
            violation.promise, violation.seen
        );
    }
    assert!(
        outcome.starts > 0 || outcome.entries > 0,
        "nothing happened"
    );
}

#[test]
fn no_promise_is_broken_on_fixed_seeds() {
    for seed in 0..20 {
        assert_clean(&Settings::of(seed));
    }
}

#[test]
fn no_promise_is_broken_in_a_large_cluster() {
    assert_clean(&Settings {
        size: Some(Size::BIG),
        ..Settings::of(2)
    });
}

fn traced(seed: u64, schedule: Schedule) -> Outcome {
    run(&Settings {
        fault_seconds: 15,
        schedule,
        trace: true,
        ..Settings::of(seed)
    })
}

#[test]
fn the_same_seed_happens_the_same_way_twice() {
    for seed in 7..10 {
        assert_eq!(traced(seed, Schedule::All), traced(seed, Schedule::All));
    }
    let hash = |seed| traced(seed, Schedule::All).trace_hash;
    assert_ne!(hash(7), hash(8));
}

/// When each fault came and of which kind it was.
fn faults(outcome: &Outcome) -> Vec<&str> {
    let lines = outcome.trace.iter().map(String::as_str);
    lines.filter(|line| line.contains(" fault ")).collect()
}

#[test]
fn leaving_one_fault_out_moves_no_other() {
    let all = traced(3, Schedule::All);
    let before = faults(&all);
    assert!(before.len() > 3, "{before:?}");
    let first = before
        .first()
        .and_then(|line| line.split(' ').nth(2)?.trim_end_matches(':').parse().ok())
        .unwrap();
    let without = traced(3, Schedule::Without(Numbers([first].into())));
    assert_eq!(faults(&without), before.get(1..).unwrap());
}
