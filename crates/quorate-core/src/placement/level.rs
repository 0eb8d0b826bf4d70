//! Groups whose partitions all weigh the same: by count, with the least moves.

use super::bucket::Member;
use super::layout::{Group, Layout, narrow};
use super::seats::{Homeless, Seat};
use super::{AgentIndex, GroupIndex, PartitionIndex};
use crate::spec::Strategy;

/// About so many partitions are dealt before the next look at who still needs any: few enough for what
/// is touched to stay in the cache.
const DEALT_AT_ONCE: usize = 1 << 14;

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
        let Homeless {
            adrift: mut placed,
            leaving,
        } = homeless;
        let fits = total.min(placed.len());
        group.waiting = placed.split_off(fits);
        let (taken, stay) = leaving.split_at(leaving.len().min(total - fits));
        placed.extend(taken.iter().map(|(partition, _)| *partition));
        let weight = u64::from(group.base);
        for need in &needs {
            self.load_up(need.agent, need.missing, u64::from(need.missing) * weight);
        }
        if group.spreads {
            self.deal_apart(g, group, needs, &placed);
        } else {
            self.deal_in_turn(group, &needs, &placed);
        }
        for &(partition, agent) in stay {
            self.give(group, partition, agent);
        }
        self.note(placed);
    }

    /// Deals where anybody may have anything. Several rounds at once, agent by agent: each bucket is
    /// then looked up and extended once for all of them.
    fn deal_in_turn(&mut self, group: &mut Group, needs: &[Need], placed: &[PartitionIndex]) {
        let weight = group.base;
        let mut rest = placed;
        let (mut needy, mut round) = (needs, 0);
        while !rest.is_empty() {
            let lacks = |need: &Need| need.missing > round;
            needy = needy.get(..needy.partition_point(lacks)).unwrap_or(&[]);
            let Some(last) = needy.last() else {
                break;
            };
            // So long the same agents take part.
            let same = (last.missing - round) as usize;
            let rounds = same.min(DEALT_AT_ONCE / needy.len()).max(1);
            let (dealt, later) = rest.split_at(rest.len().min(rounds * needy.len()));
            for (at, need) in needy.iter().enumerate() {
                let bucket = group.bucket_mut(need.agent);
                for &partition in dealt.iter().skip(at).step_by(needy.len()) {
                    self.rows.own(partition, need.agent);
                    bucket.push(Member { weight, partition });
                }
            }
            rest = later;
            round += narrow(rounds);
        }
    }

    /// Deals where some partitions are not to be beside their likes.
    fn deal_apart(
        &mut self,
        g: GroupIndex,
        group: &mut Group,
        needs: Vec<Need>,
        placed: &[PartitionIndex],
    ) {
        let mut round = Round { needs, at: 0 };
        for &partition in placed {
            let Some(agent) = self.next_taker(g, &mut round, partition) else {
                break;
            };
            self.rows.own(partition, agent);
            let member = self.rows.member(partition);
            group.bucket_mut(agent).push(member);
        }
    }

    /// The agent that takes this partition: the next in the round without its like, or, where all have
    /// one, the next in the round.
    fn next_taker(
        &self,
        g: GroupIndex,
        round: &mut Round,
        partition: PartitionIndex,
    ) -> Option<AgentIndex> {
        round.turn();
        let others = round.needs.iter().enumerate().cycle().skip(round.at);
        let free = others
            .take(round.needs.len())
            .filter(|(_, need)| need.missing > 0)
            .find(|(_, need)| !self.collides(g, partition, need.agent));
        let at = free.map_or(round.at, |(at, _)| at);
        let in_turn = at == round.at;
        let need = round.needs.get_mut(at)?;
        need.missing = need.missing.checked_sub(1)?;
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
        let needy = |needs: &[Need], at: usize| needs.get(at).is_some_and(|need| need.missing > 0);
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
