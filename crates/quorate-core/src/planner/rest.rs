//! What is not at rest: kept as counters, so that asking whether everything has settled costs nothing
//! however many partitions there are.
//!
//! *Settled* means that the planner has taken in all that is folded, wants to change nothing and has
//! nothing on its way, and that every partition runs and is ready, is down because somebody wants it
//! so, has failed for good, or waits for a *standing* reason: one that time alone does not change, such
//! as a rule that no agent meets or a capacity that is used up. What only takes its time is not settled:
//! a ramp, a settle window, a quiet time, the budget of moves, a back-off, a take-over delay.
//!
//! Must never decide anything: it only tells what the rest of the planner knows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::cluster::{Cluster, Partition, State};
use crate::ids::{AgentName, PartitionId, ServiceId, ServiceName};
use crate::lease::KEPT;
use crate::record::{MoveReason, RunPhase, Schedulable};
use crate::time::Moment;

use super::explain::Exclusion;
use super::paged::Paged;
use super::{AgentRow, Facts, Planner, ServiceRow};

/// An agent opens a session for a new lease class in well under a second; one that has not done so after
/// this long will not.
const CLASS_OPENS_WITHIN: Duration = Duration::from_secs(10);
/// A source outside of the ledger is read at once when it is new; one that takes longer has a problem
/// of its own.
const SOURCE_READ_WITHIN: Duration = Duration::from_secs(10);

/// Whether everything has settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settling {
    /// Nothing is on its way and nothing is about to be.
    pub settled: bool,
    /// Partitions that are to run and wait for a standing reason: time alone will not start them.
    pub unplaceable: usize,
}

/// Why a partition is not at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restless {
    /// It is on its way, or waits for its turn.
    Busy,
    /// It has no place.
    Placeless,
    /// It runs, is to run elsewhere, and has no place there.
    Stuck,
}

/// How many partitions of a service are not at rest.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    busy: usize,
    placeless: usize,
    stuck: usize,
}

impl Counts {
    fn of(&mut self, restless: Restless) -> &mut usize {
        match restless {
            Restless::Busy => &mut self.busy,
            Restless::Placeless => &mut self.placeless,
            Restless::Stuck => &mut self.stuck,
        }
    }
}

/// Everything that is not at rest.
#[derive(Clone, Debug, Default)]
pub(super) struct Unrest {
    partitions: Paged<(ServiceId, Restless)>,
    /// Only services with something to count.
    counts: BTreeMap<ServiceId, Counts>,
    /// Runs that their agents are about to start anew where they are, and until when they are believed
    /// to. Known only to the leader that saw the wish: one that comes later takes them for ready.
    restarting: BTreeMap<PartitionId, Moment>,
    restarts: BTreeSet<(Moment, PartitionId)>,
    /// Services whose source is still to be read, and until when that is waited for.
    unread: BTreeMap<ServiceName, Moment>,
    /// Agents that have come, or are heard again, and until when they may open sessions for lease classes.
    opening: BTreeMap<AgentName, Moment>,
}

impl Unrest {
    /// Takes note of how a partition is now; `None` is at rest, or gone.
    pub(super) fn note(&mut self, id: PartitionId, now: Option<(ServiceId, Restless)>) {
        let before = match now {
            Some(now) => self.partitions.insert(id, now),
            None => self.partitions.remove(id),
        };
        if before == now {
            return;
        }
        if let Some((service, restless)) = before
            && let Some(counts) = self.counts.get_mut(&service)
        {
            *counts.of(restless) -= 1;
            if counts.busy + counts.placeless + counts.stuck == 0 {
                self.counts.remove(&service);
            }
        }
        if let Some((service, restless)) = now {
            *self.counts.entry(service).or_default().of(restless) += 1;
        }
    }

    /// A run is to be started anew where it is.
    pub(super) fn restarts(&mut self, id: PartitionId, until: Moment) {
        self.restarted(id);
        self.restarting.insert(id, until);
        self.restarts.insert((until, id));
    }

    /// It was, or has ended.
    pub(super) fn restarted(&mut self, id: PartitionId) {
        if let Some(until) = self.restarting.remove(&id) {
            self.restarts.remove(&(until, id));
        }
    }

    /// Those that were not started anew in time: nobody believes in it any longer.
    pub(super) fn never_restarted(&mut self, now: Moment) -> BTreeSet<PartitionId> {
        let mut over = BTreeSet::new();
        while let Some((_, id)) = self.restarts.first().copied().filter(|(at, _)| *at <= now) {
            self.restarted(id);
            over.insert(id);
        }
        over
    }

    /// When something here is due next.
    pub(super) fn next(&self) -> Option<Moment> {
        self.restarts.first().map(|(at, _)| *at)
    }

    /// The list of a service is to come from outside.
    pub(super) fn awaits_list(&mut self, service: &ServiceName, now: Moment) {
        self.unread
            .insert(service.clone(), now + SOURCE_READ_WITHIN);
    }

    /// An agent has come or is heard again; what it lacks a session for it is about to open one for.
    pub(super) fn opens_sessions(&mut self, agent: &AgentName, now: Moment) {
        self.opening.retain(|_, until| *until > now);
        self.opening.insert(agent.clone(), now + CLASS_OPENS_WITHIN);
    }

    /// It was read, or never will be.
    pub(super) fn listed(&mut self, service: &ServiceName) {
        self.unread.remove(service);
    }
}

impl Planner {
    /// Whether everything has settled, of one service or of all.
    #[must_use]
    pub fn settling(&self, now: Moment, cluster: &Cluster, of: Option<&ServiceName>) -> Settling {
        let only = match of {
            None => None,
            Some(name) => match cluster.service_id(name) {
                Some(id) => Some(id),
                // What does not exist is at rest.
                None => return self.verdict_of(now, true, of, 0),
            },
        };
        let mut unplaceable = 0;
        let mut rests = true;
        let counts = self.unrest.counts.iter();
        for (id, counts) in counts.filter(|(id, _)| only.is_none_or(|only| **id == only)) {
            rests &= counts.busy == 0;
            if counts.placeless + counts.stuck == 0 {
                continue;
            }
            let row = self.services.get(id);
            if row.is_some_and(|row| self.may_pass(row, now)) {
                rests = false;
            } else {
                unplaceable += counts.placeless;
            }
        }
        rests &= !self.is_opening(now, cluster, only);
        rests &= cluster.lost().is_none();
        self.verdict_of(now, rests, of, unplaceable)
    }

    /// Whether an agent that has just come, or is heard again, will soon be one more for a service: then
    /// its balance is another.
    fn is_opening(&self, now: Moment, cluster: &Cluster, only: Option<ServiceId>) -> bool {
        let opening = self.unrest.opening.iter();
        let opening = opening.filter(|(_, until)| **until > now);
        let opening = opening.filter_map(|(name, _)| self.agents.get(name));
        let mut active = opening.filter(|row| row.facts.schedulable == Schedulable::Active);
        let lacks_its_class = |row: &AgentRow| {
            let asked = self.services.iter();
            let mut asked = asked.filter(|(id, _)| only.is_none_or(|only| **id == only));
            asked.any(|(id, service)| {
                let kept = cluster.service_by_id(*id).is_some_and(|s| !s.removed());
                kept && matches!(service.exclusion(&row.facts), Some(Exclusion::Lease))
            })
        };
        active.any(lacks_its_class)
    }

    fn verdict_of(
        &self,
        now: Moment,
        rests: bool,
        of: Option<&ServiceName>,
        unplaceable: usize,
    ) -> Settling {
        let mut unread = self.unrest.unread.iter();
        let unread = unread.any(|(name, until)| *until > now && of.is_none_or(|of| of == name));
        Settling {
            settled: rests && !unread && self.has_looked(),
            unplaceable,
        }
    }

    /// Whether everything that was observed has been taken in.
    fn has_looked(&self) -> bool {
        !self.fresh
            && !self.dirty_agents
            && self.dirty_services.is_empty()
            && self.dirty_partitions.is_empty()
            && self.advanced.is_empty()
    }

    /// Whether some agent may soon take what has no place now, though nobody does anything about it.
    fn may_pass(&self, service: &ServiceRow, now: Moment) -> bool {
        let opens = service.since.max(self.last_join.unwrap_or_default()) + CLASS_OPENS_WITHIN;
        let mut here = self.agents.values().filter(|row| row.since.is_some());
        here.any(|row| {
            let facts = &row.facts;
            let active = facts.schedulable == Schedulable::Active;
            active
                && match service.exclusion(facts) {
                    // It is heard again, or its lease ends.
                    None => facts.silent || facts.slow,
                    Some(Exclusion::Lease) => (facts.silent && ends(facts)) || now < opens,
                    Some(Exclusion::Gone | Exclusion::Require(_)) => false,
                }
        })
    }

    /// How a partition is that was put into the list it belongs to.
    pub(super) fn restless(&self, cluster: &Cluster, id: PartitionId) -> Option<Restless> {
        let partition = cluster.partition(id)?;
        if !cluster.wanted(partition) {
            return partition.holder().map(|_| Restless::Busy);
        }
        match partition.state() {
            State::Unassigned(_) if self.placeless.contains(&id) => Some(Restless::Placeless),
            State::Unassigned(_) | State::Assigned(_) | State::Stopping(..) => Some(Restless::Busy),
            State::Assumed(_) if !self.misplaced.contains(&id) => {
                let rests = is_ready(partition) && !self.unrest.restarting.contains_key(&id);
                (!rests).then_some(Restless::Busy)
            }
            State::Assumed(_) => {
                let goes = self.target(id).is_some()
                    || self.move_reason(cluster, id) == MoveReason::Constraint;
                let stays = !goes && is_ready(partition);
                Some(if stays {
                    Restless::Stuck
                } else {
                    Restless::Busy
                })
            }
        }
    }
}

/// Whether its silence ends by time alone: not while it is only known by work that is kept.
fn ends(facts: &Facts) -> bool {
    facts.sessions.keys().any(|lease| *lease < KEPT)
}

fn is_ready(partition: &Partition) -> bool {
    partition.run().is_some_and(|run| match run.phase {
        RunPhase::Ready => true,
        RunPhase::Starting | RunPhase::Backoff | RunPhase::Stopping => false,
    })
}
