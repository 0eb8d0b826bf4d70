//! Groups whose partitions weigh differently: the heaviest first, each to whoever has least.

use std::collections::BinaryHeap;

use super::bucket::{Member, heaviest_first};
use super::layout::{Group, Layout, NOBODY};
use super::seats::Seat;
use super::tournament::Tournament;
use super::{AgentIndex, GroupIndex, PartitionIndex};
use crate::spec::Strategy;

/// So many of the agents with least are looked at for one without a partition's like.
const SPREAD_CHOICE: usize = 16;
/// So many of them are looked at for one that holds little of other groups.
const TOTAL_CHOICE: usize = 16;

impl Layout {
    /// Settles a group of different weights.
    pub(super) fn weigh_group(&mut self, g: GroupIndex, group: &mut Group) {
        let homeless = self.collect(g, group);
        let mut seats = self.seats(group);
        let mut adrift = homeless.adrift;
        for seat in &mut seats {
            while seat.held > seat.most {
                let Some(partition) = group.bucket_mut(seat.agent).pop(g, &mut self.rows) else {
                    break;
                };
                let weight = u64::from(self.rows.member(partition).weight);
                self.unload(seat.agent, 1, weight);
                self.changed.push(partition);
                seat.held -= 1;
                seat.load -= weight;
                seat.room = seat.room.saturating_add(weight);
                adrift.push(partition);
            }
        }
        if adrift.len() + homeless.leaving.len() > seats.len() / 4 {
            let mut agents: Vec<_> = seats.iter().map(|seat| seat.agent).collect();
            agents.sort_unstable();
            group.reach(agents.into_iter());
        }
        group.waiting = self.fill(g, group, &mut seats, adrift);
        let leaving: Vec<_> = homeless.leaving.iter().map(|(p, _)| *p).collect();
        let stay = self.fill(g, group, &mut seats, leaving);
        group.cramped = !stay.is_empty();
        for partition in stay {
            let origin = homeless
                .leaving
                .binary_search_by_key(&partition, |(p, _)| *p);
            if let Some((_, agent)) = origin.ok().and_then(|at| homeless.leaving.get(at)) {
                self.give(group, partition, *agent);
            }
        }
        if group.rules.strategy == Strategy::Balanced {
            self.even_out(g, group, &mut seats);
        }
    }

    /// Gives each partition to the seat with least, the heaviest first; answers with those that fit
    /// nowhere.
    fn fill(
        &mut self,
        g: GroupIndex,
        group: &mut Group,
        seats: &mut [Seat],
        partitions: Vec<PartitionIndex>,
    ) -> Vec<PartitionIndex> {
        let mut left = Vec::new();
        if partitions.is_empty() {
            return left;
        }
        let members = partitions.into_iter().map(|p| self.rows.member(p));
        let members = heaviest_first(members.collect());
        let total: u64 = seats.iter().map(|seat| seat.load).sum();
        let more: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
        let mean = (total + more) / (seats.len() as u64).max(1);
        let mut queue = Queue::new(seats);
        let mut given = Vec::with_capacity(members.len());
        for member in &members {
            let weight = u64::from(member.weight);
            queue.readmit(seats, weight);
            let mut choice = queue.least(seats, weight);
            if group.spreads {
                choice = choice.map(|at| {
                    let alike = |seat: &Seat| self.collides(g, member.partition, seat.agent);
                    queue.least_but(seats, weight, alike).unwrap_or(at)
                });
            } else if weight > mean {
                choice = queue.least_in_total(seats, weight);
            }
            let chosen = choice.and_then(|at| Some((at, seats.get_mut(at)?)));
            let Some((at, seat)) = chosen else {
                left.push(member.partition);
                given.push(NOBODY);
                continue;
            };
            seat.held += 1;
            seat.load += weight;
            seat.room -= weight;
            self.rows.own(member.partition, seat.agent);
            given.push(seat.agent);
            queue.update(seats, at);
        }
        self.hand_over(group, seats, members, &given);
        left
    }

    /// Puts what each agent has been given into its bucket, in which there is then room for just that.
    fn hand_over(
        &mut self,
        group: &mut Group,
        seats: &[Seat],
        members: Vec<Member>,
        given: &[AgentIndex],
    ) {
        for seat in seats {
            let bucket = group.bucket(seat.agent);
            let (held, load) = bucket.map_or((0, 0), |bucket| (bucket.count, bucket.weight));
            let more = seat.held - held;
            if more > 0 {
                group.bucket_mut(seat.agent).reserve(more as usize);
                self.load_up(seat.agent, more, seat.load - load);
            }
        }
        let placed = members.into_iter().zip(given);
        let placed = placed.filter(|(_, agent)| **agent != NOBODY);
        let partitions = placed.map(|(member, agent)| {
            group.bucket_mut(*agent).push(member);
            member.partition
        });
        let partitions = partitions.collect();
        self.note(partitions);
    }
}

/// Seats by load; those too full for what came last are set aside by their room.
struct Queue {
    open: Tournament,
    full: BinaryHeap<(u64, usize)>,
}

impl Queue {
    fn new(seats: &[Seat]) -> Self {
        Self {
            open: Tournament::new(seats.iter().map(|seat| seat.load)),
            full: BinaryHeap::new(),
        }
    }

    /// Takes back seats that were too full for something heavier.
    fn readmit(&mut self, seats: &[Seat], weight: u64) {
        while let Some(&(room, at)) = self.full.peek()
            && room >= weight
        {
            self.full.pop();
            self.update(seats, at);
        }
    }

    /// The seat with least that has room for so much.
    fn least(&mut self, seats: &[Seat], weight: u64) -> Option<usize> {
        while let Some(at) = self.open.first() {
            let seat = seats.get(at)?;
            if seat.held < seat.most && seat.room >= weight {
                return Some(at);
            }
            self.open.remove(at);
            if seat.held < seat.most {
                self.full.push((seat.room, at));
            }
        }
        None
    }

    /// Among the few seats with least, the first with room that is not `bad`.
    fn least_but(
        &mut self,
        seats: &[Seat],
        weight: u64,
        bad: impl Fn(&Seat) -> bool,
    ) -> Option<usize> {
        let mut seen = Vec::new();
        let mut found = None;
        while seen.len() < SPREAD_CHOICE
            && let Some(at) = self.least(seats, weight)
        {
            if seats.get(at).is_some_and(|seat| !bad(seat)) {
                found = Some(at);
                break;
            }
            self.open.remove(at);
            seen.push(at);
        }
        for at in seen {
            self.update(seats, at);
        }
        found
    }

    /// Among the few seats with least, the one whose agent has least in total. For what is heavier than
    /// the mean of the group: no seat is even with it, and it is most of what its agent ends up with.
    fn least_in_total(&mut self, seats: &[Seat], weight: u64) -> Option<usize> {
        let mut seen = Vec::new();
        while seen.len() < TOTAL_CHOICE
            && let Some(at) = self.least(seats, weight)
        {
            self.open.remove(at);
            seen.push(at);
        }
        for at in &seen {
            self.update(seats, *at);
        }
        let total = |at: &usize| seats.get(*at).map(|seat| seat.load + seat.others);
        seen.into_iter().min_by_key(total)
    }

    /// Takes note of what a seat has now.
    #[inline]
    fn update(&mut self, seats: &[Seat], at: usize) {
        if let Some(seat) = seats.get(at) {
            self.open.set(at, seat.load);
        }
    }
}
