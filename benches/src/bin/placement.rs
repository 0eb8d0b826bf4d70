//! How long it takes to place partitions from nothing, and again when one agent leaves or joins (G1-G3).
//!
//! `cargo run --release -p quorate-benches --bin placement [-- PARTITIONS AGENTS]`
//!
//! One thread. A time covers the change going in until the changed owners are out, in the numbers that
//! callers use; the partitions themselves were put in before. The floor is one pass over all owners in
//! memory; the naive way is to place everything from nothing at each change. Moves are counted and
//! compared with the least possible by the law, not with another implementation.

#![expect(
    clippy::print_stdout,
    reason = "a measurement is read on standard output"
)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a measurement that fails is no measurement"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use quorate_core::placement::{
    Agent, AgentIndex, GroupIndex, Layout, Partition, PartitionIndex, Rules, Standing,
};

const FULL_ROUNDS: usize = 5;
const EVENT_ROUNDS: u32 = 21;
/// Groups of the constrained case: each has its own zones, labels, limit and weights.
const GROUPS: u32 = 100;
const ZONES: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    /// One group, equal weights.
    Plain,
    /// One group, heavy-tailed weights.
    Weighted,
    /// Many groups with weights, zones, labels, `max_per_agent`; agents with a capacity.
    Constrained,
}

/// What is allowed: full, leave or join, in milliseconds.
const fn goal(case: Case) -> (f64, f64) {
    match case {
        Case::Plain => (5.0, 0.3),
        Case::Weighted => (50.0, 0.3),
        Case::Constrained => (250.0, 3.0),
    }
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse().unwrap());
    let partitions: u32 = numbers.next().unwrap_or(1_000_000);
    let agents: u32 = numbers.next().unwrap_or(1_000);
    println!("{partitions} partitions on {agents} agents, one thread, medians\n");
    let floor = floor(partitions);
    println!(
        "floor: one pass over all owners in memory      {:>9}\n",
        ms(floor)
    );
    println!(
        "{:<12} {:<6} {:>11} {:>9} {:>8} {:>9} {:>7} {:>7} {:>10}",
        "case", "what", "time", "goal", "x floor", "naive/it", "moves", "least", "max/mean"
    );
    for case in [Case::Plain, Case::Weighted, Case::Constrained] {
        measure(case, partitions, agents, floor);
    }
    // With a remainder: where an assignor that is only nearly minimal moves too much.
    remainder(partitions + agents / 2, agents);
    remainder(agents * 3 / 2, agents);
}

fn measure(case: Case, partitions: u32, agents: u32, floor: Duration) {
    let mut fulls = Vec::new();
    let mut layout = build(case, partitions, agents);
    for round in 0..FULL_ROUNDS {
        if round > 0 {
            layout = build(case, partitions, agents);
        }
        let mut changed = Vec::new();
        let begin = Instant::now();
        layout.settle(&mut changed);
        fulls.push(begin.elapsed());
        black_box(changed.len());
    }
    let full = median(&mut fulls);
    let (goal_full, goal_event) = goal(case);
    row(
        case, "full", full, goal_full, floor, full, None, &layout, agents,
    );
    let (mut leaves, mut joins) = (Vec::new(), Vec::new());
    let (mut left, mut joined) = ((0, 0), (0, 0));
    for round in 0..EVENT_ROUNDS {
        let index = AgentIndex(round * 37 % agents);
        let least = layout.load(index).count;
        let (took, moves) = event(&mut layout, case, index, Standing::Absent, partitions);
        leaves.push(took);
        left = (moves, least);
        let (took, moves) = event(&mut layout, case, index, Standing::Open, partitions);
        joins.push(took);
        joined = (moves, partitions / agents);
    }
    let compare = (case == Case::Plain).then_some(());
    let least = |(moves, least): (u32, u32)| (moves, compare.map(|()| least));
    let (leave, join) = (median(&mut leaves), median(&mut joins));
    row(
        case,
        "leave",
        leave,
        goal_event,
        floor,
        full,
        Some(least(left)),
        &layout,
        agents,
    );
    row(
        case,
        "join",
        join,
        goal_event,
        floor,
        full,
        Some(least(joined)),
        &layout,
        agents,
    );
}

/// One agent comes or goes; the time and how many partitions have another owner.
fn event(
    layout: &mut Layout,
    case: Case,
    index: AgentIndex,
    standing: Standing,
    partitions: u32,
) -> (Duration, u32) {
    let before: Vec<_> = (0..partitions)
        .map(|p| layout.owner(PartitionIndex(p)))
        .collect();
    let mut changed = Vec::with_capacity(1 << 16);
    let row = Agent {
        standing,
        ..agent(case, index.0)
    };
    let begin = Instant::now();
    layout.set_agent(index, row);
    layout.settle(&mut changed);
    let took = begin.elapsed();
    let after = (0..partitions).map(|p| layout.owner(PartitionIndex(p)));
    let moved = before.iter().zip(after).filter(|(b, a)| *b != a).count();
    (took, moved as u32)
}

fn remainder(partitions: u32, agents: u32) {
    let mut layout = build(Case::Plain, partitions, agents);
    layout.settle(&mut Vec::new());
    let index = AgentIndex(7);
    event(
        &mut layout,
        Case::Plain,
        index,
        Standing::Absent,
        partitions,
    );
    let loads = (0..agents).filter(|a| *a != 7);
    let held: Vec<u32> = loads.map(|a| layout.load(AgentIndex(a)).count).collect();
    let (low, mut rest) = (partitions / agents, partitions % agents);
    let mut least = 0;
    for held in held {
        let keeps = u32::from(rest > 0 && held > low);
        rest -= keeps;
        least += held.saturating_sub(low + keeps);
    }
    let (_, moves) = event(&mut layout, Case::Plain, index, Standing::Open, partitions);
    println!("remainder: {partitions} x {agents}, one joins: {moves} moved, {least} is the least");
}

fn agent(case: Case, n: u32) -> Agent {
    Agent {
        standing: Standing::Open,
        capacity: (case == Case::Constrained).then_some(u64::MAX / 4),
        rank: u64::from(n.wrapping_mul(2_654_435_761)),
    }
}

/// Heavy-tailed: most are light, a few weigh a thousand times as much.
fn weight(p: u32) -> u32 {
    10_000 / (1 + p.wrapping_mul(2_654_435_761) % 1_009)
}

fn build(case: Case, partitions: u32, agents: u32) -> Layout {
    let mut layout = Layout::new();
    for n in 0..agents {
        layout.add_agent(agent(case, n));
    }
    if case == Case::Constrained {
        tighten(&mut layout, partitions, agents);
    }
    let groups = if case == Case::Constrained { GROUPS } else { 1 };
    for g in 0..groups {
        let group = layout.add_group(Rules {
            max_per_agent: if case == Case::Constrained {
                partitions / groups
            } else {
                0
            },
            priority: (g % 3).cast_signed(),
            ..Rules::default()
        });
        for n in 0..agents {
            // Two zones of four, and every seventh group needs a label that half of the agents have.
            let zone = (n % ZONES + g) % ZONES < 2;
            let label = g % 7 != 0 || n % 2 == g % 2 || n % 3 == 0;
            if case == Case::Constrained && !(zone && label) {
                layout.allow(group, AgentIndex(n), false);
            }
        }
    }
    for p in 0..partitions {
        let weight = if case == Case::Plain { 1 } else { weight(p) };
        let partition = Partition {
            group: GroupIndex(p % groups),
            weight,
            spread: None,
        };
        layout.put(PartitionIndex(p), partition);
    }
    layout
}

/// Capacities of twice the mean.
fn tighten(layout: &mut Layout, partitions: u32, agents: u32) {
    let total: u64 = (0..partitions).map(|p| u64::from(weight(p))).sum();
    for n in 0..agents {
        let row = Agent {
            capacity: Some(total * 2 / u64::from(agents)),
            ..agent(Case::Constrained, n)
        };
        layout.set_agent(AgentIndex(n), row);
    }
}

fn floor(partitions: u32) -> Duration {
    let owners: Vec<u32> = (0..partitions).collect();
    let mut times: Vec<_> = (0..EVENT_ROUNDS)
        .map(|round| {
            let begin = Instant::now();
            let count = owners.iter().filter(|owner| **owner == round).count();
            black_box(count);
            begin.elapsed()
        })
        .collect();
    median(&mut times)
}

#[expect(clippy::too_many_arguments, reason = "the columns of the table")]
fn row(
    case: Case,
    what: &str,
    took: Duration,
    goal: f64,
    floor: Duration,
    naive: Duration,
    moves: Option<(u32, Option<u32>)>,
    layout: &Layout,
    agents: u32,
) {
    let loads: Vec<u64> = (0..agents)
        .map(|n| layout.load(AgentIndex(n)).weight)
        .collect();
    let mean = loads.iter().sum::<u64>() as f64 / f64::from(agents);
    let most = *loads.iter().max().unwrap() as f64;
    let number = |n: Option<u32>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let millis = took.as_secs_f64() * 1e3;
    println!(
        "{:<12} {what:<6} {:>11} {:>9} {:>8.1} {:>9.1} {:>7} {:>7} {:>10.5}{}",
        format!("{case:?}").to_lowercase(),
        ms(took),
        format!("{goal} ms"),
        took.as_secs_f64() / floor.as_secs_f64(),
        naive.as_secs_f64() / took.as_secs_f64(),
        number(moves.map(|(moves, _)| moves)),
        number(moves.and_then(|(_, least)| least)),
        most / mean,
        if millis <= goal { "" } else { "  MISSED" },
    );
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn ms(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}
