//! When everything counts as settled, and what can never be placed.

use std::time::Duration;

use super::*;
use crate::cluster::State;
use crate::ids::{PartitionKey, SessionId};
use crate::record::{CloseReason, Desired, Exit, ExitClass, Record, ReleaseOutcome, RunPhase};
use crate::record::{RunReport, Schedulable};
use crate::spec::{PartitionSource, ServiceSpec, Span};

use crate::time::WallTime;

use super::world::*;

fn settling(world: &World) -> Settling {
    world.planner.settling(world.now, &world.cluster, None)
}

fn of(world: &World, name: &str) -> Settling {
    let name = service(name);
    world
        .planner
        .settling(world.now, &world.cluster, Some(&name))
}

fn is_settled(world: &World) -> bool {
    settling(world).settled
}

const SETTLED: Settling = Settling {
    settled: true,
    unplaceable: 0,
};

fn stop(world: &mut World, n: u32, desired: Desired) {
    world.fold(vec![Record::DesiredSet {
        service: service("feeds"),
        key: Some(PartitionKey::new(&format!("p{n:03}")).unwrap()),
        desired,
    }]);
}

fn observe(world: &mut World, n: u32, phase: RunPhase, attempt: u32) {
    let partition = PartitionId(n);
    let token = world.cluster.partition(partition).unwrap().holder();
    let crashed = Exit {
        class: ExitClass::Crash,
        code: Some(1),
        signal: None,
        cause: None,
    };
    let run = RunReport {
        phase,
        attempt,
        pid: None,
        exit: (phase == RunPhase::Backoff).then(|| Box::new(crashed)),
    };
    world.fold(vec![Record::Observed {
        partition,
        token: token.unwrap().token,
        run,
    }]);
}

#[test]
fn from_an_apply_until_the_last_run_is_ready_nothing_is_settled() {
    let mut world = running(&["a1", "a2"], 0, |_| {});
    assert_eq!(settling(&world), SETTLED);
    world.keys("feeds", spec(|spec| spec.ramp.per_agent = Some(1)), 4);
    assert!(!is_settled(&world), "the leader has not looked at it");
    for _ in 0..2 {
        let decision = world.decide();
        assert!(!is_settled(&world), "two are to be assigned");
        world.carry_out(&decision);
        world.decide();
        assert!(!is_settled(&world), "two are assigned");
        world.agents_act();
        assert!(!is_settled(&world), "the leader has not looked at it");
    }
    assert!(world.decide().is_empty());
    assert_eq!(settling(&world), SETTLED);
}

#[test]
fn a_new_leader_has_not_settled_before_it_has_looked() {
    let mut world = running(&["a1"], 2, |_| {});
    world.planner = Planner::new(PlannerConfig::default(), WallTime::default());
    assert!(!is_settled(&world));
    world.decide();
    assert_eq!(settling(&world), SETTLED);
}

#[test]
fn a_stop_counts_until_it_has_ended_and_what_is_stopped_is_at_rest() {
    let mut world = running(&["a1"], 2, |_| {});
    stop(&mut world, 0, Desired::Stopped);
    world.decide();
    assert!(!is_settled(&world));
    world.agents_act();
    world.decide();
    assert_eq!(settling(&world), SETTLED);
    // What is removed while it runs is on its way until it is gone.
    world.fold(vec![Record::ServiceRemoved {
        name: service("feeds"),
    }]);
    world.decide();
    assert!(!of(&world, "feeds").settled);
    world.agents_act();
    world.decide();
    assert_eq!(settling(&world), SETTLED);
}

#[test]
fn what_has_failed_for_good_is_at_rest_and_a_pause_between_attempts_is_not() {
    let mut world = running(&["a1"], 2, |_| {});
    observe(&mut world, 0, RunPhase::Backoff, 1);
    world.decide();
    assert!(!is_settled(&world));
    observe(&mut world, 0, RunPhase::Starting, 2);
    world.decide();
    assert!(!is_settled(&world), "it is not ready yet");
    let token = world.cluster.partition(PartitionId(0)).unwrap().holder();
    let token = token.unwrap().token;
    world.fold(vec![released(
        PartitionId(0),
        token,
        ReleaseOutcome::Failed,
    )]);
    world.decide();
    assert_eq!(settling(&world), SETTLED);
}

#[test]
fn what_can_never_be_placed_is_settled_and_counted() {
    let mut world = running(&["a1"], 2, |_| {});
    let nowhere = spec(|spec| spec.placement.require = vec!["gpu".to_owned()]);
    world.keys("gpus", nowhere, 3);
    let capped = spec(|spec| spec.placement.max_per_agent = 1);
    world.keys("capped", capped, 2);
    world.run();
    let unplaceable = |unplaceable| Settling {
        settled: true,
        unplaceable,
    };
    assert_eq!(settling(&world), unplaceable(4));
    assert_eq!(of(&world, "gpus"), unplaceable(3));
    assert_eq!(of(&world, "capped"), unplaceable(1));
    assert_eq!(of(&world, "feeds"), SETTLED);
    world.join("a2");
    world.run();
    assert_eq!(settling(&world), unplaceable(3));
    // Nobody is there at all: only somebody who starts an agent helps.
    world.expire("a1");
    world.expire("a2");
    world.run();
    assert_eq!(settling(&world), unplaceable(7));
    assert_eq!(world.waiting(0), "no agent is connected");
}

#[test]
fn one_service_settles_though_another_does_not() {
    let mut world = running(&["a1"], 2, |_| {});
    world.keys("more", spec(|_| {}), 1);
    let decision = world.decide();
    assert!(of(&world, "feeds").settled && !of(&world, "more").settled);
    world.carry_out(&decision);
    assert!(!of(&world, "feeds").settled, "the leader has not looked");
}

#[test]
fn what_waits_for_silent_agents_cordons_and_lease_classes_is_told_apart() {
    // A silent agent is heard again or its lease ends: that is on its way.
    let mut world = running(&["a1"], 0, |_| {});
    world.silent.insert(world.sessions["a1"]);
    world.keys("feeds", spec(|_| {}), 1);
    world.decide();
    assert!(!is_settled(&world));
    world.silent.clear();
    world.run();
    assert_eq!(settling(&world), SETTLED);
    // A cordon ends only when somebody ends it.
    world.set("a1", Schedulable::Cordoned);
    world.keys("more", spec(|_| {}), 2);
    world.run();
    assert_eq!(settling(&world).unplaceable, 2);
    assert!(is_settled(&world));
    world.set("a1", Schedulable::Active);
    world.run();
    // A new lease class is opened within moments, or never.
    let fast = spec(|spec| spec.lease = Span(Duration::from_secs(3)));
    world.keys("fast", fast, 1);
    world.run();
    assert!(!is_settled(&world), "a1 is about to open it");
    world.wait(11);
    assert_eq!(settling(&world).unplaceable, 1);
    assert!(is_settled(&world));
}

#[test]
fn nothing_has_settled_while_an_agent_that_is_back_is_about_to_open_its_sessions() {
    let fast = Duration::from_secs(3);
    let mut world = World::new();
    for agent in ["a1", "a2"] {
        world.join(agent);
        world.join_as(agent, fast, |_| {});
    }
    world.decide();
    world.wait(60);
    world.keys("feeds", spec(|spec| spec.lease = Span(fast)), 4);
    world.run();
    assert_eq!(settling(&world), SETTLED);
    // Its short lease ends first; its other session is heard again before that of a long one ends.
    let (short, long) = (world.sessions["a1"], SessionId(world.sessions["a1"].0 - 1));
    world.silent.extend([short, long]);
    world.decide();
    world.silent.remove(&short);
    world.fold(vec![Record::SessionExpired { session: short }]);
    world.run();
    assert_eq!(world.counts().values().sum::<usize>(), 4, "all on a2");
    assert_eq!(settling(&world), SETTLED);
    world.silent.clear();
    world.decide();
    assert!(!is_settled(&world), "a1 is about to open a session");
    world.join_as("a1", fast, |_| {});
    world.run();
    world.wait(11);
    world.run();
    assert_eq!(settling(&world), SETTLED);
    // One that never opens any is not waited for for ever.
    world.join("a3");
    world.decide();
    assert!(!is_settled(&world));
    world.wait(11);
    world.decide();
    assert!(is_settled(&world));
}

#[test]
fn a_take_over_delay_and_a_return_of_a_warden_are_on_their_way() {
    let mut world = running(&["a1", "a2"], 2, |spec| {
        spec.takeover_delay = Span(Duration::from_secs(3));
    });
    world.expire("a1");
    world.decide();
    assert!(!is_settled(&world));
    world.wait(3);
    world.run();
    assert_eq!(settling(&world), SETTLED);
    world.join_as("a2", Duration::from_secs(3), |_| {});
    let died = world.cluster.partition(PartitionId(0)).unwrap().holder();
    world.fold(vec![Record::SessionClosed {
        session: died.unwrap().session,
        reason: CloseReason::WardenDied,
    }]);
    world.decide();
    assert!(!is_settled(&world));
}

#[test]
fn moves_that_wait_for_a_settle_window_or_the_budget_are_on_their_way() {
    let mut world = running(&["a1", "a2"], 40, |_| {});
    world.join("a3");
    assert!(world.decide().is_empty());
    assert!(!is_settled(&world), "moves are planned");
    world.wait(6);
    let decision = world.decide();
    world.carry_out(&decision);
    assert!(world.decide().is_empty(), "the budget is spent");
    assert!(!is_settled(&world));
    world.run();
    assert_eq!(settling(&world), SETTLED);
}

#[test]
fn restarts_in_place_are_on_their_way_until_the_agent_tells_of_them() {
    let mut world = running(&["a1"], 2, |_| {});
    let restarts = |world: &mut World, asked: Record| {
        world.fold(vec![asked]);
        assert!(!is_settled(world));
        world.decide();
        assert!(!is_settled(world), "its agent is about to restart it");
        let attempt = world.cluster.partition(PartitionId(0)).unwrap().run();
        let next = attempt.unwrap().attempt + 1;
        for n in [0, 1] {
            observe(world, n, RunPhase::Starting, next);
            world.decide();
            assert!(!is_settled(world));
            observe(world, n, RunPhase::Ready, next);
            world.decide();
        }
        assert_eq!(settling(world), SETTLED);
    };
    let all = Record::RestartAsked {
        service: service("feeds"),
        key: None,
    };
    restarts(&mut world, all);
    let other = spec(|spec| spec.command = vec!["other".to_owned()]);
    let put = |spec: ServiceSpec| Record::ServicePut {
        name: service("feeds"),
        spec: Box::new(spec),
    };
    restarts(&mut world, put(other.clone()));
    let data = ["p000", "p001"].map(|key| {
        let mut partition = partition(key);
        partition.data = Some("1".to_owned());
        partition
    });
    let data = Record::PartitionsPut {
        service: service("feeds"),
        partitions: data.to_vec(),
    };
    restarts(&mut world, data);
    // What concerns only the directors restarts nothing.
    let mut ramped = other;
    ramped.ramp.per_agent = Some(7);
    world.fold(vec![put(ramped)]);
    world.decide();
    assert_eq!(settling(&world), SETTLED);
    // An agent that never does it is not waited for without end.
    world.fold(vec![Record::RestartAsked {
        service: service("feeds"),
        key: None,
    }]);
    let until = world.decide().wake_at.unwrap();
    assert!(!is_settled(&world));
    world.now = until;
    world.decide();
    assert_eq!(settling(&world), SETTLED);
}

#[test]
fn a_service_whose_list_is_still_to_be_read_has_not_settled() {
    let from_file = |path: &str| {
        let path = path.to_owned();
        spec(move |spec| {
            let source = serde_json::json!({ "file": path });
            spec.partitions = Some(serde_json::from_value::<PartitionSource>(source).unwrap());
        })
    };
    let put = |spec| Record::ServicePut {
        name: service("files"),
        spec: Box::new(spec),
    };
    let mut world = running(&["a1"], 2, |_| {});
    world.fold(vec![put(from_file("/x.jsonl"))]);
    world.decide();
    assert!(!is_settled(&world) && !of(&world, "files").settled);
    assert!(of(&world, "feeds").settled);
    world.planner.listed(&service("files"));
    assert_eq!(settling(&world), SETTLED, "it was read and is empty");
    // Another file, and a list with something in it.
    world.fold(vec![put(from_file("/y.jsonl"))]);
    world.decide();
    assert!(!is_settled(&world));
    world.fold(vec![Record::PartitionsPut {
        service: service("files"),
        partitions: vec![partition("a")],
    }]);
    world.planner.listed(&service("files"));
    assert!(!is_settled(&world));
    world.run();
    assert_eq!(settling(&world), SETTLED);
    // Removed and applied again: the old run still stops, and the list is read anew.
    let gone = Record::ServiceRemoved {
        name: service("files"),
    };
    world.fold(vec![gone, put(from_file("/y.jsonl"))]);
    world.decide();
    world.agents_act();
    world.decide();
    assert!(!is_settled(&world));
    // A source that cannot be read is waited for only so long.
    world.wait(11);
    assert_eq!(settling(&world), SETTLED);
}

#[test]
fn the_counters_tell_what_a_look_at_every_partition_would() {
    let mut world = running(&["a1", "a2", "a3"], 30, |spec| {
        spec.ramp.per_agent = Some(2);
        spec.placement.max_per_agent = 12;
    });
    for step in 0..60u32 {
        match step % 6 {
            0 => stop(&mut world, step % 30, Desired::Stopped),
            1 => world.set("a1", Schedulable::Draining),
            2 => stop(&mut world, (step + 7) % 30, Desired::Running),
            3 => world.set("a1", Schedulable::Active),
            4 => world.agents_act(),
            _ => world.wait(3),
        }
        let decision = world.decide();
        let (mut busy, mut placeless) = (0, 0);
        for (id, partition) in world.cluster.partitions() {
            let wanted = world.cluster.wanted(partition);
            match partition.state() {
                State::Unassigned(_) if world.waiting(id.0).starts_with("every agent") => {
                    placeless += 1;
                }
                State::Unassigned(_) => busy += usize::from(wanted),
                State::Assumed(_) => busy += usize::from(world.planner.misplaced.contains(&id)),
                State::Assigned(_) | State::Stopping(..) => busy += 1,
            }
        }
        let expected = Settling {
            settled: busy == 0,
            unplaceable: placeless,
        };
        assert_eq!(settling(&world), expected, "step {step}");
        world.carry_out(&decision);
    }
}
