//! Evenness over all groups: every group is level by itself, but the agents that hold its remainders
//! may be the same ones each time, most of all where groups have fewer partitions than there are agents.

use std::collections::BTreeMap;

use super::aim::{Aim, near};
use super::bucket::Member;
use super::layout::{Group, Layout};
use super::tournament::Tournament;
use super::{AgentIndex, GroupIndex, PartitionIndex};
use crate::spec::Strategy;

/// So many receivers are tried for each donor before it is given up.
const TRIES: usize = 4;
/// After so many donors in a row that could give nothing, the others are taken to be no better: those
/// that hold single heavy partitions stay above the mean whatever is tried, and there can be many.
const IN_VAIN: usize = 4;

/// What an agent holds of a group.
#[derive(Clone, Copy, Debug)]
struct Holding {
    group: GroupIndex,
    count: u32,
    weight: u64,
    /// None of these weighs less.
    lightest: u32,
}

/// What agents hold of each group whose partitions may move, in the order of the groups; for those that
/// were asked for and have not changed since.
#[derive(Default)]
struct Holdings(BTreeMap<AgentIndex, Vec<Holding>>);

impl Holdings {
    fn of(&mut self, layout: &Layout, agent: AgentIndex) -> &[Holding] {
        self.0
            .entry(agent)
            .or_insert_with(|| layout.holdings(agent))
    }

    fn forget(&mut self, agent: AgentIndex) {
        self.0.remove(&agent);
    }
}

/// What one agent is to give to another.
struct Lift {
    to: usize,
    group: GroupIndex,
    partition: PartitionIndex,
}

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
        let mut holdings = Holdings::default();
        for agents in kinds.values() {
            if agents.len() > 1 {
                while self.level_kind(agents, &mut holdings) {}
            }
        }
    }

    /// One pass over agents of one kind; true when something has moved.
    fn level_kind(&mut self, agents: &[AgentIndex], holdings: &mut Holdings) -> bool {
        let totals = agents.iter().map(|agent| self.totals.row(*agent).weight);
        let loads: Vec<u64> = totals.collect();
        let total: u64 = loads.iter().sum();
        let mean = total / loads.len() as u64;
        let mut aim = Aim::new(mean, near(mean).max(1), loads);
        if !aim.any_far() {
            return false;
        }
        let mut donors = Tournament::new(aim.loads().map(|load| !load));
        let mut takers = Tournament::new(aim.loads());
        let mut moved = false;
        let mut in_vain = 0;
        while in_vain < IN_VAIN
            && let (Some(from), Some(least)) = (donors.first(), takers.first())
            && (aim.is_far(from) || aim.is_far(least))
        {
            let Some(lift) = self.lift(agents, &aim, from, &mut takers, holdings) else {
                donors.remove(from);
                in_vain += 1;
                continue;
            };
            let (Some(donor), Some(taker)) = (agents.get(from), agents.get(lift.to)) else {
                break;
            };
            self.carry(&lift, *donor, *taker);
            holdings.forget(*donor);
            holdings.forget(*taker);
            let weight = u64::from(self.rows.member(lift.partition).weight);
            aim.shift(from, lift.to, weight);
            for at in [from, lift.to] {
                donors.set(at, !aim.load(at));
                takers.set(at, aim.load(at));
            }
            moved = true;
            in_vain = 0;
        }
        moved
    }

    fn holdings(&self, agent: AgentIndex) -> Vec<Holding> {
        let mut holdings = Vec::new();
        for group in self.group_indices() {
            let row = self.groups.row(group);
            if row.rules.strategy == Strategy::Static || row.denied.has(agent.0 as usize) {
                continue;
            }
            if let Some(bucket) = row.bucket(agent).filter(|bucket| bucket.count > 0) {
                holdings.push(Holding {
                    group,
                    count: bucket.count,
                    weight: bucket.weight,
                    lightest: bucket.lightest,
                });
            }
        }
        holdings
    }

    /// What an agent is to give to one of the few with least.
    fn lift(
        &self,
        agents: &[AgentIndex],
        aim: &Aim,
        from: usize,
        takers: &mut Tournament,
        holdings: &mut Holdings,
    ) -> Option<Lift> {
        let donor = *agents.get(from)?;
        let here = holdings.of(self, donor).to_vec();
        let mut passed_over = Vec::new();
        let mut found = None;
        while passed_over.len() < TRIES
            && let Some(to) = takers.first()
            && aim.is_worth_it(from, to)
        {
            let taker = *agents.get(to)?;
            let there = holdings.of(self, taker);
            let pair = (donor, taker);
            let movable = self.movable(
                pair,
                &here,
                there,
                aim.wanted(from, to),
                aim.limit(from, to),
            );
            if let Some((group, partition)) = movable {
                found = Some(Lift {
                    to,
                    group,
                    partition,
                });
                break;
            }
            takers.remove(to);
            passed_over.push(to);
        }
        for at in passed_over {
            takers.set(at, aim.load(at));
        }
        found
    }

    /// A partition whose move makes the totals more even and its group no less so: the heaviest of
    /// `wanted` at most, else one of `limit` at most.
    fn movable(
        &self,
        (from, to): (AgentIndex, AgentIndex),
        here: &[Holding],
        there: &[Holding],
        wanted: u64,
        limit: u64,
    ) -> Option<(GroupIndex, PartitionIndex)> {
        let capacity = self.agents.row(to).capacity.unwrap_or(u64::MAX);
        let limit = limit.min(capacity.saturating_sub(self.totals.row(to).weight));
        let mut light = None;
        let mut there = there.iter().peekable();
        for here in here {
            let g = here.group;
            while there.next_if(|there| there.group < g).is_some() {}
            let beside = there.next_if(|there| there.group == g);
            let (count, weight) = beside.map_or((0, 0), |there| (there.count, there.weight));
            let most = limit.min(here.weight.saturating_sub(weight));
            if u64::from(here.lightest) > most {
                continue;
            }
            let group = self.groups.row(g);
            let max = group.rules.max_per_agent;
            let Some(bucket) = group.bucket(from).filter(|_| max == 0 || count < max) else {
                continue;
            };
            let fits = |member: Member| {
                bucket.holds(member, g, &self.rows)
                    && !(group.spreads && self.collides(g, member.partition, to))
            };
            if let Some(member) = bucket.heaviest(most.min(wanted), fits) {
                return Some((g, member.partition));
            }
            light = light.or_else(|| {
                let lightest = bucket.lightest_that(fits);
                let lightest = lightest.filter(|member| u64::from(member.weight) <= most)?;
                Some((g, lightest.partition))
            });
        }
        light
    }

    fn carry(&mut self, lift: &Lift, from: AgentIndex, to: AgentIndex) {
        let mut group = std::mem::take(self.groups.row_mut(lift.group));
        self.withdraw(&mut group, lift.partition, from);
        self.give(&mut group, lift.partition, to);
        if !group.uniform() {
            // Its other holders may now have something to give that they had not before.
            self.dirty.insert(lift.group);
        }
        *self.groups.row_mut(lift.group) = group;
        self.changed.push(lift.partition);
    }
}
