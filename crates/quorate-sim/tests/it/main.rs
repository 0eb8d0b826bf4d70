//! The simulator on fixed seeds, and its own promises.

use quorate_sim::{Settings, run};

/// Seeds that find a defect which is not mended yet, with the promise that they see broken. Whoever
/// mends it takes its line away.
///
/// Seed 14: a partition that one agent did not acknowledge in time is pinned to another for a while,
/// and the balance of the others counts it there; the spread stays uneven until the pin ends.
const OPEN: [(u64, &str); 1] = [(14, "L1")];

#[test]
fn what_is_known_to_be_broken_is_still_found() {
    for (seed, promise) in OPEN {
        let violation = run(Settings::of(seed)).violation;
        assert_eq!(
            violation.expect("mended: take its line away").promise,
            promise
        );
    }
}

#[test]
fn no_promise_is_broken_on_fixed_seeds() {
    let mut broken = Vec::new();
    for seed in (0..50).filter(|seed| OPEN.iter().all(|(open, _)| open != seed)) {
        if let Some(violation) = run(Settings::of(seed)).violation {
            broken.push(format!(
                "{} violated: {}; replay: cargo run -p quorate-sim -- --seed {seed}",
                violation.promise, violation.seen
            ));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_same_seed_happens_the_same_way_twice() {
    let trace = |seed| {
        run(Settings {
            fault_seconds: 15,
            ..Settings::of(seed)
        })
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7).trace_hash, trace(8).trace_hash);
}
