//! What one agent holds of one group.
//!
//! Taking a partition away only changes its owner; its entry here becomes stale and is dropped when
//! stale entries prevail. So a departure costs nothing per entry, and heavier ones stay in order.

use super::layout::Rows;
use super::{AgentIndex, GroupIndex, PartitionIndex};

/// Room for one more entry in so many is kept unused.
const SPARE: usize = 16;
/// From so many on, sorting digit by digit is faster than comparing.
const MANY: usize = 1 << 12;

/// A partition that is, or was, held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member {
    pub(super) weight: u32,
    pub(super) partition: PartitionIndex,
}

impl Member {
    /// Lower for what comes first when the heaviest do, and equal ones in the order of their numbers.
    pub(super) fn order(self) -> u64 {
        u64::from(!self.weight) << 32 | u64::from(self.partition.0)
    }
}

/// The heaviest first, equal ones in the order of their numbers.
pub(super) fn heaviest_first(mut members: Vec<Member>) -> Vec<Member> {
    if members.len() < MANY {
        members.sort_unstable_by_key(|member| member.order());
        return members;
    }
    if !members.is_sorted_by_key(|member| member.partition) {
        members.sort_unstable_by_key(|member| member.partition);
    }
    let mut sorted = members.clone();
    for shift in [0, 8, 16, 24] {
        if sort_by_digit(&members, &mut sorted, shift) {
            std::mem::swap(&mut members, &mut sorted);
        }
    }
    members
}

/// Sorts by eight bits of the weight, the highest first, leaving equal ones as they are; false when all
/// are equal in these.
fn sort_by_digit(from: &[Member], into: &mut [Member], shift: u32) -> bool {
    let digit = |member: &Member| (!member.weight >> shift & 0xff) as usize;
    let mut next = [0; 256];
    for member in from {
        if let Some(count) = next.get_mut(digit(member)) {
            *count += 1;
        }
    }
    if next.contains(&from.len()) {
        return false;
    }
    let mut sum = 0;
    for next in &mut next {
        sum += std::mem::replace(next, sum);
    }
    for member in from {
        if let Some(next) = next.get_mut(digit(member))
            && let Some(place) = into.get_mut(*next)
        {
            *place = *member;
            *next += 1;
        }
    }
    true
}

/// What one agent holds of one group.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    pub(super) agent: AgentIndex,
    /// Partitions held.
    pub(super) count: u32,
    /// Their weight.
    pub(super) weight: u64,
    /// None weighs more; it may be that none weighs as much.
    heaviest: u32,
    /// None weighs less; it may be that none weighs so little.
    pub(super) lightest: u32,
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
            heaviest: 0,
            lightest: u32::MAX,
            sorted: 0,
            entries: Vec::new(),
        }
    }

    /// Whether every entry is of a partition that is held.
    fn is_exact(&self) -> bool {
        // Each that is held has an entry, so none is left over for others.
        self.entries.len() == self.count as usize
    }

    /// Whether an entry of it still tells the truth. Mostly all do, which is known without looking up
    /// each partition in cold memory.
    #[inline]
    pub(super) fn holds(&self, member: Member, group: GroupIndex, rows: &Rows) -> bool {
        self.is_exact() || rows.held(member, group, self.agent)
    }

    /// Makes room for `more` at once, and for a few later ones so that a small change costs no copying.
    pub(super) fn reserve(&mut self, more: usize) {
        let spare = self.entries.capacity() - self.entries.len();
        if more > spare {
            let all = self.entries.len() + more;
            self.entries.reserve_exact(more + all / SPARE);
        }
    }

    /// Takes in a partition; the caller has set its owner.
    #[inline]
    pub(super) fn push(&mut self, member: Member) {
        // What is no heavier than the lightest is in order without a look at the last, in cold memory.
        let ordered = self.sorted == self.entries.len()
            && (member.weight <= self.lightest
                || self
                    .entries
                    .last()
                    .is_none_or(|last| last.weight >= member.weight));
        self.sorted += usize::from(ordered);
        self.count += 1;
        self.weight += u64::from(member.weight);
        self.heaviest = self.heaviest.max(member.weight);
        self.lightest = self.lightest.min(member.weight);
        if self.entries.len() == self.entries.capacity() {
            // Doubling would leave up to half of a long list unused.
            self.entries.reserve_exact((self.entries.len() / 8).max(4));
        }
        self.entries.push(member);
    }

    /// A partition has lost this agent as its owner.
    pub(super) fn lost(&mut self, weight: u32) {
        self.count -= 1;
        self.weight -= u64::from(weight);
        if self.count == 0 {
            self.entries.clear();
            self.heaviest = 0;
            self.lightest = u32::MAX;
            self.sorted = 0;
        }
    }

    /// Takes out a partition; the caller has made it another's or nobody's.
    pub(super) fn remove(&mut self, member: Member) {
        // What moves for the sake of balance is mostly light, and those are at the end.
        if let Some(at) = self.entries.iter().rposition(|entry| *entry == member) {
            self.entries.remove(at);
            self.sorted -= usize::from(at < self.sorted);
        }
        self.lost(member.weight);
    }

    /// Takes out the partition that came last, and makes it nobody's.
    pub(super) fn pop(&mut self, group: GroupIndex, rows: &mut Rows) -> Option<PartitionIndex> {
        while let Some(last) = self.entries.last().copied() {
            let held = self.holds(last, group, rows);
            self.entries.pop();
            self.sorted = self.sorted.min(self.entries.len());
            if held {
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
        let exact = self.is_exact();
        for member in std::mem::take(&mut self.entries) {
            if exact || rows.held(member, group, self.agent) {
                rows.disown(member.partition);
                into.push(member.partition);
            }
        }
        self.count = 0;
        self.weight = 0;
        self.heaviest = 0;
        self.lightest = u32::MAX;
        self.sorted = 0;
    }

    /// What it holds, in no particular order.
    pub(super) fn members<'a>(
        &'a self,
        group: GroupIndex,
        rows: &'a Rows,
    ) -> impl Iterator<Item = Member> + 'a {
        let held = move |member: &Member| self.holds(*member, group, rows);
        self.entries.iter().copied().filter(held)
    }

    /// Partitions heavier than `limit`; one that left and came back may be among them twice.
    pub(super) fn heavier<'a>(
        &'a self,
        limit: u64,
        group: GroupIndex,
        rows: &'a Rows,
    ) -> impl Iterator<Item = Member> + 'a {
        let heavier = move |member: &Member| u64::from(member.weight) > limit;
        let entries = if u64::from(self.heaviest) > limit {
            self.entries.as_slice()
        } else {
            &[]
        };
        let (ordered, rest) = entries.split_at(self.sorted.min(entries.len()));
        let first = ordered.iter().take_while(move |member| heavier(member));
        let found = first.chain(rest.iter().filter(move |member| heavier(member)));
        let held = move |member: &Member| self.holds(*member, group, rows);
        found.copied().filter(held)
    }

    /// The heaviest partition of at most `limit` that `fits`.
    pub(super) fn heaviest(
        &self,
        limit: u64,
        mut fits: impl FnMut(Member) -> bool,
    ) -> Option<Member> {
        let (ordered, rest) = self.entries.split_at(self.sorted);
        let start = first_within(ordered, limit);
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
    pub(super) fn lightest_that(&self, mut fits: impl FnMut(Member) -> bool) -> Option<Member> {
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
            self.entries.sort_unstable_by_key(|member| member.order());
            self.sorted = self.entries.len();
            self.heaviest = self.entries.first().map_or(0, |first| first.weight);
            self.lightest = self.entries.last().map_or(u32::MAX, |last| last.weight);
        } else {
            self.sorted = 0;
        }
    }
}

/// Where those of at most `limit` begin. Looked for from the end: mostly something light is wanted, and
/// each step elsewhere in a long list is one to cold memory.
fn first_within(ordered: &[Member], limit: u64) -> usize {
    let heavier = |member: &Member| u64::from(member.weight) > limit;
    let mut step = 1;
    let mut low = ordered.len();
    while low > 0 {
        let next = low.saturating_sub(step);
        if ordered.get(next).is_some_and(heavier) {
            let within = ordered.get(next..low).unwrap_or(&[]);
            return next + within.partition_point(heavier);
        }
        low = next;
        step *= 4;
    }
    0
}
