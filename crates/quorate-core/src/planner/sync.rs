//! Keeping what the planner knows in step with the fold: agents and services into the layout, and
//! every partition that changed into the list it belongs to.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use crate::agent;
use crate::cluster::{self, Cluster, Fled, Freed, Service, State};
use crate::ids::{AgentName, PartitionId, ServiceId};
use crate::placement::{self, AgentIndex, PartitionIndex, Rules, Standing};
use crate::record::{CloseReason, ReleaseOutcome, RunPhase, Schedulable};
use crate::spec::backoff::BackoffRange;
use crate::spec::constraint::Constraint;
use crate::spec::{OnChange, ServiceSpec};
use crate::time::Moment;

use super::{AgentRow, Exile, Facts, Planner, Present, ServiceRow, flight};

/// An agent that has not acknowledged in time gets nothing more for so many times as long.
const SLOW_FOR: u32 = 3;
/// A start or stop that has taken this much longer than its service allows holds up nobody.
const PATIENCE: Duration = Duration::from_secs(30);

/// An agent whose warden died has another in about 100 ms. Moving its partitions away and back would
/// touch twice as many runs as died.
const WARDEN_RETURNS_WITHIN: Duration = Duration::from_secs(1);

impl Planner {
    /// Looks at everything that has changed.
    pub(super) fn sync(&mut self, now: Moment, cluster: &Cluster) {
        self.find_slow(now, cluster);
        if self.fresh {
            self.began.0 = now;
        }
        let changed = (self.fresh || self.dirty_agents) && self.sync_agents(now, cluster);
        // What a new leader finds uneven may come from anything: it need not hurry.
        let by_agents = changed && !self.fresh;
        self.sync_services(now, cluster);
        self.fresh = false;
        self.end_exiles(now, cluster);
        let mut look = std::mem::take(&mut self.dirty_partitions);
        let advanced = std::mem::take(&mut self.advanced);
        look.extend(advanced.iter().filter(|id| self.may_want_a_place(**id)));
        in_order(&mut look);
        for id in &look {
            self.place(now, cluster, *id);
        }
        look.extend(advanced);
        look.extend(self.unrest.never_restarted(now));
        let unsettled = !self.layout.is_settled();
        let misplaced = if unsettled {
            self.misplaced.clone()
        } else {
            BTreeSet::new()
        };
        if unsettled {
            look.append(&mut self.settle(cluster));
        }
        while let Some((at, id)) = self.delayed.first().copied().filter(|(at, _)| *at <= now) {
            self.delayed.remove(&(at, id));
            look.push(id);
        }
        in_order(&mut look);
        for id in look {
            self.classify(now, cluster, id);
            self.note_rest(now, cluster, id);
        }
        if unsettled {
            self.put_off(now, cluster, &misplaced, by_agents);
        }
        if std::mem::take(&mut self.stirred) {
            self.put_off_further(now, cluster);
        }
        self.restart_asked.clear();
        self.data_changed.clear();
        self.looked = cluster.position();
    }

    /// Takes note of whether a partition is at rest.
    fn note_rest(&mut self, now: Moment, cluster: &Cluster, id: PartitionId) {
        let partition = cluster.partition(id);
        if let Some(partition) = partition
            && let State::Assumed(_) = partition.state()
            && let Some(service) = self.services.get(&partition.service())
        {
            let other_data = service.restarts_on_data
                && self.data_changed.contains(&id)
                && partition.data_version() > self.looked;
            if other_data || self.restart_asked.contains(&id) {
                self.unrest.restarts(id, now + service.patience);
            }
        }
        let restless = self.restless(cluster, id);
        let service = partition.map(cluster::Partition::service);
        self.unrest.note(id, service.zip(restless));
    }

    /// Agents that have not taken what they were given, and those that may try again.
    fn find_slow(&mut self, now: Moment, cluster: &Cluster) {
        let before = self.slow.len();
        self.slow.retain(|_, until| *until > now);
        self.dirty_agents |= self.slow.len() != before;
        for id in self.flight.give_up(now) {
            let holder = cluster.partition(id).and_then(|p| p.holder());
            let session = holder.and_then(|holder| cluster.session(holder.session));
            self.refusing
                .extend(session.map(|session| session.agent().clone()));
            self.late.insert(id);
        }
        let until = now + self.config.assume_within * SLOW_FOR;
        for agent in std::mem::take(&mut self.refusing) {
            self.slow.insert(agent, until);
            self.dirty_agents = true;
        }
    }

    /// True when an agent has come, gone or changed.
    fn sync_agents(&mut self, now: Moment, cluster: &Cluster) -> bool {
        self.dirty_agents = false;
        let mut changed = false;
        for (name, agent) in cluster.agents() {
            let facts = self.facts(cluster, agent);
            let here = !facts.sessions.is_empty();
            let known = self.agents.get(name);
            let before = known.and_then(|row| row.since);
            let since = match (here, before) {
                (false, _) => None,
                (true, Some(since)) => Some(since),
                // A new leader takes those that are here for settled.
                (true, None) if self.fresh => Some(Moment::default()),
                (true, None) => {
                    self.last_join = Some(now);
                    Some(now)
                }
            };
            if known.is_some_and(|row| row.since == since && row.facts == facts) {
                continue;
            }
            changed = true;
            let heard_again = known.is_some_and(|row| row.facts.silent) && !facts.silent;
            if here && !self.fresh && (before.is_none() || heard_again) {
                self.unrest.opens_sessions(name, now);
            }
            let open = facts.sessions.keys().copied();
            let class_since = open
                .map(|lease| {
                    let before = known.and_then(|row| row.class_since.get(&lease).copied());
                    let begun = if self.fresh { Moment::default() } else { now };
                    if before.is_none() && !self.fresh {
                        self.class_joins.insert(lease, now);
                    }
                    (lease, before.unwrap_or(begun))
                })
                .collect();
            let row = placement::Agent {
                standing: standing(&facts),
                capacity: facts.capacity,
                rank: xxh3_64(name.as_str().as_bytes()),
            };
            let index = if let Some(known) = known {
                self.layout.set_agent(known.index, row);
                known.index
            } else {
                self.names.push(name.clone());
                self.layout.add_agent(row)
            };
            let row = AgentRow {
                index,
                since,
                class_since,
                facts,
            };
            for service in self.services.values() {
                let allowed = service.exclusion(&row.facts).is_none();
                self.layout.allow(service.index, index, allowed);
            }
            self.agents.insert(name.clone(), row);
            // Some of them may have waited for this very agent.
            self.dirty_partitions.extend(self.delays.keys());
            self.look_again_at(cluster, name);
        }
        if changed {
            self.present = Present::of(self.agents.values());
        }
        changed
    }

    /// What an agent holds may now be out of place.
    fn look_again_at(&mut self, cluster: &Cluster, name: &AgentName) {
        let sessions = cluster.agents().get(name).map(cluster::Agent::sessions);
        for session in sessions.into_iter().flatten() {
            let held = cluster.session(*session).map(cluster::Session::held);
            self.dirty_partitions.extend(held.into_iter().flatten());
        }
        let index = self.agents.get(name).map(|row| row.index);
        let exiled = self.exiled.iter();
        let here = exiled.filter(|(_, exile)| Some(exile.to) == index);
        self.dirty_partitions.extend(here.map(|(id, _)| *id));
    }

    fn facts(&self, cluster: &Cluster, agent: &cluster::Agent) -> Facts {
        let mut sessions = cluster.sessions_in_use(agent);
        let silent = sessions.values().any(|id| self.silent.contains(id));
        if let Some(any) = sessions.values().next().copied() {
            for lease in &self.foreseen {
                sessions.entry(*lease).or_insert(any);
            }
        }
        let info = agent.info();
        Facts {
            schedulable: agent.schedulable(),
            silent,
            slow: self.slow.contains_key(agent.name()),
            capacity: info.capacity,
            labels: info.labels.clone(),
            containment: Some(info.containment),
            sessions,
        }
    }

    fn sync_services(&mut self, now: Moment, cluster: &Cluster) {
        let created = std::mem::take(&mut self.created);
        let dirty = std::mem::take(&mut self.dirty_services);
        let ids: Vec<ServiceId> = if self.fresh {
            cluster.services().map(|(id, _)| id).collect()
        } else {
            let known = dirty.iter().filter_map(|name| cluster.service_id(name));
            known.collect()
        };
        for id in ids {
            let Some(service) = cluster.service_by_id(id) else {
                continue;
            };
            let created = self.fresh || created.contains(service.name());
            self.sync_service(now, id, service, created);
            let partitions = service.partitions().values();
            self.dirty_partitions.extend(partitions);
        }
    }

    fn sync_service(&mut self, now: Moment, id: ServiceId, service: &Service, created: bool) {
        let spec = service.spec();
        let rules = Rules {
            strategy: spec.placement.strategy,
            max_per_agent: spec.placement.max_per_agent,
            priority: spec.placement.priority,
        };
        let index = if let Some(known) = self.services.get(&id) {
            self.layout.set_rules(known.index, rules);
            known.index
        } else {
            self.layout.add_group(rules)
        };
        let mut row = ServiceRow::of(service, index, self.config.settle);
        let before = self.services.get(&id).filter(|_| !created);
        row.since = before
            .filter(|before| before.lease == row.lease)
            .map_or(now, |before| before.since);
        let anew = before.is_some_and(|before| before.recipe != row.recipe);
        let other_list = before.is_none_or(|before| before.source != row.source);
        if row.source.is_some() && other_list && !service.removed() {
            self.unrest.awaits_list(service.name(), now);
        }
        if anew {
            self.restart_asked.extend(service.partitions().values());
        }
        for agent in self.agents.values() {
            let allowed = row.exclusion(&agent.facts).is_none();
            self.layout.allow(index, agent.index, allowed);
        }
        self.services.insert(id, row);
    }

    /// Whether a partition that only came further under its right is not where the layout has it anyway.
    fn may_want_a_place(&self, id: PartitionId) -> bool {
        self.layout.owner(PartitionIndex(id.0)).is_none() || self.exiled.contains_key(&id)
    }

    /// Puts a partition into the layout as it is now, or takes it out.
    fn place(&mut self, now: Moment, cluster: &Cluster, id: PartitionId) {
        let index = PartitionIndex(id.0);
        let partition = cluster.partition(id).filter(|p| cluster.wanted(p));
        let Some(partition) = partition else {
            self.recall(id);
            self.layout.take(index);
            return;
        };
        let Some(service) = self.services.get(&partition.service()) else {
            return;
        };
        let group = service.index;
        if self.exile(now, cluster, id, partition) {
            self.layout.take(index);
            return;
        }
        let spread = self.label(partition);
        let row = placement::Partition {
            group,
            weight: partition.weight(),
            spread,
        };
        self.layout.put(index, row);
        let owner = self.layout.owner(index).and_then(|owner| self.row(owner));
        let open = owner.is_none_or(|row| standing(&row.facts) == Standing::Open);
        if !open && partition.holder().is_none() {
            // Nobody holds it, so it need not go to an agent that takes nothing now.
            self.layout.free(index);
        }
        if let State::Assigned(holder) | State::Assumed(holder) = partition.state()
            && self.target(id).is_none()
            && let Some(agent) = self.index_of(holder.session, cluster)
        {
            self.layout.hold(index, agent);
        }
    }

    /// Keeps a partition away from the agent on which it failed, when another one can take it. True
    /// when it is placed by itself.
    fn exile(
        &mut self,
        now: Moment,
        cluster: &Cluster,
        id: PartitionId,
        partition: &cluster::Partition,
    ) -> bool {
        let avoid = partition.freed().and_then(Freed::avoid);
        let avoid = avoid
            .and_then(|name| self.agents.get(name))
            .map(|row| row.index);
        if let Some(exile) = self.exiled.get(&id).copied() {
            let free = partition.holder().is_none();
            let fits = self.may_take(partition, exile.to, true) && Some(exile.to) != avoid;
            let other_reason = free && avoid.is_none();
            if fits && exile.weight == partition.weight() && !other_reason {
                return true;
            }
            self.recall(id);
        }
        let Some(avoid) = avoid else {
            return self.stay_exiled(now, cluster, id);
        };
        self.layout.take(PartitionIndex(id.0));
        let others = self.agents.values().filter(|row| row.index != avoid);
        let able = others.filter(|row| self.may_take(partition, row.index, false));
        let service = self.services.get(&partition.service());
        let least = able.min_by_key(|row| {
            let group = service.map(|service| self.layout.load_of(service.index, row.index));
            let group = group.map(|load| load.weight);
            (group, self.layout.load(row.index).weight, row.index)
        });
        let Some(to) = least.map(|row| row.index) else {
            return false;
        };
        let weight = partition.weight();
        self.exile_to(id, to, weight, now + self.config.exile);
        true
    }

    /// Until when a partition that is held counts apart from the balance because it failed elsewhere. By the wall
    /// clock, since the leader before this one has to mean the same moment: otherwise each new leader would move
    /// something for it.
    fn fled_until(&self, fled: &Fled) -> Moment {
        let (began, wall) = self.began;
        let from_here = began + self.config.exile;
        (from_here + fled.at.since(wall)).before(wall.since(fled.at))
    }

    /// A partition that is held and fled stays where it is, and counts apart, for the rest of its time.
    fn stay_exiled(&mut self, now: Moment, cluster: &Cluster, id: PartitionId) -> bool {
        let partition = cluster.partition(id);
        let Some((partition, fled, holder)) =
            partition.and_then(|p| Some((p, p.fled()?, p.holder()?)))
        else {
            return false;
        };
        // A clock that was set makes it no longer than it ever is.
        let until = self.fled_until(fled).min(now + self.config.exile);
        let from = self.agents.get(&fled.from).map(|row| row.index);
        let to = self.index_of(holder.session, cluster);
        let to = to.filter(|to| until > now && Some(*to) != from);
        let Some(to) = to.filter(|to| self.may_take(partition, *to, true)) else {
            return false;
        };
        self.layout.take(PartitionIndex(id.0));
        self.exile_to(id, to, partition.weight(), until);
        true
    }

    fn exile_to(&mut self, id: PartitionId, to: AgentIndex, weight: u32, until: Moment) {
        self.layout.add_ballast(to, weight);
        self.exiled.insert(id, Exile { to, weight, until });
    }

    /// What has run elsewhere for long enough counts like any other again.
    fn end_exiles(&mut self, now: Moment, cluster: &Cluster) {
        let over = self.exiled.iter().filter(|(id, exile)| {
            let held = cluster.partition(**id).and_then(|p| p.holder()).is_some();
            held && exile.until <= now
        });
        let over: Vec<_> = over.map(|(id, _)| *id).collect();
        for id in over {
            self.recall(id);
            self.dirty_partitions.push(id);
        }
    }

    /// Ends an exile.
    fn recall(&mut self, id: PartitionId) {
        if let Some(exile) = self.exiled.remove(&id) {
            self.layout.remove_ballast(exile.to, exile.weight);
        }
    }

    /// Whether an agent may take a partition beside what it has; or keep it, when it is there already.
    fn may_take(&self, partition: &cluster::Partition, agent: AgentIndex, there: bool) -> bool {
        let (Some(row), Some(service)) = (self.row(agent), self.services.get(&partition.service()))
        else {
            return false;
        };
        let standing = standing(&row.facts);
        let open = standing == Standing::Open || (there && standing == Standing::Holding);
        let load = self.layout.load(agent).weight;
        let more = if there {
            0
        } else {
            u64::from(partition.weight())
        };
        let fits = row.facts.capacity.is_none_or(|most| load + more <= most);
        open && fits && service.exclusion(&row.facts).is_none()
    }

    fn label(&mut self, partition: &cluster::Partition) -> Option<u32> {
        let service = self.services.get(&partition.service())?;
        if service.spread.is_empty() {
            return None;
        }
        let labels = partition.labels();
        let value = |name: &String| labels.and_then(|labels| labels.get(name)).cloned();
        let values: Vec<Option<String>> = service.spread.iter().map(value).collect();
        if values.iter().all(Option::is_none) {
            return None;
        }
        let next = u32::try_from(self.labels.len()).unwrap_or(u32::MAX);
        let number = self.labels.entry((partition.service(), values));
        Some(*number.or_insert(next))
    }

    /// Places everything anew from where it really is: plans that nobody has begun to carry out cost
    /// nothing to change.
    fn settle(&mut self, cluster: &Cluster) -> Vec<PartitionId> {
        for id in &self.misplaced {
            let partition = cluster.partition(*id);
            let session = partition.and_then(|p| p.holder()).map(|h| h.session);
            let agent = session.and_then(|session| self.index_of(session, cluster));
            let placed = !self.exiled.contains_key(id);
            if let Some(agent) = agent.filter(|_| placed)
                && partition.is_some_and(|p| cluster.wanted(p))
            {
                self.layout.hold(PartitionIndex(id.0), agent);
            }
        }
        let mut look: Vec<PartitionId> = std::mem::take(&mut self.misplaced).into_iter().collect();
        let free = self.queued.ids().chain(self.delays.keys().copied());
        for id in free {
            if !self.exiled.contains_key(&id) {
                self.layout.free(PartitionIndex(id.0));
            }
            look.push(id);
        }
        look.extend(std::mem::take(&mut self.placeless));
        let mut changed = Vec::new();
        self.layout.settle(&mut changed);
        look.extend(changed.into_iter().map(|index| PartitionId(index.0)));
        look
    }

    /// How long a free partition stays where it is before somebody else may have it.
    fn delay(
        &self,
        id: PartitionId,
        partition: &cluster::Partition,
        freed: &Freed,
        service: &ServiceRow,
    ) -> Duration {
        match freed {
            // It failed there. The next agent is another try in the same row, and as long in coming.
            Freed::GivenBack {
                outcome: ReleaseOutcome::Move,
                ..
            } if partition.failures() > 0 => {
                service.backoff.delay(partition.failures(), u64::from(id.0))
            }
            Freed::Expired { .. }
            | Freed::Closed {
                reason: CloseReason::Evicted,
                ..
            } => service.takeover_delay,
            Freed::Closed {
                reason: CloseReason::WardenDied,
                from,
            } => {
                let agent = self.agents.get(&**from);
                let returns = agent.is_some_and(|agent| {
                    agent.since.is_some() && !agent.class_since.contains_key(&service.lease)
                });
                if returns {
                    WARDEN_RETURNS_WITHIN
                } else {
                    Duration::ZERO
                }
            }
            Freed::New
            | Freed::Taken { .. }
            | Freed::GivenBack { .. }
            | Freed::Closed {
                reason: CloseReason::Left | CloseReason::AgentDied | CloseReason::Rebooted,
                ..
            } => Duration::ZERO,
        }
    }

    /// Puts a partition into the list it belongs to now.
    fn classify(&mut self, now: Moment, cluster: &Cluster, id: PartitionId) {
        self.unlist(id);
        let partition = cluster.partition(id).filter(|p| cluster.wanted(p));
        if !partition.is_some_and(|p| matches!(p.state(), State::Assigned(_))) {
            self.late.remove(&id);
        }
        let Some(partition) = partition else {
            self.flight.started(id);
            self.flight.moved(id);
            self.delays.remove(&id);
            return;
        };
        let service = partition.service();
        let Some(row) = self.services.get(&service) else {
            return;
        };
        let patience = row.patience;
        match partition.state() {
            State::Unassigned(freed) => {
                self.flight.started(id);
                let delay = self.delay(id, partition, freed, row);
                if delay.is_zero() {
                    self.delays.remove(&id);
                } else {
                    // Counted from when this planner first sees it: later is safe.
                    let until = *self.delays.entry(id).or_insert(now + delay);
                    if until > now {
                        self.delayed.insert((until, id));
                        return;
                    }
                }
                let Some(agent) = self.target(id) else {
                    self.placeless.insert(id);
                    return;
                };
                let turn = (Reverse(partition.priority()), id);
                self.queues
                    .entry((service, agent))
                    .or_default()
                    .insert(turn);
                self.queued.insert(id, (service, agent, turn));
            }
            State::Assigned(holder) | State::Assumed(holder) => {
                self.delays.remove(&id);
                let Some(agent) = self.index_of(holder.session, cluster) else {
                    return;
                };
                let unassumed = matches!(partition.state(), State::Assigned(_));
                if unassumed {
                    let within = self.config.assume_within;
                    self.flight.starts(id, (service, agent), true, now, within);
                } else if is_starting(partition) {
                    self.flight
                        .starts(id, (service, agent), false, now, patience);
                } else {
                    self.flight.started(id);
                    self.flight.moved(id);
                }
                if self.target(id) != Some(agent) || self.lease_differs(cluster, partition) {
                    self.misplaced.insert(id);
                }
            }
            State::Stopping(_, reason) => {
                self.flight.started(id);
                if super::decide::budgeted(*reason) {
                    self.flight.moves(id, now + patience * 2);
                }
            }
        }
    }

    fn unlist(&mut self, id: PartitionId) {
        if let Some((service, agent, turn)) = self.queued.remove(id)
            && let Some(queue) = self.queues.get_mut(&(service, agent))
        {
            queue.remove(&turn);
            if queue.is_empty() {
                self.queues.remove(&(service, agent));
            }
        }
        if let Some(until) = self.delays.get(&id) {
            self.delayed.remove(&(*until, id));
        }
        self.placeless.remove(&id);
        self.misplaced.remove(&id);
    }

    /// Whether a held partition is under another lease than its service now asks for.
    pub(super) fn lease_differs(&self, cluster: &Cluster, partition: &cluster::Partition) -> bool {
        let held = partition.holder().and_then(|h| cluster.session(h.session));
        let service = self.services.get(&partition.service());
        match (held, service) {
            (Some(session), Some(service)) => session.lease().lease != service.lease,
            (None, _) | (_, None) => false,
        }
    }
}

/// Each of them once, in the order in which they are looked at.
fn in_order(look: &mut Vec<PartitionId>) {
    look.sort_unstable();
    look.dedup();
}

/// Whether the first attempt of a run is not ready yet. Later ones follow the back-off of its agent and
/// hold up nobody.
fn is_starting(partition: &cluster::Partition) -> bool {
    let Some(run) = partition.run() else {
        return true;
    };
    match run.phase {
        RunPhase::Starting => run.attempt <= 1,
        RunPhase::Ready | RunPhase::Backoff | RunPhase::Stopping => false,
    }
}

pub(super) fn standing(facts: &Facts) -> Standing {
    if facts.sessions.is_empty() {
        return Standing::Absent;
    }
    match facts.schedulable {
        Schedulable::Draining => Standing::Leaving,
        Schedulable::Cordoned => Standing::Holding,
        Schedulable::Active if facts.silent || facts.slow => Standing::Holding,
        Schedulable::Active => Standing::Open,
    }
}

impl ServiceRow {
    fn of(service: &Service, index: placement::GroupIndex, settle: Duration) -> Self {
        let spec: &ServiceSpec = service.spec();
        // A rule that cannot be read was refused when it was applied.
        let rules = spec.placement.require.iter();
        let require = rules.filter_map(|rule| Some((rule.clone(), Constraint::parse(rule).ok()?)));
        let ready = if spec.ready.notify {
            spec.ready.timeout.0
        } else {
            spec.ready.after.0
        };
        Self {
            name: service.name().clone(),
            index,
            require: require.collect(),
            lease: spec.lease_class(),
            priority: spec.placement.priority,
            max_per_agent: spec.placement.max_per_agent,
            spread: spec.placement.spread.clone(),
            limits: flight::Limits::of(&spec.ramp),
            settle: spec.ramp.settle.map_or(settle, |settle| settle.0),
            expect: spec.ramp.expect_agents,
            takeover_delay: spec.takeover_delay.0,
            // What cannot be read was refused when it was applied.
            backoff: BackoffRange::parse(&spec.restart.backoff).unwrap_or(BackoffRange::DEFAULT),
            patience: spec.stop.timeout.0 + ready + PATIENCE,
            since: Moment::default(),
            recipe: agent::Service::new(spec.clone()).ok().map(|how| how.recipe),
            restarts_on_data: spec.on_change == OnChange::Restart,
            source: spec
                .partitions
                .as_ref()
                .and_then(|source| source.file.clone()),
        }
    }
}
