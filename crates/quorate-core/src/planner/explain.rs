//! Why a partition is where it is, or does not run: in the user's words.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cluster::{Cluster, Freed, Partition, Service, State};
use crate::ids::{AgentName, PartitionId, ServiceName};
use crate::lease::KEPT;
use crate::placement::{AgentIndex, Misfit, PartitionIndex};
use crate::record::{CloseReason, Desired, ReleaseOutcome, RunPhase, Schedulable};
use crate::time::Moment;

use super::flight::{Counts, Full};
use super::{AgentRow, Facts, Planner, ServiceRow};

/// The answer to `quorate why`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The agent that holds it.
    pub agent: Option<AgentName>,
    /// Where it runs and why there, or why it does not run.
    pub because: String,
    /// Every agent and the one rule that excludes it.
    pub agents: Vec<AgentVerdict>,
}

/// What speaks for or against an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentVerdict {
    /// The agent.
    pub agent: AgentName,
    /// Whether it could take the partition.
    pub eligible: bool,
    /// The rule that excludes it, or what it holds.
    pub text: String,
}

/// Why a service excludes an agent, whatever else it holds.
pub(super) enum Exclusion<'a> {
    Gone,
    Lease,
    Require(&'a str),
}

impl ServiceRow {
    /// The rule of the service that excludes an agent.
    pub(super) fn exclusion(&self, facts: &Facts) -> Option<Exclusion<'_>> {
        if facts.sessions.is_empty() {
            return Some(Exclusion::Gone);
        }
        let containment = facts.containment?;
        let broken = self.require.iter();
        let mut broken = broken.filter(|(_, rule)| !rule.matches(&facts.labels, containment));
        if let Some((text, _)) = broken.next() {
            return Some(Exclusion::Require(text));
        }
        let session = facts.sessions.contains_key(&self.lease);
        (!session).then_some(Exclusion::Lease)
    }
}

impl Planner {
    /// Where a partition runs and why there; or, agent by agent, what excludes it.
    #[must_use]
    pub fn why(&self, now: Moment, cluster: &Cluster, id: PartitionId) -> Option<Why> {
        let partition = cluster.partition(id)?;
        let service = self.services.get(&partition.service())?;
        let holder = partition.holder();
        let agent = holder.and_then(|holder| cluster.agent_holding(holder).cloned());
        let because = match self.waiting(now, cluster, id) {
            Some(waiting) => waiting,
            None => self.because(now, cluster, partition, agent.as_ref()),
        };
        let agents = self.agents.iter().map(|(name, row)| {
            let (eligible, text) = self.verdict(partition, service, row);
            AgentVerdict {
                agent: name.clone(),
                eligible,
                text,
            }
        });
        Some(Why {
            agent,
            because,
            agents: agents.collect(),
        })
    }

    fn because(
        &self,
        now: Moment,
        cluster: &Cluster,
        partition: &Partition,
        agent: Option<&AgentName>,
    ) -> String {
        let Some(agent) = agent else {
            return not_wanted(cluster, partition);
        };
        let service = self.services.get(&partition.service());
        let (Some(row), Some(service)) = (self.agents.get(agent), service) else {
            return format!("it runs on {agent}");
        };
        let silent = partition.holder().map(|holder| holder.session);
        if silent.is_some_and(|session| self.silent.contains(&session)) && service.lease >= KEPT {
            return format!(
                "it is kept on {agent}, which is silent: with isolation = \"keep\" it may still run there, and \
                 nothing takes over by itself but a fence hook; `quorate evict {agent}` is for a person to decide"
            );
        }
        let here = self.layout.load_of(service.index, row.index);
        let mut text = format!(
            "it runs on {agent}, which is to hold {} of the {} partitions of {}",
            here.count,
            cluster
                .service_by_id(partition.service())
                .map_or(0, |s| s.listed()),
            service.name,
        );
        let id = cluster.partition_id(&service.name, partition.key());
        if id.is_some_and(|id| self.misplaced.contains(&id)) {
            let to = id
                .and_then(|id| self.target(id))
                .and_then(|to| self.name(to));
            let quiet = id.and_then(|id| self.quiet.until(id, now));
            match (to, quiet) {
                (Some(to), Some(until)) if to != agent => {
                    let left = seconds(until.since(now));
                    let _ = write!(
                        text,
                        "; it is to move to {to} if nothing changes for {left} (ramp.settle)"
                    );
                }
                (Some(to), None) if to != agent => {
                    let _ = write!(text, "; it is to move to {to} as soon as its turn comes");
                }
                (Some(_) | None, _) => text.push_str("; it is to be stopped there"),
            }
        } else {
            match row.facts.schedulable {
                Schedulable::Draining => {
                    text.push_str("; that agent drains, and no other may take it");
                }
                Schedulable::Active | Schedulable::Cordoned => {}
            }
        }
        text
    }

    fn name(&self, index: AgentIndex) -> Option<&AgentName> {
        self.names.get(index.0 as usize)
    }

    fn verdict(
        &self,
        partition: &Partition,
        service: &ServiceRow,
        row: &AgentRow,
    ) -> (bool, String) {
        let facts = &row.facts;
        let no = |text: String| (false, text);
        match service.exclusion(facts) {
            Some(Exclusion::Gone) => return no("it is not connected".to_owned()),
            Some(Exclusion::Require(rule)) => {
                return no(format!(
                    "the service requires {rule}, which it does not meet"
                ));
            }
            Some(Exclusion::Lease) if facts.silent => {
                return no("it is silent".to_owned());
            }
            Some(Exclusion::Lease) => {
                return no(format!(
                    "it has not yet opened a session for leases of {:?}",
                    service.lease
                ));
            }
            None => {}
        }
        match facts.schedulable {
            Schedulable::Draining => return no("it is draining".to_owned()),
            Schedulable::Cordoned => return no("it is cordoned".to_owned()),
            Schedulable::Active => {}
        }
        if facts.slow {
            return no("it has not acknowledged in time what it was given".to_owned());
        }
        if facts.silent {
            return no("it has been silent for too long to get new work".to_owned());
        }
        let load = self.layout.load(row.index);
        let here = self.layout.load_of(service.index, row.index);
        let max = service.max_per_agent;
        if max > 0 && here.count >= max {
            return no(format!(
                "it holds {} of {}, max_per_agent is {max}",
                here.count, service.name
            ));
        }
        let weight = u64::from(partition.weight());
        if let Some(capacity) = facts.capacity
            && load.weight + weight > capacity
        {
            return no(format!(
                "its capacity of {capacity} is taken up to {}, the partition weighs {weight}",
                load.weight
            ));
        }
        let held = format!(
            "it is to hold {} partitions, {} of {}",
            load.count, here.count, service.name
        );
        (true, held)
    }

    /// Why a partition that is to run does not, or not yet; `None` when it runs or is not to run.
    #[must_use]
    pub fn waiting(&self, now: Moment, cluster: &Cluster, id: PartitionId) -> Option<String> {
        let partition = cluster.partition(id)?;
        if !cluster.wanted(partition) {
            return None;
        }
        let of = |holder| cluster.agent_holding(holder).map_or("?", AgentName::as_str);
        if let Some(waiting) = unfenced(cluster, id, partition) {
            return Some(waiting);
        }
        if let Some(waiting) = of_another_era(cluster, partition) {
            return Some(waiting);
        }
        match partition.state() {
            State::Unassigned(_) => Some(self.unassigned(now, id, partition)),
            State::Assigned(holder) => Some(format!(
                "assigned to {}, which has not acknowledged it yet",
                of(*holder)
            )),
            State::Stopping(holder, reason) => {
                Some(format!("being stopped on {}: {reason}", of(*holder)))
            }
            State::Assumed(holder) => {
                let run = partition.run()?;
                if run.phase != RunPhase::Backoff {
                    return None;
                }
                let exit = run.exit;
                let exit = exit.map_or_else(String::new, |exit| format!(" ({exit})"));
                Some(format!(
                    "attempt {} ended on {}{exit}; the next one follows after a pause",
                    run.attempt,
                    of(*holder)
                ))
            }
        }
    }

    fn unassigned(&self, now: Moment, id: PartitionId, partition: &Partition) -> String {
        let Some(service) = self.services.get(&partition.service()) else {
            return "the leader has not looked at it yet".to_owned();
        };
        if let Some(until) = self.delays.get(&id).filter(|until| **until > now) {
            let left = seconds(until.since(now));
            return match partition.state() {
                State::Unassigned(Freed::Closed {
                    reason: CloseReason::WardenDied,
                    ..
                }) => format!("its warden died; its agent has {left} to have another"),
                State::Unassigned(Freed::GivenBack { from, .. }) => {
                    let exit = partition.run().and_then(|run| run.exit);
                    let exit = exit.map_or_else(String::new, |exit| format!(" ({exit})"));
                    format!(
                        "it failed {} in a row, last on {from}{exit}; the next try is in {left}",
                        times(partition.failures())
                    )
                }
                State::Unassigned(
                    Freed::New | Freed::Taken { .. } | Freed::Expired { .. } | Freed::Closed { .. },
                )
                | State::Assigned(_)
                | State::Assumed(_)
                | State::Stopping(..) => {
                    format!("takeover_delay: its agent was silent, it starts in {left}")
                }
            };
        }
        if let Some(until) = self.first_wait(service, now) {
            let expected = service.expect.or(self.config.expect_agents);
            let here = self.present.in_class(service.lease);
            let of = expected.map_or_else(String::new, |expected| format!(" of {expected}"));
            return format!(
                "{here}{of} agents are here; waiting {} for more before the first start (ramp.settle)",
                seconds(until.since(now))
            );
        }
        let Some((_, agent, _)) = self.queued.get(id) else {
            return self.placeless(service, id);
        };
        let to = self.name(*agent).map_or("?", |name| name.as_str());
        let nothing = Counts::default();
        match self
            .flight
            .full(partition.service(), *agent, &service.limits, &nothing, now)
        {
            Some(Full::Agent) => format!(
                "ramp.per_agent: {} starts are in flight on {to}",
                service.limits.per_agent.unwrap_or(0)
            ),
            Some(Full::Cluster) => format!(
                "ramp.cluster: {} starts are in flight",
                service.limits.cluster.unwrap_or(0)
            ),
            Some(Full::Until(_)) => "ramp.rate: its turn has not come".to_owned(),
            None => format!("about to be assigned to {to}"),
        }
    }

    fn placeless(&self, service: &ServiceRow, id: PartitionId) -> String {
        match self.layout.misfit(PartitionIndex(id.0)) {
            None => "the leader has not looked at it yet".to_owned(),
            Some(Misfit::NoAgent) => self.no_agent(service),
            Some(Misfit::PerAgent) => format!(
                "every agent that may hold it has max_per_agent = {} of {}",
                service.max_per_agent, service.name
            ),
            Some(Misfit::Capacity) => {
                "no agent that may hold it has capacity left for its weight".to_owned()
            }
        }
    }

    /// The nearest reason why no agent at all may take partitions of a service.
    fn no_agent(&self, service: &ServiceRow) -> String {
        let here: Vec<_> = self
            .agents
            .values()
            .filter(|row| row.since.is_some())
            .collect();
        if here.is_empty() {
            return "no agent is connected".to_owned();
        }
        let lacks = |row: &&&AgentRow| {
            let rule = service.exclusion(&row.facts);
            matches!(rule, Some(Exclusion::Lease))
        };
        let may = |row: &&AgentRow| service.exclusion(&row.facts).is_none();
        if !here.iter().any(may) && here.iter().filter(lacks).any(|row| !row.facts.silent) {
            return format!(
                "no agent has opened a session for leases of {:?} yet",
                service.lease
            );
        }
        if here.iter().any(may) || here.iter().filter(lacks).count() > 0 {
            return "every agent that may hold it is cordoned, draining or silent".to_owned();
        }
        let require = service.require.iter().map(|(text, _)| text.as_str());
        let require: Vec<_> = require.collect();
        format!(
            "no agent meets what the service requires: {}",
            require.join(", ")
        )
    }
}

/// Why a partition that nobody holds is not to run.
fn not_wanted(cluster: &Cluster, partition: &Partition) -> String {
    if let Some(outcome) = partition.finished() {
        return match outcome {
            ReleaseOutcome::Failed => {
                let service = cluster.service_of(partition).map(Service::name);
                service.map_or_else(String::new, |service| given_up(service, partition))
            }
            ReleaseOutcome::Done | ReleaseOutcome::Stopped | ReleaseOutcome::Move => {
                "its work is done; `quorate start` runs it again".to_owned()
            }
        };
    }
    let service = cluster.service_of(partition);
    if service.is_some_and(|service| service.desired() == Desired::Stopped) {
        return "its service is stopped; `quorate start` starts it".to_owned();
    }
    "it is stopped; `quorate start` starts it".to_owned()
}

fn times(count: u32) -> String {
    if count == 1 {
        "once".to_owned()
    } else {
        format!("{count} times")
    }
}

/// That a partition is left failed, how its last attempt ended, and what starts it again.
#[must_use]
pub fn given_up(service: &ServiceName, partition: &Partition) -> String {
    // What is to fail at its first exit of some class may have had none that counts.
    let failures = match partition.failures() {
        0 => String::new(),
        1 => " after 1 failed attempt".to_owned(),
        n => format!(" after {n} failed attempts in a row"),
    };
    let exit = partition.run().and_then(|run| run.exit);
    let exit = exit.map_or_else(String::new, |exit| format!(" ({exit})"));
    let key = partition.key();
    format!("given up{failures}{exit}; `quorate start {service}/{key}` tries it again")
}

fn seconds(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}

/// What has to be over before anything of a restored cluster is given away.
fn of_another_era(cluster: &Cluster, partition: &Partition) -> Option<String> {
    let holder = partition.holder();
    let holder = holder.filter(|holder| cluster.exiled(holder.session));
    let agent = holder.and_then(|holder| cluster.agent_holding(holder));
    let over = cluster.lost().is_none();
    match (agent, over) {
        (Some(agent), false) => Some(format!(
            "by the backup {agent} had it; it starts once every lease from before the restore is over"
        )),
        (Some(agent), true) => Some(format!(
            "by the backup it was kept on {agent}, where it may still execute: that agent comes back, or \
             `quorate evict {agent}` is for a person to decide"
        )),
        (None, false) => Some(
            "the cluster was restored from a backup: it starts once every lease from before is over"
                .to_owned(),
        ),
        (None, true) => None,
    }
}

/// What is said of a partition whose former agent is to be fenced.
fn unfenced(cluster: &Cluster, id: PartitionId, partition: &Partition) -> Option<String> {
    let holder = partition.running_under()?;
    let session = cluster.expired().get(&holder.session)?;
    let hook = cluster.fence_of(id)?;
    Some(format!(
        "{} was silent for longer than its lease; waiting for fence hook {hook} to succeed",
        session.agent()
    ))
}
