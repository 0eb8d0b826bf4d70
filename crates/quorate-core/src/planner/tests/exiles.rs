//! What failed on an agent and is kept away from it.

use std::collections::BTreeMap;

use super::*;
use crate::record::{Cause, Exit, ExitClass, Record, ReleaseOutcome};
use crate::time::WallTime;

use super::world::*;

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
fn a_new_leader_leaves_what_fled_and_everything_else_where_it_is() {
    let mut world = running(&["a1", "a2", "a3"], 12, |_| {});
    let id = PartitionId(5);
    let token = world.cluster.partition(id).unwrap().holder().unwrap().token;
    world.fold(vec![released(id, token, ReleaseOutcome::Move)]);
    assert_eq!(world.run(), 1);
    let holders = |world: &World| {
        let ids = (0..12).map(PartitionId);
        ids.map(|id| world.holder(id).unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let uneven = holders(&world);
    let fled_at = world.cluster.partition(id).unwrap().fled().unwrap().at;
    let after = |seconds: i64| WallTime(fled_at.0 + seconds * 1000);
    world.planner = Planner::new(PlannerConfig::default(), after(400));
    assert_eq!(world.run(), 0);
    assert_eq!(holders(&world), uneven);
    // For what the leader before has left of its time.
    world.wait(201);
    assert_eq!(world.run(), 1);
    let even = holders(&world);
    assert_eq!(
        world.counts(),
        BTreeMap::from([("a1", 4), ("a2", 4), ("a3", 4)])
    );
    world.planner = Planner::new(PlannerConfig::default(), after(601));
    assert_eq!(world.run(), 0);
    assert_eq!(holders(&world), even);
}

#[test]
fn what_failed_and_moves_waits_as_long_as_it_would_have_where_it_was() {
    let mut world = running(&["a1", "a2"], 2, |spec| {
        spec.restart.backoff = "1s..1m".to_owned();
    });
    let id = PartitionId(1);
    let token = world.cluster.partition(id).unwrap().holder().unwrap().token;
    world.fold(vec![Record::Released {
        partition: id,
        token,
        outcome: ReleaseOutcome::Move,
        exit: Some(Exit {
            class: ExitClass::NotStarted,
            code: None,
            signal: None,
            cause: Some(Cause::new("/nosuch does not exist")),
        }),
        failures: 5,
    }]);
    let decision = world.decide();
    assert!(
        decision.assign.is_empty(),
        "the fifth failure waits for 16 s"
    );
    let why = world.waiting(1);
    assert!(
        why.starts_with(
            "it failed 5 times in a row, last on a1 (could not be started: /nosuch does not exist); the next try"
        ),
        "{why}"
    );
    world.wait(15);
    assert!(world.decide().assign.is_empty());
    world.wait(6);
    assert_eq!(world.decide().assign.len(), 1);
}
