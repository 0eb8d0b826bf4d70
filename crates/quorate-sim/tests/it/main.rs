//! The simulator on fixed seeds, and its own promises.

use quorate_sim::{Settings, run};

#[test]
fn no_promise_is_broken_on_fixed_seeds() {
    let mut broken = Vec::new();
    for seed in 0..50 {
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
