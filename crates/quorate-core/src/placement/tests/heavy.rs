//! Groups in which some partitions weigh more than an agent's share of all of them.

use super::*;

const AGENTS: u32 = 40;
const GROUPS: u32 = 10;
const PARTITIONS: u32 = 8_000;

/// Most weigh about 20, one in a thousand weighs 10,000: seven times an agent's share of its group.
fn weight(p: u32) -> u32 {
    10_000 / (1 + p.wrapping_mul(2_654_435_761) % 1_009)
}

fn group(n: u32) -> GroupIndex {
    GroupIndex(n)
}

fn heavy() -> Layout {
    let mut layout = Layout::new();
    for n in 0..AGENTS {
        layout.add_agent(agent(n));
    }
    for _ in 0..GROUPS {
        layout.add_group(Rules::default());
    }
    for p in 0..PARTITIONS {
        let partition = Partition {
            weight: weight(p),
            ..plain(group(p % GROUPS))
        };
        layout.put(PartitionIndex(p), partition);
    }
    settled(&mut layout);
    layout
}

/// How many partitions move when an agent is in this standing from now on.
fn moved(layout: &mut Layout, index: u32, standing: Standing) -> usize {
    let before = owners(layout, PARTITIONS);
    let row = Agent {
        standing,
        ..agent(index)
    };
    layout.set_agent(AgentIndex(index), row);
    settled(layout);
    assert!(settled(layout).is_empty(), "a second run changes nothing");
    let after = owners(layout, PARTITIONS);
    before.iter().zip(&after).filter(|(b, a)| a != b).count()
}

/// The mean of a group once each partition heavier than it is set aside with an agent of its own.
fn mean_of_the_rest(n: u32) -> u64 {
    let ours = (0..PARTITIONS).filter(|p| p % GROUPS == n);
    let mut weights: Vec<u64> = ours.map(|p| u64::from(weight(p))).collect();
    weights.sort_unstable();
    let mut agents = u64::from(AGENTS);
    loop {
        let mean = weights.iter().sum::<u64>() / agents;
        match weights.last() {
            Some(last) if *last > mean => {
                weights.pop();
                agents -= 1;
            }
            _ => return mean,
        }
    }
}

#[test]
fn what_is_heavier_than_the_mean_has_little_beside_it_and_the_other_agents_are_even() {
    let layout = heavy();
    for n in 0..GROUPS {
        let mean = mean_of_the_rest(n);
        let mut heaviest = BTreeMap::new();
        for p in (0..PARTITIONS).filter(|p| p % GROUPS == n) {
            let owner = layout.owner(PartitionIndex(p)).unwrap();
            let most: &mut u64 = heaviest.entry(owner).or_default();
            *most = u64::from(weight(p)).max(*most);
        }
        for (owner, heaviest) in heaviest {
            let load = layout.load_of(group(n), owner).weight;
            let counted = load - heaviest.saturating_sub(mean);
            let apart = counted.abs_diff(mean);
            assert!(
                apart <= mean / 20,
                "{owner:?} has {load} of group {n}, {heaviest} of it in one piece; the mean is {mean}"
            );
        }
    }
}

#[test]
fn one_that_leaves_or_joins_moves_at_most_three_times_its_share() {
    let mut layout = heavy();
    let share = (PARTITIONS / AGENTS) as usize;
    for index in [3, 17, 30, 3, 8] {
        let held = layout.load(AgentIndex(index)).count as usize;
        let left = moved(&mut layout, index, Standing::Absent);
        let least = held.max(share);
        assert!(left <= 3 * least, "{left} moved, {held} had to");
        let joined = moved(&mut layout, index, Standing::Open);
        assert!(joined <= 3 * share, "{joined} moved, {share} is a share");
    }
}
