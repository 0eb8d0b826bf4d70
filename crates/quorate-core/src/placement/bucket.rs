//! What one agent holds of one group.
//!
//! Taking a partition away only changes its owner; its entry here becomes stale and is dropped when
//! stale entries prevail. So a departure costs nothing per entry, and heavier ones stay in order.

use super::layout::Rows;
use super::{AgentIndex, GroupIndex, PartitionIndex};

/// A partition that is, or was, held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member {
    pub(super) weight: u32,
    pub(super) partition: PartitionIndex,
}

/// What one agent holds of one group.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    pub(super) agent: AgentIndex,
    /// Partitions held.
    pub(super) count: u32,
    /// Their weight.
    pub(super) weight: u64,
    /// So many entries at the front have non-increasing weights.
    sorted: usize,
    entries: Vec<Member>,
}

impl Bucket {
    pub(super) fn new(agent: AgentIndex) -> Self {
        Self {
            agent,
            count: 0,
            weight: 0,
            sorted: 0,
            entries: Vec::new(),
        }
    }

    /// Makes room for `more`, no more than that.
    pub(super) fn reserve(&mut self, more: usize) {
        self.entries.reserve_exact(more);
    }

    /// Takes in a partition; the caller has set its owner.
    #[inline]
    pub(super) fn push(&mut self, member: Member) {
        let ordered = self.sorted == self.entries.len()
            && self
                .entries
                .last()
                .is_none_or(|last| last.weight >= member.weight);
        self.sorted += usize::from(ordered);
        self.count += 1;
        self.weight += u64::from(member.weight);
        self.entries.push(member);
    }

    /// A partition has lost this agent as its owner.
    pub(super) fn lost(&mut self, weight: u32) {
        self.count -= 1;
        self.weight -= u64::from(weight);
        if self.count == 0 {
            self.entries.clear();
            self.sorted = 0;
        }
    }

    /// Takes out the partition that came last, and makes it nobody's.
    pub(super) fn pop(&mut self, group: GroupIndex, rows: &mut Rows) -> Option<PartitionIndex> {
        while let Some(last) = self.entries.pop() {
            self.sorted = self.sorted.min(self.entries.len());
            if rows.held(last, group, self.agent) {
                rows.disown(last.partition);
                self.lost(last.weight);
                return Some(last.partition);
            }
        }
        None
    }

    /// Takes out everything, and makes it nobody's.
    pub(super) fn drain(
        &mut self,
        group: GroupIndex,
        rows: &mut Rows,
        into: &mut Vec<PartitionIndex>,
    ) {
        for member in std::mem::take(&mut self.entries) {
            if rows.held(member, group, self.agent) {
                rows.disown(member.partition);
                into.push(member.partition);
            }
        }
        self.count = 0;
        self.weight = 0;
        self.sorted = 0;
    }

    /// What it holds, in no particular order.
    pub(super) fn members<'a>(
        &'a self,
        group: GroupIndex,
        rows: &'a Rows,
    ) -> impl Iterator<Item = Member> + 'a {
        let held = move |member: &Member| rows.held(*member, group, self.agent);
        self.entries.iter().copied().filter(held)
    }

    /// The heaviest partition of at most `limit` that `fits`.
    pub(super) fn heaviest(
        &self,
        limit: u64,
        mut fits: impl FnMut(Member) -> bool,
    ) -> Option<Member> {
        let (ordered, rest) = self.entries.split_at(self.sorted);
        let start = ordered.partition_point(|member| u64::from(member.weight) > limit);
        let first = ordered.iter().skip(start).copied().find(|m| fits(*m));
        let mut best = first;
        for member in rest.iter().copied() {
            let better = best.is_none_or(|best| best.weight < member.weight);
            if better && u64::from(member.weight) <= limit && fits(member) {
                best = Some(member);
            }
        }
        best
    }

    /// The lightest partition that `fits`.
    pub(super) fn lightest(&self, mut fits: impl FnMut(Member) -> bool) -> Option<Member> {
        let (ordered, rest) = self.entries.split_at(self.sorted);
        let mut best = ordered.iter().rev().copied().find(|m| fits(*m));
        for member in rest.iter().copied() {
            let better = best.is_none_or(|best| best.weight > member.weight);
            if better && fits(member) {
                best = Some(member);
            }
        }
        best
    }

    /// Drops stale entries when they prevail, and puts the rest in order when too many are out of it.
    /// `ordered` says whether order matters for this group.
    pub(super) fn tidy(&mut self, group: GroupIndex, rows: &mut Rows, ordered: bool) {
        let stale = self.entries.len() > 2 * self.count as usize + 32;
        let loose = ordered && self.entries.len() - self.sorted > 16 + self.sorted / 8;
        if !stale && !loose {
            return;
        }
        // A partition that left and came back has two entries: disown at the first, restore after.
        let agent = self.agent;
        self.entries.retain(|member| {
            let held = rows.held(*member, group, agent);
            if held {
                rows.disown(member.partition);
            }
            held
        });
        for member in &self.entries {
            rows.own(member.partition, agent);
        }
        if ordered {
            self.entries
                .sort_unstable_by_key(|m| (std::cmp::Reverse(m.weight), m.partition));
            self.sorted = self.entries.len();
        } else {
            self.sorted = 0;
        }
    }
}
