//! Groups whose partitions weigh differently: the heaviest first, each to whoever has least.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::bucket::Member;
use super::layout::{Group, Layout};
use super::seats::Seat;
use super::{GroupIndex, PartitionIndex};
use crate::spec::Strategy;

/// Nothing moves while every agent is within a twentieth of the mean.
pub(super) const WIDE: u64 = 20;
/// Agents beyond that are brought back to within a thousandth of the mean.
pub(super) const FINE: u64 = 1000;
/// So many of the agents with least are looked at for one without a partition's like.
const SPREAD_CHOICE: usize = 16;

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
        let adrift = self.by_weight(adrift);
        group.waiting = self.fill(g, group, &mut seats, &adrift);
        let leaving: Vec<_> = homeless.leaving.iter().map(|(p, _)| *p).collect();
        let leaving = self.by_weight(leaving);
        let stay = self.fill(g, group, &mut seats, &leaving);
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
            while self.even_out(g, group, &mut seats) {}
        }
    }

    /// The heaviest first, equal ones in their own order.
    fn by_weight(&self, partitions: Vec<PartitionIndex>) -> Vec<PartitionIndex> {
        let weight = |partition| self.rows.member(partition).weight;
        let mut keys: Vec<u64> = partitions
            .into_iter()
            .map(|p| u64::from(u32::MAX - weight(p)) << 32 | u64::from(p.0))
            .collect();
        keys.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the lower half is the index"
        )]
        let index = |key: u64| PartitionIndex(key as u32);
        keys.into_iter().map(index).collect()
    }

    /// Gives each partition to the seat with least, in order; answers with those that fit nowhere.
    fn fill(
        &mut self,
        g: GroupIndex,
        group: &mut Group,
        seats: &mut [Seat],
        partitions: &[PartitionIndex],
    ) -> Vec<PartitionIndex> {
        let mut left = Vec::new();
        if partitions.is_empty() {
            return left;
        }
        let mut queue = Queue::new(seats);
        for &partition in partitions {
            let weight = u64::from(self.rows.member(partition).weight);
            queue.readmit(weight);
            let mut choice = queue.least(seats, weight);
            if group.spreads {
                choice = choice.map(|at| {
                    let alike = |seat: &Seat| self.collides(g, partition, seat.agent);
                    queue.least_but(seats, weight, alike).unwrap_or(at)
                });
            }
            let Some(seat) = choice.and_then(|at| seats.get_mut(at)) else {
                left.push(partition);
                continue;
            };
            seat.held += 1;
            seat.load += weight;
            seat.room -= weight;
            self.give(group, partition, seat.agent);
            self.changed.push(partition);
            if group.spreads {
                // The choice need not have been the top: start over from what is true now.
                queue = Queue::new(seats);
            } else {
                queue.charge(weight);
            }
        }
        left
    }

    /// One pass that brings agents far from the mean back to it; true when something has moved.
    fn even_out(&mut self, g: GroupIndex, group: &mut Group, seats: &mut [Seat]) -> bool {
        let total: u64 = seats.iter().map(|seat| seat.load).sum();
        let Some(mean) = total.checked_div(seats.len() as u64) else {
            return false;
        };
        let far: Vec<bool> = seats
            .iter()
            .map(|seat| seat.load.abs_diff(mean) > mean / WIDE)
            .collect();
        if !far.contains(&true) {
            return false;
        }
        for bucket in &mut group.buckets {
            bucket.tidy(g, &mut self.rows, true);
        }
        let is_far = |at: usize| far.get(at).copied().unwrap_or(false);
        let mut donors: BinaryHeap<_> = loads(seats).collect();
        let mut takers: BinaryHeap<_> = loads(seats).map(Reverse).collect();
        let mut moved = false;
        while let Some((load, from)) = donors.pop() {
            let Some(donor) = seats.get(from).copied().filter(|seat| seat.load == load) else {
                continue;
            };
            let mut passed_over = Vec::new();
            while let Some(Reverse((load, to))) = takers.pop() {
                let Some(taker) = seats.get(to).copied().filter(|seat| seat.load == load) else {
                    continue;
                };
                passed_over.push(Reverse((load, to)));
                let gap = donor.load.saturating_sub(taker.load);
                if gap <= mean / FINE || !(is_far(from) || is_far(to)) {
                    break;
                }
                let chosen = self.pick(g, group, mean, donor, taker);
                let Pick::Move(partition) = chosen else {
                    if chosen == Pick::NoRoom {
                        group.cramped = true;
                        continue;
                    }
                    break;
                };
                passed_over.pop();
                let weight = u64::from(self.rows.member(partition).weight);
                self.withdraw(group, partition, donor.agent);
                self.give(group, partition, taker.agent);
                self.changed.push(partition);
                shift(seats, from, to, weight);
                moved = true;
                for at in [from, to] {
                    if let Some(seat) = seats.get(at) {
                        donors.push((seat.load, at));
                        takers.push(Reverse((seat.load, at)));
                    }
                }
                break;
            }
            takers.extend(passed_over);
        }
        moved
    }

    /// What `donor` is to give to `taker`: the heaviest that takes neither past the mean, else the
    /// lightest that still brings them nearer to each other.
    fn pick(&self, g: GroupIndex, group: &Group, mean: u64, donor: Seat, taker: Seat) -> Pick {
        let Some(bucket) = group.bucket(donor.agent) else {
            return Pick::Nothing;
        };
        let limit = (donor.load - taker.load).saturating_sub(mean / FINE + 1);
        let room = if taker.held < taker.most {
            taker.room
        } else {
            0
        };
        let most = limit.min(room);
        let wanted = most
            .min(donor.load.saturating_sub(mean))
            .min(mean.saturating_sub(taker.load));
        let held = |member: Member| self.rows.held(member, g, donor.agent);
        let fits = |member: Member| {
            held(member) && !(group.spreads && self.collides(g, member.partition, taker.agent))
        };
        let lightest = bucket.lightest(held).map(|member| u64::from(member.weight));
        if lightest.is_none_or(|weight| weight > limit) {
            return Pick::Nothing;
        }
        let heavy = bucket.heaviest(wanted, fits);
        let light = || {
            bucket
                .lightest(fits)
                .filter(|m| u64::from(m.weight) <= most)
        };
        heavy
            .or_else(light)
            .map_or(Pick::NoRoom, |member| Pick::Move(member.partition))
    }
}

/// What one agent can give another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pick {
    /// This partition.
    Move(PartitionIndex),
    /// Nothing that this taker takes; the next one might.
    NoRoom,
    /// Nothing that makes it more even.
    Nothing,
}

fn loads(seats: &[Seat]) -> impl Iterator<Item = (u64, usize)> + '_ {
    seats.iter().enumerate().map(|(at, seat)| (seat.load, at))
}

fn shift(seats: &mut [Seat], from: usize, to: usize, weight: u64) {
    if let Some(seat) = seats.get_mut(from) {
        seat.held -= 1;
        seat.load -= weight;
        seat.room = seat.room.saturating_add(weight);
    }
    if let Some(seat) = seats.get_mut(to) {
        seat.held += 1;
        seat.load += weight;
        seat.room = seat.room.saturating_sub(weight);
    }
}

/// Seats by load, the lowest first; those too full for what came last are set aside by their room.
struct Queue {
    /// Load above, seat below: one comparison.
    open: BinaryHeap<Reverse<u128>>,
    full: BinaryHeap<(u64, Reverse<u128>)>,
}

const SEAT_BITS: u32 = 32;

impl Queue {
    fn new(seats: &[Seat]) -> Self {
        let keys =
            loads(seats).map(|(load, at)| Reverse(u128::from(load) << SEAT_BITS | at as u128));
        Self {
            open: keys.collect(),
            full: BinaryHeap::new(),
        }
    }

    /// Takes back seats that were too full for something heavier.
    fn readmit(&mut self, weight: u64) {
        while let Some(&(room, key)) = self.full.peek()
            && room >= weight
        {
            self.full.pop();
            self.open.push(key);
        }
    }

    /// The seat with least that has room, which is then on top.
    fn least(&mut self, seats: &[Seat], weight: u64) -> Option<usize> {
        while let Some(&key) = self.open.peek() {
            let at = seat_of(key);
            let seat = seats.get(at)?;
            if seat.held < seat.most && seat.room >= weight {
                return Some(at);
            }
            self.open.pop();
            if seat.held < seat.most {
                self.full.push((seat.room, key));
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
            seen.extend(self.open.pop());
        }
        self.open.extend(seen);
        found
    }

    /// The seat on top has got this much more.
    fn charge(&mut self, weight: u64) {
        if let Some(mut top) = self.open.peek_mut() {
            top.0 += u128::from(weight) << SEAT_BITS;
        }
    }
}

fn seat_of(key: Reverse<u128>) -> usize {
    (key.0 & ((1 << SEAT_BITS) - 1)) as usize
}
