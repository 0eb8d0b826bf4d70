//! The map of who is to hold what, kept in step with changes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::bucket::{Bucket, Member};
use super::table::{Bits, Table};
use super::{
    Agent, AgentIndex, GroupIndex, Load, Misfit, Partition, PartitionIndex, Rules, Standing,
};

/// Owner of a partition that has none.
pub(super) const NOBODY: AgentIndex = AgentIndex(u32::MAX);
/// Group of a row that is no partition.
const NOWHERE: GroupIndex = GroupIndex(u32::MAX);

/// The rows of the partitions.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    group: Table<PartitionIndex, GroupIndex>,
    weight: Table<PartitionIndex, u32>,
    owner: Table<PartitionIndex, AgentIndex>,
}

impl Rows {
    /// Whether an entry of a bucket still tells the truth.
    #[inline]
    pub(super) fn held(&self, member: Member, group: GroupIndex, agent: AgentIndex) -> bool {
        let p = member.partition;
        *self.owner.row(p) == agent
            && *self.group.row(p) == group
            && *self.weight.row(p) == member.weight
    }

    #[inline]
    pub(super) fn own(&mut self, partition: PartitionIndex, agent: AgentIndex) {
        *self.owner.row_mut(partition) = agent;
    }

    #[inline]
    pub(super) fn disown(&mut self, partition: PartitionIndex) {
        *self.owner.row_mut(partition) = NOBODY;
    }

    #[inline]
    pub(super) fn member(&self, partition: PartitionIndex) -> Member {
        Member {
            weight: *self.weight.row(partition),
            partition,
        }
    }

    /// Whether the partition belongs to `group` and has no owner.
    pub(super) fn waits(&self, partition: PartitionIndex, group: GroupIndex) -> bool {
        *self.group.row(partition) == group && *self.owner.row(partition) == NOBODY
    }
}

/// Partitions that share their rules and balance by themselves.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) rules: Rules,
    /// Agents that may not hold its partitions.
    pub(super) denied: Bits,
    /// What agents hold of it, by agent; those that hold nothing may be missing.
    pub(super) buckets: Vec<Bucket>,
    /// All of them are for agents below this.
    span: u32,
    /// Partitions without an owner, and some that have found one meanwhile.
    pub(super) waiting: Vec<PartitionIndex>,
    /// How many partitions it has.
    count: u32,
    /// Weight of its first partition.
    pub(super) base: u32,
    /// How many partitions have another weight than `base`.
    odd: u32,
    /// Whether capacities kept it from being even when it was last settled.
    pub(super) cramped: bool,
    /// Whether any partition asks to be spread.
    pub(super) spreads: bool,
}

impl Group {
    /// The weight of every partition, when they all have the same.
    pub(super) fn uniform(&self) -> bool {
        self.odd == 0
    }

    /// How many of its partitions have no owner.
    pub(super) fn ownerless(&self) -> usize {
        let held: usize = self.buckets.iter().map(|b| b.count as usize).sum();
        self.count as usize - held
    }

    /// Where the bucket of an agent is, or where it would be.
    fn place_of(&self, agent: AgentIndex) -> Result<usize, usize> {
        let upto = |at: usize| self.buckets.get(at).is_some_and(|b| b.agent <= agent);
        // Mostly the agents that have one are about equally far apart, so this is nearly it.
        let count = self.buckets.len();
        let guess = agent.0 as usize * count / (self.span as usize).max(1);
        let mut step = 1;
        let (low, high) = if upto(guess) {
            let mut low = guess;
            while upto(low + step) {
                low += step;
                step *= 2;
            }
            (low, count.min(low + step))
        } else {
            let mut high = guess.min(count);
            while high > 0 && !upto(high.saturating_sub(step)) {
                high = high.saturating_sub(step);
                step *= 2;
            }
            (high.saturating_sub(step), high)
        };
        let near = self.buckets.get(low..high).unwrap_or_default();
        let found = near.binary_search_by_key(&agent, |bucket| bucket.agent);
        found.map(|at| low + at).map_err(|at| low + at)
    }

    pub(super) fn bucket(&self, agent: AgentIndex) -> Option<&Bucket> {
        self.buckets.get(self.place_of(agent).ok()?)
    }

    pub(super) fn bucket_mut(&mut self, agent: AgentIndex) -> &mut Bucket {
        let at = self.place_of(agent).unwrap_or_else(|at| {
            self.buckets.insert(at, Bucket::new(agent));
            self.span = self.span.max(agent.0 + 1);
            at
        });
        #[expect(clippy::indexing_slicing, reason = "found or inserted just above")]
        &mut self.buckets[at]
    }

    /// Makes the buckets of many agents at once; `agents` is in order.
    pub(super) fn reach(&mut self, agents: impl Iterator<Item = AgentIndex>) {
        let mut known = self.buckets.iter().peekable();
        let missing = agents.filter(|agent| {
            while known.next_if(|bucket| bucket.agent < *agent).is_some() {}
            known.peek().is_none_or(|bucket| bucket.agent != *agent)
        });
        let missing: Vec<_> = missing.collect();
        if let Some(last) = missing.last() {
            self.span = self.span.max(last.0 + 1);
            self.buckets.extend(missing.into_iter().map(Bucket::new));
            self.buckets.sort_unstable_by_key(|bucket| bucket.agent);
        }
    }
}

/// The map of who is to hold what. Made once, then told of every change; [`settle`](Self::settle)
/// answers with what it changed.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    pub(super) agents: Table<AgentIndex, Agent>,
    pub(super) totals: Table<AgentIndex, Load>,
    /// Equal for agents that the same groups are denied, by a hash.
    pub(super) kinds: Table<AgentIndex, u64>,
    pub(super) open: Bits,
    pub(super) groups: Table<GroupIndex, Group>,
    pub(super) rows: Rows,
    pub(super) spread: BTreeMap<PartitionIndex, u32>,
    pub(super) alike: BTreeMap<(GroupIndex, u32), Vec<PartitionIndex>>,
    pub(super) dirty: BTreeSet<GroupIndex>,
    /// Groups that would be more even, or placed in full, if capacities allowed it.
    cramped: BTreeSet<GroupIndex>,
    overfull: BTreeSet<AgentIndex>,
    pub(super) changed: Vec<PartitionIndex>,
}

impl Layout {
    /// Nothing and nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an agent, allowed for every group.
    pub fn add_agent(&mut self, agent: Agent) -> AgentIndex {
        let index = AgentIndex(narrow(self.agents.len()));
        let absent = Agent {
            standing: Standing::Absent,
            ..agent
        };
        self.agents.push(absent);
        self.totals.push(Load::default());
        self.kinds.push(0);
        self.set_agent(index, agent);
        index
    }

    /// Changes what may be placed on an agent, its capacity or its rank.
    pub fn set_agent(&mut self, index: AgentIndex, agent: Agent) {
        let was = std::mem::replace(self.agents.row_mut(index), agent);
        self.open
            .set(index.0 as usize, agent.standing == Standing::Open);
        if was == agent {
            return;
        }
        let gives = matches!(agent.standing, Standing::Leaving | Standing::Absent);
        // Who stops taking part changes what the others are to come near to, even if it keeps all it has.
        let counts = [was.standing, agent.standing].contains(&Standing::Open);
        for g in self.group_indices() {
            let group = self.groups.row(g);
            let holds = || group.bucket(index).is_some_and(|b| b.count > 0);
            if (counts && !group.denied.has(index.0 as usize)) || (gives && holds()) {
                self.dirty.insert(g);
            }
        }
        if agent.capacity.is_some() {
            self.overfull.insert(index);
        }
    }

    /// Adds a group that every agent is allowed for.
    pub fn add_group(&mut self, rules: Rules) -> GroupIndex {
        let index = GroupIndex(narrow(self.groups.len()));
        self.groups.push(Group {
            rules,
            ..Group::default()
        });
        index
    }

    /// Changes the rules of a group.
    pub fn set_rules(&mut self, group: GroupIndex, rules: Rules) {
        if self.groups.row(group).rules != rules {
            self.groups.row_mut(group).rules = rules;
            self.dirty.insert(group);
        }
    }

    /// Allows an agent for a group, or denies it; what it holds of it then goes elsewhere.
    pub fn allow(&mut self, group: GroupIndex, agent: AgentIndex, allowed: bool) {
        if self
            .groups
            .row_mut(group)
            .denied
            .set(agent.0 as usize, !allowed)
        {
            *self.kinds.row_mut(agent) ^= mix(u64::from(group.0));
            self.dirty.insert(group);
        }
    }

    /// Adds a partition, or changes it; what is held stays held while its group is the same.
    pub fn put(&mut self, index: PartitionIndex, partition: Partition) {
        self.rows.group.reach(index, NOWHERE);
        self.rows.weight.reach(index, 0);
        self.rows.owner.reach(index, NOBODY);
        let group = *self.rows.group.row(index);
        let mut owner = NOBODY;
        if group != NOWHERE {
            let same = group == partition.group
                && *self.rows.weight.row(index) == partition.weight
                && self.spread.get(&index).copied() == partition.spread;
            if same {
                return;
            }
            if group == partition.group {
                owner = *self.rows.owner.row(index);
            }
            self.take(index);
        }
        self.insert(index, partition);
        if owner != NOBODY {
            self.hold(index, owner);
        }
    }

    fn insert(&mut self, index: PartitionIndex, partition: Partition) {
        *self.rows.group.row_mut(index) = partition.group;
        *self.rows.weight.row_mut(index) = partition.weight.max(1);
        let group = self.groups.row_mut(partition.group);
        if group.count == 0 {
            group.base = partition.weight.max(1);
        }
        group.count += 1;
        group.odd += u32::from(partition.weight.max(1) != group.base);
        group.waiting.push(index);
        if let Some(label) = partition.spread {
            group.spreads = true;
            self.spread.insert(index, label);
            let alike = self.alike.entry((partition.group, label)).or_default();
            alike.push(index);
        }
        self.dirty.insert(partition.group);
    }

    /// Removes a partition.
    pub fn take(&mut self, index: PartitionIndex) {
        let Some(&g) = self.rows.group.get(index).filter(|g| **g != NOWHERE) else {
            return;
        };
        let weight = *self.rows.weight.row(index);
        let owner = *self.rows.owner.row(index);
        if owner != NOBODY {
            self.rows.disown(index);
            self.groups.row_mut(g).bucket_mut(owner).lost(weight);
            self.unload(owner, 1, u64::from(weight));
        }
        if let Some(label) = self.spread.remove(&index)
            && let Some(alike) = self.alike.get_mut(&(g, label))
        {
            alike.retain(|other| *other != index);
            if alike.is_empty() {
                self.alike.remove(&(g, label));
            }
        }
        *self.rows.group.row_mut(index) = NOWHERE;
        let group = self.groups.row_mut(g);
        group.count -= 1;
        group.odd -= u32::from(weight != group.base);
        if group.count > 0 && group.odd == group.count {
            self.rebase(g);
        }
        self.dirty.insert(g);
    }

    /// The last partition of the weight that others were compared with has gone: compare anew.
    fn rebase(&mut self, g: GroupIndex) {
        let mut group = std::mem::take(self.groups.row_mut(g));
        let held = group.buckets.iter().flat_map(|b| b.members(g, &self.rows));
        let waiting = group.waiting.iter().filter(|p| self.rows.waits(**p, g));
        let weights = held.map(|m| m.weight);
        let weights = weights.chain(waiting.map(|p| *self.rows.weight.row(*p)));
        let mut base = None;
        let mut odd = 0;
        for weight in weights {
            odd += u32::from(*base.get_or_insert(weight) != weight);
        }
        // A partition that waits may be listed twice; the count only matters as zero or not.
        group.odd = odd.min(group.count.saturating_sub(1));
        group.base = base.unwrap_or(group.base);
        *self.groups.row_mut(g) = group;
    }

    /// States that an agent holds a partition now.
    pub fn hold(&mut self, index: PartitionIndex, agent: AgentIndex) {
        let owner = *self.rows.owner.row(index);
        if owner == agent {
            return;
        }
        let g = *self.rows.group.row(index);
        let member = self.rows.member(index);
        if owner != NOBODY {
            self.groups.row_mut(g).bucket_mut(owner).lost(member.weight);
            self.unload(owner, 1, u64::from(member.weight));
        }
        self.rows.own(index, agent);
        self.groups.row_mut(g).bucket_mut(agent).push(member);
        self.load_up(agent, 1, u64::from(member.weight));
        self.dirty.insert(g);
        if self.agents.row(agent).capacity.is_some() {
            self.overfull.insert(agent);
        }
    }

    /// States that nobody holds a partition now: it may be placed anywhere at no cost.
    pub fn free(&mut self, index: PartitionIndex) {
        let Some(owner) = self.owner(index) else {
            return;
        };
        let g = *self.rows.group.row(index);
        let weight = *self.rows.weight.row(index);
        self.rows.disown(index);
        let group = self.groups.row_mut(g);
        group.bucket_mut(owner).lost(weight);
        group.waiting.push(index);
        self.unload(owner, 1, u64::from(weight));
        self.dirty.insert(g);
    }

    /// Counts a weight against an agent's capacity and total that belongs to none of the partitions here.
    pub fn add_ballast(&mut self, agent: AgentIndex, weight: u32) {
        self.load_up(agent, 1, u64::from(weight));
        self.overfull.insert(agent);
    }

    /// Takes such a weight away again.
    pub fn remove_ballast(&mut self, agent: AgentIndex, weight: u32) {
        self.unload(agent, 1, u64::from(weight));
        self.overfull.insert(agent);
    }

    /// How many partitions there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.groups.iter().map(|group| group.count as usize).sum()
    }

    /// Whether there is nothing to settle.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.dirty.is_empty() && self.overfull.is_empty()
    }

    /// Who is to hold a partition.
    #[must_use]
    pub fn owner(&self, index: PartitionIndex) -> Option<AgentIndex> {
        let owner = self.rows.owner.get(index).copied();
        owner.filter(|owner| *owner != NOBODY)
    }

    /// What an agent is to hold.
    #[must_use]
    pub fn load(&self, agent: AgentIndex) -> Load {
        *self.totals.row(agent)
    }

    /// What an agent is to hold of one group.
    #[must_use]
    pub fn load_of(&self, group: GroupIndex, agent: AgentIndex) -> Load {
        let bucket = self.groups.row(group).bucket(agent);
        bucket.map_or_else(Load::default, |bucket| Load {
            count: bucket.count,
            weight: bucket.weight,
        })
    }

    /// Why a partition that was settled has no place; `None` when it has one.
    #[must_use]
    pub fn misfit(&self, index: PartitionIndex) -> Option<Misfit> {
        if self.owner(index).is_some() {
            return None;
        }
        let group = self.groups.row(*self.rows.group.row(index));
        let mut misfit = Misfit::NoAgent;
        for agent in self.allowed(group) {
            let held = group.bucket(agent).map_or(0, |bucket| bucket.count);
            let max = group.rules.max_per_agent;
            let this = if max > 0 && held >= max {
                Misfit::PerAgent
            } else {
                Misfit::Capacity
            };
            misfit = misfit.max(this);
        }
        Some(misfit)
    }

    /// Gives every partition its place, moving the least; `changed` gets those whose owner has changed,
    /// some of them perhaps back to what it was, or more than once.
    pub fn settle(&mut self, changed: &mut Vec<PartitionIndex>) {
        if self.dirty.is_empty() && self.overfull.is_empty() {
            return;
        }
        self.shed_overfull();
        // Whatever changed may have made room for groups that lack it.
        let mut due: BTreeSet<GroupIndex> = std::mem::take(&mut self.dirty);
        due.extend(&self.cramped);
        let mut first = true;
        while !due.is_empty() {
            let before = self.changed.len();
            let priority = |g: &GroupIndex| Reverse(self.groups.row(*g).rules.priority);
            let mut order: Vec<_> = due.iter().map(|g| (priority(g), *g)).collect();
            order.sort_unstable();
            for (_, g) in order {
                self.settle_group(g);
            }
            if first || self.changed.len() > before {
                self.level_totals();
            }
            first = false;
            // Every round makes some group or the totals more even and nothing less so: this ends.
            due.clear();
            if self.changed.len() > before {
                due.extend(&self.cramped);
                due.append(&mut self.dirty);
            }
        }
        append(changed, std::mem::take(&mut self.changed));
    }

    /// Takes note of partitions whose owner has changed.
    pub(super) fn note(&mut self, partitions: Vec<PartitionIndex>) {
        append(&mut self.changed, partitions);
    }

    fn settle_group(&mut self, g: GroupIndex) {
        let mut group = std::mem::take(self.groups.row_mut(g));
        group.cramped = false;
        if group.uniform() {
            self.level_group(g, &mut group);
        } else {
            self.weigh_group(g, &mut group);
        }
        group
            .buckets
            .retain(|bucket| bucket.count > 0 || self.open.has(bucket.agent.0 as usize));
        if group.cramped || !group.waiting.is_empty() {
            self.cramped.insert(g);
        } else {
            self.cramped.remove(&g);
        }
        *self.groups.row_mut(g) = group;
    }

    /// Agents whose capacity is exceeded give up what comes last in priority.
    fn shed_overfull(&mut self) {
        for agent in std::mem::take(&mut self.overfull) {
            let Some(capacity) = self.agents.row(agent).capacity else {
                continue;
            };
            if self.totals.row(agent).weight <= capacity {
                continue;
            }
            let mut groups: Vec<_> = self
                .group_indices()
                .filter(|g| self.groups.row(*g).bucket(agent).is_some())
                .collect();
            groups.sort_by_key(|g| (self.groups.row(*g).rules.priority, Reverse(*g)));
            for g in groups {
                while self.totals.row(agent).weight > capacity {
                    let Some(partition) = self
                        .groups
                        .row_mut(g)
                        .bucket_mut(agent)
                        .pop(g, &mut self.rows)
                    else {
                        break;
                    };
                    let weight = *self.rows.weight.row(partition);
                    self.unload(agent, 1, u64::from(weight));
                    self.groups.row_mut(g).waiting.push(partition);
                    self.dirty.insert(g);
                }
            }
        }
    }

    pub(super) fn group_indices(&self) -> impl Iterator<Item = GroupIndex> + use<> {
        (0..narrow(self.groups.len())).map(GroupIndex)
    }

    /// Agents that may be given partitions of a group.
    pub(super) fn allowed<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = AgentIndex> + 'a {
        let agents = self.agents.iter().enumerate();
        agents.filter_map(|(at, agent)| {
            let allowed = agent.standing == Standing::Open && !group.denied.has(at);
            allowed.then(|| AgentIndex(narrow(at)))
        })
    }

    pub(super) fn load_up(&mut self, agent: AgentIndex, count: u32, weight: u64) {
        let load = self.totals.row_mut(agent);
        load.count += count;
        load.weight += weight;
    }

    pub(super) fn unload(&mut self, agent: AgentIndex, count: u32, weight: u64) {
        let load = self.totals.row_mut(agent);
        load.count -= count;
        load.weight -= weight;
    }

    /// Whether another partition with the same spread number is with the agent.
    pub(super) fn collides(&self, g: GroupIndex, index: PartitionIndex, agent: AgentIndex) -> bool {
        let label = self.spread.get(&index);
        let alike = label.and_then(|label| self.alike.get(&(g, *label)));
        let at_agent = |other: &PartitionIndex| *self.rows.owner.row(*other) == agent;
        alike.is_some_and(|alike| alike.iter().any(|other| *other != index && at_agent(other)))
    }
}

/// Puts one list behind another, without copying where the other is empty: these can be long.
fn append(list: &mut Vec<PartitionIndex>, mut more: Vec<PartitionIndex>) {
    if list.is_empty() {
        *list = more;
    } else {
        list.append(&mut more);
    }
}

/// Rows are numbered by `u32`.
pub(super) fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Scatters a number (the finaliser of SplitMix64).
fn mix(n: u64) -> u64 {
    let n = (n.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
