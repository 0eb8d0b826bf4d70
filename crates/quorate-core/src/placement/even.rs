//! Groups of different weights that are no longer even: agents far from the mean are brought back to it.

use super::aim::{Aim, near};
use super::bucket::Member;
use super::layout::{Group, Layout};
use super::seats::Seat;
use super::tournament::Tournament;
use super::{GroupIndex, PartitionIndex};

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

impl Layout {
    /// Brings agents far from the mean back to it.
    pub(super) fn even_out(&mut self, g: GroupIndex, group: &mut Group, seats: &mut [Seat]) {
        let Some(mut aim) = self.aim(g, group, seats) else {
            return;
        };
        while aim.any_far() && self.even_out_once(g, group, seats, &mut aim) {
            aim.look_again();
        }
    }

    /// One pass; true when something has moved.
    fn even_out_once(
        &mut self,
        g: GroupIndex,
        group: &mut Group,
        seats: &mut [Seat],
        aim: &mut Aim,
    ) -> bool {
        let mut donors = Tournament::new(aim.loads().map(|load| !load));
        let mut takers = Tournament::new(aim.loads());
        for (at, seat) in seats.iter().enumerate() {
            if seat.load > aim.load(at) {
                takers.remove(at);
            }
        }
        let mut moved = false;
        while let (Some(from), Some(least)) = (donors.first(), takers.first())
            && (aim.is_far(from) || aim.is_far(least))
        {
            let Some((to, partition)) = self.relief(g, group, seats, aim, from, &mut takers) else {
                donors.remove(from);
                continue;
            };
            let weight = self.pass(group, seats, partition, from, to);
            aim.shift(from, to, weight);
            for at in [from, to] {
                donors.set(at, !aim.load(at));
                // Who has more than the mean in one piece is to have nothing beside it.
                if seats.get(at).is_some_and(|seat| seat.load > aim.load(at)) {
                    takers.remove(at);
                } else {
                    takers.set(at, aim.load(at));
                }
            }
            moved = true;
        }
        moved
    }

    /// What the group is to come near to; `None` when all seats are.
    fn aim(&mut self, g: GroupIndex, group: &mut Group, seats: &[Seat]) -> Option<Aim> {
        let loads: Vec<u64> = seats.iter().map(|seat| seat.load).collect();
        let total: u64 = loads.iter().sum();
        let mut mean = total.checked_div(seats.len() as u64)?;
        if !loads.iter().any(|load| load.abs_diff(mean) > near(mean)) {
            return None;
        }
        for bucket in &mut group.buckets {
            bucket.tidy(g, &mut self.rows, true);
        }
        // The lower the mean becomes, the more partitions are heavier than it.
        let mut looked = u64::MAX;
        let mut big = Vec::new();
        while mean < looked {
            looked = mean / 2;
            big = self.heavier(g, group, seats, looked);
            mean = mean_of_the_rest(total, seats.len() as u64, &big);
        }
        Some(Aim::beside(mean, near(mean), loads, &big))
    }

    /// Partitions heavier than `limit`: their weights, the highest first, and their seats.
    fn heavier(
        &self,
        g: GroupIndex,
        group: &Group,
        seats: &[Seat],
        limit: u64,
    ) -> Vec<(u64, usize)> {
        let mut seat_of = vec![None; self.agents.len()];
        for (at, seat) in seats.iter().enumerate() {
            if let Some(place) = seat_of.get_mut(seat.agent.0 as usize) {
                *place = Some(at);
            }
        }
        let mut found: Vec<(Member, usize)> = Vec::new();
        for bucket in &group.buckets {
            if let Some(Some(at)) = seat_of.get(bucket.agent.0 as usize) {
                let heavier = bucket.heavier(limit, g, &self.rows);
                found.extend(heavier.map(|member| (member, *at)));
            }
        }
        found.sort_unstable_by_key(|(member, _)| member.order());
        found.dedup();
        let weights = found.into_iter();
        weights
            .map(|(member, at)| (u64::from(member.weight), at))
            .collect()
    }

    /// What `from` is to give to whom: to the one with least, unless that one has no room.
    fn relief(
        &self,
        g: GroupIndex,
        group: &mut Group,
        seats: &[Seat],
        aim: &Aim,
        from: usize,
        takers: &mut Tournament,
    ) -> Option<(usize, PartitionIndex)> {
        let mut passed_over = Vec::new();
        let mut found = None;
        while let Some(to) = takers.first()
            && aim.is_worth_it(from, to)
        {
            match self.pick(g, group, seats, aim, from, to) {
                Pick::Move(partition) => {
                    found = Some((to, partition));
                    break;
                }
                Pick::Nothing => break,
                Pick::NoRoom => {
                    group.cramped = true;
                    takers.remove(to);
                    passed_over.push(to);
                }
            }
        }
        for at in passed_over {
            takers.set(at, aim.load(at));
        }
        found
    }

    /// What `from` is to give to `to`: the heaviest that takes neither too far, else the lightest that
    /// still brings them nearer to each other.
    fn pick(
        &self,
        g: GroupIndex,
        group: &Group,
        seats: &[Seat],
        aim: &Aim,
        from: usize,
        to: usize,
    ) -> Pick {
        let (Some(donor), Some(taker)) = (seats.get(from), seats.get(to)) else {
            return Pick::Nothing;
        };
        let Some(bucket) = group.bucket(donor.agent) else {
            return Pick::Nothing;
        };
        let limit = aim.limit(from, to);
        let held = |member: Member| bucket.holds(member, g, &self.rows);
        let fits = |member: Member| {
            held(member) && !(group.spreads && self.collides(g, member.partition, taker.agent))
        };
        let lightest = bucket
            .lightest_that(held)
            .map(|member| u64::from(member.weight));
        if lightest.is_none_or(|weight| weight > limit) {
            return Pick::Nothing;
        }
        let most = if taker.held < taker.most {
            limit.min(taker.room)
        } else {
            0
        };
        let heavy = bucket.heaviest(most.min(aim.wanted(from, to)), fits);
        let light = || {
            let lightest = bucket.lightest_that(fits);
            lightest.filter(|member| u64::from(member.weight) <= most)
        };
        heavy
            .or_else(light)
            .map_or(Pick::NoRoom, |member| Pick::Move(member.partition))
    }

    /// Moves a partition between two seats; answers with its weight.
    fn pass(
        &mut self,
        group: &mut Group,
        seats: &mut [Seat],
        partition: PartitionIndex,
        from: usize,
        to: usize,
    ) -> u64 {
        let weight = u64::from(self.rows.member(partition).weight);
        if let Some(seat) = seats.get_mut(from) {
            self.withdraw(group, partition, seat.agent);
            seat.held -= 1;
            seat.load -= weight;
            seat.room = seat.room.saturating_add(weight);
        }
        if let Some(seat) = seats.get_mut(to) {
            self.give(group, partition, seat.agent);
            seat.held += 1;
            seat.load += weight;
            seat.room = seat.room.saturating_sub(weight);
        }
        self.changed.push(partition);
        weight
    }
}

/// The mean of what remains when each partition heavier than it is set aside with an agent of its own;
/// `big` has the heaviest first.
fn mean_of_the_rest(total: u64, seats: u64, big: &[(u64, usize)]) -> u64 {
    let (mut rest, mut shares) = (total, seats);
    for (weight, _) in big {
        if shares == 1 || *weight <= rest / shares {
            break;
        }
        rest -= weight;
        shares -= 1;
    }
    (rest / shares).max(1)
}
