//! One test for each rule, and properties over random clusters with ideal agents.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::{
    Just, ProptestConfig, Strategy as Random, prop, prop_assert, prop_assert_eq, prop_oneof,
    proptest,
};

use super::*;
use crate::cluster::State;
use crate::ids::{BatchId, DirectorName, PartitionKey};
use crate::lease::LeaseTimes;
use crate::record::{
    AgentInfo, Desired, Entry, Exit, ExitClass, FORMAT, Header, Record, ReleaseOutcome, RunPhase,
    RunReport,
};
use crate::spec::{PartitionSpec, ServiceSpec, Span, Strategy};
use crate::time::WallTime;

/// A cluster, its planner, and agents that do at once what they are told.
struct World {
    cluster: Cluster,
    planner: Planner,
    now: Moment,
    silent: BTreeSet<SessionId>,
    sessions: BTreeMap<&'static str, SessionId>,
}

const LEASE: Duration = Duration::from_secs(10);

fn spec(edit: impl FnOnce(&mut ServiceSpec)) -> ServiceSpec {
    let mut spec: ServiceSpec = serde_json::from_str(r#"{"command":["run"]}"#).unwrap();
    edit(&mut spec);
    spec
}

fn partition(key: &str) -> PartitionSpec {
    PartitionSpec {
        key: PartitionKey::new(key).unwrap(),
        data: None,
        weight: 1,
        labels: BTreeMap::new(),
        priority: 0,
    }
}

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

impl World {
    fn new() -> Self {
        Self::with(PlannerConfig::default())
    }

    fn with(config: PlannerConfig) -> Self {
        let mut world = Self {
            cluster: Cluster::default(),
            planner: Planner::new(config),
            now: Moment::from_millis(1_000_000),
            silent: BTreeSet::new(),
            sessions: BTreeMap::new(),
        };
        let elected = Record::Elected {
            name: DirectorName::new("d1").unwrap(),
            id: 1,
            address: String::new(),
            format: FORMAT,
        };
        world.apply(world.cluster.epoch().next(), vec![elected]);
        world.decide();
        world
    }

    fn apply(&mut self, epoch: crate::ids::Epoch, records: Vec<Record>) {
        let header = Header {
            format: FORMAT,
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
        self.planner.observe(&applied.changes);
    }

    fn fold(&mut self, records: Vec<Record>) {
        self.apply(self.cluster.epoch(), records);
    }

    fn put(&mut self, name: &str, spec: ServiceSpec, partitions: Vec<PartitionSpec>) {
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

    fn keys(&mut self, name: &str, spec: ServiceSpec, count: usize) {
        let partitions = (0..count).map(|n| partition(&format!("p{n:03}"))).collect();
        self.put(name, spec, partitions);
    }

    fn join(&mut self, name: &'static str) {
        self.join_as(name, LEASE, |_| {});
    }

    fn join_as(&mut self, name: &'static str, lease: Duration, edit: impl FnOnce(&mut AgentInfo)) {
        let mut agent = AgentInfo {
            name: AgentName::new(name).unwrap(),
            id: xxhash_rust::xxh3::xxh3_64(name.as_bytes()),
            boot_id: String::new(),
            machine_id: String::new(),
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

    fn expire(&mut self, name: &str) {
        let session = self.sessions[name];
        self.fold(vec![Record::SessionExpired { session }]);
    }

    fn set(&mut self, name: &str, schedulable: Schedulable) {
        let agent = AgentName::new(name).unwrap();
        self.fold(vec![Record::AgentSet { agent, schedulable }]);
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    fn decide(&mut self) -> Decision {
        self.planner.decide(self.now, &self.cluster, &self.silent)
    }

    /// Writes a decision.
    fn carry_out(&mut self, decision: &Decision) {
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
    fn agents_act(&mut self) {
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
    fn run(&mut self) -> usize {
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

    fn holder(&self, id: PartitionId) -> Option<&str> {
        let holder = self.cluster.partition(id)?.holder()?;
        Some(self.cluster.session(holder.session)?.agent().as_str())
    }

    fn counts(&self) -> BTreeMap<&str, usize> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (id, _) in self.cluster.partitions() {
            if let Some(agent) = self.holder(id) {
                *counts.entry(agent).or_default() += 1;
            }
        }
        counts
    }

    fn waiting(&self, id: u32) -> String {
        self.planner
            .waiting(self.now, &self.cluster, PartitionId(id))
            .unwrap_or_default()
    }
}

fn ready(partition: PartitionId, token: Token) -> Record {
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

fn released(partition: PartitionId, token: Token, outcome: ReleaseOutcome) -> Record {
    Record::Released {
        partition,
        token,
        outcome,
        exit: None,
        failures: 0,
    }
}

/// Agents are here for long, everything runs.
fn running(agents: &[&'static str], count: usize, edit: impl FnOnce(&mut ServiceSpec)) -> World {
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

#[test]
fn the_first_to_come_waits_for_the_others_before_it_takes_anything() {
    let mut world = World::new();
    world.keys("feeds", spec(|_| {}), 12);
    assert!(world.decide().is_empty());
    assert_eq!(world.waiting(0), "no agent is connected");
    world.join("a1");
    let decision = world.decide();
    assert!(decision.assign.is_empty());
    assert_eq!(decision.wake_at, Some(world.now + Duration::from_secs(5)));
    assert!(
        world
            .waiting(0)
            .contains("waiting 5.0 s for more before the first start"),
        "{}",
        world.waiting(0)
    );
    world.wait(3);
    world.join("a2");
    world.join("a3");
    assert!(world.decide().assign.is_empty());
    world.wait(2);
    world.run();
    assert_eq!(
        world.counts(),
        BTreeMap::from([("a1", 4), ("a2", 4), ("a3", 4)])
    );
}

#[test]
fn with_as_many_agents_as_are_expected_nothing_waits() {
    let mut world = World::with(PlannerConfig {
        expect_agents: Some(2),
        ..PlannerConfig::default()
    });
    world.keys("feeds", spec(|_| {}), 4);
    world.join("a1");
    assert!(world.decide().is_empty());
    world.join("a2");
    assert_eq!(world.decide().assign.len(), 4);
}

#[test]
fn a_failover_does_not_wait_for_the_settle_window_and_moves_only_what_was_lost() {
    let mut world = running(&["a1", "a2", "a3"], 12, |_| {});
    world.expire("a2");
    let decision = world.decide();
    assert_eq!((decision.assign.len(), decision.revoke.len()), (4, 0));
    world.run();
    assert_eq!(world.counts(), BTreeMap::from([("a1", 6), ("a3", 6)]));
}

#[test]
fn a_join_moves_the_least_and_only_after_the_settle_window() {
    let mut world = running(&["a1", "a2"], 12, |_| {});
    world.join("a3");
    assert!(world.decide().is_empty());
    world.wait(4);
    assert!(world.decide().is_empty());
    world.wait(1);
    assert!(!world.decide().revoke.is_empty());
    assert_eq!(world.run(), 4);
    assert_eq!(
        world.counts(),
        BTreeMap::from([("a1", 4), ("a2", 4), ("a3", 4)])
    );
}

#[test]
fn an_agent_that_comes_and_goes_within_the_settle_window_moves_nothing() {
    let mut world = running(&["a1", "a2"], 12, |_| {});
    let before: Vec<_> = (0..12)
        .map(|n| world.holder(PartitionId(n)).map(str::to_owned))
        .collect();
    world.join("a3");
    world.decide();
    world.wait(2);
    world.expire("a3");
    world.decide();
    world.wait(20);
    assert_eq!(world.run(), 0);
    let after: Vec<_> = (0..12)
        .map(|n| world.holder(PartitionId(n)).map(str::to_owned))
        .collect();
    assert_eq!(before, after);
}

#[test]
fn only_so_many_partitions_are_on_the_move_at_once() {
    let mut world = running(&["a1", "a2"], 100, |_| {});
    world.join("a3");
    world.decide();
    world.wait(6);
    let decision = world.decide();
    assert_eq!(decision.revoke.len(), 10);
    assert!(
        decision
            .revoke
            .iter()
            .all(|(_, _, reason)| *reason == MoveReason::Balance)
    );
    world.carry_out(&decision);
    assert!(
        world.decide().is_empty(),
        "the budget is spent until those have arrived"
    );
    assert_eq!(world.run(), 33);
}

#[test]
fn starts_in_flight_stay_within_the_ramp_of_each_agent_and_of_the_cluster() {
    let ramped = |spec: &mut ServiceSpec| {
        spec.ramp.per_agent = Some(2);
        spec.ramp.cluster = Some(5);
    };
    let mut world = running(&["a1", "a2", "a3"], 0, |_| {});
    world.keys("feeds", spec(ramped), 30);
    let mut rounds = 0;
    loop {
        let decision = world.decide();
        if decision.assign.is_empty() {
            break;
        }
        rounds += 1;
        assert!(decision.assign.len() <= 5);
        world.carry_out(&decision);
        let starting = world
            .cluster
            .partitions()
            .filter(|(_, p)| matches!(p.state(), State::Assigned(_)));
        let mut per_agent: BTreeMap<SessionId, usize> = BTreeMap::new();
        for (_, partition) in starting {
            *per_agent
                .entry(partition.holder().unwrap().session)
                .or_default() += 1;
        }
        assert!(per_agent.values().all(|count| *count <= 2), "{per_agent:?}");
        assert!(
            world.decide().is_empty(),
            "no more while these are starting"
        );
        let idle = (0..30).filter(|n| world.holder(PartitionId(*n)).is_none());
        assert!(idle.clone().all(|n| world.waiting(n).starts_with("ramp.")));
        world.agents_act();
    }
    assert_eq!(rounds, 6);
    // The same on the path of a failover.
    world.expire("a1");
    assert_eq!(world.decide().assign.len(), 4);
}

#[test]
fn a_rate_spaces_starts_evenly() {
    let mut world = running(&["a1"], 0, |_| {});
    world.keys(
        "feeds",
        spec(|spec| spec.ramp.rate = Some("10/s".to_owned())),
        50,
    );
    let begin = world.now;
    world.run();
    let took = world.now.since(begin);
    assert!(
        took >= Duration::from_millis(4_800) && took <= Duration::from_millis(4_950),
        "{took:?}"
    );
}

#[test]
fn a_partition_that_never_gets_ready_does_not_hold_up_the_others() {
    let mut world = running(&["a1"], 0, |_| {});
    world.keys("feeds", spec(|spec| spec.ramp.per_agent = Some(1)), 2);
    let decision = world.decide();
    world.carry_out(&decision);
    let (partition, session) = decision.assign[0];
    let token = world
        .cluster
        .partition(partition)
        .unwrap()
        .holder()
        .unwrap()
        .token;
    world.fold(vec![Record::Assumed {
        partition,
        session,
        token,
    }]);
    assert!(world.decide().is_empty());
    let crash = Exit {
        class: ExitClass::Crash,
        code: Some(1),
        signal: None,
    };
    let run = RunReport {
        phase: RunPhase::Backoff,
        attempt: 1,
        pid: None,
        exit: Some(crash),
    };
    world.fold(vec![Record::Observed {
        partition,
        token,
        run,
    }]);
    assert_eq!(world.decide().assign.len(), 1);
}

#[test]
fn higher_priorities_are_served_first() {
    let mut world = running(&["a1"], 0, |_| {});
    let with = |key: &str, priority| PartitionSpec {
        priority,
        ..partition(key)
    };
    world.put("low", spec(|_| {}), vec![with("a", 0), with("b", 7)]);
    world.put(
        "high",
        spec(|spec| spec.placement.priority = 5),
        vec![with("c", 0), with("d", 9)],
    );
    let served: Vec<_> = world
        .decide()
        .assign
        .iter()
        .map(|(id, _)| world.cluster.partition(*id).unwrap().key().to_string())
        .collect();
    assert_eq!(served, ["d", "b", "c", "a"]);
}

#[test]
fn a_draining_agent_gives_away_everything_if_somebody_else_can_take_it() {
    let mut world = running(&["a1", "a2"], 10, |_| {});
    world.set("a1", Schedulable::Draining);
    let decision = world.decide();
    assert!(
        decision
            .revoke
            .iter()
            .all(|(_, _, reason)| *reason == MoveReason::Drain)
    );
    world.run();
    assert_eq!(world.counts(), BTreeMap::from([("a2", 10)]));
    world.set("a2", Schedulable::Draining);
    assert!(
        world.decide().is_empty(),
        "nobody could take it, so it stays"
    );
    let why = world
        .planner
        .why(world.now, &world.cluster, PartitionId(0))
        .unwrap();
    assert_eq!(why.agent.unwrap().as_str(), "a2");
    assert!(
        why.agents
            .iter()
            .all(|verdict| verdict.text == "it is draining")
    );
}

#[test]
fn cordoned_and_silent_agents_keep_what_they_have_and_get_nothing() {
    let mut world = running(&["a1", "a2", "a3"], 6, |_| {});
    world.set("a1", Schedulable::Cordoned);
    world.silent.insert(world.sessions["a2"]);
    world.keys("more", spec(|_| {}), 4);
    world.run();
    assert_eq!(
        world.counts(),
        BTreeMap::from([("a1", 2), ("a2", 2), ("a3", 6)])
    );
}

#[test]
fn what_keeps_failing_goes_to_another_agent_and_stays_there_for_a_while() {
    let mut world = running(&["a1", "a2", "a3"], 12, |_| {});
    let id = PartitionId(5);
    let before = world.holder(id).unwrap().to_owned();
    let token = world.cluster.partition(id).unwrap().holder().unwrap().token;
    world.fold(vec![released(id, token, ReleaseOutcome::Move)]);
    assert_eq!(world.run(), 1);
    assert_ne!(world.holder(id).unwrap(), before);
    world.wait(500);
    assert_eq!(world.run(), 0);
    // Later it counts like any other again, and what has become uneven is made even.
    world.wait(100);
    assert_eq!(world.run(), 1);
    assert_eq!(
        world.counts(),
        BTreeMap::from([("a1", 4), ("a2", 4), ("a3", 4)])
    );
}

#[test]
fn with_a_single_agent_what_fails_runs_there_again() {
    let mut world = running(&["a1"], 2, |_| {});
    let token = world
        .cluster
        .partition(PartitionId(0))
        .unwrap()
        .holder()
        .unwrap()
        .token;
    world.fold(vec![released(PartitionId(0), token, ReleaseOutcome::Move)]);
    assert_eq!(world.run(), 1);
    assert_eq!(world.holder(PartitionId(0)), Some("a1"));
}

#[test]
fn what_is_not_assumed_in_time_is_tried_elsewhere() {
    let mut world = running(&["a1", "a2"], 0, |_| {});
    world.keys("feeds", spec(|_| {}), 1);
    let decision = world.decide();
    world.carry_out(&decision);
    let first = world.holder(PartitionId(0)).unwrap().to_owned();
    let decision = world.decide();
    assert_eq!(decision.wake_at, Some(world.now + Duration::from_secs(10)));
    world.wait(10);
    let decision = world.decide();
    assert_eq!(decision.withdraw.len(), 1);
    assert_eq!(decision.withdraw[0].2, MoveReason::Failing);
    world.carry_out(&decision);
    let decision = world.decide();
    world.carry_out(&decision);
    assert_ne!(world.holder(PartitionId(0)).unwrap(), first);
}

#[test]
fn after_an_expiry_a_takeover_delay_is_waited_for() {
    let mut world = running(&["a1", "a2"], 2, |spec| {
        spec.takeover_delay = Span(Duration::from_secs(3))
    });
    world.expire("a1");
    let decision = world.decide();
    assert!(decision.assign.is_empty());
    let delayed = (0..2)
        .find(|n| world.holder(PartitionId(*n)).is_none())
        .unwrap();
    assert_eq!(
        world.waiting(delayed),
        "takeover_delay: its agent was silent, it starts in 3.0 s"
    );
    world.wait(3);
    assert_eq!(world.decide().assign.len(), 1);
}

#[test]
fn a_changed_lease_stops_and_starts_once_an_agent_has_a_session_for_it() {
    let mut world = running(&["a1"], 3, |_| {});
    let fast = spec(|spec| spec.lease = Span(Duration::from_secs(3)));
    world.fold(vec![Record::ServicePut {
        name: service("feeds"),
        spec: Box::new(fast),
    }]);
    assert!(
        world.decide().is_empty(),
        "nothing stops before it can start again"
    );
    world.join_as("a1", Duration::from_secs(3), |_| {});
    let decision = world.decide();
    assert!(
        decision
            .revoke
            .iter()
            .all(|(_, _, reason)| *reason == MoveReason::LeaseChanged)
    );
    world.run();
    let session = world.sessions["a1"];
    assert!(
        world
            .cluster
            .partitions()
            .all(|(_, p)| p.holder().unwrap().session == session)
    );
}

#[test]
fn a_new_requirement_takes_partitions_from_agents_that_do_not_meet_it() {
    let mut world = World::new();
    world.join_as("a1", LEASE, |agent| {
        agent.labels.insert("zone".to_owned(), "north".to_owned());
    });
    world.join("a2");
    world.decide();
    world.wait(60);
    world.keys("feeds", spec(|_| {}), 4);
    world.run();
    let require = |rule: &str| spec(|spec| spec.placement.require = vec![rule.to_owned()]);
    let put = |spec| Record::ServicePut {
        name: service("feeds"),
        spec: Box::new(spec),
    };
    world.fold(vec![put(require("zone = north"))]);
    world.run();
    assert_eq!(world.counts(), BTreeMap::from([("a1", 4)]));
    world.fold(vec![put(require("zone = south"))]);
    let decision = world.decide();
    assert!(
        decision
            .revoke
            .iter()
            .all(|(_, _, reason)| *reason == MoveReason::Constraint)
    );
    world.run();
    assert_eq!(world.counts(), BTreeMap::new());
    assert_eq!(
        world.waiting(0),
        "no agent meets what the service requires: zone = south"
    );
}

#[test]
fn without_capacity_partitions_wait_with_the_reason() {
    let mut world = World::new();
    world.join_as("a1", LEASE, |agent| agent.capacity = Some(2));
    world.decide();
    world.wait(60);
    world.keys("feeds", spec(|_| {}), 3);
    world.run();
    assert_eq!(world.counts(), BTreeMap::from([("a1", 2)]));
    let reasons: Vec<_> = (0..3)
        .map(|n| world.waiting(n))
        .filter(|text| !text.is_empty())
        .collect();
    assert_eq!(
        reasons,
        ["no agent that may hold it has capacity left for its weight"]
    );
    world.join("a2");
    world.run();
    assert_eq!(world.counts().values().sum::<usize>(), 3);
}

#[test]
fn static_partitions_move_only_when_their_agent_is_gone() {
    let mut world = running(&["a1", "a2"], 8, |spec| {
        spec.placement.strategy = Strategy::Static
    });
    world.join("a3");
    world.wait(60);
    assert_eq!(world.run(), 0);
    world.expire("a1");
    assert_eq!(world.run(), 4);
    assert_eq!(world.counts()["a2"], 4);
}

#[test]
fn stopped_and_failed_partitions_are_left_alone() {
    let mut world = running(&["a1"], 3, |_| {});
    world.fold(vec![Record::DesiredSet {
        service: service("feeds"),
        key: Some(PartitionKey::new("p001").unwrap()),
        desired: Desired::Stopped,
    }]);
    world.agents_act();
    let token = world
        .cluster
        .partition(PartitionId(0))
        .unwrap()
        .holder()
        .unwrap()
        .token;
    world.fold(vec![released(
        PartitionId(0),
        token,
        ReleaseOutcome::Failed,
    )]);
    assert_eq!(world.run(), 0);
    assert_eq!(
        (world.waiting(0), world.waiting(1)),
        (String::new(), String::new())
    );
    let why = world
        .planner
        .why(world.now, &world.cluster, PartitionId(0))
        .unwrap();
    assert!(why.because.contains("given up"), "{}", why.because);
}

#[test]
fn a_plan_tells_the_moves_starts_stops_and_what_would_wait() {
    let world = running(&["a1", "a2"], 4, |_| {});
    let drain = Record::AgentSet {
        agent: AgentName::new("a1").unwrap(),
        schedulable: Schedulable::Draining,
    };
    let plan = |records| {
        what_if(
            PlannerConfig::default(),
            world.now,
            &world.cluster,
            &world.silent,
            records,
        )
    };
    let drained = plan(vec![drain]);
    assert_eq!(
        (
            drained.moves.len(),
            drained.starts.len(),
            drained.stops.len()
        ),
        (2, 0, 0)
    );
    let impossible = spec(|spec| spec.placement.require = vec!["gpu".to_owned()]);
    let put = vec![
        Record::ServicePut {
            name: service("new"),
            spec: Box::new(impossible),
        },
        Record::PartitionsPut {
            service: service("new"),
            partitions: vec![partition("x")],
        },
        Record::PartitionsRemoved {
            service: service("feeds"),
            keys: vec![PartitionKey::new("p000").unwrap()],
        },
        Record::PartitionsPut {
            service: service("feeds"),
            partitions: vec![partition("p900")],
        },
    ];
    let changed = plan(put);
    assert_eq!(
        (
            changed.moves.len(),
            changed.starts.len(),
            changed.stops.len()
        ),
        (0, 1, 1)
    );
    assert_eq!(
        changed.waiting[0].2,
        "no agent meets what the service requires: gpu"
    );
    assert!(plan(Vec::new()).is_empty());
}

#[test]
fn progress_counts_what_runs_starts_and_waits() {
    let mut world = running(&["a1"], 0, |_| {});
    world.keys("feeds", spec(|spec| spec.ramp.per_agent = Some(2)), 10);
    for _ in 0..2 {
        let decision = world.decide();
        world.carry_out(&decision);
        world.wait(1);
        world.agents_act();
    }
    let decision = world.decide();
    world.carry_out(&decision);
    world.decide();
    world.wait(1);
    let progress = world.planner.progress(world.now, &world.cluster);
    assert_eq!(
        (progress.running, progress.starting, progress.waiting),
        (4, 2, 4)
    );
    assert!(progress.eta.is_some_and(|eta| eta > Duration::ZERO));
}

const NAMES: [&str; 5] = ["a1", "a2", "a3", "a4", "a5"];

#[derive(Clone, Debug)]
enum Step {
    Join(usize),
    Expire(usize),
    Set(usize, Schedulable),
    Wait(u64),
    Fail(u32),
    Partition(u32, bool),
}

fn step() -> impl Random<Value = Step> {
    let schedulable = prop_oneof![
        3 => Just(Schedulable::Active),
        1 => Just(Schedulable::Cordoned),
        1 => Just(Schedulable::Draining),
    ];
    prop_oneof![
        3 => (0usize..5).prop_map(Step::Join),
        2 => (0usize..5).prop_map(Step::Expire),
        2 => (0usize..5, schedulable).prop_map(|(n, s)| Step::Set(n, s)),
        2 => (0u64..8).prop_map(Step::Wait),
        1 => (0u32..20).prop_map(Step::Fail),
        1 => (0u32..20, prop::bool::ANY).prop_map(|(n, here)| Step::Partition(n, here)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn with_ideal_agents_everything_runs_evenly_and_then_nothing_more_is_decided(
        count in 1usize..20,
        steps in prop::collection::vec((step(), prop::bool::ANY), 0..20),
    ) {
        let mut world = World::new();
        world.keys("feeds", spec(|spec| spec.ramp.per_agent = Some(3)), count);
        let mut here = BTreeSet::new();
        let mut failed = false;
        for (step, settles) in steps {
            match step {
                Step::Join(n) => if here.insert(n) { world.join(NAMES[n]) },
                Step::Expire(n) => if here.remove(&n) { world.expire(NAMES[n]) },
                Step::Set(n, s) => if here.contains(&n) { world.set(NAMES[n], s) },
                Step::Wait(seconds) => world.wait(seconds),
                Step::Fail(n) => {
                    let partition = world.cluster.partition(PartitionId(n));
                    if let Some(State::Assumed(holder)) = partition.map(|p| p.state()) {
                        let token = holder.token;
                        world.fold(vec![released(PartitionId(n), token, ReleaseOutcome::Move)]);
                        failed = true;
                    }
                }
                Step::Partition(n, there) => {
                    let key = format!("p{n:03}");
                    let known = world.cluster.partition_id(&service("feeds"), &PartitionKey::new(&key).unwrap());
                    if there {
                        world.fold(vec![Record::PartitionsPut { service: service("feeds"), partitions: vec![partition(&key)] }]);
                    } else if known.is_some() {
                        world.fold(vec![Record::PartitionsRemoved { service: service("feeds"), keys: vec![PartitionKey::new(&key).unwrap()] }]);
                    }
                }
            }
            if settles {
                let decision = world.decide();
                world.carry_out(&decision);
            } else {
                world.run();
            }
        }
        world.run();
        prop_assert!(world.decide().is_empty());
        // What was too slow to be assumed is kept away from there as well, for a while.
        let failed = failed || !world.planner.exiled.is_empty();
        let open: BTreeSet<&str> = world.cluster.agents().values()
            .filter(|agent| !agent.sessions().is_empty() && agent.schedulable() == Schedulable::Active)
            .map(|agent| agent.name().as_str())
            .collect();
        let counts = world.counts();
        for (id, partition) in world.cluster.partitions() {
            let runs = matches!(partition.state(), State::Assumed(_));
            prop_assert!(runs || !world.waiting(id.0).is_empty(), "{id} neither runs nor has a reason");
            prop_assert!(runs || open.is_empty(), "{id} does not run: {}", world.waiting(id.0));
        }
        if !failed {
            let loads = open.iter().map(|agent| counts.get(agent).copied().unwrap_or(0));
            let (low, high) = loads.fold((usize::MAX, 0), |(l, h), n| (l.min(n), h.max(n)));
            prop_assert!(open.is_empty() || high - low <= 1, "{counts:?}");
            let draining = world.cluster.agents().values().filter(|a| a.schedulable() == Schedulable::Draining);
            let left = draining.map(|a| counts.get(a.name().as_str()).copied().unwrap_or(0)).sum::<usize>();
            prop_assert!(open.is_empty() || left == 0);
        }
        // A new leader, who knows nothing of what was planned, leaves everything as it is.
        if !failed {
            world.planner = Planner::new(PlannerConfig::default());
            prop_assert_eq!(world.decide().revoke, Vec::new());
        }
    }

    #[test]
    fn a_change_of_agents_moves_exactly_the_least(
        count in 1usize..40,
        before in prop::collection::btree_set(0usize..5, 1..5),
        after in prop::collection::btree_set(0usize..5, 1..5),
    ) {
        let mut world = World::new();
        for n in &before {
            world.join(NAMES[*n]);
        }
        world.decide();
        world.wait(60);
        world.keys("feeds", spec(|_| {}), count);
        world.run();
        let held: BTreeMap<String, usize> = world.counts().into_iter().map(|(a, c)| (a.to_owned(), c)).collect();
        for n in before.difference(&after) {
            world.expire(NAMES[*n]);
        }
        for n in after.difference(&before) {
            world.join(NAMES[*n]);
        }
        let assigned = world.run();
        let of = |n: &usize| held.get(NAMES[*n]).copied().unwrap_or(0);
        let lost: usize = before.difference(&after).map(of).sum();
        let (floor, mut rest) = (count / after.len(), count % after.len());
        let mut kept: Vec<usize> = after.iter().map(of).collect();
        kept.sort_unstable_by(|a, b| b.cmp(a));
        let mut least = lost;
        for held in kept {
            let extra = usize::from(rest > 0 && held > floor);
            rest -= extra;
            least += held.saturating_sub(floor + extra);
        }
        prop_assert_eq!(assigned, least);
    }
}
