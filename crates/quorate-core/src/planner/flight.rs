//! What is on its way: starts that count against a ramp, and moves that count against the budget.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::{PartitionId, ServiceId};
use crate::placement::AgentIndex;
use crate::spec::Ramp;
use crate::spec::rate::Rate;
use crate::time::Moment;

use super::paged::Paged;

/// A start may come this much before its time, so that a late wake-up does not lower the rate.
const RATE_SLACK: Duration = Duration::from_millis(20);

/// How many starts of a service may be in flight.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    pub(super) per_agent: Option<u32>,
    pub(super) cluster: Option<u32>,
    pub(super) interval: Option<Duration>,
}

impl Limits {
    pub(super) fn of(ramp: &Ramp) -> Self {
        let rate = ramp.rate.as_deref().and_then(|rate| Rate::parse(rate).ok());
        Self {
            per_agent: ramp.per_agent,
            cluster: ramp.cluster,
            interval: rate.map(|rate| rate.interval()),
        }
    }

    /// Whether as many may start at once as there are.
    pub(super) fn none(&self) -> bool {
        self.per_agent.is_none() && self.cluster.is_none() && self.interval.is_none()
    }
}

/// A start in flight.
#[derive(Clone, Copy, Debug)]
struct Start {
    service: ServiceId,
    agent: AgentIndex,
    since: Moment,
    /// The agent has still to assume it.
    unassumed: bool,
    /// When it has taken too long: to be assumed, or to be ready.
    timer: Moment,
}

/// Everything that is on its way.
#[derive(Clone, Debug, Default)]
pub(super) struct Flight {
    starts: Paged<Start>,
    timers: BTreeSet<(Moment, PartitionId)>,
    counts: Counts,
    /// When the next start of a service with a rate is due.
    due: BTreeMap<ServiceId, Moment>,
    /// Partitions on the move, and when nobody waits for them any longer.
    moving: BTreeMap<PartitionId, Moment>,
}

/// How many starts there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    per_service: BTreeMap<ServiceId, u32>,
    per_agent: BTreeMap<(ServiceId, AgentIndex), u32>,
}

impl Counts {
    pub(super) fn add(&mut self, service: ServiceId, agent: AgentIndex) {
        *self.per_service.entry(service).or_default() += 1;
        *self.per_agent.entry((service, agent)).or_default() += 1;
    }

    fn remove(&mut self, service: ServiceId, agent: AgentIndex) {
        less(&mut self.per_service, service);
        less(&mut self.per_agent, (service, agent));
    }

    fn of(&self, service: ServiceId) -> u32 {
        self.per_service.get(&service).copied().unwrap_or(0)
    }

    fn at(&self, service: ServiceId, agent: AgentIndex) -> u32 {
        let count = self.per_agent.get(&(service, agent));
        count.copied().unwrap_or(0)
    }
}

/// What stands in the way of one more start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The agent has enough starts of the service in flight.
    Agent,
    /// The cluster has.
    Cluster,
    /// The rate allows the next one only then.
    Until(Moment),
}

impl Flight {
    /// A partition was assigned, or assumed and its first attempt is not ready yet.
    pub(super) fn starts(
        &mut self,
        id: PartitionId,
        (service, agent): (ServiceId, AgentIndex),
        unassumed: bool,
        now: Moment,
        within: Duration,
    ) {
        let known = self.starts.get(id);
        let same = known.filter(|start| {
            start.service == service && start.agent == agent && start.unassumed == unassumed
        });
        let since = same.map_or(now, |start| start.since);
        self.started(id);
        let start = Start {
            service,
            agent,
            since,
            unassumed,
            timer: since + within,
        };
        self.timers.insert((start.timer, id));
        self.starts.insert(id, start);
        self.counts.add(service, agent);
    }

    /// A partition is no longer on its way to be ready.
    pub(super) fn started(&mut self, id: PartitionId) {
        if let Some(start) = self.starts.remove(id) {
            self.timers.remove(&(start.timer, id));
            self.counts.remove(start.service, start.agent);
        }
    }

    /// Gives up waiting for what has taken too long; answers with what should have been assumed.
    pub(super) fn give_up(&mut self, now: Moment) -> Vec<PartitionId> {
        let mut unassumed = Vec::new();
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            if self.starts.get(id).is_some_and(|start| start.unassumed) {
                unassumed.push(id);
                self.timers.remove(&(at, id));
            } else {
                self.started(id);
            }
        }
        self.moving.retain(|_, until| *until > now);
        unassumed
    }

    /// When something here is due next.
    pub(super) fn next(&self) -> Option<Moment> {
        let start = self.timers.first().map(|(at, _)| *at);
        start.into_iter().chain(self.moving.values().copied()).min()
    }

    /// What stands in the way of one more start, `more` being those just decided.
    pub(super) fn full(
        &self,
        service: ServiceId,
        agent: AgentIndex,
        limits: &Limits,
        more: &Counts,
        now: Moment,
    ) -> Option<Full> {
        if let Some(most) = limits.cluster
            && self.counts.of(service) + more.of(service) >= most.max(1)
        {
            return Some(Full::Cluster);
        }
        if let (Some(_), Some(due)) = (limits.interval, self.due.get(&service))
            && now + RATE_SLACK < *due
        {
            return Some(Full::Until(due.before(RATE_SLACK)));
        }
        let most = limits.per_agent?;
        let here = self.counts.at(service, agent) + more.at(service, agent);
        (here >= most.max(1)).then_some(Full::Agent)
    }

    /// A start was decided.
    pub(super) fn spend_rate(&mut self, service: ServiceId, limits: &Limits, now: Moment) {
        if let Some(interval) = limits.interval {
            let due = self.due.entry(service).or_insert(now);
            *due = (*due).max(now) + interval;
        }
    }

    /// A partition is taken from one agent to go to another.
    pub(super) fn moves(&mut self, id: PartitionId, until: Moment) {
        self.moving.entry(id).or_insert(until);
    }

    pub(super) fn moved(&mut self, id: PartitionId) {
        self.moving.remove(&id);
    }

    pub(super) fn moving(&self) -> usize {
        self.moving.len()
    }

    pub(super) fn is_moving(&self, id: PartitionId) -> bool {
        self.moving.contains_key(&id)
    }
}

fn less<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}
