//! Changes of what is wanted move nothing else before a quiet time has passed.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::{Just, ProptestConfig, Strategy as Random, prop, prop_assert, proptest};
use proptest::prop_oneof;

use super::*;
use crate::cluster::State;
use crate::ids::PartitionKey;
use crate::record::{Desired, Record, ReleaseOutcome};

use super::world::*;

/// The settle window of these worlds.
const SETTLE: Duration = Duration::from_secs(5);

fn weighted(agents: &[&'static str], weights: &[u32]) -> World {
    let mut world = World::new();
    for agent in agents {
        world.join(agent);
    }
    world.decide();
    world.wait(60);
    let partitions = weights.iter().enumerate().map(|(n, weight)| {
        let mut partition = partition(&format!("p{n:03}"));
        partition.weight = *weight;
        partition
    });
    world.put("feeds", spec(|_| {}), partitions.collect());
    world.run();
    world.wait(60);
    world.run();
    world
}

fn set(world: &mut World, n: u32, desired: Desired) {
    world.fold(vec![Record::DesiredSet {
        service: service("feeds"),
        key: Some(PartitionKey::new(&format!("p{n:03}")).unwrap()),
        desired,
    }]);
}

/// Does what is decided now, and what ideal agents make of it, without letting time pass.
fn at_once(world: &mut World) -> Vec<(PartitionId, MoveReason)> {
    let mut revoked = Vec::new();
    for _ in 0..50 {
        let decision = world.decide();
        let orders = decision.revoke.iter().chain(&decision.withdraw);
        revoked.extend(orders.map(|(id, _, reason)| (*id, *reason)));
        world.carry_out(&decision);
        world.agents_act();
    }
    revoked
}

fn holders(world: &World) -> BTreeMap<PartitionId, String> {
    let ids = world.cluster.partitions().map(|(id, _)| id);
    let held = ids.filter_map(|id| Some((id, world.holder(id)?.to_owned())));
    held.collect()
}

#[test]
fn stopping_and_starting_a_heavy_partition_moves_no_other_one() {
    let mut world = weighted(&["a1", "a2"], &[40, 10, 10, 10, 10]);
    let before = holders(&world);
    set(&mut world, 0, Desired::Stopped);
    assert_eq!(at_once(&mut world), []);
    let moved = (1..5).find(|n| {
        let why = world
            .planner
            .why(world.now, &world.cluster, PartitionId(*n));
        why.unwrap()
            .because
            .contains("if nothing changes for 5.0 s")
    });
    assert!(
        moved.is_some(),
        "a move is planned and says what it waits for"
    );
    world.wait(4);
    set(&mut world, 0, Desired::Running);
    assert_eq!(at_once(&mut world), []);
    assert_eq!(holders(&world), before);
    world.wait(60);
    assert_eq!(world.run(), 0);
    assert_eq!(holders(&world), before);
}

#[test]
fn what_stays_stopped_is_made_up_for_after_the_quiet_time() {
    let mut world = weighted(&["a1", "a2"], &[40, 10, 10, 10, 10]);
    set(&mut world, 0, Desired::Stopped);
    assert_eq!(at_once(&mut world), []);
    assert_eq!(world.decide().wake_at, Some(world.now + SETTLE));
    world.wait(5);
    let moves = at_once(&mut world);
    assert_eq!(moves.len(), 2, "two and two: {moves:?}");
    assert!(
        moves
            .iter()
            .all(|(_, reason)| *reason == MoveReason::Balance)
    );
    assert_eq!(world.counts(), BTreeMap::from([("a1", 2), ("a2", 2)]));
}

#[test]
fn where_something_always_happens_balance_comes_all_the_same() {
    let mut world = weighted(&["a1", "a2"], &[40, 10, 10, 10, 10, 1]);
    set(&mut world, 0, Desired::Stopped);
    let begun = world.now;
    let mut desired = [Desired::Stopped, Desired::Running].into_iter().cycle();
    while at_once(&mut world).is_empty() {
        let waited = world.now.since(begun);
        assert!(waited <= SETTLE * 11, "nothing has moved for {waited:?}");
        world.wait(3);
        set(&mut world, 5, desired.next().unwrap());
    }
    assert!(
        world.now.since(begun) > SETTLE * 2,
        "each change puts it off"
    );
}

#[test]
fn starts_failovers_and_drains_wait_for_no_quiet_time() {
    let mut world = weighted(&["a1", "a2", "a3"], &[40, 10, 10, 10, 10, 10, 10]);
    set(&mut world, 1, Desired::Stopped);
    at_once(&mut world);
    set(&mut world, 1, Desired::Running);
    let decision = world.decide();
    assert_eq!(decision.assign.len(), 1, "a start does not wait");
    at_once(&mut world);
    set(&mut world, 2, Desired::Stopped);
    world.set("a1", Schedulable::Draining);
    at_once(&mut world);
    assert_eq!(world.counts().get("a1"), None, "a drain does not wait");
    set(&mut world, 3, Desired::Stopped);
    at_once(&mut world);
    world.expire("a2");
    at_once(&mut world);
    let held = holders(&world);
    assert!(held.len() == 5 && held.values().all(|agent| agent == "a3"));
}

#[derive(Clone, Debug)]
enum Touch {
    Stop(u32),
    Start(u32),
    Restart(u32),
    End(u32, ReleaseOutcome),
    Wait(u64),
}

fn touch(count: u32) -> impl Random<Value = Touch> {
    let outcome = prop_oneof![Just(ReleaseOutcome::Done), Just(ReleaseOutcome::Failed)];
    prop_oneof![
        (0..count).prop_map(Touch::Stop),
        (0..count).prop_map(Touch::Start),
        (0..count).prop_map(Touch::Restart),
        (0..count, outcome).prop_map(|(n, outcome)| Touch::End(n, outcome)),
        (0u64..5).prop_map(Touch::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_done_to_one_partition_moves_no_other_before_a_quiet_time(
        weights in prop::collection::vec(1u32..60, 2..14),
        touches in prop::collection::vec(touch(14), 1..14),
    ) {
        let mut world = weighted(&["a1", "a2", "a3"], &weights);
        let count = u32::try_from(weights.len()).unwrap();
        let (mut first, mut last) = (None, world.now);
        for touch in touches {
            // Beyond ten windows in a row nothing is put off any more.
            if first.is_some_and(|first| world.now.since(first) >= SETTLE * 9) {
                break;
            }
            world.changes = 0;
            match touch {
                // Each change comes within a quiet time of the one before it.
                Touch::Wait(seconds) if world.now.since(last).as_secs() + seconds < SETTLE.as_secs() => {
                    world.wait(seconds);
                    continue;
                }
                Touch::Wait(_) => continue,
                Touch::Stop(n) => set(&mut world, n % count, Desired::Stopped),
                Touch::Start(n) => set(&mut world, n % count, Desired::Running),
                Touch::Restart(n) => {
                    let key = PartitionKey::new(&format!("p{:03}", n % count)).unwrap();
                    world.fold(vec![Record::RestartAsked { service: service("feeds"), key: Some(key) }]);
                }
                Touch::End(n, outcome) => {
                    let id = PartitionId(n % count);
                    if let State::Assumed(holder) = world.cluster.partition(id).unwrap().state().clone() {
                        world.fold(vec![released(id, holder.token, outcome)]);
                    }
                }
            }
            if world.changes == 0 {
                continue;
            }
            first.get_or_insert(world.now);
            last = world.now;
            let moved = at_once(&mut world);
            prop_assert!(moved.is_empty(), "{moved:?}");
        }
        // Then it gets as even as ever, and nothing more happens.
        world.wait(60);
        world.run();
        world.wait(60);
        prop_assert!(world.run() == 0);
    }
}
