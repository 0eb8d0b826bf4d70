//! The agents that may take partitions of a group while it is being settled.

use super::layout::{Group, Layout};
use super::{AgentIndex, GroupIndex, PartitionIndex, Standing};

/// An agent that may take partitions of the group at hand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    pub(super) agent: AgentIndex,
    /// Partitions of the group that it holds.
    pub(super) held: u32,
    /// Their weight.
    pub(super) load: u64,
    /// The weight that it holds of other groups.
    pub(super) others: u64,
    /// How many of the group it may hold.
    pub(super) most: u32,
    /// How much more its capacity allows.
    pub(super) room: u64,
}

/// What has to find a place, the most urgent first.
#[derive(Debug, Default)]
pub(super) struct Homeless {
    /// Partitions that nobody holds.
    pub(super) adrift: Vec<PartitionIndex>,
    /// Partitions whose agents are leaving, with those agents: they go back there if nobody takes them.
    pub(super) leaving: Vec<(PartitionIndex, AgentIndex)>,
}

impl Layout {
    /// Takes everything from agents that may not hold it, and collects what waits, in order.
    pub(super) fn collect(&mut self, g: GroupIndex, group: &mut Group) -> Homeless {
        let mut homeless = Homeless::default();
        let rows = &self.rows;
        let ownerless = group.ownerless();
        homeless.adrift = std::mem::take(&mut group.waiting);
        // All that have no owner are in it, so when it has no more than these it is true as it is.
        if homeless.adrift.len() != ownerless {
            homeless.adrift.retain(|p| rows.waits(*p, g));
        }
        let mut taken = Vec::new();
        for bucket in &mut group.buckets {
            let agent = bucket.agent;
            let standing = self.agents.row(agent).standing;
            let denied = group.denied.has(agent.0 as usize);
            let leaves = matches!(standing, Standing::Leaving | Standing::Absent);
            if bucket.count == 0 || !(leaves || denied) {
                continue;
            }
            let (count, weight) = (bucket.count, bucket.weight);
            bucket.drain(g, &mut self.rows, &mut taken);
            let load = self.totals.row_mut(agent);
            load.count -= count;
            load.weight -= weight;
            if standing == Standing::Leaving && !denied {
                homeless
                    .leaving
                    .extend(taken.drain(..).map(|partition| (partition, agent)));
            } else {
                self.note(taken.clone());
                homeless.adrift.append(&mut taken);
            }
        }
        homeless.leaving.sort_unstable();
        if !homeless.adrift.is_sorted_by(|a, b| a < b) {
            homeless.adrift.sort_unstable();
            homeless.adrift.dedup();
        }
        homeless
    }

    /// The agents that may take partitions of the group, those that hold least of other groups first.
    pub(super) fn seats(&self, group: &Group) -> Vec<Seat> {
        let most = match group.rules.max_per_agent {
            0 => u32::MAX,
            max => max,
        };
        let mut buckets = group.buckets.iter().peekable();
        let mut seats = Vec::with_capacity(self.agents.len());
        let mut order = Vec::with_capacity(self.agents.len());
        for agent in self.allowed(group) {
            // Both are in the order of agents.
            while buckets.next_if(|bucket| bucket.agent < agent).is_some() {}
            let bucket = buckets.next_if(|bucket| bucket.agent == agent);
            let (held, load) = bucket.map_or((0, 0), |b| (b.count, b.weight));
            let total = self.totals.row(agent).weight;
            let row = self.agents.row(agent);
            let others = total - load;
            order.push((others, row.rank, seats.len()));
            seats.push(Seat {
                agent,
                held,
                load,
                others,
                most,
                room: row.capacity.unwrap_or(u64::MAX).saturating_sub(total),
            });
        }
        order.sort_unstable();
        let ordered = order.into_iter();
        ordered
            .filter_map(|(_, _, at)| seats.get(at).copied())
            .collect()
    }

    /// Gives a partition to an agent.
    pub(super) fn give(&mut self, group: &mut Group, partition: PartitionIndex, agent: AgentIndex) {
        let member = self.rows.member(partition);
        self.rows.own(partition, agent);
        group.bucket_mut(agent).push(member);
        self.load_up(agent, 1, u64::from(member.weight));
    }

    /// Takes a partition from its agent.
    pub(super) fn withdraw(
        &mut self,
        group: &mut Group,
        partition: PartitionIndex,
        agent: AgentIndex,
    ) {
        let member = self.rows.member(partition);
        self.rows.disown(partition);
        group.bucket_mut(agent).remove(member);
        self.unload(agent, 1, u64::from(member.weight));
    }
}
