//! A cluster, its planner, and ideal agents.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::*;
use crate::cluster::State;
use crate::format::Format;
use crate::ids::{BatchId, DirectorName, PartitionKey};
use crate::lease::LeaseTimes;
use crate::record::{AgentInfo, Entry, Header, Place, Record, ReleaseOutcome, RunPhase, RunReport};
use crate::spec::{PartitionSpec, ServiceSpec};
use crate::time::WallTime;

/// A cluster, its planner, and agents that do at once what they are told.
pub(super) struct World {
    pub(super) cluster: Cluster,
    pub(super) planner: Planner,
    pub(super) now: Moment,
    pub(super) silent: BTreeSet<SessionId>,
    pub(super) sessions: BTreeMap<&'static str, SessionId>,
    /// How many changes the last entry made.
    pub(super) changes: usize,
}

pub(super) const LEASE: Duration = Duration::from_secs(10);

pub(super) fn spec(edit: impl FnOnce(&mut ServiceSpec)) -> ServiceSpec {
    let mut spec: ServiceSpec = serde_json::from_str(r#"{"command":["run"]}"#).unwrap();
    edit(&mut spec);
    spec
}

pub(super) fn partition(key: &str) -> PartitionSpec {
    PartitionSpec {
        key: PartitionKey::new(key).unwrap(),
        data: None,
        weight: 1,
        labels: BTreeMap::new(),
        priority: 0,
    }
}

pub(super) fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(PlannerConfig::default())
    }

    /// The moment, of a world whose wall clock stands still.
    pub(super) fn now(&self) -> Now {
        Now {
            moment: self.now,
            wall: WallTime::default(),
        }
    }

    pub(super) fn with(config: PlannerConfig) -> Self {
        let mut world = Self {
            cluster: Cluster::default(),
            planner: Planner::new(config, WallTime::default()),
            now: Moment::from_millis(1_000_000),
            silent: BTreeSet::new(),
            sessions: BTreeMap::new(),
            changes: 0,
        };
        let elected = Record::Elected {
            name: DirectorName::new("d1").unwrap(),
            id: 1,
            address: String::new(),
            format: Format::FIRST,
        };
        world.apply(world.cluster.epoch().next(), vec![elected]);
        world.decide();
        world
    }

    pub(super) fn apply(&mut self, epoch: crate::ids::Epoch, records: Vec<Record>) {
        let header = Header {
            format: Format::FIRST,
            epoch,
            batch: BatchId::default(),
            predecessor: self.cluster.last_hash(),
            wall: WallTime(0),
        };
        let applied = self
            .cluster
            .apply(self.cluster.position().next(), Entry { header, records });
        for outcome in &applied.outcomes {
            assert_eq!(*outcome, crate::cluster::Outcome::Accepted);
        }
        self.changes = applied.changes.len();
        self.planner.observe(&applied.changes);
    }

    pub(super) fn fold(&mut self, records: Vec<Record>) {
        self.apply(self.cluster.epoch(), records);
    }

    pub(super) fn put(&mut self, name: &str, spec: ServiceSpec, partitions: Vec<PartitionSpec>) {
        let name = service(name);
        self.fold(vec![
            Record::ServicePut {
                name: name.clone(),
                spec: Box::new(spec),
            },
            Record::PartitionsPut {
                service: name,
                partitions,
            },
        ]);
    }

    pub(super) fn keys(&mut self, name: &str, spec: ServiceSpec, count: usize) {
        let partitions = (0..count).map(|n| partition(&format!("p{n:03}"))).collect();
        self.put(name, spec, partitions);
    }

    pub(super) fn join(&mut self, name: &'static str) {
        self.join_as(name, LEASE, |_| {});
    }

    pub(super) fn join_as(
        &mut self,
        name: &'static str,
        lease: Duration,
        edit: impl FnOnce(&mut AgentInfo),
    ) {
        let mut agent = AgentInfo {
            name: AgentName::new(name).unwrap(),
            id: xxhash_rust::xxh3::xxh3_64(name.as_bytes()),
            place: Place::default(),
            labels: BTreeMap::new(),
            capacity: None,
            containment: Containment::Kernel,
            version: String::new(),
        };
        edit(&mut agent);
        let session = self.cluster.next_session();
        self.sessions.insert(name, session);
        self.fold(vec![Record::SessionOpened {
            session,
            incarnation: self.cluster.next_incarnation(),
            agent: Box::new(agent),
            lease: LeaseTimes::of(lease),
            secret_hash: format!("{session}"),
            process: session.0,
        }]);
    }

    pub(super) fn expire(&mut self, name: &str) {
        let session = self.sessions[name];
        self.fold(vec![Record::SessionExpired { session }]);
    }

    pub(super) fn set(&mut self, name: &str, schedulable: Schedulable) {
        let agent = AgentName::new(name).unwrap();
        self.fold(vec![Record::AgentSet { agent, schedulable }]);
    }

    pub(super) fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    pub(super) fn decide(&mut self) -> Decision {
        self.planner.decide(self.now, &self.cluster, &self.silent)
    }

    /// Writes a decision.
    pub(super) fn carry_out(&mut self, decision: &Decision) {
        let mut records = Vec::new();
        let mut token = self.cluster.next_token();
        for (partition, session) in &decision.assign {
            records.push(Record::Assigned {
                partition: *partition,
                session: *session,
                token,
            });
            token = Token::new(token.era(), token.counter() + 1);
        }
        for (partition, token, reason) in &decision.withdraw {
            records.push(Record::Withdrawn {
                partition: *partition,
                token: *token,
                reason: *reason,
            });
        }
        for (partition, token, reason) in &decision.revoke {
            records.push(Record::Revoked {
                partition: *partition,
                token: *token,
                reason: *reason,
            });
        }
        if !records.is_empty() {
            self.fold(records);
        }
    }

    /// What ideal agents do: assume, become ready, stop.
    pub(super) fn agents_act(&mut self) {
        let mut records = Vec::new();
        let partitions: Vec<_> = self
            .cluster
            .partitions()
            .map(|(id, p)| (id, p.state().clone()))
            .collect();
        for (partition, state) in partitions {
            match state {
                State::Assigned(holder) => {
                    let (session, token) = (holder.session, holder.token);
                    records.push(Record::Assumed {
                        partition,
                        session,
                        token,
                    });
                    records.push(ready(partition, token));
                }
                State::Stopping(holder, _) => {
                    records.push(released(partition, holder.token, ReleaseOutcome::Stopped))
                }
                State::Unassigned(_) | State::Assumed(_) => {}
            }
        }
        if !records.is_empty() {
            self.fold(records);
        }
    }

    /// Until nothing is left to do; how many partitions were assigned on the way.
    pub(super) fn run(&mut self) -> usize {
        let mut assigned = 0;
        for _ in 0..1_000 {
            let decision = self.decide();
            assigned += decision.assign.len();
            if decision.is_empty() {
                let acts = self
                    .cluster
                    .partitions()
                    .any(|(_, p)| matches!(p.state(), State::Assigned(_) | State::Stopping(..)));
                match decision.wake_at {
                    _ if acts => {}
                    Some(at) if at < self.now + Duration::from_secs(60) => self.now = at,
                    Some(_) | None => return assigned,
                }
            }
            self.carry_out(&decision);
            self.agents_act();
        }
        panic!("nothing settles: {:?}", self.decide());
    }

    pub(super) fn holder(&self, id: PartitionId) -> Option<&str> {
        let holder = self.cluster.partition(id)?.holder()?;
        Some(self.cluster.session(holder.session)?.agent().as_str())
    }

    pub(super) fn counts(&self) -> BTreeMap<&str, usize> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (id, _) in self.cluster.partitions() {
            if let Some(agent) = self.holder(id) {
                *counts.entry(agent).or_default() += 1;
            }
        }
        counts
    }

    pub(super) fn waiting(&self, id: u32) -> String {
        self.planner
            .waiting(self.now, &self.cluster, PartitionId(id))
            .unwrap_or_default()
    }
}

pub(super) fn ready(partition: PartitionId, token: Token) -> Record {
    let run = RunReport {
        phase: RunPhase::Ready,
        attempt: 1,
        pid: None,
        exit: None,
    };
    Record::Observed {
        partition,
        token,
        run,
    }
}

pub(super) fn released(partition: PartitionId, token: Token, outcome: ReleaseOutcome) -> Record {
    Record::Released {
        partition,
        token,
        outcome,
        exit: None,
        failures: 0,
    }
}

/// Agents are here for long, everything runs.
pub(super) fn running(
    agents: &[&'static str],
    count: usize,
    edit: impl FnOnce(&mut ServiceSpec),
) -> World {
    let mut world = World::new();
    for agent in agents {
        world.join(agent);
    }
    world.decide();
    world.wait(60);
    world.keys("feeds", spec(edit), count);
    world.run();
    assert_eq!(world.counts().values().sum::<usize>(), count);
    world
}
