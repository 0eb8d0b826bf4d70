//! One test for each rule.

mod exiles;
mod properties;
mod quiet;
mod rest;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::cluster::State;
use crate::ids::PartitionKey;
use crate::record::{
    Cause, CloseReason, Desired, Exit, ExitClass, Record, ReleaseOutcome, RunPhase, RunReport,
};
use crate::spec::{PartitionSpec, ServiceSpec, Span, Strategy};

use world::*;

#[test]
fn a_lease_class_that_agents_open_one_after_the_other_is_not_given_whole_to_the_first() {
    let fast = Duration::from_secs(3);
    let mut world = running(&["a1", "a2", "a3"], 6, |_| {});
    let service = spec(|spec| spec.lease = Span(fast));
    world.keys("fast", service, 12);
    world.join_as("a1", fast, |_| {});
    assert!(
        world.decide().assign.is_empty(),
        "a2 and a3 are about to open it"
    );
    world.join_as("a2", fast, |_| {});
    assert!(world.decide().assign.is_empty(), "a3 is about to open it");
    world.join_as("a3", fast, |_| {});
    assert_eq!(
        world.run(),
        12,
        "nothing moves twice, and nothing waits for the settle window"
    );
    assert_eq!(
        world.counts(),
        BTreeMap::from([("a1", 6), ("a2", 6), ("a3", 6)])
    );
}

#[test]
fn what_a_dead_warden_held_starts_again_where_it_was_if_its_agent_has_another_soon() {
    let mut world = running(&["a1", "a2", "a3"], 9, |_| {});
    // The agent is here by a session of another class.
    let held = world.sessions["a1"];
    world.join_as("a1", Duration::from_secs(3), |_| {});
    let died = |session| Record::SessionClosed {
        session,
        reason: CloseReason::WardenDied,
    };
    world.fold(vec![died(held)]);
    assert!(
        world.decide().is_empty(),
        "its agent is about to have another warden"
    );
    world.join("a1");
    let decision = world.decide();
    assert_eq!((decision.assign.len(), decision.revoke.len()), (3, 0));
    world.run();
    assert_eq!(
        world.counts(),
        BTreeMap::from([("a1", 3), ("a2", 3), ("a3", 3)])
    );

    // It does not come back this time.
    world.fold(vec![died(world.sessions["a1"])]);
    assert!(world.decide().is_empty());
    world.wait(1);
    assert_eq!(world.run(), 3);
    assert!(world.counts()["a2"] + world.counts()["a3"] == 9);
}

#[test]
fn agents_that_were_expected_count_only_once_they_have_opened_the_lease_class() {
    let fast = Duration::from_secs(3);
    let mut world = World::with(PlannerConfig {
        expect_agents: Some(2),
        ..PlannerConfig::default()
    });
    world.decide();
    world.keys("fast", spec(|spec| spec.lease = Span(fast)), 4);
    world.join("a1");
    world.join("a2");
    world.join_as("a1", fast, |_| {});
    assert!(world.decide().assign.is_empty());
    world.join_as("a2", fast, |_| {});
    assert_eq!(world.run(), 4);
    assert_eq!(world.counts(), BTreeMap::from([("a1", 2), ("a2", 2)]));
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
fn without_a_ramp_each_agent_gets_all_of_its_own_together() {
    let agents_in_turn = |edit: fn(&mut ServiceSpec)| {
        let mut world = running(&["a1", "a2", "a3"], 0, |_| {});
        world.keys("feeds", spec(edit), 9);
        let assigned = world.decide().assign;
        let mut agents: Vec<SessionId> = assigned.iter().map(|(_, session)| *session).collect();
        assert_eq!(agents.len(), 9);
        agents.dedup();
        agents.len()
    };
    assert_eq!(agents_in_turn(|_| {}), 3, "few answers, each with many");
    // With one the agents take turns, so that none has to start alone what all could.
    let turns = agents_in_turn(|spec| spec.ramp.cluster = Some(9));
    assert_eq!(turns, 9);
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
        cause: None,
    };
    let run = RunReport {
        phase: RunPhase::Backoff,
        attempt: 1,
        pid: None,
        exit: Some(Box::new(crash)),
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
    assert_eq!(decision.withdraw[0].2, MoveReason::Unacknowledged);
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
    let partition = PartitionId(0);
    let run = RunReport {
        phase: RunPhase::Starting,
        attempt: 1,
        pid: None,
        exit: None,
    };
    let exit = Exit {
        class: ExitClass::Crash,
        code: Some(3),
        signal: None,
        cause: Some(Cause::new("no such feed")),
    };
    world.fold(vec![
        Record::Observed {
            partition,
            token,
            run,
        },
        Record::Released {
            partition,
            token,
            outcome: ReleaseOutcome::Failed,
            exit: Some(exit),
            failures: 1,
        },
    ]);
    assert_eq!(world.run(), 0);
    assert_eq!(
        (world.waiting(0), world.waiting(1)),
        (String::new(), String::new())
    );
    let why = world
        .planner
        .why(world.now, &world.cluster, PartitionId(0))
        .unwrap();
    assert_eq!(
        why.because,
        "given up after 1 failed attempt (crashed, code 3: no such feed); `quorate start feeds/p000` tries it \
         again"
    );
}

#[test]
fn what_a_drain_leaves_where_it_is_says_so() {
    let mut world = running(&["a1"], 1, |_| {});
    world.fold(vec![Record::AgentSet {
        agent: AgentName::new("a1").unwrap(),
        schedulable: Schedulable::Draining,
    }]);
    assert_eq!(world.run(), 0);
    let why = world
        .planner
        .why(world.now, &world.cluster, PartitionId(0))
        .unwrap();
    let stays = "; that agent drains, and no other may take it";
    assert!(why.because.ends_with(stays), "{}", why.because);
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
            world.now(),
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
fn a_plan_foresees_that_agents_open_the_lease_class_that_a_new_service_needs() {
    let mut world = running(&["a1", "a2"], 4, |_| {});
    let quick = |spec: &mut ServiceSpec| spec.lease = Span(Duration::from_secs(2));
    let put = |name: &str, partitions| {
        let put = Record::ServicePut {
            name: service(name),
            spec: Box::new(spec(quick)),
        };
        let listed = Record::PartitionsPut {
            service: service(name),
            partitions,
        };
        vec![put, listed]
    };
    let plan = |world: &World, records| {
        let config = PlannerConfig::default();
        what_if(config, world.now(), &world.cluster, &world.silent, records)
    };
    let new = plan(&world, put("new", vec![partition("x"), partition("y")]));
    assert_eq!((new.starts.len(), new.waiting.len()), (2, 0), "{new:?}");
    // Another lease for what runs already stops nothing for good.
    let listed = (0..4).map(|n| partition(&format!("p{n:03}"))).collect();
    let other = plan(&world, put("feeds", listed));
    assert_eq!(
        (other.stops.len(), other.waiting.len()),
        (0, 0),
        "{other:?}"
    );
    world.silent = world.sessions.values().copied().collect();
    let silent = plan(&world, put("new", vec![partition("x")]));
    assert_eq!((silent.starts.len(), silent.waiting.len()), (0, 1));
}

#[test]
fn an_agent_whose_session_has_expired_is_called_silent_and_not_slow_to_open_one() {
    let mut world = World::new();
    let lease = Duration::from_secs(2);
    world.keys("feeds", spec(|spec| spec.lease = Span(lease)), 1);
    world.join("a1");
    let told = |world: &mut World| {
        world.decide();
        let planner = &world.planner;
        let why = planner.why(world.now, &world.cluster, PartitionId(0));
        let why = why.unwrap();
        (why.because, why.agents[0].text.clone())
    };
    let (because, of_agent) = told(&mut world);
    assert!(because.contains("no agent has opened a session for leases of 2s"));
    assert!(of_agent.contains("not yet opened a session"));
    world.silent = world.sessions.values().copied().collect();
    let (because, of_agent) = told(&mut world);
    assert!(because.contains("silent"), "{because}");
    assert_eq!(of_agent, "it is silent");
}

const NAMES: [&str; 5] = ["a1", "a2", "a3", "a4", "a5"];
