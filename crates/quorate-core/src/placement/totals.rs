//! Evenness over all groups: every group is level by itself, but the agents that hold its remainders
//! may be the same ones each time, most of all where groups have fewer partitions than there are agents.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::layout::{Group, Layout};
use super::weigh::{FINE, WIDE};
use super::{AgentIndex, GroupIndex, Load, PartitionIndex};
use crate::spec::Strategy;

/// So many receivers are tried for each donor before it is given up.
const TRIES: usize = 4;

impl Layout {
    /// Evens out totals among agents that are allowed for the same groups, without making any group
    /// less level: only a partition of which its agent holds one more than the other goes there.
    pub(super) fn level_totals(&mut self) {
        if self.groups.len() < 2 {
            return;
        }
        let mut kinds: BTreeMap<u64, Vec<AgentIndex>> = BTreeMap::new();
        for agent in self.allowed(&Group::default()) {
            kinds.entry(*self.kinds.row(agent)).or_default().push(agent);
        }
        for agents in kinds.values() {
            if agents.len() > 1 {
                while self.level_kind(agents) {}
            }
        }
    }

    /// One pass over agents of one kind; true when something has moved.
    fn level_kind(&mut self, agents: &[AgentIndex]) -> bool {
        let total: u64 = agents
            .iter()
            .map(|agent| self.totals.row(*agent).weight)
            .sum();
        let mean = total / agents.len() as u64;
        let far = |load: Load| load.weight.abs_diff(mean) > (mean / WIDE).max(1);
        let was: BTreeMap<AgentIndex, bool> = agents
            .iter()
            .map(|agent| (*agent, far(*self.totals.row(*agent))))
            .collect();
        if !was.values().any(|far| *far) {
            return false;
        }
        let is_far = |agent: AgentIndex| was.get(&agent).copied().unwrap_or(false);
        let held = self.groups_held(agents);
        let mut donors: BinaryHeap<_> = self.weighed(agents).collect();
        let mut takers: BinaryHeap<_> = self.weighed(agents).map(Reverse).collect();
        let mut moved = false;
        while let Some((load, from)) = donors.pop() {
            if load != self.totals.row(from).weight {
                continue;
            }
            let groups = held.get(&from).map(Vec::as_slice).unwrap_or_default();
            let mut passed_over = Vec::new();
            while passed_over.len() < TRIES
                && let Some(Reverse((load, to))) = takers.pop()
            {
                if load != self.totals.row(to).weight {
                    continue;
                }
                passed_over.push(Reverse((load, to)));
                let gap = self.totals.row(from).weight.saturating_sub(load);
                if gap <= mean / FINE || !(is_far(from) || is_far(to)) {
                    break;
                }
                let limit = gap - mean / FINE - 1;
                let Some((g, partition)) = self.movable(groups, from, to, limit) else {
                    continue;
                };
                passed_over.pop();
                let mut group = std::mem::take(self.groups.row_mut(g));
                self.withdraw(&mut group, partition, from);
                self.give(&mut group, partition, to);
                *self.groups.row_mut(g) = group;
                self.changed.push(partition);
                if !self.groups.row(g).uniform() {
                    // Its other holders may now have something to give that they had not before.
                    self.dirty.insert(g);
                }
                moved = true;
                for agent in [from, to] {
                    let load = self.totals.row(agent).weight;
                    donors.push((load, agent));
                    takers.push(Reverse((load, agent)));
                }
                break;
            }
            takers.extend(passed_over);
        }
        moved
    }

    fn weighed<'a>(&'a self, agents: &'a [AgentIndex]) -> impl Iterator<Item = (u64, AgentIndex)> {
        agents.iter().map(|a| (self.totals.row(*a).weight, *a))
    }

    /// The groups of which each agent holds something, the least in priority first.
    fn groups_held(&self, agents: &[AgentIndex]) -> BTreeMap<AgentIndex, Vec<GroupIndex>> {
        let mut held: BTreeMap<AgentIndex, Vec<GroupIndex>> =
            agents.iter().map(|agent| (*agent, Vec::new())).collect();
        for g in self.group_indices() {
            let group = self.groups.row(g);
            if group.rules.strategy == Strategy::Static {
                continue;
            }
            for bucket in group.buckets.iter().filter(|bucket| bucket.count > 0) {
                if let Some(groups) = held.get_mut(&bucket.agent) {
                    groups.push(g);
                }
            }
        }
        held
    }

    /// A partition whose move makes the totals more even and its group no less so.
    fn movable(
        &self,
        groups: &[GroupIndex],
        from: AgentIndex,
        to: AgentIndex,
        limit: u64,
    ) -> Option<(GroupIndex, PartitionIndex)> {
        let capacity = self.agents.row(to).capacity.unwrap_or(u64::MAX);
        let room = capacity.saturating_sub(self.totals.row(to).weight);
        for &g in groups {
            let group = self.groups.row(g);
            let (here, there) = (self.load_of(g, from), self.load_of(g, to));
            let max = group.rules.max_per_agent;
            if here.weight <= there.weight || (max > 0 && there.count >= max) {
                continue;
            }
            let most = limit.min(room).min(here.weight - there.weight);
            let fits = |member: super::bucket::Member| {
                self.rows.held(member, g, from)
                    && !(group.spreads && self.collides(g, member.partition, to))
            };
            let bucket = group.bucket(from)?;
            if let Some(member) = bucket.heaviest(most, fits) {
                return Some((g, member.partition));
            }
        }
        None
    }
}
