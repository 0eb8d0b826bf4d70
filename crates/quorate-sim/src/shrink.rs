//! Makes a failure small: leaves out faults and operations as long as the same promise is broken.

use std::collections::BTreeSet;

use crate::many::run_safely;
use crate::settings::{Schedule, Settings};
use crate::world::Outcome;

/// Most runs that are spent on it.
const RUNS_MAX: u32 = 400;

/// The smallest run that was found, and what came of it.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// How to replay it.
    pub settings: Settings,
    /// What went wrong.
    pub outcome: Outcome,
    /// Faults and operations that happen in it.
    pub happen: usize,
    /// Runs that were spent.
    pub runs: u32,
}

/// Shrinks a failure by halves, quarters and so on down to single faults and operations.
#[must_use]
pub fn shrink(settings: &Settings, failed: &Outcome) -> Shrunk {
    let drawn = failed.drawn;
    let mut left: BTreeSet<u64> = (0..drawn).filter(|n| settings.schedule.has(*n)).collect();
    let mut best = Shrunk {
        settings: settings.clone(),
        outcome: failed.clone(),
        happen: left.len(),
        runs: 0,
    };
    let mut size = left.len().div_ceil(2);
    while size > 0 && best.runs < RUNS_MAX {
        let before = left.len();
        for chunk in chunks(&left, size) {
            if best.runs >= RUNS_MAX {
                break;
            }
            let fewer: BTreeSet<u64> = left.difference(&chunk).copied().collect();
            let tried = Settings {
                schedule: Schedule::of(&fewer, drawn),
                trace: false,
                ..settings.clone()
            };
            best.runs += 1;
            let outcome = run_safely(&tried);
            if promise(&outcome) == promise(failed) {
                left = fewer;
                best.settings = tried;
                best.happen = left.len();
                best.outcome = outcome;
            }
        }
        if size == 1 && left.len() == before {
            break;
        }
        size = if size == 1 { 1 } else { size.div_ceil(2) };
    }
    best
}

fn chunks(of: &BTreeSet<u64>, size: usize) -> Vec<BTreeSet<u64>> {
    let all: Vec<u64> = of.iter().copied().collect();
    all.chunks(size)
        .map(|chunk| chunk.iter().copied().collect())
        .collect()
}

fn promise(outcome: &Outcome) -> Option<&'static str> {
    outcome
        .violation
        .as_ref()
        .map(|violation| violation.promise)
}
