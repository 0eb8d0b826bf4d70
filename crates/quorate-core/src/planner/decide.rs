//! The orders: what is taken back, what is given, and when to look again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use crate::cluster::{Cluster, State};
use crate::ids::{PartitionId, ServiceId};
use crate::placement::{AgentIndex, Standing};
use crate::record::{MoveReason, Schedulable};
use crate::time::Moment;

use super::flight::{Counts, Full};
use super::sync::standing;
use super::{Decision, Planner, ServiceRow};

/// Moves for these reasons are kept within the budget.
pub(super) fn budgeted(reason: MoveReason) -> bool {
    match reason {
        MoveReason::Balance | MoveReason::Drain | MoveReason::LeaseChanged => true,
        MoveReason::Stopped
        | MoveReason::Removed
        | MoveReason::Constraint
        | MoveReason::Failing
        | MoveReason::Unacknowledged => false,
    }
}

impl Planner {
    pub(super) fn orders(&mut self, now: Moment, cluster: &Cluster) -> Decision {
        let mut decision = Decision::default();
        self.take_back_late(cluster, &mut decision);
        self.take_back_misplaced(now, cluster, &mut decision);
        self.give(now, cluster, &mut decision);
        wake(&mut decision, self.delayed.first().map(|(at, _)| *at));
        wake(&mut decision, self.flight.next());
        wake(&mut decision, self.unrest.next());
        wake(&mut decision, self.slow.values().min().copied());
        let exiles = self.exiled.values().map(|exile| exile.until);
        wake(&mut decision, exiles.filter(|until| *until > now).min());
        decision
    }

    /// What an agent has not assumed in time goes to another one, if there is any.
    fn take_back_late(&mut self, cluster: &Cluster, decision: &mut Decision) {
        for id in &self.late {
            let Some(partition) = cluster.partition(*id) else {
                continue;
            };
            let State::Assigned(holder) = partition.state() else {
                continue;
            };
            let here = self.index_of(holder.session, cluster);
            let service = self.services.get(&partition.service());
            let elsewhere = self.agents.values().any(|row| {
                Some(row.index) != here
                    && standing(&row.facts) == Standing::Open
                    && service.is_some_and(|service| service.exclusion(&row.facts).is_none())
            });
            if elsewhere && decision.orders() < self.config.orders_max {
                let order = (*id, holder.token, MoveReason::Unacknowledged);
                decision.withdraw.push(order);
            }
        }
    }

    fn take_back_misplaced(&mut self, now: Moment, cluster: &Cluster, decision: &mut Decision) {
        let budget = self.budget();
        let mut moving = self.flight.moving();
        let mut settled: BTreeMap<ServiceId, Option<Moment>> = BTreeMap::new();
        for id in &self.misplaced {
            if decision.orders() >= self.config.orders_max {
                break;
            }
            let Some(partition) = cluster.partition(*id) else {
                continue;
            };
            let (State::Assigned(holder) | State::Assumed(holder)) = partition.state() else {
                continue;
            };
            let Some(service) = self.services.get(&partition.service()) else {
                continue;
            };
            let reason = self.move_reason(cluster, *id);
            if reason == MoveReason::Balance {
                // The same for all of them.
                let until = settled.entry(partition.service());
                let until = *until.or_insert_with(|| self.settled_at(service));
                if let Some(until) = until.filter(|until| *until > now) {
                    wake(decision, Some(until));
                    continue;
                }
            }
            if reason == MoveReason::Balance
                && let Some(until) = self.quiet.until(*id, now)
            {
                wake(decision, Some(until));
                continue;
            }
            if self.target(*id).is_none() && reason != MoveReason::Constraint {
                continue;
            }
            let counts = budgeted(reason) && !self.flight.is_moving(*id);
            if counts && moving >= budget {
                continue;
            }
            moving += usize::from(counts);
            let order = (*id, holder.token, reason);
            if matches!(partition.state(), State::Assigned(_)) {
                if !self.late.contains(id) {
                    decision.withdraw.push(order);
                }
            } else {
                decision.revoke.push(order);
            }
        }
    }

    /// Most partitions on the move at once.
    fn budget(&self) -> usize {
        let open = self.agents.values();
        let open = open.filter(|row| standing(&row.facts) == Standing::Open);
        let partitions = self.layout.count() + self.exiled.len();
        let share = partitions * self.config.moving_percent as usize / 100;
        share.max(open.count()).max(1)
    }

    pub(super) fn move_reason(&self, cluster: &Cluster, id: PartitionId) -> MoveReason {
        let Some(partition) = cluster.partition(id) else {
            return MoveReason::Removed;
        };
        let held = partition.holder();
        let session = held.and_then(|holder| cluster.session(holder.session));
        let service = self.services.get(&partition.service());
        let (Some(session), Some(service)) = (session, service) else {
            return MoveReason::Constraint;
        };
        if session.lease().lease != service.lease {
            return MoveReason::LeaseChanged;
        }
        let Some(row) = self.agents.get(session.agent()) else {
            return MoveReason::Constraint;
        };
        if service.exclusion(&row.facts).is_some() {
            MoveReason::Constraint
        } else if self.exiled.contains_key(&id) {
            MoveReason::Failing
        } else if row.facts.schedulable == Schedulable::Draining {
            MoveReason::Drain
        } else if self.target(id).is_none() {
            MoveReason::Constraint
        } else {
            MoveReason::Balance
        }
    }

    /// Gives free partitions to their agents, in the order of being served.
    fn give(&mut self, now: Moment, cluster: &Cluster, decision: &mut Decision) {
        let mut given = Counts::default();
        let mut loads = Loads::default();
        let mut stopped: BTreeSet<ServiceId> = BTreeSet::new();
        let mut first_waits: BTreeMap<ServiceId, Option<Moment>> = BTreeMap::new();
        let queues = self.queues.keys();
        let first = queues.filter_map(|(service, agent)| self.turn(*service, *agent, None));
        let mut turns: BinaryHeap<_> = first.collect();
        while let Some(Next {
            order: _,
            service,
            agent,
            id,
        }) = turns.pop()
        {
            if decision.orders() >= self.config.orders_max {
                break;
            }
            let Some(row) = self.services.get(&service) else {
                continue;
            };
            if stopped.contains(&service) {
                continue;
            }
            let limits = row.limits;
            // The same for all of them, and it looks at every agent.
            let waits = *first_waits
                .entry(service)
                .or_insert_with(|| self.first_wait(row, now));
            let waits = waits.map(Full::Until);
            let full = self.flight.full(service, agent, &limits, &given, now);
            match waits.or(full) {
                Some(Full::Until(at)) => {
                    wake(decision, Some(at));
                    stopped.insert(service);
                    continue;
                }
                Some(Full::Cluster) => {
                    stopped.insert(service);
                    continue;
                }
                // The others of this agent wait as well.
                Some(Full::Agent) => continue,
                None => {}
            }
            if let Some(next) = self.turn(service, agent, Some(id)) {
                turns.push(next);
            }
            let session = self.row(agent).and_then(|row| {
                let lease = self.services.get(&service)?.lease;
                row.facts.sessions.get(&lease).copied()
            });
            let Some(session) = session.filter(|_| loads.fits(self, cluster, agent, id)) else {
                continue;
            };
            decision.assign.push((id, session));
            given.add(service, agent);
            if limits.interval.is_some() {
                self.flight.spend_rate(service, &limits, now);
            }
        }
    }

    /// The next of a queue after `after`.
    fn turn(
        &self,
        service: ServiceId,
        agent: AgentIndex,
        after: Option<PartitionId>,
    ) -> Option<Next> {
        let queue = self.queues.get(&(service, agent))?;
        let next = match after.and_then(|after| self.queued.get(after)) {
            Some((_, _, turn)) => {
                use std::ops::Bound::{Excluded, Unbounded};
                queue.range((Excluded(*turn), Unbounded)).next()
            }
            None => queue.first(),
        };
        let (priority, id) = *next?;
        let row = self.services.get(&service)?;
        // Nobody holds these up: each agent hears of all of its own in few answers instead of many.
        let together = row.limits.none().then_some(agent);
        Some(Next {
            order: (priority.0, row.priority, Reverse((together, id))),
            service,
            agent,
            id,
        })
    }

    /// Until when planned moves of a service wait for others to join; `None` when they do not.
    pub(super) fn settled_at(&self, service: &ServiceRow) -> Option<Moment> {
        if self.all_here(service) {
            return None;
        }
        let came = self.class_joins.get(&service.lease).copied();
        Some(self.last_join.max(came)? + service.settle)
    }

    /// Until when the first placement of a service waits, because every agent has only just come (F12).
    pub(super) fn first_wait(&self, service: &ServiceRow, now: Moment) -> Option<Moment> {
        if self.all_here(service) {
            return None;
        }
        let open = self.agents.values();
        let oldest = open.filter_map(|row| row.class_since.get(&service.lease).copied());
        let oldest = oldest.min()?;
        let until = oldest + service.settle;
        (oldest > Moment::default() && until > now).then_some(until)
    }

    /// Whether nobody else is to be waited for: as many as are expected have the lease class of the
    /// service open; or, where nobody said how many, all that are here and have been for a while.
    fn all_here(&self, service: &ServiceRow) -> bool {
        let ready = self.present.in_class(service.lease);
        let expected = service.expect.or(self.config.expect_agents);
        let Some(expected) = expected else {
            return self.steady(service) && ready == self.present.all;
        };
        ready >= expected as usize
    }

    /// Whether the settle window after the last agent that came had passed before the lease class was
    /// first opened: then the cluster is not starting, it has only met a new class.
    fn steady(&self, service: &ServiceRow) -> bool {
        let opened = self.class_joins.get(&service.lease);
        match (self.last_join, opened) {
            (None, _) => true,
            (Some(join), Some(opened)) => join + service.settle <= *opened,
            (Some(_), None) => false,
        }
    }
}

/// A queue and the partition at its head; compared by `order`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Next {
    order: (i32, i32, Reverse<(Option<AgentIndex>, PartitionId)>),
    service: ServiceId,
    agent: AgentIndex,
    id: PartitionId,
}

/// What agents with a capacity really hold: what is to leave them may not have left yet.
#[derive(Default)]
struct Loads(BTreeMap<AgentIndex, u64>);

impl Loads {
    /// Whether the agent has room for one more now; counts it if so.
    fn fits(
        &mut self,
        planner: &Planner,
        cluster: &Cluster,
        agent: AgentIndex,
        id: PartitionId,
    ) -> bool {
        let Some(row) = planner.row(agent) else {
            return false;
        };
        let Some(capacity) = row.facts.capacity else {
            return true;
        };
        let name = planner.names.get(agent.0 as usize);
        let load = self.0.entry(agent).or_insert_with(|| {
            let sessions = name.and_then(|name| cluster.agents().get(name));
            let sessions = sessions.into_iter().flat_map(|agent| agent.sessions());
            let held = sessions.filter_map(|id| cluster.session(*id));
            held.flat_map(|session| session.held())
                .filter_map(|id| cluster.partition(*id))
                .map(|partition| u64::from(partition.weight()))
                .sum()
        });
        let weight = cluster.partition(id).map_or(0, |p| u64::from(p.weight()));
        let fits = *load + weight <= capacity;
        if fits {
            *load += weight;
        }
        fits
    }
}

fn wake(decision: &mut Decision, at: Option<Moment>) {
    decision.wake_at = match (decision.wake_at, at) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
}
