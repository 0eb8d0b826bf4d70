//! Groups whose partitions all weigh the same: by count, with the least moves.

use super::layout::{Group, Layout};
use super::seats::{Homeless, Seat};
use super::{AgentIndex, GroupIndex, PartitionIndex};
use crate::spec::Strategy;

impl Layout {
    /// Settles a group of equal weights.
    pub(super) fn level_group(&mut self, g: GroupIndex, group: &mut Group) {
        let mut homeless = self.collect(g, group);
        if homeless.adrift.is_empty() && homeless.leaving.is_empty() && self.is_level(group) {
            return;
        }
        let mut seats = self.seats(group);
        let weight = u64::from(group.base.max(1));
        let moves = group.rules.strategy == Strategy::Balanced;
        let homeless_count = homeless.adrift.len() + homeless.leaving.len();
        let (targets, cramped) = targets(&seats, weight, homeless_count, moves);
        group.cramped = cramped || !homeless.leaving.is_empty();
        for (seat, target) in seats.iter_mut().zip(&targets) {
            while seat.held > *target {
                let Some(partition) = self.shed(g, group, seat.agent) else {
                    break;
                };
                seat.held -= 1;
                homeless.adrift.push(partition);
            }
        }
        if !homeless.adrift.is_sorted() {
            homeless.adrift.sort_unstable();
        }
        let needs = needs(&seats, &targets);
        self.deal(g, group, needs, homeless);
        for bucket in &mut group.buckets {
            bucket.tidy(g, &mut self.rows, false);
        }
    }

    /// Whether nothing can be gained by moving: true at once for most groups that an event touches.
    fn is_level(&self, group: &Group) -> bool {
        let (mut low, mut high, mut seen) = (u32::MAX, 0, 0);
        for bucket in &group.buckets {
            let at = bucket.agent.0 as usize;
            if self.open.has(at) && !group.denied.has(at) {
                seen += 1;
                low = low.min(bucket.count);
                high = high.max(bucket.count);
            }
        }
        if seen < self.open.count_without(&group.denied) {
            low = 0;
        }
        let max = group.rules.max_per_agent;
        let within = max == 0 || high <= max;
        within && (high.saturating_sub(low) <= 1 || group.rules.strategy == Strategy::Static)
    }

    /// Takes one partition from an agent, one that should not be beside its like if there is any.
    fn shed(
        &mut self,
        g: GroupIndex,
        group: &mut Group,
        agent: AgentIndex,
    ) -> Option<PartitionIndex> {
        if group.spreads {
            let members = group
                .bucket(agent)
                .into_iter()
                .flat_map(|b| b.members(g, &self.rows));
            let colliding = members
                .map(|member| member.partition)
                .filter(|partition| self.collides(g, *partition, agent))
                .max();
            if let Some(partition) = colliding {
                self.withdraw(group, partition, agent);
                self.changed.push(partition);
                return Some(partition);
            }
        }
        let partition = group.bucket_mut(agent).pop(g, &mut self.rows)?;
        self.unload(agent, 1, u64::from(group.base));
        self.changed.push(partition);
        Some(partition)
    }

    /// Hands out what is homeless in rounds, so that neighbours in the list go to different agents.
    fn deal(&mut self, g: GroupIndex, group: &mut Group, mut needs: Vec<Need>, homeless: Homeless) {
        let mut agents: Vec<_> = needs.iter().map(|need| need.agent).collect();
        agents.sort_unstable();
        group.reach(agents.into_iter());
        // Those with most to take first: the needy are then always a prefix of the list.
        needs.sort_by_key(|need| std::cmp::Reverse(need.missing));
        let total: usize = needs.iter().map(|need| need.missing as usize).sum();
        for need in &needs {
            let bucket = group.bucket_mut(need.agent);
            bucket.reserve(need.missing as usize);
        }
        let mut round = Round { needs, at: 0 };
        let fits = total.min(homeless.adrift.len());
        let (placed, left) = homeless.adrift.split_at(fits);
        let weight = group.base;
        for &partition in placed {
            let Some(agent) = self.next_taker(g, group, &mut round, partition) else {
                break;
            };
            self.rows.own(partition, agent);
            let member = self.rows.member(partition);
            debug_assert_eq!(member.weight, weight, "equal weights");
            group.bucket_mut(agent).push(member);
        }
        group.waiting = left.to_vec();
        let mut leaving = homeless.leaving.into_iter();
        for (partition, _) in leaving.by_ref().take(total - fits) {
            let Some(agent) = self.next_taker(g, group, &mut round, partition) else {
                break;
            };
            self.rows.own(partition, agent);
            let member = self.rows.member(partition);
            group.bucket_mut(agent).push(member);
            self.changed.push(partition);
        }
        for need in &round.needs {
            let taken = need.missing - need.left;
            self.load_up(need.agent, taken, u64::from(taken) * u64::from(weight));
        }
        for (partition, agent) in leaving {
            self.give(group, partition, agent);
        }
        self.changed.extend_from_slice(placed);
    }

    /// The agent that takes this partition: the next in the round, or, where the partition is to be
    /// spread, the next without its like.
    fn next_taker(
        &self,
        g: GroupIndex,
        group: &Group,
        round: &mut Round,
        partition: PartitionIndex,
    ) -> Option<AgentIndex> {
        round.turn();
        let mut at = round.at;
        if group.spreads {
            let others = round.needs.iter().enumerate().cycle().skip(at);
            let free = others
                .take(round.needs.len())
                .filter(|(_, need)| need.left > 0)
                .find(|(_, need)| !self.collides(g, partition, need.agent));
            at = free.map_or(at, |(at, _)| at);
        }
        let in_turn = at == round.at;
        let need = round.needs.get_mut(at)?;
        need.left = need.left.checked_sub(1)?;
        if in_turn {
            round.at += 1;
        }
        Some(need.agent)
    }
}

/// How many partitions an agent has still to take.
struct Need {
    agent: AgentIndex,
    missing: u32,
    left: u32,
}

/// Whose turn it is.
struct Round {
    needs: Vec<Need>,
    at: usize,
}

impl Round {
    /// Moves on to an agent that has still to take something, if there is any.
    #[inline]
    fn turn(&mut self) {
        let needy = |needs: &[Need], at: usize| needs.get(at).is_some_and(|need| need.left > 0);
        if needy(&self.needs, self.at) {
            return;
        }
        let next = (self.at..self.needs.len()).find(|at| needy(&self.needs, *at));
        let first = || (0..self.needs.len()).find(|at| needy(&self.needs, *at));
        self.at = next.or_else(first).unwrap_or(0);
    }
}

fn needs(seats: &[Seat], targets: &[u32]) -> Vec<Need> {
    let missing = seats.iter().zip(targets).map(|(seat, target)| Need {
        agent: seat.agent,
        missing: target.saturating_sub(seat.held),
        left: target.saturating_sub(seat.held),
    });
    missing.filter(|need| need.missing > 0).collect()
}

/// How many partitions each seat is to hold: level with each other within their limits; who gets one
/// of the remainder is chosen so that the least has to move, then so that totals become even.
fn targets(seats: &[Seat], weight: u64, homeless: usize, moves: bool) -> (Vec<u32>, bool) {
    // Below what it holds when `max_per_agent` was lowered: it is then cut down, whatever the strategy.
    let limit = |seat: &Seat| {
        let places = u32::try_from(seat.room / weight).unwrap_or(u32::MAX);
        seat.most.min(seat.held.saturating_add(places))
    };
    let limits: Vec<u32> = seats.iter().map(limit).collect();
    let floors: Vec<u32> = if moves {
        vec![0; seats.len()]
    } else {
        let kept = seats.iter().zip(&limits);
        kept.map(|(seat, limit)| seat.held.min(*limit)).collect()
    };
    let held: u64 = seats.iter().map(|seat| u64::from(seat.held)).sum();
    let supply = held + homeless as u64;
    let filled = |level: u32| -> u64 {
        let each = limits.iter().zip(&floors);
        each.map(|(limit, floor)| u64::from(level.clamp(*floor, (*limit).max(*floor))))
            .sum()
    };
    // Without limits the level is the quotient; only where they matter it has to be searched for.
    let quotient = supply.checked_div(seats.len() as u64).unwrap_or(0);
    let quotient = u32::try_from(quotient).unwrap_or(u32::MAX - 1);
    let level = if filled(quotient) <= supply && filled(quotient + 1) > supply {
        quotient
    } else {
        highest(|level| filled(level) <= supply)
    };
    let mut rest = supply.saturating_sub(filled(level));
    let mut targets: Vec<u32> = limits
        .iter()
        .zip(&floors)
        .map(|(limit, floor)| level.clamp(*floor, (*limit).max(*floor)))
        .collect();
    // First those that hold one more already, then the others; each in order of their totals.
    for keeps in [true, false] {
        for ((seat, target), limit) in seats.iter().zip(&mut targets).zip(&limits) {
            let raises = rest > 0 && *target == level && *limit > level;
            if raises && (seat.held > level) == keeps {
                *target += 1;
                rest -= 1;
            }
        }
    }
    let full = seats.iter().zip(&limits).zip(&targets);
    let cramped = full
        .filter(|((seat, limit), target)| **limit < seat.most && **target == **limit)
        .count();
    (targets, cramped > 0)
}

/// The highest level that `holds`, by bisection; it holds at 0.
fn highest(holds: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (0, u32::MAX);
    if holds(high) {
        return high;
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}
