//! Properties of placement over random sequences of events.

use std::collections::BTreeMap;

use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};

use super::*;

mod heavy;

const OPEN: Agent = Agent {
    standing: Standing::Open,
    capacity: None,
    rank: 0,
};

fn agent(n: u32) -> Agent {
    Agent {
        rank: u64::from(n.wrapping_mul(2_654_435_761)),
        ..OPEN
    }
}

fn plain(group: GroupIndex) -> Partition {
    Partition {
        group,
        weight: 1,
        spread: None,
    }
}

fn settled(layout: &mut Layout) -> Vec<PartitionIndex> {
    let mut changed = Vec::new();
    layout.settle(&mut changed);
    changed.sort_unstable();
    changed.dedup();
    changed
}

fn owners(layout: &Layout, partitions: u32) -> Vec<Option<AgentIndex>> {
    (0..partitions)
        .map(|p| layout.owner(PartitionIndex(p)))
        .collect()
}

fn counts(owners: &[Option<AgentIndex>]) -> BTreeMap<AgentIndex, usize> {
    let mut counts = BTreeMap::new();
    for owner in owners.iter().flatten() {
        *counts.entry(*owner).or_default() += 1;
    }
    counts
}

/// The law: the least Σ max(0, held − target) over all targets in {⌊P/N⌋, ⌈P/N⌉}, those of agents that
/// are gone being 0; by trying every choice of who gets the ceiling.
fn least_moves(held: &[usize], gone: usize, partitions: usize) -> usize {
    let agents = held.len();
    if agents == 0 {
        return gone;
    }
    let (floor, rest) = (partitions / agents, partitions % agents);
    let choices = (0u32..1 << agents).filter(|choice| choice.count_ones() as usize == rest);
    let cost = |choice: u32| -> usize {
        let each = held.iter().enumerate();
        each.map(|(at, held)| held.saturating_sub(floor + (choice >> at & 1) as usize))
            .sum()
    };
    gone + choices.map(cost).min().unwrap()
}

#[derive(Clone, Debug)]
enum Event {
    /// These agents leave and those come, at once.
    Change(Vec<u8>, Vec<u8>),
    /// So many partitions come, or go from the end.
    Grow(u8),
    Shrink(u8),
}

fn events() -> impl Strategy<Value = (u8, u8, Vec<Event>)> {
    let some = || prop::collection::vec(0u8..8, 0..4);
    let event = prop_oneof![
        4 => (some(), some()).prop_map(|(leave, join)| Event::Change(leave, join)),
        1 => (1u8..20).prop_map(Event::Grow),
        1 => (1u8..20).prop_map(Event::Shrink),
    ];
    (0u8..70, 1u8..8, prop::collection::vec(event, 1..12))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_event_moves_more_than_the_law_allows_or_leaves_more_than_one_between((start, agents, events) in events()) {
        let mut layout = Layout::new();
        let group = layout.add_group(Rules::default());
        let mut partitions = u32::from(start);
        for n in 0..8 {
            let standing = if n < u32::from(agents) { Standing::Open } else { Standing::Absent };
            layout.add_agent(Agent { standing, ..agent(n) });
        }
        let mut open: Vec<bool> = (0..8).map(|n| n < agents).collect();
        for p in 0..partitions {
            layout.put(PartitionIndex(p), plain(group));
        }
        settled(&mut layout);
        for event in events {
            match event {
                Event::Change(leave, join) => {
                    for (agents, standing) in [(leave, Standing::Absent), (join, Standing::Open)] {
                        for n in agents {
                            open[usize::from(n)] = standing == Standing::Open;
                            let row = Agent { standing, ..agent(u32::from(n)) };
                            layout.set_agent(AgentIndex(u32::from(n)), row);
                        }
                    }
                }
                Event::Grow(more) => {
                    for p in partitions..partitions + u32::from(more) {
                        layout.put(PartitionIndex(p), plain(group));
                    }
                    partitions += u32::from(more);
                }
                Event::Shrink(fewer) => {
                    let left = partitions.saturating_sub(u32::from(fewer));
                    for p in left..partitions {
                        layout.take(PartitionIndex(p));
                    }
                    partitions = left;
                }
            }
            let before = owners(&layout, partitions);
            let held = counts(&before);
            settled(&mut layout);
            let after = owners(&layout, partitions);
            let moved = before.iter().zip(&after).filter(|(b, a)| b.is_some() && a != b).count();
            let present: Vec<_> = (0..8u32).map(AgentIndex).filter(|a| open[a.0 as usize]).collect();
            let here: Vec<_> = present.iter().map(|a| held.get(a).copied().unwrap_or(0)).collect();
            let gone = held.values().sum::<usize>() - here.iter().sum::<usize>();
            prop_assert_eq!(moved, least_moves(&here, gone, partitions as usize));
            let now = counts(&after);
            let loads = present.iter().map(|a| now.get(a).copied().unwrap_or(0));
            let (low, high) = loads.fold((usize::MAX, 0), |(l, h), n| (l.min(n), h.max(n)));
            prop_assert!(present.is_empty() || high - low <= 1);
            prop_assert_eq!(now.values().sum::<usize>(), if present.is_empty() { 0 } else { partitions as usize });
            prop_assert!(settled(&mut layout).is_empty(), "a second run changes nothing");
        }
    }
}

/// A cluster with everything at once.
#[derive(Clone, Debug)]
struct Mixed {
    groups: Vec<(Rules, Vec<bool>)>,
    partitions: Vec<(usize, u32, Option<u32>)>,
    agents: Vec<(Standing, Option<u64>)>,
    changes: Vec<(usize, Standing)>,
    removed: Vec<usize>,
}

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        6 => Just(Standing::Open),
        1 => Just(Standing::Holding),
        1 => Just(Standing::Leaving),
        1 => Just(Standing::Absent),
    ]
}

fn mixed() -> impl Strategy<Value = Mixed> {
    let rules = (0u32..2, 0u32..8, -1i32..2).prop_map(|(fixed, max, priority)| Rules {
        strategy: if fixed == 0 {
            crate::spec::Strategy::Balanced
        } else {
            crate::spec::Strategy::Static
        },
        max_per_agent: if max < 5 { 0 } else { max },
        priority,
    });
    let group = (rules, prop::collection::vec(prop::bool::weighted(0.2), 6));
    let partition = (
        0usize..4,
        prop_oneof![Just(1u32), 1u32..30],
        prop::option::weighted(0.3, 0u32..4),
    );
    let agent = (standing(), prop::option::weighted(0.4, 0u64..60));
    (
        prop::collection::vec(group, 4),
        prop::collection::vec(partition, 0..60),
        prop::collection::vec(agent, 6),
        prop::collection::vec((0usize..6, standing()), 0..10),
        prop::collection::vec(0usize..60, 0..8),
    )
        .prop_map(|(groups, partitions, agents, changes, removed)| Mixed {
            groups,
            partitions,
            agents,
            changes,
            removed,
        })
}

impl Mixed {
    fn agent(&self, n: usize, standing: Standing) -> Agent {
        Agent {
            standing,
            capacity: self.agents[n].1,
            ..agent(u32::try_from(n).unwrap())
        }
    }

    /// Everything at once, with these holdings.
    fn build(
        &self,
        standings: &[Standing],
        owners: &[Option<AgentIndex>],
        removed: &[usize],
    ) -> Layout {
        let mut layout = Layout::new();
        for (n, standing) in standings.iter().enumerate() {
            layout.add_agent(self.agent(n, *standing));
        }
        for (rules, denied) in &self.groups {
            let group = layout.add_group(*rules);
            for (n, denied) in denied.iter().enumerate() {
                layout.allow(group, AgentIndex(u32::try_from(n).unwrap()), !denied);
            }
        }
        for (p, (group, weight, spread)) in self.partitions.iter().enumerate() {
            if removed.contains(&p) {
                continue;
            }
            let index = PartitionIndex(u32::try_from(p).unwrap());
            let group = GroupIndex(u32::try_from(*group).unwrap());
            layout.put(
                index,
                Partition {
                    group,
                    weight: *weight,
                    spread: *spread,
                },
            );
            if let Some(owner) = owners.get(p).copied().flatten() {
                layout.hold(index, owner);
            }
        }
        layout
    }

    fn check(
        &self,
        layout: &Layout,
        standings: &[Standing],
        before: &[Option<AgentIndex>],
        removed: &[usize],
    ) {
        let mut weights = [0u64; 6];
        for (p, (group, weight, _)) in self.partitions.iter().enumerate() {
            let index = PartitionIndex(u32::try_from(p).unwrap());
            if removed.contains(&p) {
                assert_eq!(
                    layout.owner(index),
                    None,
                    "a removed partition has an owner"
                );
                continue;
            }
            let Some(owner) = layout.owner(index) else {
                self.check_misfit(layout, standings, index);
                continue;
            };
            let n = owner.0 as usize;
            weights[n] += u64::from(*weight);
            assert!(!self.groups[*group].1[n], "denied");
            assert_ne!(standings[n], Standing::Absent);
            let was = before.get(p).copied().flatten();
            assert!(
                standings[n] == Standing::Open || was == Some(owner),
                "given to an agent that takes nothing"
            );
        }
        for (n, weight) in weights.into_iter().enumerate() {
            let index = AgentIndex(u32::try_from(n).unwrap());
            assert_eq!(layout.load(index).weight, weight);
            assert!(
                self.agents[n].1.is_none_or(|most| weight <= most),
                "capacity exceeded"
            );
            for (g, (rules, _)) in self.groups.iter().enumerate() {
                let held = layout
                    .load_of(GroupIndex(u32::try_from(g).unwrap()), index)
                    .count;
                let limited = rules.max_per_agent > 0 && standings[n] == Standing::Open;
                assert!(!limited || held <= rules.max_per_agent);
            }
        }
    }

    /// The reason given for a partition without a place is true, found by looking at every agent.
    fn check_misfit(&self, layout: &Layout, standings: &[Standing], index: PartitionIndex) {
        let (group, weight, _) = self.partitions[index.0 as usize];
        let (rules, denied) = &self.groups[group];
        let mut reasons = Vec::new();
        for n in 0..6 {
            if standings[n] != Standing::Open || denied[n] {
                continue;
            }
            let at = AgentIndex(u32::try_from(n).unwrap());
            let held = layout
                .load_of(GroupIndex(u32::try_from(group).unwrap()), at)
                .count;
            let room = self.agents[n]
                .1
                .unwrap_or(u64::MAX)
                .saturating_sub(layout.load(at).weight);
            let full = rules.max_per_agent > 0 && held >= rules.max_per_agent;
            assert!(
                full || room < u64::from(weight),
                "there was a place for {index:?} on {n}"
            );
            reasons.push(if full {
                Misfit::PerAgent
            } else {
                Misfit::Capacity
            });
        }
        let reason = reasons.into_iter().max().unwrap_or(Misfit::NoAgent);
        assert_eq!(layout.misfit(index), Some(reason));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn limits_hold_and_what_was_reached_step_by_step_stays_when_all_is_computed_anew(mixed in mixed()) {
        let mut standings: Vec<_> = mixed.agents.iter().map(|(standing, _)| *standing).collect();
        let count = u32::try_from(mixed.partitions.len()).unwrap();
        let mut layout = mixed.build(&standings, &[], &[]);
        settled(&mut layout);
        mixed.check(&layout, &standings, &[], &[]);
        for (n, standing) in &mixed.changes {
            let before = owners(&layout, count);
            standings[*n] = *standing;
            layout.set_agent(AgentIndex(u32::try_from(*n).unwrap()), mixed.agent(*n, *standing));
            settled(&mut layout);
            mixed.check(&layout, &standings, &before, &[]);
        }
        let before = owners(&layout, count);
        for p in &mixed.removed {
            layout.take(PartitionIndex(u32::try_from(*p).unwrap()));
        }
        settled(&mut layout);
        mixed.check(&layout, &standings, &before, &mixed.removed);
        let reached = owners(&layout, count);
        prop_assert!(settled(&mut layout).is_empty());
        let mut anew = mixed.build(&standings, &reached, &mixed.removed);
        settled(&mut anew);
        prop_assert_eq!(owners(&anew, count), reached);
    }

    #[test]
    fn the_same_names_in_any_order_give_the_same_map(
        seed in any::<u64>(),
        agents in 1u32..9,
        partitions in 0u32..80,
        weighted in any::<bool>(),
    ) {
        // The caller's part is to number partitions in the order of their names; agents may come anyhow.
        let map = |order: &[u32]| -> Vec<Option<u32>> {
            let mut layout = Layout::new();
            let group = layout.add_group(Rules::default());
            for n in order {
                layout.add_agent(agent(*n));
            }
            for p in 0..partitions {
                let weight = if weighted { 1 + p * 7 % 13 } else { 1 };
                layout.put(PartitionIndex(p), Partition { weight, ..plain(group) });
            }
            settled(&mut layout);
            let name = |owner: AgentIndex| order[owner.0 as usize];
            owners(&layout, partitions).into_iter().map(|owner| owner.map(name)).collect()
        };
        let sorted: Vec<u32> = (0..agents).collect();
        let mut shuffled = sorted.clone();
        shuffled.sort_by_key(|n| (seed ^ u64::from(*n)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7);
        prop_assert_eq!(map(&sorted), map(&shuffled));
    }
}

#[test]
fn remainders_of_many_groups_do_not_pile_up_and_come_back_evenly() {
    let mut layout = Layout::new();
    for n in 0..3 {
        layout.add_agent(agent(n));
    }
    for g in 0..100 {
        let group = layout.add_group(Rules::default());
        layout.put(PartitionIndex(g), plain(group));
    }
    settled(&mut layout);
    let spread = |layout: &Layout| -> Vec<u32> {
        (0..3).map(|n| layout.load(AgentIndex(n)).count).collect()
    };
    let mut loads = spread(&layout);
    loads.sort_unstable();
    assert_eq!(loads, [33, 33, 34]);
    let gone = Agent {
        standing: Standing::Absent,
        ..agent(1)
    };
    layout.set_agent(AgentIndex(1), gone);
    settled(&mut layout);
    assert_eq!(spread(&layout), [50, 0, 50]);
    layout.set_agent(AgentIndex(1), agent(1));
    assert!(settled(&mut layout).len() <= 33);
    assert!(
        spread(&layout)
            .iter()
            .all(|count| (32..=35).contains(count)),
        "{:?}",
        spread(&layout)
    );
}

#[test]
fn partitions_of_one_customer_go_to_different_agents() {
    let mut layout = Layout::new();
    let group = layout.add_group(Rules::default());
    for n in 0..4 {
        layout.add_agent(agent(n));
    }
    for p in 0..40 {
        layout.put(
            PartitionIndex(p),
            Partition {
                spread: Some(p % 10),
                ..plain(group)
            },
        );
    }
    settled(&mut layout);
    let apart = |layout: &Layout| {
        (0..10).all(|label| {
            let holders: std::collections::BTreeSet<_> = (0..4)
                .map(|n| layout.owner(PartitionIndex(label + 10 * n)))
                .collect();
            holders.len() == 4
        })
    };
    assert!(apart(&layout));
}

#[test]
fn weights_are_spread_within_a_thousandth_of_the_mean_and_events_move_little() {
    let mut layout = Layout::new();
    let group = layout.add_group(Rules::default());
    for n in 0..50 {
        layout.add_agent(agent(n));
    }
    let weight = |p: u32| 1_000_000 / (1 + p.wrapping_mul(2_654_435_761) % 997);
    for p in 0..20_000 {
        layout.put(
            PartitionIndex(p),
            Partition {
                weight: weight(p),
                ..plain(group)
            },
        );
    }
    settled(&mut layout);
    let worst = |layout: &Layout, agents: u64| {
        let loads = (0..50).map(|n| layout.load(AgentIndex(n)).weight);
        let (most, sum) = loads.fold((0, 0), |(most, sum), load| (load.max(most), sum + load));
        (most * agents * 100_000 / sum).saturating_sub(100_000)
    };
    assert!(
        worst(&layout, 50) <= 100,
        "{} per 100,000 above the mean",
        worst(&layout, 50)
    );
    let leavers = layout.load(AgentIndex(7)).count as usize;
    layout.set_agent(
        AgentIndex(7),
        Agent {
            standing: Standing::Absent,
            ..agent(7)
        },
    );
    let moved = settled(&mut layout).len();
    assert!(moved <= 2 * leavers, "{moved} moved, {leavers} had to");
    assert!(worst(&layout, 49) <= 5_000);
    layout.set_agent(AgentIndex(7), agent(7));
    let moved = settled(&mut layout).len();
    assert!(moved <= 20_000 / 50, "{moved} moved");
    assert!(worst(&layout, 50) <= 5_000);
}
